"""How samples are chosen, as operations: divisions, draws and shuffles that look at a source's labels or blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.operations import Batch, Operation
from fitstream.probe import sample_order
from fitstream.sampling import MAX_COUNT, Draw, Shuffle, Split, Take
from fitstream.sources.base import Sequential, Source
from fitstream.strata import chunks_of, divided, strata_of

__all__ = ["chunk_shuffle", "class_labels", "draw", "renewed", "split"]


#: Rows that are looked at together, and labels of more than a number that are looked at.
_LOOK_ROWS, _MOST_LABEL_BYTES = 4096, 1 << 28


def class_labels(source: Source | Sequential, operations: Sequence[Operation], what: str) -> npt.NDArray[np.generic]:
    """Labels of a dataset's samples in the order of its first pass, `(count,)`, whole numbers.

    Raises:
        PlanError: If they aren't known, or are neither whole numbers, one a sample, nor one-hot.
    """
    labels = source.labels() if isinstance(source, Source) else None
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels is not None and labels.ndim == 2 and _is_one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels is not None and _is_whole(labels):  # as MATLAB stores them
        labels = labels.astype(np.int64)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
        told = "are not known" if labels is None else f"are {labels.dtype}{list(labels.shape)}"
        raise PlanError(
            f"{what} needs one whole number a sample as label, or a one-hot row, known without reading samples; those "
            f"of {source!r} {told}. Use from_table, from_folder, or from_arrays((x, labels))."
        )
    assert isinstance(source, Source)
    order = sample_order(source, operations)
    return np.asarray(labels[order.indices(0, np.arange(order.count))])


def _is_whole(labels: npt.NDArray[np.generic]) -> bool:
    if labels.dtype.kind != "f" or labels.ndim != 1 or labels.nbytes > _MOST_LABEL_BYTES:
        return False
    return bool((np.abs(labels) < 2**53).all() and (labels == np.rint(labels)).all())


def _is_one_hot(labels: npt.NDArray[np.generic]) -> bool:
    if labels.dtype.kind not in "biuf" or labels.nbytes > _MOST_LABEL_BYTES:
        return False
    return all(
        bool((rows.sum(axis=1) == 1).all() and ((rows == 0) | (rows == 1)).all())
        for rows in (labels[first : first + _LOOK_ROWS] for first in range(0, len(labels), _LOOK_ROWS))
    )


def split(
    source: Source, operations: Sequence[Operation], fraction: float, seed: int, *, stratify: bool
) -> tuple[Split, Split]:
    """The two sides of a division of what the operations leave.

    Raises:
        PlanError: If a side would be empty, or classes aren't known.
    """
    if not isinstance(fraction, (int, float, np.floating)) or not 0 < fraction < 1:
        raise PlanError(f"fraction={fraction!r} must be a number between 0 and 1, such as 0.8.")
    if any(isinstance(one, Draw) for one in operations):
        raise PlanError("split() must come before sample(), whose draws would be on both sides: write .split(0.8).")
    count = sample_order(source, operations).count
    if count < 2:
        raise PlanError(f"a dataset of {count} sample can't be split into two.")
    if stratify:
        strata = strata_of(class_labels(source, operations, "split(stratify=True)"))
        sides = divided(strata, fraction, seed)
        first = len(sides[0].values)
        if not 0 < first < count:
            raise PlanError(
                f"split({fraction}, stratify=True) leaves one side empty: {count} samples have "
                f"{len(strata.starts) - 1} labels. Labels are the second array, or the last of columns or parts: name "
                "them in that order."
            )
        return Split(0, first, seed, sides[0]), Split(first, count - first, seed, sides[1])
    first = min(count - 1, max(1, round(count * fraction)))
    return Split(0, first, seed), Split(first, count - first, seed)


def draw(
    source: Source, operations: Sequence[Operation], count: int, seed: int, *, replacement: bool, balance: bool
) -> Draw:
    """Samples drawn anew each pass, of what the operations leave.

    Raises:
        PlanError: If there aren't enough of them, or classes aren't known.
    """
    if any(isinstance(one, Draw) for one in operations):
        raise PlanError("sample() is there already; call it once.")
    there = sample_order(source, operations).count
    strata = strata_of(class_labels(source, operations, "sample(balance=True)")) if balance else None
    if count > MAX_COUNT:
        raise PlanError(f"sample({count}) draws more than 2^60 samples a pass, and no order is longer.")
    if replacement:
        if there == 0:
            raise PlanError("sample() has no samples to draw from.")
        return Draw(count, seed, replacement, strata)
    most, why = there, f"there are {there:,}"
    if strata is not None:
        sizes = np.diff(strata.starts)
        most = int(sizes.min()) * len(sizes)
        why = f"the smallest of {len(sizes)} classes has {int(sizes.min()):,}, so that {most:,} are balanced"
    if count > most:
        raise PlanError(
            f"sample({count}, replacement=False) draws no sample twice, but {why}. Use a count <= {most}, or "
            "replacement=True."
        )
    return Draw(count, seed, replacement, strata)


def chunk_shuffle(
    source: Source, operations: Sequence[Operation], seed: int, window_blocks: int
) -> tuple[Source, Shuffle]:
    """The shuffle of blocks and within them, and the source that keeps as many blocks.

    Raises:
        PlanError: If the source isn't read in blocks, or samples are drawn anew each pass.
    """
    edges = source.block_edges()
    if edges is None:
        raise PlanError(
            f'shuffle(within="chunks") is for sources that are read in blocks (HDF5 and zarr in chunks, Parquet, '
            f"tars), and {source!r} isn't. Use shuffle({seed}), which mixes all samples at no extra cost there."
        )
    if any(isinstance(one, Draw) for one in operations):
        raise PlanError('shuffle(within="chunks") can\'t follow sample(), which draws from all blocks. Leave it out.')
    order = sample_order(source, operations)
    indices: Any = order.indices(0, np.arange(order.count)) if order.selections else None
    if all(isinstance(one, Take) for one in order.selections):
        edges, indices = np.unique(np.minimum(edges, order.count)), None
    return source.keeping(window_blocks), Shuffle(seed, chunks_of(edges, indices, window_blocks))


def renewed(source: Source, before: Sequence[Operation], after: Sequence[Operation]) -> tuple[Operation, ...]:
    """Operations that were made for other samples than `before` leaves now, made for these.

    Raises:
        PlanError: As in `draw`.
    """
    made: list[Operation] = []
    for one in after:
        leading = (*before, *made)
        if isinstance(one, Draw):
            balance = one.strata is not None
            made.append(draw(source, leading, one.count, one.seed, replacement=one.replacement, balance=balance))
        elif isinstance(one, Shuffle) and one.chunks is not None:
            made.append(chunk_shuffle(source, leading, one.seed, one.chunks.window_blocks)[1])
        elif isinstance(one, Batch) and one.bucket_by is not None:
            made.append(replace(one, bucket_by=one.bucket_by.renewed()))
        else:
            made.append(one)
    return tuple(made)
