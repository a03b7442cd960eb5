"""Pictures that Pillow reads: everything but plain JPEG. docs/images.md says why each rule is as it is.

The format is told by the first bytes, never by the file's name, and only the plugins listed here are used: each is
constructed by itself rather than through `Image.open`, so that no other can be reached, and so that Pillow's global
pixel limit, which warns or raises as the whole program has set it, stands aside for the limit in our options. Nothing
global in Pillow is read or changed here; lanes share nothing.

Pillow holds the decoded picture in memory of its own, which is charged to the arena before it is allocated. The
conversion to 8 bits runs in strips, so that it never adds a second picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageFile
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.Image import Image
from PIL.ImageFile import ImageFile

from fitstream.spec import aligned
from fitstream.transforms.images import DecodeError
from fitstream.transforms.jpeg import JPEG_START, exif_orientation
from fitstream.transforms.trimming import Parts

__all__ = [
    "copy_pixels",
    "open_picture",
    "orientation_of",
    "picture_format",
    "pillow_errors",
    "set_settings",
    "settings",
    "storage_bytes",
    "tile_size",
]

_PLUGINS: dict[str, type[ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_STARTS = (
    (JPEG_START, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)

#: Pillow's mode -> what becomes of it. A mode that is not here is refused.
_RULES = {
    "1": "convert",
    "L": "convert",
    "LA": "convert",
    "La": "unmultiply",
    "P": "convert",
    "PA": "convert",
    "RGB": "convert",
    "RGBA": "convert",
    "CMYK": "convert",
    "YCbCr": "convert",
    "I;16": "shift",
    "I;16B": "shift",
}
_REFUSED = {
    "I": "its grey values are 32-bit or signed integers",
    "F": "its grey values are floating-point numbers",
    "LAB": "its colours are CIE L*a*b*",
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

#: Bytes that Pillow keeps for a pixel; 4 in all other modes.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
_STRIP_PIXELS = 65_536
#: A strip is cropped and converted (4 bytes a pixel each), then packed in pieces that are joined (twice 4).
_STRIP_PIXEL_BYTES = 16

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH = 322, 323


def picture_format(encoded: memoryview) -> str:
    """Tell the format by the first bytes.

    Returns:
        A key of the plugins, such as "PNG".
    Raises:
        DecodeError: If they begin no format that is read; shows them.
    """
    start = bytes(encoded[:16])
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    for prefix, name in _STARTS:
        if start.startswith(prefix):
            return name
    if not start:
        raise DecodeError("it is empty (0 bytes)")
    *others, last = _PLUGINS
    raise DecodeError(f"it begins with {start!r}; it is not a {', '.join(others)} or {last} picture")


@contextmanager
def open_picture(name: str, encoded: memoryview, chosen: Parts) -> Iterator[ImageFile]:
    """Read the header. Decodes nothing yet; frees all that Pillow holds at the end, without waiting for the collector.

    Args:
        name: The format.
        encoded: The file's bytes.
        chosen: The parts of them that Pillow is given.
    Raises:
        DecodeError: If Pillow can't read it.
    """
    with pillow_errors(name):
        image = _PLUGINS[name](BytesIO(b"".join([encoded[start:stop] for start, stop in chosen.parts])))
    try:
        yield image
    finally:
        image.close()


@contextmanager
def pillow_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises about broken data, which can be nearly anything, into a DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DecodeError(f"it begins as a {name} picture, but can't be decoded ({what})") from error


def storage_bytes(name: str, image: ImageFile) -> int:
    """Bytes that Pillow allocates to decode this picture and to hand it over in strips; measured for each format."""
    pixels = image.width * image.height
    held = pixels * _PIXEL_BYTES.get(image.mode, 4)
    if name == "WebP":
        held += pixels * 12  # two canvases of libwebp's and a copy of the frame
    elif name == "TIFF":
        # The turned copy; and a strip of libtiff's that may be the whole picture, or a tile that may be larger.
        height, width = tile_size(image)
        held += held + max(pixels, height * width) * _tiff_pixel_bytes(image)
    elif name == "BMP" and image.tile and image.tile[0][0] == "bmp_rle":
        held += pixels * 3  # unpacked by Python: the bytes, which grow with room to spare, and a copy
    return aligned(held) + aligned(min(pixels, max(image.width, _STRIP_PIXELS)) * _STRIP_PIXEL_BYTES)


def tile_size(image: ImageFile) -> tuple[int, int]:
    """`(height, width)` of the tiles that a TIFF is in; (1, 1) where it has none, or no numbers for them."""
    tags: Any = getattr(image, "tag_v2", {})
    height, width = tags.get(_TIFF_TILE_LENGTH, 1), tags.get(_TIFF_TILE_WIDTH, 1)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else (1, 1)


def _tiff_pixel_bytes(image: ImageFile) -> int:
    tags: Any = getattr(image, "tag_v2", {})
    bits: tuple[int, ...] = tags.get(_TIFF_BITS, (8,))
    return max(4, -(-sum(bits) // 8))


def orientation_of(name: str, image: ImageFile) -> int:
    """EXIF's orientation, 1 to 8, of an open picture. 1 for TIFF, which Pillow turns by itself."""
    if name == "TIFF":
        return 1
    block = image.info.get("exif", b"")
    profile = image.info.get("Raw profile type exif")
    if not block and isinstance(profile, str):  # how ImageMagick puts EXIF into PNG: name, length, lines of hex
        try:
            block = bytes.fromhex("".join(profile.splitlines()[3:]))
        except ValueError:
            return 1
    return exif_orientation(block.removeprefix(b"Exif\0\0"))


def copy_pixels(image: ImageFile, out: npt.NDArray[np.uint8]) -> None:
    """Bring a loaded picture to 8 bits and to the channels of `out`.

    Args:
        image: Loaded.
        out: uint8 `(height, width, channels)` with 1, 3 or 4 channels; overwritten.
    Raises:
        DecodeError: If the rules refuse its mode.
    """
    rule = _RULES.get(image.mode)
    if rule is None:
        what = _REFUSED.get(image.mode, f"its mode is {image.mode}")
        raise DecodeError(
            f"{what}, with no agreed way to 0..255", "Convert it first, or read it in a map over its path."
        )
    height, width, channels = out.shape
    if image.size != (width, height):
        raise DecodeError(f"its header declares {height} x {width} pixels, its data {image.height} x {image.width}")
    if channels < 4:
        # Pillow warns when it drops a palette's transparency, and would carry a colour key along.
        image.info.pop("transparency", None)
    shift, inverted = _grey_levels(image) if rule == "shift" else (0, False)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip: Image = image if rows >= height else image.crop((0, top, width, min(top + rows, height)))
        if rule == "shift":
            _copy_grey16(strip, shift, inverted, out[top : top + rows])
            continue
        if rule == "unmultiply":
            strip = strip.convert("LA")
        if strip.mode != _MODES[channels]:
            strip = strip.convert(_MODES[channels])
        out[top : top + rows] = np.frombuffer(strip.tobytes(), np.uint8).reshape(-1, width, channels)


def _grey_levels(image: ImageFile) -> tuple[int, bool]:
    """How many low bits to drop, and whether 0 is white. Pillow neither scales nor inverts more than 8 bits."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    return bits - 8, tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO


def _copy_grey16(strip: Image, shift: int, inverted: bool, out: npt.NDArray[np.uint8]) -> None:
    values = np.frombuffer(strip.tobytes(), ">u2" if strip.mode == "I;16B" else "<u2")
    grey = (values >> shift).astype(np.uint8).reshape(*out.shape[:2], 1)
    out[..., :3] = 255 - grey if inverted else grey
    out[..., 3:] = 255


def settings() -> dict[str, Any]:
    """What the program set for Pillow as a whole: worker processes must decode alike."""
    return {
        "LOAD_TRUNCATED_IMAGES": PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        "MAX_IMAGE_PIXELS": PIL.Image.MAX_IMAGE_PIXELS,
    }


def set_settings(given: dict[str, Any]) -> None:
    """Set what `settings` gave in another process."""
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = given["LOAD_TRUNCATED_IMAGES"]
    PIL.Image.MAX_IMAGE_PIXELS = given["MAX_IMAGE_PIXELS"]
