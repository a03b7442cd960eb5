"""Pictures made to cost much more than they are: each ends soon, within what was accounted, and in a typed refusal."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fitstream.scratch import Allowance, Arena, TooLarge
from fitstream.transforms.decode import ImageDecoder
from fitstream.transforms.images import DecodeError, ImageOptions

#: What the process may take beyond what the arena has accounted for, and seconds for any picture here.
_SLACK_BYTES, _LIMIT_S = 4 << 20, 100
_LANE_BYTES, _LARGE_BYTES = 4 << 20, 64 << 20


def saved(name: str, size: tuple[int, int] = (16, 12), mode: str = "RGB", **options: object) -> bytes:
    file = BytesIO()
    image = Image.frombytes(mode, size, np.arange(size[0] * size[1] * len(mode), dtype=np.uint8).tobytes())
    image.save(file, name, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes) -> bytes:
    whole = saved("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def png_texts() -> bytes:
    packed = zlib.compress(bytes(1 << 20), 9)
    return png_with(*(chunk(b"zTXt", b"note%d\0\0" % number + packed) for number in range(60)))


def png_profile() -> bytes:
    return png_with(chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(1 << 26), 9)))


def png_exif_text() -> bytes:
    packed = zlib.compress(b"\nexif\n 99999999\n" + b"00\n" * (1 << 22), 9)
    return png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + packed))


def png_pieces() -> bytes:
    return png_with(*[chunk(b"tEXt", b"") + chunk(b"tRNS", b"\0" * 6)] * 60_000)


def png_size() -> bytes:
    header = struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))


def png_data() -> bytes:
    """8,000 x 8,000 pixels in 200 KB: within max_pixels, but not within the memory here."""
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(8000 * 24_001), 9))


def gif_blocks(kind: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        whole = saved("GIF", mode="P")
        notes = b"!" + kind + (b"\xff" + bytes(255)) * 40_000 + b"\0"
        at = whole.index(b",", 13 + 3 * (2 << (whole[10] & 7)))
        return whole[:at] + notes + whole[at:]

    return make


def gif_screen() -> bytes:
    whole = bytearray(saved("GIF", mode="P"))
    whole[6:10] = b"\xff" * 4
    return bytes(whole)


def gif_frame() -> bytes:
    whole = bytearray(saved("GIF", mode="P"))
    at = whole.index(b",", 13 + 3 * (2 << (whole[10] & 7)))
    whole[at + 5 : at + 9] = b"\xff" * 4
    return bytes(whole)


def jpeg_segments(kind: bytes, start: bytes) -> Callable[[], bytes]:
    def make() -> bytes:
        whole = saved("JPEG", mode="CMYK")  # what Pillow reads
        segment = b"\xff" + kind + struct.pack(">H", 65_535) + start + bytes(65_533 - len(start))
        return whole[:2] + segment * 60 + whole[2:]

    return make


def jpeg_scans() -> bytes:
    whole = saved("JPEG", (1000, 1000), "L", progressive=True)
    start = whole.rindex(b"\xff\xda")
    return whole[:start] + whole[start:-2] * 3000 + whole[-2:]


def jpeg_size() -> bytes:
    whole = bytearray(saved("JPEG", progressive=True))
    at = whole.index(b"\xff\xc2")
    whole[at + 5 : at + 9] = b"\xff" * 4
    return bytes(whole)


def tiff(entries: list[tuple[int, int, int, bytes]], tail: bytes = b"") -> bytes:
    """A little-endian TIFF: header, one directory, then `tail`, which starts at byte 10 + 12 * entries + 4."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4) + tail


def long(tag: int, value: int) -> tuple[int, int, int, bytes]:
    return tag, 4, 1, struct.pack("<I", value)


def tiff_tags() -> bytes:
    """Each of 8,000 tags claims the whole file: 800 MB of 100 KB."""
    picture = [long(256, 1), long(257, 1), long(258, 8), long(259, 1), long(262, 1), long(273, 0), long(279, 1)]
    return tiff([*picture, *((tag, 1, 90_000, struct.pack("<I", 0)) for tag in range(40_000, 48_000))])


def tiff_tile(side: int) -> Callable[[], bytes]:
    def make() -> bytes:
        # fmt: off
        entries = [long(256, 1), long(257, 1), long(258, 8), long(259, 8), long(262, 1), long(277, 1),
                   long(322, side), long(323, side), long(324, 10 + 12 * 10 + 4), long(325, 100_000)]
        # fmt: on
        return tiff(entries, zlib.compress(bytes(min(side * side, 1 << 25)), 9)[:100_000])

    return make


def tiff_circle() -> bytes:
    """The next directory is the first; and so are those of EXIF and GPS."""
    whole = bytearray(saved("TIFF"))
    (at,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, at)
    struct.pack_into("<I", whole, at + 2 + 12 * count, at)
    return bytes(whole)


def bmp_jump() -> bytes:
    """Run-length steps of 255 rows in a picture of one row and 40 million columns."""
    size = struct.pack("<IiiHHIIiiII", 40, 40_000_000, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    data = b"\0\2\xff\xff" * 100
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + size + bytes(1024) + data


def bmp_palette() -> bytes:
    size = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 8, 0, 0, 0, 0, 0xFFFFFFFF, 0)
    return b"BM" + struct.pack("<IHHI", 1 << 20, 0, 0, 54) + size + bytes(1 << 20)


def webp_canvas() -> bytes:
    whole = saved("WebP", save_all=True, append_images=[Image.new("RGB", (16, 12))])
    wide = bytearray(whole)
    wide[24:30] = b"\xff\x3f\0\xff\x3f\0"  # 16,384 x 16,384
    return bytes(wide)


DECODED = {
    "PNG with 60 MB of text": png_texts,
    "PNG with a profile of 64 MB": png_profile,
    "GIF with a comment of 10 MB": gif_blocks(b"\xfe"),
    "GIF with an extension of 10 MB": gif_blocks(b"\xff"),
    "JPEG with EXIF in 60 segments": jpeg_segments(b"\xe1", b"Exif\0\0"),
    "JPEG with a profile in 60 segments": jpeg_segments(b"\xe2", b"ICC_PROFILE\0"),
    "JPEG with 60 comments": jpeg_segments(b"\xfe", b""),
    "TIFF whose directories go in a circle": tiff_circle,
}
REFUSED = {
    "PNG with EXIF as 12 MB of text": png_exif_text,
    "PNG in 120,000 pieces": png_pieces,
    "PNG of 10^18 pixels": png_size,
    "PNG of 64 Mpx in little memory": png_data,
    "GIF screen of 4 Gpx": gif_screen,
    "GIF frame of 4 Gpx": gif_frame,
    "JPEG of 3,000 scans": jpeg_scans,
    "JPEG of 4 Gpx": jpeg_size,
    "TIFF whose tags overlap": tiff_tags,
    "TIFF of one pixel in a tile of 900 Mpx": tiff_tile(30_000),
    "TIFF of one pixel in a tile of 25 Mpx": tiff_tile(5_008),
    "BMP with long jumps": bmp_jump,
    "BMP with 4 billion colours": bmp_palette,
    "WebP of 268 Mpx": webp_canvas,
}


def memory_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def cost(data: bytes) -> tuple[np.ndarray | None, str]:
    """Decode; check time and memory. The pixels, or why not."""
    for name in ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"):  # what the libraries set up at first counts for none
        with Arena(Allowance(_LANE_BYTES, _LARGE_BYTES, _LANE_BYTES)) as arena:
            ImageDecoder(ImageOptions(), arena).decode(memoryview(saved(name)))
    allowance = Allowance(_LANE_BYTES, _LARGE_BYTES, _LANE_BYTES + _LARGE_BYTES)
    arena = Arena(allowance)
    decoder = ImageDecoder(ImageOptions(size=(8, 8)), arena)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before = memory_bytes("VmRSS")
    began = time.monotonic()
    pixels, why = None, ""
    with arena:
        try:
            pixels = decoder.decode(memoryview(data))
        except (DecodeError, TooLarge) as error:
            why = str(error)
    assert time.monotonic() - began < _LIMIT_S
    beyond = memory_bytes("VmHWM") - before - arena.peak_bytes - allowance.large_peak_bytes
    assert beyond < _SLACK_BYTES, f"{beyond:,} bytes more than accounted"
    return pixels, why


@pytest.mark.parametrize("make", DECODED.values(), ids=DECODED)
def test_notes_that_cost_much_are_not_read(make: Callable[[], bytes]) -> None:
    pixels, why = cost(make())
    assert why == ""
    assert pixels is not None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
def test_pictures_that_cost_much_are_refused_at_little_cost(make: Callable[[], bytes]) -> None:
    pixels, why = cost(make())
    assert pixels is None
    assert why


def test_a_picture_is_the_same_with_and_without_its_notes() -> None:
    for made, plain in ((png_texts(), saved("PNG")), (gif_blocks(b"\xfe")(), saved("GIF", mode="P"))):
        assert (cost(made)[0] == cost(plain)[0]).all()


def test_what_pillow_reads_of_a_jpeg_keeps_its_colours_and_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = saved("JPEG", (16, 12), "CMYK", exif=exif)
    pixels = ImageDecoder(ImageOptions(), Arena(Allowance(1 << 20, 0, 1 << 20))).decode(memoryview(whole))
    with Image.open(BytesIO(whole)) as image:
        expected = np.rot90(np.asarray(image.convert("RGB")), -1)
    assert (pixels == expected).all()
