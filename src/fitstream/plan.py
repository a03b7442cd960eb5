"""The plan: what a loader will run, and the proof that it fits the budget.

Reads one sample and starts nothing. All memory that fitstream will allocate is a sum of named integers:

    projected = slots x slot_bytes                 the ring
              + lanes x (lane_bytes + hand_bytes)  kept scratch, samples between two stages
              + large_bytes, once a process        one picture at a time that is too large for a lane's scratch
              + queue_bytes                        raw samples of a generator that wait for a lane
              + index_bytes                        paths, offsets and labels
              + process_bytes                      worker processes: interpreters, functions' results, shared copies

Two slots and one lane are the least; what the budget leaves goes to more slots, then to scratch. A plan whose least sum
exceeds the budget is refused with the settings that would fit, each computed, not guessed (`planning`, `budget`).

What a worker process costs is estimated at first. `refitted` divides anew with what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from fitstream.batching import BatchOrder
from fitstream.budget import Needs, round_up
from fitstream.chain import Recipe
from fitstream.errors import PlanError
from fitstream.operations import Last, MapBatch
from fitstream.packing import unpack_samples
from fitstream.policy import DEFAULT, Policy
from fitstream.sources.base import Sequential, Source
from fitstream.spec import ArraySpec, Layout, Structure, format_bytes

__all__ = ["Plan"]


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
        auto_lanes: Fewer may run, by measurement.
        process_count: Worker processes that there is room for; 0 for threads of this process.
        auto_processes: Lanes start as threads and move to the worker processes by measurement.
        lane_reason: Why that many, and where.
        slot_count: Slots of the ring.
        lane_bytes: Scratch that each lane keeps.
        hand_bytes: Samples between two stages, each lane.
        large_bytes: Scratch for one large picture at a time.
        queue_bytes: Raw samples that wait for a lane.
        process_bytes: All that worker processes cost beyond what their lanes would cost as threads.
        area_bytes: Shared memory for a chunk of a generator's samples.
        room_count: Chunks of a generator's samples that may wait.
        index_bytes: Paths, offsets and labels.
        budget_bytes: What the user allows.
        needs: What the sums were made of.
        policy: What becomes of samples that can't be made.
        finishes: What is done to finished batches, with the places in the dataset's chain.
        padded: Numbers of the leaves that are padded to the longest sample of the batch.
        most_slots: Slots that batches of free form may have; 0 where all batches have the first one's shapes. The ring
            then begins with one small slot, and is as large as the budget and this allow once a batch is there.
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
    auto_lanes: bool
    process_count: int
    auto_processes: bool
    lane_reason: str
    slot_count: int
    lane_bytes: int
    hand_bytes: int
    large_bytes: int
    queue_bytes: int
    process_bytes: int
    area_bytes: int
    room_count: int
    index_bytes: int
    budget_bytes: int
    needs: Needs
    policy: Policy = DEFAULT
    finishes: tuple[tuple[int, MapBatch], ...] = ()
    most_slots: int = 0
    padded: tuple[int, ...] = ()

    @property
    def free_form(self) -> bool:
        """Whether batches are of any tree, shapes and sizes."""
        return self.most_slots > 0

    @property
    def ring_bytes(self) -> int:
        """What the budget leaves for the ring."""
        return self.budget_bytes - (self.projected_bytes - self.slot_count * self.layout.slot_bytes)

    @property
    def projected_bytes(self) -> int:
        """All that fitstream will allocate, at most."""
        lanes = max(1, self.lane_count)
        scratch = lanes * (self.lane_bytes + self.hand_bytes) + max(1, self.process_count) * self.large_bytes
        return self.kept_bytes + scratch + self.process_bytes

    @property
    def kept_bytes(self) -> int:
        """What the main process holds wherever the lanes are: the ring, the index, waiting samples."""
        return self.slot_count * self.layout.slot_bytes + self.queue_bytes + self.index_bytes

    @property
    def calls_functions(self) -> bool:
        """Whether code of the user's makes samples."""
        return self.recipe.calls_functions

    def costing(self, worker_bytes: int, shared_bytes: int) -> Plan:
        """The same division of the budget, with what worker processes were found to cost while it runs."""
        needs = replace(self.needs, worker_bytes=worker_bytes, shared_bytes=shared_bytes)
        return replace(self, needs=needs, process_bytes=needs.process_bytes(self.lane_count, self.process_count))

    def refitted(self, worker_bytes: int, shared_bytes: int) -> Plan:
        """The budget divided anew with what a worker process, and all that they share, was found to cost.

        Raises:
            PlanError: If it doesn't fit the budget.
        """
        plan = self.costing(worker_bytes, shared_bytes)
        if self.free_form:
            plan.check_ring()
            return plan
        fitted = plan.needs.fit(self.lane_count, self.process_count, fixed=True)
        # fmt: off
        return replace(
            plan, slot_count=fitted.slot_count, lane_bytes=fitted.lane_bytes, large_bytes=fitted.large_bytes,
        )
        # fmt: on

    def check_ring(self) -> None:
        """See whether a ring of free form can begin.

        Raises:
            PlanError: If not.
        """
        if self.ring_bytes < 2 * self.layout.slot_bytes:
            needed = self.projected_bytes + self.layout.slot_bytes
            why, instead = "there is", ""
            if self.process_count:
                why = f"{self.process_count} worker processes take {format_bytes(self.process_bytes)}, which leaves"
                instead = "fewer workers, threads, or "
            raise PlanError(
                f"{why} no room for batches in memory={format_bytes(self.budget_bytes)}. "
                f'Use {instead}memory >= "{round_up(needed)}".',
                needed_bytes=needed,
            )

    @property
    def batch_spec(self) -> Any:
        """Tree of `ArraySpec` of a batch; its first axis is None where batches vary in size."""
        constant = self.order.constant if self.order is not None else self.last in ("drop", "pad")
        shrinks = self.policy.on_bad_sample == "skip" and self.last != "pad"
        rows = self.batch_size if constant and not shrinks and not self.whole_batches else None
        specs = [spec.batched(rows) for spec in self.layout.specs]
        for number in self.padded + ((len(specs) - 2,) if self.padded and self.mask else ()):
            specs[number] = ArraySpec((rows, None, *specs[number].shape[2:]), specs[number].dtype)
        return self.batch_structure.build(specs)

    def build(self, leaves: Sequence[Any], kept: Any = None) -> Any:
        """The batch whose arrays lie in a slot.

        Args:
            leaves: The slot's.
            kept: A batch of free form that has no form in bytes.
        """
        if not self.free_form:
            return self.batch_structure.build(leaves)
        return unpack_samples(leaves[0][0])[0] if kept is None else kept

    @property
    def pass_sample_count(self) -> int | None:
        """Samples, or finished batches, of a pass that this rank gets, about; None where unknown."""
        if self.whole_batches or self.sample_count is None:
            return self.steps
        return self.sample_count // self.needs.ranks

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
        processes = max(1, plan.process_count)
        turn = "one at a time" if processes == 1 else f"one in each of {processes} processes"
        what = "samples"
        if plan.largest_pixels is not None:
            what, turn = "pictures", f"{turn}, in full up to {plan.largest_pixels / 1e6:.3g} Mpx"
        rows.append((f"large {what}", turn, processes * plan.large_bytes))
    if plan.hand_bytes:
        rows.append(("samples in hand", f"{lanes} x {format_bytes(plan.hand_bytes)}", lanes * plan.hand_bytes))
    if plan.queue_bytes:
        rows.append(("waiting samples", "read from the generator, not yet mapped", plan.queue_bytes))
    if plan.process_bytes:
        when = "if measurements call for them" if plan.auto_processes else "with what they share"
        rows.append(("processes", f"{plan.process_count}, {when}", plan.process_bytes))
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
