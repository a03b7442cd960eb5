"""What a random transform of pictures is, and how several parts of a sample go through it together.

A transform draws once for a sample (`draw`, from the sample's own generator) and then does the same to each part:
`image` to pictures, `mask` to label maps (nearest pixels, no colours), `boxes` to boxes. It changes nothing that it is
given, and what it returns is of the dtype that came in, unless it says otherwise.

    ds.map(RandomFlip())                                              the first part is the picture
    ds.map(Augment([RandomFlip(), RandomCrop(32)], ("image", "mask")))  both alike, one after the other
"""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError

__all__ = [
    "Array",
    "Augment",
    "ImageTransform",
    "Kind",
    "between",
    "fitting",
    "size_of",
    "span",
    "through_opencv",
    "whole",
]

Array: TypeAlias = npt.NDArray[Any]
Kind: TypeAlias = Literal["image", "mask", "boxes"]

_KINDS = ("image", "mask", "boxes")
#: Dtypes that OpenCV has no arithmetic for, and one of its own that holds them exactly (integers up to 2**53).
_HELD_BY = {
    "bool": "uint8",
    "float16": "float32",
    "int8": "int16",
    "int32": "float64",
    "int64": "float64",
    "uint32": "float64",
    "uint64": "float64",
}


class ImageTransform(ABC):
    """One transform. Called as `transform(image, *others, rng=rng)`: the others pass through as they are.

    Pictures are `(height, width, channels)` or `(height, width)`, uint8 (0 to 255) or float32 (0 to 1).
    """

    def __call__(self, image: Array, *others: Any, rng: np.random.Generator) -> Any:
        changed = _together((self,), [image, *others], ("image",), rng)
        return tuple(changed) if others else changed[0]

    @abstractmethod
    def draw(self, rng: np.random.Generator, height: int, width: int) -> Any:
        """What is done to a picture of this size, drawn at random."""

    @abstractmethod
    def image(self, pixels: Array, drawn: Any) -> Array:
        """Do it to a picture."""

    def mask(self, pixels: Array, drawn: Any) -> Array:
        """Do it to a label map, whose values are names and never mixed. As it is, where only colours change."""
        return pixels

    def boxes(self, boxes: Array, drawn: Any) -> Array:
        """Do it to boxes, `(boxes, 4 or more)`: left, top, right, bottom in pixels, then what belongs to each."""
        return boxes


@final
@dataclass(frozen=True, slots=True)
class Augment:
    """Several transforms, one after the other, on several parts of a sample alike.

    Attributes:
        transforms: In their order.
        parts: What the parts of a tuple are, in their order: "image", "mask" (a label map: nearest pixels), "boxes", or
            None for what stays as it is, as do parts beyond these. For dicts, a dict of the same, by name.
    """

    transforms: Sequence[ImageTransform]
    parts: Sequence[Kind | None] | Mapping[str, Kind | None] = ("image",)

    def __post_init__(self) -> None:
        if not isinstance(self.transforms, Iterable):
            raise PlanError(f"Augment takes a list of transforms, not {self.transforms!r}.")
        # A tuple, since an iterator would be empty at the second sample.
        object.__setattr__(self, "transforms", tuple(self.transforms))
        for one in self.transforms:
            if not isinstance(one, ImageTransform):
                raise PlanError(f"Augment takes transforms of fitstream.transforms.images, not {one!r}.")
        if isinstance(self.parts, str) or not isinstance(self.parts, (Sequence, Mapping)):
            raise PlanError(f'parts={self.parts!r} must be a tuple such as ("image", "mask"), or a dict.')
        kinds = list(self.parts.values()) if isinstance(self.parts, Mapping) else list(self.parts)
        wrong = [kind for kind in kinds if kind is not None and kind not in _KINDS]
        if wrong or not {"image", "mask"} & set(kinds):
            raise PlanError(f'parts={self.parts!r} must be of "image", "mask", "boxes" and None, with a picture in it.')

    def __call__(self, *parts: Any, rng: np.random.Generator) -> Any:
        if isinstance(self.parts, Mapping):
            return self._named(parts, self.parts, rng)
        if isinstance(parts[0], dict):
            raise TypeError('the sample is a dict: write parts={"image": "image", ...} with its names')
        if len(parts) < len(self.parts):
            raise ValueError(f"the sample has {len(parts)} parts, but parts= speaks of {len(self.parts)}")
        changed = _together(self.transforms, list(parts), self.parts, rng)
        return tuple(changed) if len(changed) > 1 else changed[0]

    def _named(self, parts: Sequence[Any], kinds: Mapping[str, Kind | None], rng: np.random.Generator) -> Any:
        sample = parts[0]
        if len(parts) != 1 or not isinstance(sample, dict) or not kinds.keys() <= sample.keys():
            raise TypeError(f"parts= names {', '.join(kinds)}, so samples must be dicts that have all of these")
        changed = _together(self.transforms, [sample[name] for name in kinds], list(kinds.values()), rng)
        return {**sample, **dict(zip(kinds, changed, strict=True))}


def _together(
    transforms: Sequence[ImageTransform], values: list[Any], kinds: Sequence[Kind | None], rng: np.random.Generator
) -> list[Any]:
    pictures = [place for place, kind in enumerate(kinds) if kind in ("image", "mask")]
    for one in transforms:
        height, width = size_of(values[pictures[0]])
        for place in pictures[1:]:
            if size_of(values[place]) != (height, width):
                other = " x ".join(map(str, values[place].shape[:2]))
                raise ValueError(
                    f"part {place} is {other} pixels (height x width), but part {pictures[0]} is {height} x {width}: "
                    "what is transformed together must have one size"
                )
        drawn = one.draw(rng, height, width)
        for place, kind in enumerate(kinds):
            if kind is not None:
                values[place] = getattr(one, kind)(values[place], drawn)
    return values


def size_of(pixels: Any) -> tuple[int, int]:
    """`(height, width)` of a picture.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(pixels, np.ndarray):
        raise ValueError(f"a picture must be a NumPy array, not {type(pixels).__name__}: use np.asarray(picture)")
    if len(pixels.shape) not in (2, 3) or 0 in pixels.shape or pixels.dtype.kind not in "buif":
        raise ValueError(
            "a picture must be an array (height, width, channels) or (height, width) of numbers, "
            f"not {pixels.dtype} {pixels.shape}"
        )
    return pixels.shape[0], pixels.shape[1]


def through_opencv(pixels: Array, work: Callable[[Array], Array]) -> Array:
    """Call a function of OpenCV's on a dtype that it knows, and keep dtype and number of axes."""
    held = _HELD_BY.get(pixels.dtype.name)
    done = work(np.ascontiguousarray(pixels if held is None else pixels.astype(held)))
    if done.ndim < pixels.ndim:
        done = done[..., np.newaxis]
    if held is None:
        return done
    return (np.rint(done) if held == "float64" else done).astype(pixels.dtype)


def fitting(fill: float, pixels: Array) -> float:
    """What places are filled with, if pictures of such numbers can hold it: otherwise it would become another number.

    Raises:
        ValueError: If they can't.
    """
    if pixels.dtype.kind in "ui":
        held = np.iinfo(pixels.dtype)
        if not held.min <= fill <= held.max:
            raise ValueError(
                f"pictures of {pixels.dtype} hold {held.min} to {held.max}, and can't be filled with {fill:g}"
            )
    return fill


def between(name: str, value: Any, low: float, high: float) -> float:
    """A number within bounds.

    Raises:
        PlanError: If it isn't one.
    """
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        bounds = f" from {low:g} to {high:g}" if math.isfinite(high - low) else ""
        raise PlanError(f"{name}={reprlib.repr(value)} must be a number{bounds}.")
    return float(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number within bounds.

    Raises:
        PlanError: If it isn't one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise PlanError(f"{name}={reprlib.repr(value)} must be a whole number from {low} to {high}.")
    return int(value)


def span(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """Two numbers within bounds, the smaller one first.

    Raises:
        PlanError: If they aren't.
    """
    pair = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else ()
    if len(pair) != 2:
        raise PlanError(f"{name}={reprlib.repr(value)} must be two numbers, the least and the largest.")
    least, largest = between(name, pair[0], low, high), between(name, pair[1], low, high)
    if least > largest:
        raise PlanError(f"{name}={reprlib.repr(value)} must be two numbers, the least and the largest.")
    return least, largest
