"""Transforms that change colours and leave pixels where they are: colour jitter, cutout, normalise.

Colour jitter is one affine map of each pixel's colour, so that it is one pass and rounds once. Brightness multiplies.
Contrast moves colours away from, or towards, the picture's mean luma; saturation away from, or towards, the pixel's
own. Hue turns the chroma plane of YIQ and keeps luma; that is no turn of HSV's hue, but near to it and linear. Luma is
that of ITU-R BT.601. Results are cut to the range of the dtype (floats to 0 to 1), once, at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, final

import cv2
import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.transforms.augment import Array, ImageTransform, between, fitting, size_of, whole

__all__ = ["ColorJitter", "Cutout", "Normalize"]

_LUMA = np.array([0.299, 0.587, 0.114])
#: RGB to YIQ.
_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_RGB = np.linalg.inv(_YIQ)
#: What float pictures of 0 to 1 stay within, also where they were resized by an interpolation that overshoots.
_LEAST_FLOAT, _LARGEST_FLOAT = -0.5, 1.5


class _Jitter(NamedTuple):
    brightness: float
    contrast: float
    saturation: float
    hue: float


@final
@dataclass(frozen=True, slots=True)
class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue at random.

    Attributes:
        brightness: b draws a factor from max(0, 1 - b) to 1 + b.
        contrast: Likewise.
        saturation: Likewise.
        hue: h draws a turn of the colour circle from -h to h; at most 0.5, which is half of it.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            between(name, getattr(self, name), 0, 100)
        between("hue", self.hue, 0, 0.5)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> _Jitter:
        reaches = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (rng.uniform(max(0, 1 - reach), 1 + reach) for reach in reaches)
        return _Jitter(brightness, contrast, saturation, rng.uniform(-self.hue, self.hue))

    def image(self, pixels: Array, drawn: _Jitter) -> Array:
        if drawn == _Jitter(1, 1, 1, 0):
            return pixels
        _check_colours(pixels)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        pixels = np.ascontiguousarray(pixels)
        done = np.asarray(cv2.transform(pixels, _affine(pixels, channels, drawn))).reshape(pixels.shape)
        return done if done.dtype == np.uint8 else np.clip(done, 0, 1, out=done)


def _affine(pixels: Array, channels: int, drawn: _Jitter) -> npt.NDArray[np.float64]:
    """The map of a colour, `(channels, channels + 1)`; alpha stays."""
    colours = min(channels, 3) if channels != 2 else 1
    luma = _LUMA if colours == 3 else np.ones(1)
    turn = np.eye(colours)
    if colours == 3:
        angle = 2 * math.pi * drawn.hue
        cosine, sine = math.cos(angle), math.sin(angle)
        turn = _RGB @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _YIQ
        turn = turn @ (drawn.saturation * np.eye(3) + (1 - drawn.saturation) * np.outer(np.ones(3), luma))
    mean = float(luma @ np.array(cv2.mean(pixels)[:colours])) * drawn.brightness
    affine = np.eye(channels, channels + 1)
    affine[:colours, :colours] = turn * drawn.brightness * drawn.contrast
    # A grey offset passes through saturation and hue unchanged.
    affine[:colours, -1] = (1 - drawn.contrast) * mean
    return affine


@final
@dataclass(frozen=True, slots=True)
class Cutout(ImageTransform):
    """Cover squares at random places (DeVries and Taylor, "Improved regularization of CNNs with cutout", 2017).

    A square's middle is drawn from the whole picture, so that a part of it may lie outside. Masks stay as they are.

    Attributes:
        side: Of a square, in pixels.
        count: Squares.
        fill: Value of covered pixels.
    """

    side: int
    count: int = 1
    fill: float = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "side", whole("side", self.side, 0, 2**15))
        object.__setattr__(self, "count", whole("count", self.count, 0, 10_000))
        between("fill", self.fill, -math.inf, math.inf)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[tuple[slice, slice]]:
        holes = []
        for _ in range(self.count):
            top, left = int(rng.integers(height)) - self.side // 2, int(rng.integers(width)) - self.side // 2
            holes.append((slice(max(0, top), max(0, top + self.side)), slice(max(0, left), max(0, left + self.side))))
        return holes

    def image(self, pixels: Array, drawn: list[tuple[slice, slice]]) -> Array:
        if not self.side or not drawn:
            return pixels
        pixels = pixels.copy()
        for hole in drawn:
            pixels[hole] = fitting(self.fill, pixels)
        return pixels


@final
@dataclass(frozen=True, slots=True)
class Normalize(ImageTransform):
    """Subtract the mean and divide by the standard deviation of each channel: float32 out.

    uint8 pictures are brought to 0 to 1 first, so mean and deviation are of that range. Nothing is drawn: `rng` may be
    left out.

    Attributes:
        mean: One number a channel, or one for all.
        std: Likewise.
    """

    mean: tuple[float, ...] | float
    std: tuple[float, ...] | float

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else (value,)
            if not numbers:
                raise PlanError(f"{name}={value!r} must be one number a channel, or one for all.")
            object.__setattr__(self, name, tuple(between(name, one, -math.inf, math.inf) for one in numbers))
        if not all(number > 0 for number in _numbers(self.std)):
            raise PlanError(f"std={self.std!r} must be positive.")

    def __call__(self, image: Array, *others: Any, rng: np.random.Generator | None = None) -> Any:
        done = self.image(image, None)
        return (done, *others) if others else done

    def draw(self, rng: np.random.Generator, height: int, width: int) -> None:
        return None

    def image(self, pixels: Array, drawn: None) -> Array:
        size_of(pixels)
        mean, std = _numbers(self.mean), _numbers(self.std)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        if not {len(mean), len(std)} <= {1, channels}:
            raise ValueError(f"mean has {len(mean)} numbers and std {len(std)}, but the picture {channels} channels")
        if pixels.dtype == np.uint8:
            return np.asarray(cv2.LUT(pixels, _table(mean, std, channels))).reshape(pixels.shape)
        done: Array = np.subtract(pixels, np.array(mean, np.float32), dtype=np.float32)
        return np.divide(done, np.array(std, np.float32), out=done)


def _numbers(value: tuple[float, ...] | float) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


@lru_cache(16)
def _table(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> npt.NDArray[np.float32]:
    """What each of 256 values becomes, `(1, 256, channels)`."""
    values = (np.arange(256.0)[:, np.newaxis] / 255 - np.array(mean)) / np.array(std)
    return np.ascontiguousarray(np.broadcast_to(values, (256, channels)), dtype=np.float32)[np.newaxis]


def _check_colours(pixels: Array) -> None:
    height, width = size_of(pixels)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype not in (np.uint8, np.float32) or channels > 4:
        raise ValueError(
            f"colours are changed in uint8 (0 to 255) or float32 (0 to 1) of 1 to 4 channels, not in {pixels.dtype} "
            f"({height}, {width}, {channels})"
        )
    if pixels.dtype == np.float32 and not (pixels.min() >= _LEAST_FLOAT and pixels.max() <= _LARGEST_FLOAT):
        raise ValueError(
            f"float32 pictures are 0 to 1, but this one goes from {pixels.min():g} to {pixels.max():g}. Change colours "
            "before Normalize, and in uint8 or divided by 255"
        )
