"""Sizes of pictures by the first bytes of their files: nothing is decoded, and no codec is loaded.

For telling what a data set holds. What is decoded is measured by its decoder alone.
"""

from __future__ import annotations

import struct

from fitstream.transforms.images import DecodeError
from fitstream.transforms.jpeg import read_jpeg_header

__all__ = ["HEAD_BYTES", "picture_size"]

#: What suffices but for a JPEG with many notes before its picture, and for TIFF, which may have them at its end.
HEAD_BYTES = 1 << 16


def picture_size(name: str, head: bytes) -> tuple[int, int] | None:
    """`(height, width)` in pixels, as stored.

    Args:
        name: The format, such as "PNG".
        head: The first `HEAD_BYTES` of the file, or all of it.
    Returns:
        None where these bytes don't tell.
    """
    try:
        if name == "JPEG":
            header = read_jpeg_header(memoryview(head))
            return header.height, header.width
        if name == "PNG":
            width, height = struct.unpack_from(">II", head, 16)
        elif name == "GIF":
            width, height = struct.unpack_from("<HH", head, 6)
        elif name == "BMP":
            (header_bytes,) = struct.unpack_from("<I", head, 14)
            width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", head, 18)
        elif name == "WebP":
            return _webp_size(head)
        else:
            return None
    except (DecodeError, struct.error):
        return None
    return abs(height), width


def _webp_size(head: bytes) -> tuple[int, int] | None:
    match head[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return height & 0x3FFF, width & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        case b"VP8X" if len(head) >= 30:
            return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    return None
