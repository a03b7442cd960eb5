"""The plan: what a loader will run, and the proof that it fits the budget.

Reads one sample and starts nothing. All memory that fitstream will allocate is a sum of named integers:

    projected = slots x slot_bytes                 the ring
              + lanes x (lane_bytes + hand_bytes)  kept scratch, samples between two stages
              + large_bytes                        one picture at a time that is too large for a lane's scratch
              + queue_bytes                        raw samples of a generator that wait for a lane
              + index_bytes                        paths, offsets and labels

Two slots and one lane are the least; what the budget leaves goes to more slots, then to scratch. A plan whose least sum
exceeds the budget is refused with the settings that would fit, each computed, not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from fitstream.batching import BatchOrder
from fitstream.budget import Needs
from fitstream.chain import Recipe
from fitstream.errors import PlanError
from fitstream.machine import available_cores, available_memory_bytes
from fitstream.operations import Batch, Last, Operation
from fitstream.probe import Probe, probe, recipe_of, sample_order
from fitstream.sampling import Shard
from fitstream.sources.base import Sequential, Source
from fitstream.spec import ArraySpec, Layout, Structure, format_bytes, parse_bytes

__all__ = ["Plan", "make_plan"]

_AUTO_LIMIT_BYTES = 2 * 2**30
_CHUNK_ROWS = 16
_WAITING_BYTES = 1 << 20
_MOST_LANES = 256


@final
@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a loader will run. Made by `ds.plan(...)`; `print(plan)` explains it.

    Attributes:
        source: Where samples come from.
        recipe: What a lane does to make samples.
        order: The batches' rows, or None where the source is sequential.
        sample_count: Samples of a pass, or None where unknown.
        steps: Batches of a pass, or None where unknown.
        batch_size: Rows of the largest batch.
        last: What becomes of a pass's rest that is smaller than a batch.
        mask: Whether batches have a part that tells padding apart.
        whole_batches: Whether the source gives finished batches.
        structure: Tree of a sample.
        specs: Spec of each leaf of a sample.
        batch_structure: Tree of a batch.
        layout: Where the leaves of a batch lie in a slot.
        chunk_rows: Rows that a lane takes at a time.
        lane_count: Lanes; 0 where the calling thread does the work.
        lane_reason: Why that many.
        slot_count: Slots of the ring.
        lane_bytes: Scratch that each lane keeps.
        hand_bytes: Samples between two stages, each lane.
        large_bytes: Scratch for one large picture at a time.
        queue_bytes: Raw samples that wait for a lane.
        index_bytes: Paths, offsets and labels.
        budget_bytes: What the user allows.
    """

    source: Source | Sequential
    recipe: Recipe
    order: BatchOrder | None
    sample_count: int | None
    steps: int | None
    batch_size: int
    last: Last
    mask: bool
    whole_batches: bool
    structure: Structure
    specs: tuple[ArraySpec, ...]
    batch_structure: Structure
    layout: Layout
    chunk_rows: int
    lane_count: int
    lane_reason: str
    slot_count: int
    lane_bytes: int
    hand_bytes: int
    large_bytes: int
    queue_bytes: int
    index_bytes: int
    budget_bytes: int

    @property
    def projected_bytes(self) -> int:
        """All that fitstream will allocate, at most."""
        return (
            self.slot_count * self.layout.slot_bytes
            + max(1, self.lane_count) * (self.lane_bytes + self.hand_bytes)
            + self.large_bytes
            + self.queue_bytes
            + self.index_bytes
        )

    @property
    def batch_spec(self) -> Any:
        """Tree of `ArraySpec` of a batch; its first axis is None where batches vary in size."""
        rows = self.batch_size if self.order is not None and self.order.constant and not self.whole_batches else None
        if self.order is None and self.last in ("drop", "pad") and not self.whole_batches:
            rows = self.batch_size
        return self.batch_structure.build([spec.batched(rows) for spec in self.layout.specs])

    @property
    def sample_spec(self) -> Any:
        """Tree of `ArraySpec` of a sample."""
        return self.structure.build(self.specs)

    @property
    def largest_pixels(self) -> int | None:
        """Pixels of the largest picture that can be decoded in full, or None where no pictures are decoded."""
        options = self.recipe.image_options
        if options is None:
            return None
        return options.largest_pixels(max(self.lane_bytes, self.large_bytes) * 10 // 11)

    def __repr__(self) -> str:
        steps = "?" if self.steps is None else f"{self.steps:,}"
        return (
            f"Plan({steps} batches of {self.batch_size}, {self.slot_count} slots, {self.lane_count} lanes, "
            f"{format_bytes(self.projected_bytes)} of {format_bytes(self.budget_bytes)})"
        )

    def __str__(self) -> str:
        return "\n".join(_table(self))


def _table(plan: Plan) -> list[str]:
    slot = format_bytes(plan.layout.slot_bytes)
    lanes = max(1, plan.lane_count)
    rows: list[tuple[str, str, int]] = [
        (
            "ring",
            f"{plan.slot_count} slots x {slot} (batch of {plan.batch_size})",
            plan.slot_count * plan.layout.slot_bytes,
        )
    ]
    if plan.lane_bytes:
        rows.append(("scratch", f"{lanes} x {format_bytes(plan.lane_bytes)} to decode in", lanes * plan.lane_bytes))
    if plan.large_bytes:
        pixels = (plan.largest_pixels or 0) / 1e6
        rows.append(("large pictures", f"one at a time, in full up to {pixels:.3g} Mpx", plan.large_bytes))
    if plan.hand_bytes:
        rows.append(("samples in hand", f"{lanes} x {format_bytes(plan.hand_bytes)}", lanes * plan.hand_bytes))
    if plan.queue_bytes:
        rows.append(("waiting samples", "read from the generator, not yet mapped", plan.queue_bytes))
    if plan.index_bytes:
        rows.append(("index", "paths, offsets and labels", plan.index_bytes))
    wide = max(len(text) for _, text, _ in rows)
    count = "an unknown number of" if plan.sample_count is None else f"{plan.sample_count:,}"
    steps = "" if plan.steps is None else f" in {plan.steps:,} batches"
    lines = [
        f"{count} samples a pass{steps}",
        f"  source           {plan.source!r}",
        f"  sample           {plan.sample_spec!r}",
        f"  batch            {plan.batch_spec!r}",
        f"  lanes            {plan.lane_count} ({plan.lane_reason})",
        "",
    ]
    lines += [f"  {name:<15}  {text:<{wide}}  {format_bytes(size):>8}" for name, text, size in rows]
    total = f"of {format_bytes(plan.budget_bytes)} ({plan.projected_bytes / plan.budget_bytes:.0%})"
    lines.append(f"  {'projected':<15}  {total:<{wide}}  {format_bytes(plan.projected_bytes):>8}")
    return lines


def make_plan(
    source: Source | Sequential,
    operations: Sequence[Operation],
    *,
    whole_batch_size: int | None,
    memory: int | str,
    workers: int | str,
) -> Plan:
    """Work out the memory, or refuse.

    Args:
        source: Where samples come from.
        operations: What is done to them.
        whole_batch_size: For finished batches their largest size, 0 for the first one's; None for samples.
        memory: Budget, in bytes, text or "auto".
        workers: Lanes, or "auto".
    Raises:
        PlanError: If two slots and one lane cannot fit, or a setting is impossible.
        SampleError: If the first sample can't be made.
    """
    whole = whole_batch_size is not None
    budget = min(_AUTO_LIMIT_BYTES, available_memory_bytes() // 4) if memory == "auto" else parse_bytes(memory)
    batch = Batch(1, "keep", False) if whole else _batch(operations)
    shard = None if whole else _shard_of_batches(operations)
    order = None
    if isinstance(source, Source):
        order = BatchOrder(sample_order(source, operations), batch.size, batch.last, shard)
    recipe = recipe_of(source, operations)
    lane_count, reason = _lanes(workers)
    if order is None and lane_count > 1 and not recipe.stages:
        lane_count, reason = 1, "a generator runs in one, and nothing is mapped over it"
    first = probe(source, operations, whole=whole, limit_bytes=max(budget, 2**30))
    if whole_batch_size is not None:
        rows = max(whole_batch_size, first.rows)
    else:
        rows = batch.size if order is None else order.capacity
    layout, batch_structure = _layout(first, rows, batch.mask)
    steps = order.steps if order is not None else _steps(source, batch, whole)
    chunk_rows = 1 if whole else _chunk_rows(rows, lane_count, recipe, first)
    # fmt: off
    needs = Needs(
        layout=layout, budget_bytes=budget, memory=budget if memory == "auto" else memory,
        scratch_bytes=first.scratch_bytes, large_wanted_bytes=_large_wanted_bytes(recipe),
        hand_bytes=first.hand_bytes, waiting_bytes=chunk_rows * first.raw_bytes, hands_on=bool(recipe.stages),
        index_bytes=source.index_bytes if isinstance(source, Source) else 0, steps=steps, whole=whole,
        ranks=1 if shard is None else shard.count,
    )
    # fmt: on
    fitted = needs.fit(lane_count, fixed=workers != "auto")
    if fitted.lane_count < lane_count:
        reason += f", cut to {fitted.lane_count} by the budget"
    # fmt: off
    return Plan(
        source=source, recipe=recipe, order=order, sample_count=_sample_count(source, operations, whole), steps=steps,
        batch_size=rows, last=batch.last, mask=batch.mask, whole_batches=whole, structure=first.structure,
        specs=first.specs, batch_structure=batch_structure, layout=layout, chunk_rows=chunk_rows,
        lane_count=fitted.lane_count, lane_reason=reason, slot_count=fitted.slot_count, lane_bytes=fitted.lane_bytes,
        hand_bytes=needs.hand_bytes, large_bytes=fitted.large_bytes,
        queue_bytes=needs.queue_bytes(fitted.lane_count), index_bytes=needs.index_bytes, budget_bytes=budget,
    )
    # fmt: on


def _lanes(workers: int | str) -> tuple[int, str]:
    if workers == "auto":
        cores = min(available_cores(), _MOST_LANES)
        return cores, f"one for each of {cores} cores" if cores > 1 else "one core"
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)) or not 0 <= workers <= _MOST_LANES:
        raise PlanError(f'workers={workers!r} must be "auto" or a number of lanes from 0 to {_MOST_LANES}.')
    return int(workers), f"workers={workers}" + ("" if workers else ": the calling thread does the work")


def _batch(operations: Sequence[Operation]) -> Batch:
    for operation in operations:
        if isinstance(operation, Batch):
            return operation
    raise PlanError("the dataset has no batch size. Call .batch(64), or another size, before .plan() or .loader().")


def _shard_of_batches(operations: Sequence[Operation]) -> Shard | None:
    return operations[-1] if isinstance(operations[-1], Shard) else None


def _layout(first: Probe, rows: int, mask: bool) -> tuple[Layout, Structure]:
    """Layout and tree of a batch; a mask is one more part."""
    if not mask:
        return Layout(first.specs, rows), first.structure
    sample = first.structure.build([0] * first.structure.leaf_count)
    if isinstance(sample, dict):
        if "mask" in sample:
            raise PlanError(
                "batch(mask=True) adds a part named 'mask', but samples have one already. Rename it in a map."
            )
        tree: Any = {**sample, "mask": 0}
    else:
        tree = (*(sample if isinstance(sample, tuple) else (sample,)), 0)
    return Layout((*first.specs, ArraySpec((), np.dtype(np.float32))), rows), Structure(tree)


def _chunk_rows(rows: int, lane_count: int, recipe: Recipe, first: Probe) -> int:
    """Rows that a lane takes at a time: few, so that all lanes work on the first batch; many where rows are cheap."""
    share = -(-rows // max(1, lane_count))
    if recipe.source is not None and not recipe.stages and not first.scratch_bytes:
        # Arrays are gathered by one call, which must not be cut so small that the call itself costs more than the rows.
        worth = max(1, (1 << 18) // max(1, sum(spec.nbytes for spec in first.specs)))
        return min(rows, max(share, worth))
    if recipe.source is None:
        # What a generator gave waits in memory of its own until a lane takes it.
        return min(share, _CHUNK_ROWS, max(1, _WAITING_BYTES // max(1, first.raw_bytes)))
    return min(share, _CHUNK_ROWS)


def _large_wanted_bytes(recipe: Recipe) -> int:
    options = recipe.image_options
    if options is None:
        return 0
    # The file itself is in scratch too; it takes at most about a tenth of the picture that it holds.
    return options.scratch_bytes(options.max_pixels) * 11 // 10


def _steps(source: Source | Sequential, batch: Batch, whole: bool) -> int | None:
    length = source.length if isinstance(source, Sequential) else len(source)
    if length is None or whole:
        return length
    steps = length // batch.size if batch.last == "drop" else -(-length // batch.size)
    if steps == 0:
        raise PlanError(f'last="drop" leaves no batch of {batch.size}: a pass has {length} samples.')
    return steps


def _sample_count(source: Source | Sequential, operations: Sequence[Operation], whole: bool) -> int | None:
    if whole:
        return None
    return source.length if isinstance(source, Sequential) else sample_order(source, operations).count
