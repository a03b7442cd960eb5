"""The iterator over arrays that `ImageDataGenerator.flow` makes.

Arrays are kept as they are given, in memory or mapped from disk, and only a batch's rows become floating.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.legacy.image_batches import PictureIterator, SaveTo, split_of
from fitstream.legacy.image_files import data_format_of, default_dtype
from fitstream.legacy.image_targets import Targets, numbers
from fitstream.legacy.program import warn
from fitstream.sources.arrays import ArraySource

__all__ = ["NumpyArrayIterator"]


class NumpyArrayIterator(PictureIterator):
    """Batches of pictures in arrays. The arguments are those of `ImageDataGenerator.flow`."""

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: str | None = None,
        *,
        dim_ordering: str | None = None,
    ) -> None:
        # fmt: off
        super().__init__(
            0, batch_size, shuffle, seed, generator=image_data_generator,
            data_format=data_format_of(data_format, dim_ordering), dtype=dtype or default_dtype(),
            save_to=SaveTo(save_to_dir, save_prefix, save_format) if save_to_dir else None)
        # fmt: on
        beside: list[Any] = []
        if isinstance(x, (tuple, list)):
            x, others = x[0], x[1]
            beside = [np.asarray(one) for one in (others if isinstance(others, list) else [others])]
        parts = [x if hasattr(x, "shape") else np.asarray(x), *beside]
        targets = [None if one is None else np.asarray(one) for one in (y, sample_weight)]
        for name, one in zip(["x[1]"] * len(beside) + ["y", "sample_weight"], [*beside, *targets], strict=True):
            if one is not None and len(one) != len(parts[0]):
                raise PlanError(f"x has {len(parts[0])} samples, but {name} has {len(one)}. Make them equally long.")
        split = split_of(image_data_generator, subset)
        if split is not None:
            first = int(len(parts[0]) * (split[1] if subset == "validation" else split[0]))
            if targets[0] is not None and not ignore_class_split:
                _check_same_classes(targets[0], first)
            part = slice(None, first) if subset == "validation" else slice(first, None)
            parts = [one[part] for one in parts]
            targets = [None if one is None else one[part] for one in targets]
        self.x, self.x_misc, (self.y, self.sample_weight) = parts[0], parts[1:], targets
        if len(self.x.shape) != 4:
            raise PlanError(f"x needs pictures of shape (count, ...) with four axes, not {tuple(self.x.shape)}.")
        channels = self.x.shape[3 if self.data_format == "channels_last" else 1]
        if channels not in (1, 3, 4):
            told = f"x has {channels} channels in {self.data_format!r}; pictures have 1, 3 or 4."
            warn(told)
        self.n = len(self.x)
        outputs = () if self.y is None else (numbers(self.y, "y"),)
        self._targets = Targets(tuple(self.x_misc), outputs, weights=self.sample_weight)
        if self.n:
            self._source = ArraySource((self.x, np.arange(self.n, dtype=np.int64)[:, None]))


def _check_same_classes(y: npt.NDArray[Any], first: int) -> None:
    one, other = np.unique(y[:first]), np.unique(y[first:])
    if not np.array_equal(one, other):
        raise PlanError(
            f"training and validation have different classes: {len(other)} and {len(one)}. The first samples are for "
            "validation: shuffle the arrays before, or pass ignore_class_split=True."
        )
