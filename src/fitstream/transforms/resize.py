"""Where a picture's pixels go: stretched, cropped or padded to a size, and turned as EXIF says.

A picture is *stored* as its file has it and *shown* as it is meant to be seen. `Fit` speaks of the picture as shown.
Turning is done after resizing, on the small result: by a transposition from scratch memory and a flip in place. To
give what turning first would give, the `Part` of the stored picture that is used is found by turning the `Fit` back.

OpenCV writes into `dst` in place when shape and dtype match and each row's pixels are contiguous: a batch's row, and a
rectangle of one, do. The tests hold it to that.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from fitstream.scratch import Arena
from fitstream.transforms.images import ImageOptions, Interpolation

__all__ = ["OPENCV_INTERPOLATIONS", "Fit", "Part", "fit", "place", "result_shape", "stored_part", "turn"]

#: cv2.flip's code for each EXIF orientation (0 rows, 1 columns, -1 both); 5 to 8 begin with a transposition.
_FLIPS = (None, None, 1, -1, 0, None, 1, -1, 0)

#: What OpenCV calls the ways to find pixels between pixels.
OPENCV_INTERPOLATIONS: dict[Interpolation, int] = {
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    # The pixel whose centre is nearest, as in Pillow; cv2.INTER_NEAREST is off by up to half a pixel.
    "nearest": cv2.INTER_NEAREST_EXACT,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


class Fit(NamedTuple):
    """Which rectangle of the picture is used, and which rectangle of the result it fills; in pixels, as shown."""

    top: int
    left: int
    height: int
    width: int
    out_top: int
    out_left: int
    out_height: int
    out_width: int


class Part(NamedTuple):
    """The rectangle of decoded pixels that is used, as stored, and the pixels of the result for each of them."""

    top: int
    left: int
    height: int
    width: int
    down: float
    across: float


def result_shape(height: int, width: int, options: ImageOptions) -> tuple[int, int, int]:
    """`(height, width, channels)` of the array that a picture of this size, as shown, becomes."""
    return (*(options.size or (height, width)), options.channels)


def fit(height: int, width: int, options: ImageOptions) -> Fit:
    """Lay a picture of `(height, width)`, as shown, into the result."""
    if options.size is None:
        return Fit(0, 0, height, width, 0, 0, height, width)
    out_height, out_width = options.size
    taller = height * out_width - width * out_height
    if options.resize == "stretch" or taller == 0:
        return Fit(0, 0, height, width, 0, 0, out_height, out_width)
    if options.resize == "crop":
        used_height = max(1, _divide(width * out_height, out_width)) if taller > 0 else height
        used_width = width if taller > 0 else max(1, _divide(height * out_width, out_height))
        top, left = (height - used_height) // 2, (width - used_width) // 2
        return Fit(top, left, used_height, used_width, 0, 0, out_height, out_width)
    inner_height = out_height if taller > 0 else max(1, _divide(height * out_width, width))
    inner_width = max(1, _divide(width * out_height, height)) if taller > 0 else out_width
    top, left = (out_height - inner_height) // 2, (out_width - inner_width) // 2
    return Fit(0, 0, height, width, top, left, inner_height, inner_width)


def _divide(numerator: int, denominator: int) -> int:
    return (numerator + denominator // 2) // denominator


def stored_part(used: Fit, height: int, width: int, orientation: int, scale: int = 1) -> Part:
    """Find the pixels that a `Fit` uses in the picture as it was decoded.

    A size that is no multiple of the scale leaves the last row and column of a reduced picture partly outside it. So
    the factors come from the full size, and the rectangle is rounded to whole decoded pixels.

    Args:
        used: The layout of the picture as shown.
        height: Of the picture as stored, in full.
        width: Likewise.
        orientation: EXIF's, 1 to 8.
        scale: The picture was decoded at 1/scale of its size.
    """
    top, left, rows, columns, _, _, out_rows, out_columns = used
    turned = orientation >= 5
    code = _FLIPS[orientation]
    if code in (0, -1):
        top = (width if turned else height) - top - rows
    if code in (1, -1):
        left = (height if turned else width) - left - columns
    if turned:
        top, left, rows, columns, out_rows, out_columns = left, top, columns, rows, out_columns, out_rows
    top, decoded_rows = _reduced(top, rows, height, scale)
    left, decoded_columns = _reduced(left, columns, width, scale)
    return Part(top, left, decoded_rows, decoded_columns, out_rows * scale / rows, out_columns * scale / columns)


def _reduced(start: int, length: int, whole: int, scale: int) -> tuple[int, int]:
    decoded = -(-whole // scale)
    count = min(_divide(length, scale), decoded)
    return min(_divide(start, scale), decoded - count), count


def place(
    pixels: npt.NDArray[np.uint8],
    part: Part,
    orientation: int,
    used: Fit,
    interpolation: Interpolation,
    arena: Arena,
    out: npt.NDArray[np.uint8],
) -> None:
    """Resize and turn a picture into the result.

    Args:
        pixels: uint8 `(height, width, channels)` as decoded.
        part: The rectangle of them that is used.
        orientation: EXIF's, 1 to 8.
        used: The layout of the picture as shown.
        interpolation: How pixels between pixels are found.
        arena: Gives room for the result of a picture that is turned by a quarter.
        out: uint8 `(height, width, channels)` of the result, written in place; black around the picture.
    Raises:
        TooLarge: If the arena can't.
    """
    region: npt.NDArray[np.uint8] = out
    if used.out_height != out.shape[0] or used.out_width != out.shape[1]:
        out.fill(0)
        region = out[
            used.out_top : used.out_top + used.out_height,
            used.out_left : used.out_left + used.out_width,
        ]
    if orientation < 5:
        _resize(pixels, part, region, interpolation)
    else:
        count = used.out_height * used.out_width * out.shape[2]
        turned = arena.take(count).reshape(used.out_width, used.out_height, out.shape[2])
        _resize(pixels, part, turned, interpolation)
        cv2.transpose(turned, dst=region)
    turn(region, orientation)


def turn(region: npt.NDArray[np.uint8], orientation: int) -> None:
    """Flip in place as the orientation asks, once a transposition is done where it asks for one."""
    code = _FLIPS[orientation]
    if code is not None:
        cv2.flip(region, code, dst=region)


def _resize(
    pixels: npt.NDArray[np.uint8], part: Part, out: npt.NDArray[np.uint8], interpolation: Interpolation
) -> None:
    top, left, rows, columns, down, across = part
    if interpolation == "area" and (down > 1 or across > 1):
        # There is nothing to average where a picture grows, and OpenCV's area mode would show squares.
        interpolation = "bilinear"
    if (rows, columns) != pixels.shape[:2]:
        pixels = pixels[top : top + rows, left : left + columns]
    written = cv2.resize(pixels, None, dst=out, fx=across, fy=down, interpolation=OPENCV_INTERPOLATIONS[interpolation])
    assert written is out, "OpenCV did not write in place"
