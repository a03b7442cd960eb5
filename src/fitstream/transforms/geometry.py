"""Random transforms that move pixels: flip, crop, resized crop, rotation.

Each draws the same numbers whatever the parts are, so that a mask or boxes follow their picture exactly. Parameters
that change nothing give the picture back, pixel for pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import cv2
import numpy as np

from fitstream.errors import PlanError
from fitstream.transforms.augment import Array, ImageTransform, between, fitting, size_of, span, through_opencv, whole
from fitstream.transforms.boxes import clipped, floats
from fitstream.transforms.images import DrawnRegion, Interpolation
from fitstream.transforms.resize import OPENCV_INTERPOLATIONS

__all__ = ["RandomCrop", "RandomFlip", "RandomResizedCrop", "RandomRotation"]

#: Bounds of what may be asked for: a rectangle has at least a pixel or so.
_LEAST_AREA, _LARGEST_ASPECT = 1e-9, 1e6
#: How often a rectangle is drawn that may not fit the picture.
_DRAWS = 10
_WARPS = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST, "cubic": cv2.INTER_CUBIC}


class _Flip(NamedTuple):
    across: bool
    down: bool
    height: int
    width: int


@final
@dataclass(frozen=True, slots=True)
class RandomFlip(ImageTransform):
    """Mirror left to right, top to bottom, or both.

    Attributes:
        horizontal: Probability of left to right.
        vertical: Probability of top to bottom.
    """

    horizontal: float = 0.5
    vertical: float = 0.0

    def __post_init__(self) -> None:
        between("horizontal", self.horizontal, 0, 1)
        between("vertical", self.vertical, 0, 1)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> _Flip:
        across, down = rng.random(2) < (self.horizontal, self.vertical)
        return _Flip(bool(across), bool(down), height, width)

    def image(self, pixels: Array, drawn: _Flip) -> Array:
        if not (drawn.across or drawn.down):
            return pixels
        code = -1 if drawn.across and drawn.down else int(drawn.across)
        return through_opencv(pixels, lambda known: np.asarray(cv2.flip(known, code)))

    def mask(self, pixels: Array, drawn: _Flip) -> Array:
        return self.image(pixels, drawn)

    def boxes(self, boxes: Array, drawn: _Flip) -> Array:
        boxes = floats(boxes)
        if drawn.across:
            boxes[:, [0, 2]] = drawn.width - boxes[:, [2, 0]]
        if drawn.down:
            boxes[:, [1, 3]] = drawn.height - boxes[:, [3, 1]]
        return boxes


@final
@dataclass(frozen=True, slots=True)
class RandomCrop(ImageTransform):
    """Cut out a rectangle of fixed size at a random place.

    Attributes:
        size: `(height, width)` in pixels, or one number for both.
        padding: Pixels that are added on each side before; the classic of CIFAR-10 is 4.
        fill: Value of added pixels.
        mask_fill: The same in masks.
    """

    size: tuple[int, int] | int
    padding: int = 0
    fill: float = 0
    mask_fill: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size(self.size))
        object.__setattr__(self, "padding", whole("padding", self.padding, 0, 2**15))
        for name in ("fill", "mask_fill"):
            between(name, getattr(self, name), -math.inf, math.inf)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int]:
        rows, columns = _size(self.size)
        down, across = height + 2 * self.padding - rows, width + 2 * self.padding - columns
        if down < 0 or across < 0:
            raise ValueError(
                f"RandomCrop cuts {rows} x {columns} pixels (height x width), but the picture has {height} x {width}"
                + (f" and padding={self.padding}" if self.padding else "")
                + ". Use a smaller size, a larger padding, or RandomResizedCrop"
            )
        return int(rng.integers(down + 1)) - self.padding, int(rng.integers(across + 1)) - self.padding

    def image(self, pixels: Array, drawn: tuple[int, int]) -> Array:
        return self._cut(pixels, *drawn, self.fill)

    def mask(self, pixels: Array, drawn: tuple[int, int]) -> Array:
        return self._cut(pixels, *drawn, self.mask_fill)

    def _cut(self, pixels: Array, top: int, left: int, fill: float) -> Array:
        rows, columns = _size(self.size)
        height, width = size_of(pixels)
        down = slice(max(0, top), min(height, top + rows))
        across = slice(max(0, left), min(width, left + columns))
        inside = pixels[down, across]
        if inside.shape[:2] == (rows, columns):
            return inside
        out = np.full((rows, columns, *pixels.shape[2:]), fitting(fill, pixels), pixels.dtype)
        out[down.start - top : down.stop - top, across.start - left : across.stop - left] = inside
        return out

    def boxes(self, boxes: Array, drawn: tuple[int, int]) -> Array:
        boxes = floats(boxes)
        boxes[:, :4] -= np.array([drawn[1], drawn[0], drawn[1], drawn[0]], boxes.dtype)
        return clipped(boxes, *_size(self.size))


@final
@dataclass(frozen=True)
class RandomResizedCrop(ImageTransform, DrawnRegion):
    """Cut out a rectangle of random area and shape, and resize it (Szegedy et al., "Going deeper with convolutions").

    Where it comes directly after a source of pictures without `image_size`, it is done by the decoder: a JPEG is
    decoded at 1/2, 1/4 or 1/8 of its size where the rectangle is still at least as large as the result, and
    written straight into the batch.

    Attributes:
        size: `(height, width)` of the result in pixels, or one number for both.
        area: Least and largest share of the picture's area.
        aspect: Least and largest width by height; drawn evenly on a logarithmic scale.
        interpolation: "bilinear" | "area" | "nearest" | "cubic" | "lanczos". Masks are always "nearest".
    """

    size: tuple[int, int] | int
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _size(self.size))
        object.__setattr__(self, "area", span("area", self.area, _LEAST_AREA, 1))
        object.__setattr__(self, "aspect", span("aspect", self.aspect, 1 / _LARGEST_ASPECT, _LARGEST_ASPECT))
        if self.interpolation not in OPENCV_INTERPOLATIONS:
            raise PlanError(f"interpolation={self.interpolation!r} must be one of {', '.join(OPENCV_INTERPOLATIONS)}.")

    @property
    def out_size(self) -> tuple[int, int]:
        return _size(self.size)

    def region(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
        for _ in range(_DRAWS):
            area = height * width * rng.uniform(*self.area)
            aspect = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < columns <= width and 0 < rows <= height:
                return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
        # The picture is too long for most that is drawn: its middle, in the nearest shape that is allowed.
        aspect = min(max(width / height, self.aspect[0]), self.aspect[1])
        rows = min(height, max(1, round(width / aspect)))
        columns = min(width, max(1, round(height * aspect)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
        return self.region(rng, height, width)

    def image(self, pixels: Array, drawn: tuple[int, int, int, int]) -> Array:
        return self._resized(pixels, drawn, self.interpolation)

    def mask(self, pixels: Array, drawn: tuple[int, int, int, int]) -> Array:
        return self._resized(pixels, drawn, "nearest")

    def _resized(self, pixels: Array, drawn: tuple[int, int, int, int], interpolation: Interpolation) -> Array:
        top, left, rows, columns = drawn
        height, width = _size(self.size)
        if interpolation == "area" and (rows < height or columns < width):
            interpolation = "bilinear"  # as in decoding: there is nothing to average where a picture grows
        part = pixels[top : top + rows, left : left + columns]
        if part.shape[:2] == (height, width):
            return part
        code = OPENCV_INTERPOLATIONS[interpolation]
        return through_opencv(part, lambda known: np.asarray(cv2.resize(known, (width, height), interpolation=code)))

    def boxes(self, boxes: Array, drawn: tuple[int, int, int, int]) -> Array:
        top, left, rows, columns = drawn
        height, width = _size(self.size)
        boxes = floats(boxes)
        boxes[:, 0:4:2] = (boxes[:, 0:4:2] - left) * (width / columns)
        boxes[:, 1:4:2] = (boxes[:, 1:4:2] - top) * (height / rows)
        return clipped(boxes, height, width)


class _Turn(NamedTuple):
    angle: float
    height: int
    width: int

    @property
    def matrix(self) -> Array:
        """Where a pixel's centre goes, `(2, 3)`."""
        middle = ((self.width - 1) / 2, (self.height - 1) / 2)
        return np.asarray(cv2.getRotationMatrix2D(middle, self.angle, 1.0))


@final
@dataclass(frozen=True, slots=True)
class RandomRotation(ImageTransform):
    """Turn about the middle; the size stays, corners are cut off or filled.

    Attributes:
        degrees: Least and largest angle, counter-clockwise; one number d means from -d to d.
        interpolation: "bilinear" | "nearest" | "cubic". Masks are always "nearest".
        fill: Value of pixels that come from outside the picture.
        mask_fill: The same in masks.
    """

    degrees: tuple[float, float] | float
    interpolation: str = "bilinear"
    fill: float = 0
    mask_fill: float = 0

    def __post_init__(self) -> None:
        if isinstance(self.degrees, (tuple, list)):
            degrees = span("degrees", self.degrees, -360, 360)
        else:
            degrees = -between("degrees", self.degrees, 0, 360), float(self.degrees)
        object.__setattr__(self, "degrees", degrees)
        for name in ("fill", "mask_fill"):
            between(name, getattr(self, name), -math.inf, math.inf)
        if self.interpolation not in _WARPS:
            raise PlanError(f"interpolation={self.interpolation!r} must be one of {', '.join(_WARPS)}.")

    def draw(self, rng: np.random.Generator, height: int, width: int) -> _Turn:
        assert isinstance(self.degrees, tuple)
        return _Turn(float(rng.uniform(*self.degrees)), height, width)

    def image(self, pixels: Array, drawn: _Turn) -> Array:
        return self._turned(pixels, drawn, _WARPS[self.interpolation], self.fill)

    def mask(self, pixels: Array, drawn: _Turn) -> Array:
        return self._turned(pixels, drawn, cv2.INTER_NEAREST, self.mask_fill)

    def _turned(self, pixels: Array, drawn: _Turn, flags: int, fill: float) -> Array:
        if drawn.angle % 360 == 0:
            return pixels
        to, size, matrix = (fitting(fill, pixels),) * 4, (drawn.width, drawn.height), drawn.matrix
        return through_opencv(
            pixels, lambda known: np.asarray(cv2.warpAffine(known, matrix, size, flags=flags, borderValue=to))
        )

    def boxes(self, boxes: Array, drawn: _Turn) -> Array:
        boxes = floats(boxes)
        if drawn.angle % 360 == 0:
            return boxes
        # Boxes are measured from the picture's edge, the matrix from the centre of its first pixel.
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) - 0.5
        turned = corners @ drawn.matrix[:, :2].T + drawn.matrix[:, 2] + 0.5
        boxes[:, 0:2], boxes[:, 2:4] = turned.min(axis=1), turned.max(axis=1)
        return clipped(boxes, drawn.height, drawn.width)


def _size(size: tuple[int, int] | int) -> tuple[int, int]:
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise PlanError(f"size={size!r} must be (height, width) in pixels, or one number for both.")
    return whole("size", pair[0], 1, 2**15 - 1), whole("size", pair[1], 1, 2**15 - 1)
