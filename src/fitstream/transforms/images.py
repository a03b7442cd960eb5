"""How a picture becomes an array: the options, checked when they are made; and the names of the random transforms.

The decoding itself is in `decode`, which loads the codecs; this module loads nothing. The transforms that users give to
`map` are named here and live in modules that load OpenCV, so that they are imported when one is asked for.

    images (options, DecodeError) <- jpeg (headers), resize (geometry), pillow (other formats) <- decode (ImageDecoder)
    images <- resize <- augment (what a transform is) <- geometry, colors;  mixing (whole batches), boxes
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fitstream.errors import PlanError

if TYPE_CHECKING:
    from fitstream.transforms.augment import Augment
    from fitstream.transforms.boxes import pad_boxes
    from fitstream.transforms.colors import ColorJitter, Cutout, Normalize
    from fitstream.transforms.geometry import RandomCrop, RandomFlip, RandomResizedCrop, RandomRotation
    from fitstream.transforms.mixing import CutMix, MixUp

__all__ = [
    "FORMATS",
    "Augment",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "DecodeError",
    "DrawnRegion",
    "ImageOptions",
    "Interpolation",
    "MixUp",
    "Normalize",
    "RandomCrop",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotation",
    "Resize",
    "pad_boxes",
]

_HOMES = {
    "Augment": "augment",
    "ColorJitter": "colors",
    "CutMix": "mixing",
    "Cutout": "colors",
    "MixUp": "mixing",
    "Normalize": "colors",
    "RandomCrop": "geometry",
    "RandomFlip": "geometry",
    "RandomResizedCrop": "geometry",
    "RandomRotation": "geometry",
    "pad_boxes": "boxes",
}

Resize: TypeAlias = Literal["stretch", "crop", "pad"]
Interpolation: TypeAlias = Literal["bilinear", "area", "nearest", "cubic", "lanczos"]

#: Formats that are read, by the first bytes of a file.
FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")

_RESIZES = ("stretch", "crop", "pad")
#: OpenCV's own limit.
_LARGEST_SIDE = 2**15 - 1
_INTERPOLATIONS = ("bilinear", "area", "nearest", "cubic", "lanczos")


class DecodeError(Exception):
    """These bytes are no picture that can be read; the caller knows which sample.

    Args:
        reason: What is wrong with them, without a full stop.
        advice: What to do.
    """

    def __init__(self, reason: str, advice: str = "Restore the file, or leave it out.") -> None:
        super().__init__(f"{reason}. {advice}")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Options of image decoding.

    Attributes:
        size: `(height, width)` in pixels, or None to keep each picture's own.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        resize: "stretch" to the size, "crop" the centre after scaling the picture to cover it, or "pad" with black
            after scaling the picture to fit inside.
        interpolation: "bilinear" | "area" | "nearest" | "cubic" | "lanczos".
        dtype: "uint8" (0 to 255) or "float32" (0 to 1).
        max_pixels: A picture that declares more is refused before it is decoded.
        formats: Names of the formats that are read; None for all.
    """

    size: tuple[int, int] | None = None
    channels: int = 3
    resize: Resize = "stretch"
    interpolation: Interpolation = "bilinear"
    dtype: str = "uint8"
    max_pixels: int = 89_478_485
    formats: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _choice("channels", self.channels, (1, 3, 4))
        _choice("resize", self.resize, _RESIZES)
        _choice("interpolation", self.interpolation, _INTERPOLATIONS)
        _choice("dtype", self.dtype, ("uint8", "float32"))
        if self.size is not None and not (len(self.size) == 2 and all(_is_side(side) for side in self.size)):
            raise PlanError(
                f"image_size={self.size!r} must be (height, width), each from 1 to {_LARGEST_SIDE} pixels, "
                "or one number for both."
            )
        most: Any = self.max_pixels
        if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
            raise PlanError(f"max_pixels={most!r} must be a whole number from 1 on.")
        if self.formats is not None and not (self.formats and set(self.formats) <= set(FORMATS)):
            raise PlanError(f"formats={self.formats!r} must name some of {', '.join(FORMATS)}.")

    def scratch_bytes(self, pixels: int) -> int:
        """Scratch that suffices for a JPEG of this many pixels, decoded in full and neither progressive nor turned."""
        if self.dtype == "uint8":
            return pixels * self.channels
        result = pixels if self.size is None else self.size[0] * self.size[1]
        return (pixels + result) * self.channels

    def largest_pixels(self, room_bytes: int) -> int:
        """Pixels of the largest such JPEG that can be decoded in this much scratch."""
        fixed = self.scratch_bytes(0)
        per_pixel = self.scratch_bytes(1) - fixed
        return min(self.max_pixels, max(0, room_bytes - fixed) // per_pixel)


class DrawnRegion(ABC):
    """A transform that uses a rectangle of the picture alone, so that the decoder can do it with less work.

    Directly after decoding at a picture's own size, it becomes a part of decoding (`probe.recipe_of`).

    Attributes:
        interpolation: How pixels between pixels are found.
    """

    interpolation: Interpolation

    @property
    @abstractmethod
    def out_size(self) -> tuple[int, int]:
        """`(height, width)` of what comes out, in pixels."""

    @abstractmethod
    def region(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw `(top, left, height, width)` in a picture of this size, in pixels, as shown."""


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST_SIDE


def _choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if isinstance(value, bool) or value not in allowed:
        raise PlanError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}.")


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fitstream.transforms.images' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fitstream.transforms.{home}"), name)
