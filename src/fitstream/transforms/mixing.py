"""MixUp and CutMix: what mixes the samples of one batch, for `ds.batch(n).map_batch(...)`.

Each sample's partner is its neighbour in a cycle through all samples that is drawn at random, so that a batch is mixed
in its own memory, with room for one picture beside it: from the end of the cycle backwards, each takes in a neighbour
that is still as it was. Labels are mixed in the share that pictures are, so they must be floats: one-hot vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import cv2
import numpy as np

from fitstream.errors import PlanError
from fitstream.spec import ArraySpec
from fitstream.transforms.augment import Array

__all__ = ["CutMix", "MixUp"]


@final
@dataclass(frozen=True, slots=True)
class MixUp:
    """Blend each picture, and its label, with another one of its batch (Zhang et al., "mixup", 2018).

    Attributes:
        alpha: One share for the batch is drawn from Beta(alpha, alpha): near 0 or 1 for small alpha, even for 1.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, images: Array, labels: Array, *others: Any, rng: np.random.Generator) -> None:
        """Mix in place.

        Args:
            images: `(batch, ...)`, uint8 or floats.
            labels: `(batch, classes)` floats, or `(batch, ...)` of any meaning that can be averaged.
            others: Stay as they are.
            rng: What the share and the partners are drawn from.
        """
        _check(images, labels)
        share = float(rng.beta(self.alpha, self.alpha))
        cycle = rng.permutation(len(images)).tolist()
        _blend(images, cycle, share)
        _blend(labels, cycle, share)

    def unfit(self, *parts: Any) -> str | None:
        """As `operations.ToldBefore` says."""
        return _unfit(parts)


@final
@dataclass(frozen=True, slots=True)
class CutMix:
    """Paste a rectangle of another picture of the batch into each (Yun et al., "CutMix", 2019).

    Labels are mixed by the rectangle's share of the area. It is at one place in the whole batch.

    Attributes:
        alpha: The share is drawn from Beta(alpha, alpha).
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def __call__(self, images: Array, labels: Array, *others: Any, rng: np.random.Generator) -> None:
        """Mix in place, as `MixUp` does; `images` are `(batch, height, width, ...)`."""
        _check(images, labels)
        height, width = images.shape[1:3]
        side = math.sqrt(1 - float(rng.beta(self.alpha, self.alpha)))
        down, across = int(rng.integers(height)), int(rng.integers(width))
        top, left = max(0, down - round(height * side / 2)), max(0, across - round(width * side / 2))
        bottom, right = min(height, down + round(height * side / 2)), min(width, across + round(width * side / 2))
        cycle = rng.permutation(len(images)).tolist()
        box = images[:, top:bottom, left:right]
        if box.size == 0:
            return
        _paste(box, cycle)
        _blend(labels, cycle, 1 - (bottom - top) * (right - left) / (height * width))

    def unfit(self, *parts: Any) -> str | None:
        """As `operations.ToldBefore` says."""
        return _unfit(parts)


def _blend(rows: Array, cycle: list[int], share: float) -> None:
    """Give each row `share` of itself and the rest of its neighbour before it in the cycle."""
    flat = rows.reshape(len(rows), -1)
    last = flat[cycle[-1]].copy()
    for place in range(len(cycle) - 1, -1, -1):
        row = flat[cycle[place]]
        cv2.addWeighted(row, share, flat[cycle[place - 1]] if place else last, 1 - share, 0, dst=row)


def _paste(rows: Array, cycle: list[int]) -> None:
    last = rows[cycle[-1]].copy()
    for place in range(len(cycle) - 1, -1, -1):
        rows[cycle[place]] = rows[cycle[place - 1]] if place else last


def _check(images: Array, labels: Array) -> None:
    for name, rows in (("images", images), ("labels", labels)):
        if not isinstance(rows, np.ndarray):
            raise TypeError(f"{name} must be one array, not {type(rows).__name__}: call it in a function that picks it")
        if rows.size and rows.ndim and not np.may_share_memory(rows.reshape(len(rows), -1), rows):
            raise TypeError(f"{name} can't be mixed in place in this order of axes: mix before they are transposed")
    if why := _refused(images.dtype, images.ndim, labels.dtype, labels.ndim):
        raise TypeError(why)
    if len(images) != len(labels):
        raise TypeError(f"images and labels must be as many, not {len(images)} and {len(labels)}")


def _unfit(parts: tuple[Any, ...]) -> str | None:
    """Why samples of such parts, each an `ArraySpec` or a tree of them, can't be mixed; None if they can."""
    if len(parts) < 2 or not all(isinstance(part, ArraySpec) for part in parts[:2]):
        return "samples must be tuples that begin with one array of images and one of labels, or call it in a function"
    images, labels = parts[:2]
    return _refused(images.dtype, len(images.shape) + 1, labels.dtype, len(labels.shape) + 1)


def _refused(dtype: np.dtype[Any], axis_count: int, label_dtype: np.dtype[Any], label_axis_count: int) -> str | None:
    if label_dtype not in (np.float32, np.float64) or not label_axis_count:
        return (
            f'labels of dtype {label_dtype} can\'t be mixed: make them one-hot, by label_mode="categorical" or a map '
            "such as lambda x, y: (x, np.eye(10, dtype=np.float32)[y])"
        )
    if dtype not in (np.uint8, np.float32, np.float64) or axis_count < 3:
        return (
            f"images must be uint8 or floats of shape (batch, height, width, ...), not {dtype} with {axis_count} axes"
        )
    return None


def _check_alpha(alpha: Any) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise PlanError(f"alpha={alpha!r} must be a positive number.")
