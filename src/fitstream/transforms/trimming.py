"""What of a file Pillow is given: the parts that pixels and their orientation come from, and no others.

A small file can ask for much beside its pixels: text and colour profiles that unpack to a thousand times their size,
notes that are put together piece by piece in quadratic time, tags that all point to the same megabyte. Nothing of this
is used here, so PNG chunks, GIF blocks and JPEG segments that hold it are left out before Pillow sees them. That bounds
time and memory in every version of Pillow, and a picture with broken notes stays a picture.

TIFF can't be cut, since its parts refer to each other by place. Its tags are counted, to be charged.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from fitstream.transforms.images import DecodeError

__all__ = ["Parts", "parts_of"]

#: More pieces than this are no picture but an attack: each costs more memory than it has bytes.
_MOST_PARTS = 10_000

_PNG_KEPT = frozenset({b"tRNS", b"eXIf"})
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PNG_PROFILE = b"Raw profile type exif\0"
#: Pillow unpacks at most 1 MiB of a text; it is held as bytes, as text, as lines and as what the lines say.
_PNG_PROFILE_BYTES = 4 << 20
_CHUNK = struct.Struct(">I4s")

_GIF_EXTENSION, _GIF_IMAGE, _GIF_CONTROL = 0x21, 0x2C, 0xF9

_JPEG_SEGMENT = struct.Struct(">HH")
_JPEG_SCAN = 0xFFDA
#: Application data but JFIF's and Adobe's, which say what colours are; and comments.
_JPEG_DROPPED = frozenset({*range(0xFFE1, 0xFFEE), 0xFFEF, 0xFFFE})

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: Offsets and lengths of strips and tiles: each becomes objects of Python's.
_TIFF_PIECES, _TIFF_PIECE_BYTES = frozenset({273, 279, 324, 325}), 400
_TIFF_DIRECTORIES, _MOST_DIRECTORIES = frozenset({34665, 34853, 40965}), 4


class Parts(NamedTuple):
    """The parts of a file that are decoded.

    Attributes:
        parts: Places `(start, stop)` in the file, in its order.
        copied_bytes: What Pillow allocates to hold them, beside the picture.
    """

    parts: list[tuple[int, int]]
    copied_bytes: int


def parts_of(name: str, encoded: memoryview) -> Parts:
    """Choose what to decode of a file. What can't be followed is kept: Pillow says what is wrong with it.

    Args:
        name: Its format, such as "PNG".
        encoded: The file's bytes.
    Raises:
        DecodeError: If the file is in so many pieces that it can only be an attack.
    """
    size = len(encoded)
    try:
        if name == "PNG":
            return _png(encoded)
        if name == "GIF":
            parts = _gif(encoded)
            return Parts(parts, sum(stop - start for start, stop in parts))
        if name == "JPEG":
            return _jpeg(encoded)
        if name == "TIFF":
            return Parts([(0, size)], size + _tiff_tag_bytes(encoded))
    except (IndexError, struct.error):
        pass
    # WebP is held by Pillow, by libwebp, and in part by Pillow again. Others may hold notes twice.
    return Parts([(0, size)], size * 3)


def _keep(parts: list[tuple[int, int]], start: int, stop: int) -> None:
    if parts and parts[-1][1] == start:
        parts[-1] = parts[-1][0], stop
        return
    if len(parts) == _MOST_PARTS:
        raise DecodeError(f"its data are in more than {_MOST_PARTS:,} pieces, which no program writes")
    parts.append((start, stop))


def _png(encoded: memoryview) -> Parts:
    parts = [(0, 8)]
    at, extra_bytes = 8, 0
    while at + 8 <= len(encoded):
        length, kind = _CHUNK.unpack_from(encoded, at)
        stop = min(at + 12 + length, len(encoded))
        kept = kind in _PNG_KEPT or not kind[0] & 0x20  # critical
        if kind in _PNG_TEXTS and not extra_bytes and encoded[at + 8 : at + 8 + len(_PNG_PROFILE)] == _PNG_PROFILE:
            kept, extra_bytes = True, _PNG_PROFILE_BYTES
        if kept:
            _keep(parts, at, stop)
        at = stop
        if kind == b"IEND":
            break
    return Parts(parts, sum(stop - start for start, stop in parts) + extra_bytes)


def _gif(encoded: memoryview) -> list[tuple[int, int]]:
    at = 13 + _gif_colours(encoded[10])
    parts = [(0, at)]
    control: tuple[int, int] | None = None
    while encoded[at] == _GIF_EXTENSION:
        stop = _after_gif_blocks(encoded, at + 2)
        if encoded[at + 1] == _GIF_CONTROL:
            control = at, stop
        at = stop
    if encoded[at] != _GIF_IMAGE:
        return [(0, len(encoded))]
    if control is not None:
        _keep(parts, *control)
    data = at + 10 + _gif_colours(encoded[at + 9]) + 1
    try:
        stop = _after_gif_blocks(encoded, data)
    except IndexError:
        stop = len(encoded)
    _keep(parts, at, stop)
    return parts


def _gif_colours(flags: int) -> int:
    """Bytes of the colour table that follows."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _after_gif_blocks(encoded: memoryview, at: int) -> int:
    while length := encoded[at]:
        at += 1 + length
    return at + 1


def _jpeg(encoded: memoryview) -> Parts:
    parts = [(0, 2)]
    at = 2
    while True:
        marker, length = _JPEG_SEGMENT.unpack_from(encoded, at)
        if marker == _JPEG_SCAN:
            break
        if not 0xFFC0 <= marker < 0xFFFF or 0xFFD0 <= marker < 0xFFDA:
            # Behind stray bytes there may be more notes, which Pillow keeps twice and joins.
            return Parts([(0, len(encoded))], 4 * len(encoded))
        if marker not in _JPEG_DROPPED:
            _keep(parts, at, at + 2 + length)
        at += 2 + length
    _keep(parts, at, len(encoded))
    return Parts(parts, sum(stop - start for start, stop in parts))


def _tiff_tag_bytes(encoded: memoryview) -> int:
    """What holding the tags takes, in Pillow and again in libtiff."""
    order = "<" if encoded[0] == 0x49 else ">"
    large = encoded[2 if order == "<" else 3] == 43
    number = struct.Struct(order + ("Q" if large else "I"))
    counter = struct.Struct(order + ("Q" if large else "H"))
    entry = struct.Struct(order + ("HHQ" if large else "HHI"))
    entry_bytes, value_at = (20, 12) if large else (12, 8)
    total = 0
    places = [number.unpack_from(encoded, 8 if large else 4)[0]]
    for place in places:
        if place + counter.size > len(encoded):
            continue
        start = place + counter.size
        count = min(counter.unpack_from(encoded, place)[0], (len(encoded) - start) // entry_bytes)
        for at in range(start, start + count * entry_bytes, entry_bytes):
            tag, kind, values = entry.unpack_from(encoded, at)
            (value,) = number.unpack_from(encoded, at + value_at)
            size = values * _TIFF_SIZES.get(kind, 0)
            if size > number.size:
                total += max(0, min(size, len(encoded) - value))
            if tag in _TIFF_PIECES:
                total += min(values, len(encoded)) * _TIFF_PIECE_BYTES
            elif tag in _TIFF_DIRECTORIES and value not in places and len(places) < _MOST_DIRECTORIES:
                places.append(value)
    return 2 * total
