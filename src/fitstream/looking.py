"""Looking at single samples and batches of a dataset, in the calling thread and without a loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.batching import Rows
from fitstream.chain import Chain
from fitstream.failures import RowError
from fitstream.filler import Filler
from fitstream.finishing import finish
from fitstream.operations import Operation
from fitstream.padding import trim
from fitstream.plan import Plan
from fitstream.probe import check_least, recipe_of
from fitstream.sampling import Order
from fitstream.scratch import Allowance, Arena
from fitstream.sources.base import Sequential, Source
from fitstream.spec import Layout

__all__ = ["SAMPLE_LIMIT_BYTES", "class_weights", "one_batch", "one_sample"]

#: What one sample may take of memory outside a loader, where no budget is given.
SAMPLE_LIMIT_BYTES = 2**30


def _chain(source: Source | Sequential, operations: Sequence[Operation]) -> Chain:
    check_least(source, SAMPLE_LIMIT_BYTES)
    return Chain(recipe_of(source, operations), Arena(Allowance(0, SAMPLE_LIMIT_BYTES, SAMPLE_LIMIT_BYTES)))


def one_sample(source: Source, operations: Sequence[Operation], order: Order, place: int) -> Any:
    """The sample at a place of pass 0.

    Raises:
        SampleError: If it can't be made.
    """
    chain = _chain(source, operations)
    try:
        with chain.arena:
            return chain.sample(int(order.indices(0, [place])[0]), 0, draw=place if order.repeats else 0)
    finally:
        chain.close()


def one_batch(plan: Plan, operations: Sequence[Operation], rows: Rows, step: int) -> Any:
    """A batch of pass 0.

    Args:
        plan: What a loader would run.
        operations: What is done to samples.
        rows: The batch's.
        step: Its place in the pass.
    Raises:
        SampleError: If a sample can't be made.
    """
    chain = _chain(plan.source, operations)
    try:
        layout = Layout(plan.layout.specs, rows.count)
        slot = np.zeros(layout.slot_bytes, np.uint8)
        leaves = layout.leaves(slot, rows.count)
        try:
            filler = Filler(chain, plan.structure, plan.specs, plan.padded)
            if len(rows.indices):  # a rank's part of the last batch may be padding alone
                filler.fill(leaves, 0, rows.indices, rows.passes, draws=rows.draws)
        except RowError as failed:
            raise failed.error from failed.error.__cause__
        if plan.padded:
            lengths = trim(leaves, rows.count, plan.padded, mask=plan.mask)
            leaves = layout.leaves(slot, rows.count, lengths)
        elif plan.mask:
            leaves[-1][: len(rows.indices)] = 1
        finish(plan, leaves, len(rows.indices), 0, step)
        return plan.batch_structure.build(leaves)
    finally:
        chain.close()


def class_weights(labels: npt.NDArray[np.generic]) -> dict[int, float]:
    """Weights that make classes count alike: samples / (classes * samples of the class).

    Args:
        labels: `(samples,)`, whole numbers.
    """
    values, counts = np.unique(labels, return_counts=True)
    return {int(v): len(labels) / (len(values) * int(c)) for v, c in zip(values, counts, strict=True)}
