"""What a JPEG's header says, in one scan of a few microseconds.

simplejpeg reads headers too, but tells neither the EXIF orientation nor whether the decoder will hold all coefficients
at once, and a scan by Pillow takes thirty times as long. The scan goes from segment to segment up to the first scan
of the picture, and looks at nothing behind it. Names are those of ITU-T T.81.
"""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import NamedTuple

from fitstream.transforms.images import DecodeError

__all__ = ["JPEG_START", "JpegHeader", "exif_orientation", "read_jpeg_header"]

JPEG_START = b"\xff\xd8\xff"

_APP1, _SOS, _EOI = 0xFFE1, 0xFFDA, 0xFFD9
_ENDS = frozenset({_SOS, _EOI})
#: Tables, restart interval, applications' data but EXIF's, comments. Asked for first: nearly all segments are these.
_PASSED = frozenset({0xFFC4, 0xFFDB, 0xFFDD, 0xFFE0, *range(0xFFE2, 0xFFF0), 0xFFFE})
_FRAMES = frozenset({*range(0xFFC0, 0xFFD0)} - {0xFFC4, 0xFFC8, 0xFFCC})
_PROGRESSIVE = frozenset({0xFFC2, 0xFFC6, 0xFFCA, 0xFFCE})
#: Each scan of a progressive picture is a walk over all of it, for as little as some ten bytes. Programs write ten.
_SCAN, _MOST_SCANS = re.compile(rb"\xff\xda"), 256
#: Markers without a length: TEM and the restart markers.
_BARE = frozenset({0xFF01, *range(0xFFD0, 0xFFD8)})
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SEGMENT = struct.Struct(">HH")
_FRAME = struct.Struct(">HHB")
_ORIENTATION = 0x0112
#: TIFF's types of integers, as struct names them. EXIF asks for 3, but cameras write others.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


class JpegHeader(NamedTuple):
    """What decoding needs to know beforehand.

    Attributes:
        height: Of the picture as stored, in pixels.
        width: Likewise.
        components: 1 for grey, 3 for colour, 4 for CMYK and YCCK.
        orientation: EXIF's, 1 to 8; 1 where there is none.
        coefficient_bytes: What the decoder allocates to hold the whole picture's coefficients; 0 where it needs only
            a few rows at a time, that is, unless the JPEG is progressive or comes in several scans.
    """

    height: int
    width: int
    components: int
    orientation: int
    coefficient_bytes: int


def read_jpeg_header(encoded: memoryview) -> JpegHeader:
    """Read the segments before the first scan.

    Args:
        encoded: The file's bytes, which begin with `JPEG_START`.
    Raises:
        DecodeError: If they end, or the picture does, before its first scan; or the scans are too many.
    """
    orientation, frame, frame_at = 1, 0, 0
    at = 2
    try:
        while True:
            marker, length = _SEGMENT.unpack_from(encoded, at)
            if marker in _PASSED:
                pass
            elif marker in _FRAMES:
                frame, frame_at = marker, at + 5
            elif marker == _APP1:
                if orientation == 1 and bytes(encoded[at + 4 : at + 10]) == b"Exif\0\0":
                    orientation = exif_orientation(encoded[at + 10 : at + 2 + length])
            elif marker in _ENDS:
                break
            elif marker in _BARE:
                at += 2
                continue
            elif not 0xFF00 < marker < 0xFFFF:
                # Fill bytes are allowed, stray bytes are not but occur: the decoders skip both, so this does too.
                found = _MARKER.search(encoded, at)
                if found is None:
                    break
                at = found.start()
                continue
            at += 2 + length
        if frame and marker == _SOS:
            height, width, components = _FRAME.unpack_from(encoded, frame_at)
            whole = frame in _PROGRESSIVE or encoded[at + 4] < components
            held = 0
            if whole:
                _check_scans(encoded, at)
                held = _coefficient_bytes(encoded, frame_at, height, width, components)
            return JpegHeader(height, width, components, orientation, held)
    except (IndexError, struct.error):
        pass
    raise DecodeError(f"it begins as a JPEG, but its {len(encoded):,} bytes end within the header: it is cut off")


def _check_scans(encoded: memoryview, first: int) -> None:
    if sum(1 for _ in islice(_SCAN.finditer(encoded, first), _MOST_SCANS + 1)) > _MOST_SCANS:
        raise DecodeError(f"it is a progressive JPEG of more than {_MOST_SCANS} scans, which no program writes")


def _coefficient_bytes(encoded: memoryview, frame_at: int, height: int, width: int, components: int) -> int:
    factors = [encoded[frame_at + 6 + 3 * i] for i in range(components)]
    across = max((factor >> 4 for factor in factors), default=0)
    down = max((factor & 15 for factor in factors), default=0)
    if not across or not down:
        return 0  # no decoder accepts it
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return units * sum((factor >> 4) * (factor & 15) for factor in factors) * 64 * 2


def exif_orientation(tiff: memoryview | bytes) -> int:
    """Find the orientation in an EXIF block.

    Args:
        tiff: The block, from its byte order mark on.
    Returns:
        1 to 8; 1 where it is missing or the block is broken, for a picture is more than its notes.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, count_of_values = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == _ORIENTATION:
                if kind not in _INTEGERS or count_of_values != 1:
                    return 1
                (value,) = struct.unpack_from(order + _INTEGERS[kind], tiff, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
