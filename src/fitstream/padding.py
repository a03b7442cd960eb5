"""Samples of differing length in one batch: padded with zeros to the longest one that the batch holds.

A slot has room for the longest sample that is allowed. Lanes place each sample at the start of its row and note its
length, in a leaf of the slot that nobody else sees. Whoever finishes the batch moves the rows together, in place, so
that the batch that is handed out has contiguous arrays of the batch's own length. No batch memory is allocated for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.operations import Batch
from fitstream.spec import ArraySpec, Structure

__all__ = ["lengthened", "lengths_spec", "padded_leaves", "trim"]


def padded_leaves(structure: Structure, specs: Sequence[ArraySpec], batch: Batch) -> tuple[int, ...]:
    """Numbers of the leaves whose first axis differs from sample to sample.

    Raises:
        PlanError: If there are none, or a part that was named is none.
    """
    if batch.pad is False:
        return ()
    names = structure.names
    chosen = list(range(len(names)))
    if batch.pad is not True:
        wanted = [(f"[{part!r}]", isinstance(part, str)) for part in batch.pad]
        unknown = [part for part, inside in wanted if not any(_is_of(one, part, inside) for one in names)]
        if unknown:
            raise PlanError(
                f"batch(pad=...) names the part {unknown[0]}, but samples have {', '.join(names) or 'one'}."
            )
        chosen = [i for i in chosen if any(_is_of(names[i], part, inside) for part, inside in wanted)]
    found = tuple(i for i in chosen if specs[i].shape)
    if not found:
        raise PlanError("batch(pad=...) needs arrays of at least one axis, but the samples have none there.")
    return found


def _is_of(name: str, part: str, inside: bool) -> bool:
    """Whether an array is, or lies in, a part; one that is named by its key may lie in others, at any depth."""
    return part in name if inside else name.startswith(part)


def lengthened(specs: Sequence[ArraySpec], padded: Sequence[int], max_length: int) -> tuple[ArraySpec, ...]:
    """Specs with room for the longest sample that is allowed."""
    return tuple(
        ArraySpec((max_length, *spec.shape[1:]), spec.dtype) if number in padded else spec
        for number, spec in enumerate(specs)
    )


def lengths_spec(padded: Sequence[int]) -> ArraySpec:
    """The leaf in which lanes note the lengths of a sample's padded leaves."""
    return ArraySpec((len(padded),), np.dtype(np.int64))


def trim(leaves: Sequence[npt.NDArray[Any]], rows: int, padded: Sequence[int], *, mask: bool) -> tuple[int | None, ...]:
    """Move the rows of a batch together, now that its longest sample is known.

    Args:
        leaves: Of the slot, `(capacity, max_length, ...)` where they are padded; the last one holds the lengths.
        rows: Rows that the batch has.
        padded: Numbers of the padded leaves.
        mask: Whether the leaf before the lengths is a mask: 1 where the first padded leaf has numbers, else 0.
    Returns:
        For each leaf the length of its second axis, or None where it isn't padded.
    """
    told = leaves[-1][:rows]
    lengths: list[int | None] = [None] * len(leaves)
    for place, number in enumerate(padded):
        longest = max(1, int(told[:, place].max(initial=0)))
        lengths[number] = longest
        leaf = leaves[number]
        flat, stride = leaf.reshape(-1), leaf[0].size
        size = stride // leaf.shape[1] * longest
        for row in range(1, rows):
            flat[row * size : (row + 1) * size] = flat[row * stride : row * stride + size]
    if mask:
        longest = lengths[padded[0]] or 1
        lengths[-2] = longest
        real = leaves[-2].reshape(-1)[: rows * longest].reshape(rows, longest)
        np.less(np.arange(longest), told[:, :1], out=real, casting="unsafe")
    return tuple(lengths)
