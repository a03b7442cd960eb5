"""Pictures that declare or unpack to more than memory: refused before anything of that size is made."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from canary import Hostile, read
from PIL import Image

import fitstream as fs

SIDE = 65_500


def encoded(kind: str, side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, kind)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND", b"")


def png_within_the_pixel_limit() -> bytes:
    """9,000 x 9,000 pixels in 240 kB: 243 MB when it is decoded."""
    return png(9000, 9000, data=bytes(9000 * (9000 * 3 + 1)))


def packed(count_bytes: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(count_bytes >> 20)) + packer.flush()


def png_of_text() -> bytes:
    text = b"comment\0\0" + packed(300 << 20)
    return png(16, 16, chunk(b"zTXt", text), data=bytes(16 * 49))


def png_of_profile() -> bytes:
    """A colour profile that unpacks to 300 MB; it is not needed, so the picture may be read without it."""
    return png(16, 16, chunk(b"iCCP", b"profile\0\0" + packed(300 << 20)), data=b"")


def png_of_many_texts() -> bytes:
    return png(16, 16, *[chunk(b"zTXt", b"k%d\0\0" % n + packed(1 << 20)) for n in range(100)], data=bytes(16 * 49))


def jpeg() -> bytes:
    data = bytearray(encoded("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def progressive_jpeg() -> bytes:
    """Within the limit on pixels, but all coefficients must be kept at once."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", progressive=True)
    data = bytearray(file.getvalue())
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    return bytes(data)


def gif() -> bytes:
    data = bytearray(encoded("GIF"))
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def gif_of_a_large_frame() -> bytes:
    """A small screen with a frame that declares much more."""
    data = bytearray(encoded("GIF"))
    frame = data.index(b"\x2c", 13)
    data[frame + 5 : frame + 9] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def bmp() -> bytes:
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", SIDE, SIDE)
    return bytes(data)


def bmp_of_runs() -> bytes:
    """Run lengths for 2^31 pixels in a row."""
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", 2**31 - 1, 1)
    return bytes(data)


def tiff(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 64),
        *more,
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)


def webp_canvas() -> bytes:
    """A canvas of 16,384 x 16,384 around a small frame."""
    frame = encoded("WebP")[12:]
    side = (16_384 - 1).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + side + side
    animated = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    at = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(4)
    body += animated + b"ANMF" + struct.pack("<I", len(at) + len(frame)) + at + frame
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_frame() -> bytes:
    """A lossless frame whose header declares 16,384 x 16,384 pixels."""
    bits = (16_383 | 16_383 << 14).to_bytes(4, "little")
    data = b"\x2f" + bits + bytes(59)
    return b"RIFF" + struct.pack("<I", 4 + 8 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG": (lambda: png(SIDE, SIDE), "declares 65500 x 65500 = 4,290,250,000 pixels"),
    "PNG of 2^31 pixels a side": (lambda: png(2**31 - 1, 2**31 - 1), "pixels|can't be decoded"),
    "PNG within the pixel limit": (png_within_the_pixel_limit, "scratch memory.*Use memory"),
    "JPEG": (jpeg, "65500 x 65500 = 4,290,250,000 pixels"),
    "progressive JPEG": (progressive_jpeg, "scratch memory.*Use memory"),
    "GIF": (gif, "65500 x 65500"),
    "GIF of a large frame": (gif_of_a_large_frame, "65500 x 65500|can't be decoded"),
    "BMP": (bmp, "65500 x 65500"),
    "BMP of one row": (bmp_of_runs, "2147483647 = 2,147,483,647 pixels"),
    "TIFF": (lambda: tiff(SIDE, SIDE), "65500 x 65500"),
    "TIFF of endless tags": (lambda: tiff(16, 16, (700, 2, 2**32 - 1, 8)), "TIFF"),
    "TIFF of endless offsets": (lambda: tiff(16, 16, (324, 4, 2**31, 8)), "TIFF"),
    "WebP of a large canvas": (webp_canvas, "16384 x 16384|can't be decoded|scratch memory"),
    "WebP of a large frame": (webp_frame, "16384 x 16384|can't be decoded|scratch memory"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(hostile: Hostile, kind: str) -> None:
    make, told = BOMBS[kind]
    # Behind a good one: the first sample tells what pictures take, and may take a gigabyte by itself.
    good, bomb = hostile.root / "a.png", hostile.root / "b.png"
    good.write_bytes(encoded("PNG"))
    bomb.write_bytes(make())
    hostile.refused(lambda: fs.from_table([[good, 0], [bomb, 0]], image_size=8), "Sample 1 .*failed in decode", told)


@pytest.mark.parametrize("make", [png_of_text, png_of_many_texts, png_of_profile])
def test_a_bomb_beside_the_pixels_is_not_unpacked(hostile: Hostile, make: Callable[[], bytes]) -> None:
    good, bomb = hostile.root / "a.png", hostile.root / "b.png"
    good.write_bytes(encoded("PNG"))
    bomb.write_bytes(make())
    with hostile.bounded(), contextlib.suppress(fs.SampleError):  # the picture itself may be whole
        assert len(read(fs.from_table([[good, 0], [bomb, 0]], image_size=8))) == 2


@pytest.mark.parametrize(
    "data", [b"\x80\x04\x95", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg><script/></svg>", b"#!/bin/sh\n"]
)
def test_what_only_other_readers_would_open_is_refused(hostile: Hostile, data: bytes) -> None:
    path = hostile.root / "x.jpg"
    path.write_bytes(data.ljust(64))
    hostile.refused(lambda: fs.from_table([[path, 0]], image_size=8), "it is not a JPEG, PNG, WebP, GIF, BMP or TIFF")


def test_one_bomb_among_pictures_fails_alone(hostile: Hostile) -> None:
    for number in range(8):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(hostile.root / f"{number}.png")
    (hostile.root / "5.png").write_bytes(png(SIDE, SIDE))
    dataset = fs.from_folder(hostile.root, image_size=8, label_mode=None)
    seen: list[int] = []
    with dataset.batch(1).loader(memory="48 MB", workers=2) as loader:
        with pytest.raises(fs.SampleError) as caught:
            seen.extend(int(batch.max()) for batch in loader)
    assert (seen, caught.value.index) == ([0, 1, 2, 3, 4], 5)
