"""The arithmetic of memory: divides a budget among slots and scratch, or refuses with settings that would fit."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import final

from fitstream.errors import PlanError
from fitstream.spec import Layout, aligned, format_bytes

__all__ = ["SHARE_OF_PROCESSES", "Fitted", "Needs", "round_up"]

#: More slots than this gain nothing for large batches; small batches get more, up to a ring of `_SMALL_RING_BYTES`.
_SLOTS, _MOST_SLOTS, _SMALL_RING_BYTES = 4, 16, 16_000_000
#: Rows that are only copied come as fast as memory takes them: a ring that the processor's cache holds is quicker.
_GATHER_SLOTS = 3
#: What worker processes that nobody asked for may take of the budget, as its divisor.
SHARE_OF_PROCESSES = 3
#: The least and the usual scratch of a lane that decodes pictures.
_LEAST_LANE_BYTES, _USUAL_LANE_BYTES = 1 << 17, 1 << 21


@final
@dataclass(frozen=True, slots=True)
class Fitted:
    """How a budget was divided."""

    lane_count: int
    process_count: int
    slot_count: int
    lane_bytes: int
    large_bytes: int


@final
@dataclass(frozen=True, slots=True)
class Needs:
    """What a dataset needs of memory.

    Attributes:
        layout: Of one batch.
        budget_bytes: What the user allows.
        memory: The same as the user wrote it.
        scratch_bytes: Scratch that the first sample took; 0 where no scratch is used.
        large_wanted_bytes: Scratch that the largest allowed picture would take, or the longest line.
        hand_bytes: Samples between two stages, each lane.
        waiting_bytes: Raw samples of a chunk, where a generator gives them.
        hands_on: Whether other lanes than the generator's own work on them.
        index_bytes: Paths, offsets and labels.
        steps: Batches of a pass, or None where unknown.
        whole: Batches come finished, so that the batch size isn't ours to change.
        ranks: Ranks that share a batch.
        worker_bytes: What a worker process costs before any data.
        result_bytes: What a function of the user's makes at a time.
        shared_bytes: Copies of functions and arrays in memory, for all workers together.
        lane_count: Lanes that are wanted.
        process_count: Worker processes that are wanted.
        fixed_lanes: Whether the user set the number of lanes; else fewer will do.
        fixed_processes: Whether the user set the number of processes; else there may be room for some or not.
        functions: Whether code of the user's makes samples.
    """

    layout: Layout
    budget_bytes: int
    memory: int | str
    scratch_bytes: int
    large_wanted_bytes: int
    hand_bytes: int
    waiting_bytes: int
    hands_on: bool
    index_bytes: int
    steps: int | None
    whole: bool
    ranks: int = 1
    worker_bytes: int = 0
    result_bytes: int = 0
    shared_bytes: int = 0
    lane_count: int = 1
    process_count: int = 0
    fixed_lanes: bool = True
    fixed_processes: bool = True
    functions: bool = False

    def room_count(self, lane_count: int, process_count: int) -> int:
        """Chunks of a generator's raw samples that may wait besides the one being read."""
        if not self.hands_on or not lane_count:
            return 1
        return 1 + lane_count * (2 if process_count else 1)

    def queue_bytes(self, lane_count: int, process_count: int) -> int:
        """Raw samples that may wait: the chunk being read, and if others work on them some for each lane."""
        rooms = self.room_count(lane_count, process_count) + 1 if self.hands_on and lane_count else 1
        return rooms * self.waiting_bytes

    @property
    def area_bytes(self) -> int:
        """Shared memory for a chunk of raw samples: twice the first ones, since samples may differ in size."""
        return aligned(2 * self.waiting_bytes + 4096) if self.waiting_bytes else 0

    def process_bytes(self, lane_count: int, process_count: int) -> int:
        """All that worker processes cost beyond what their lanes would cost as threads."""
        if not process_count:
            return 0
        areas = 2 * lane_count * self.area_bytes
        # A function has its result in hand, and about as much again on the way there.
        functions = 2 * lane_count * self.result_bytes
        return process_count * self.worker_bytes + self.shared_bytes + areas + functions

    def _fixed_bytes(self, lane_count: int, process_count: int) -> int:
        """The least besides slots: each lane's scratch, and once a process what the first sample took."""
        lanes = max(1, lane_count)
        scratch = lanes * _LEAST_LANE_BYTES + max(1, process_count) * self.scratch_bytes if self.scratch_bytes else 0
        rest = lanes * self.hand_bytes + self.queue_bytes(lane_count, process_count) + self.index_bytes
        return scratch + rest + self.process_bytes(lane_count, process_count)

    def _least_bytes(self, lane_count: int, process_count: int) -> int:
        return 2 * self.layout.slot_bytes + self._fixed_bytes(lane_count, process_count)

    def _fits(self, lane_count: int, process_count: int) -> bool:
        return self._least_bytes(lane_count, process_count) <= self.budget_bytes

    def fit(self, lane_count: int, process_count: int, *, fixed: bool) -> Fitted:
        """Divide the budget.

        Args:
            lane_count: Lanes that are wanted.
            process_count: Worker processes that hold them.
            fixed: Whether the user set the number of lanes; else fewer are tried, down to one a process.
        Raises:
            PlanError: If two slots and one lane (or the lanes that the user set) don't fit.
        """
        wanted = lane_count
        while not self._fits(lane_count, process_count):
            if fixed or lane_count <= max(1, process_count):
                raise self._refusal(wanted if fixed else lane_count, process_count)
            lane_count -= 1
        left = self.budget_bytes - self._least_bytes(lane_count, process_count)
        lanes = max(1, lane_count)
        lane_bytes, large_bytes = (_LEAST_LANE_BYTES, self.scratch_bytes) if self.scratch_bytes else (0, 0)
        if self.scratch_bytes:
            usual = max(_USUAL_LANE_BYTES, aligned(2 * self.scratch_bytes))
            for each in (usual, aligned(self.scratch_bytes)):
                extra = lanes * (each - lane_bytes)
                if 0 < extra <= left // 2:
                    lane_bytes, left = each, left - extra
                    break
        more_slots = min(self._slots_wanted() - 2, left // self.layout.slot_bytes)
        left -= more_slots * self.layout.slot_bytes
        if self.scratch_bytes:
            # Each process has an allowance of its own.
            large_bytes += max(0, min(left // max(1, process_count), self.large_wanted_bytes - large_bytes))
        return Fitted(lane_count, process_count, 2 + more_slots, lane_bytes, large_bytes)

    def divide(self) -> Fitted:
        """Divide the budget for what is wanted.

        Worker processes that nobody asked for are given room as far as there is some: where functions are called a
        third of the budget at most; where not, only what threads would leave unused.

        Raises:
            PlanError: As `fit` does.
        """
        fixed = self.fixed_lanes
        if self.fixed_processes or not self.process_count:
            return self.fit(self.lane_count, self.process_count, fixed=fixed)
        threads = self.fit(self.lane_count, 0, fixed=fixed)
        for count in range(self.process_count, 0, -1):
            if self.process_bytes(threads.lane_count, count) > self.budget_bytes // SHARE_OF_PROCESSES:
                continue
            with contextlib.suppress(PlanError):
                fitted = self.fit(self.lane_count, count, fixed=fixed)
                if self.functions or replace(fitted, process_count=0) == threads:
                    return fitted
        return threads

    def suggest_bytes(self, large_bytes: int) -> int:
        """A budget that leaves so much scratch for one sample."""
        budget = max(self.budget_bytes, large_bytes)
        while True:
            budget += budget // 50
            with contextlib.suppress(PlanError):
                fitted = replace(self, budget_bytes=budget).divide()
                if max(fitted.lane_bytes, fitted.large_bytes) >= large_bytes:
                    return budget
            if budget > 100 * (self.budget_bytes + large_bytes):
                return budget  # more than the largest picture that is allowed would take

    def _slots_wanted(self) -> int:
        small = min(_MOST_SLOTS, _SMALL_RING_BYTES // self.layout.slot_bytes)
        gathers = not (self.functions or self.scratch_bytes or self.waiting_bytes)
        wanted = max(_GATHER_SLOTS if gathers else _SLOTS, small)
        return wanted if self.steps is None else max(2, min(wanted, self.steps + 1))

    def _refusal(self, lane_count: int, process_count: int) -> PlanError:
        slot, rows = self.layout.slot_bytes, self.layout.rows
        parts = [f"2 slots x {format_bytes(slot)} (batch of {rows} x {format_bytes(slot // rows)})"]
        workers = self.process_bytes(lane_count, process_count)
        fixed = self._fixed_bytes(lane_count, process_count)
        if fixed > workers:
            parts.append(f"{format_bytes(fixed - workers)} for {max(1, lane_count)} lanes, scratch and index")
        if workers:
            parts.append(f"{format_bytes(workers)} for {process_count} worker processes")
        least = self._least_bytes(lane_count, process_count)
        advice = []
        fits = max(0, self.budget_bytes - fixed) // 2 // -(-slot // rows)
        while fits and 2 * Layout(self.layout.specs, fits).slot_bytes + fixed > self.budget_bytes:
            fits -= 1
        if fits >= 1 and not self.whole:
            advice.append(f"a batch size <= {fits * self.ranks}")
        if process_count and self._fits(lane_count, 0):
            most = max(n for n in range(process_count) if self._fits(lane_count, n))
            advice.append(f"processes <= {most}" if most else "processes=0 for threads")
        fitting = [n for n in range(max(1, process_count), lane_count) if self._fits(n, process_count)]
        if fitting:
            advice.append(f"workers <= {fitting[-1]}")
        advice.append(f'memory >= "{round_up(least)}"')
        settings = ", or ".join(advice)
        told = self.memory if isinstance(self.memory, str) else format_bytes(self.memory)
        return PlanError(
            f"The plan needs {format_bytes(least)} but memory={told!r}: {' + '.join(parts)}. Use {settings}.",
            needed_bytes=least,
        )


def round_up(count: int) -> str:
    """A size with at most three digits that is at least `count`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            step = size // 100 if count < 10 * size else size // 10 if count < 100 * size else size
            return f"{-(-count // step) * step / size:g} {unit}"
    return f"{count} B"
