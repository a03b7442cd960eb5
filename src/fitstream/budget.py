"""The arithmetic of memory: divides a budget among slots and scratch, or refuses with settings that would fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from fitstream.errors import PlanError
from fitstream.spec import Layout, aligned, format_bytes

__all__ = ["Fitted", "Needs"]

#: More slots than this gain nothing for large batches; small batches get more, up to a ring of `_SMALL_RING_BYTES`.
_SLOTS, _MOST_SLOTS, _SMALL_RING_BYTES = 4, 16, 16_000_000
#: The least and the usual scratch of a lane that decodes pictures.
_LEAST_LANE_BYTES, _USUAL_LANE_BYTES = 1 << 17, 1 << 21


@final
@dataclass(frozen=True, slots=True)
class Fitted:
    """How a budget was divided."""

    lane_count: int
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
        large_wanted_bytes: Scratch that the largest allowed picture would take.
        hand_bytes: Samples between two stages, each lane.
        waiting_bytes: Raw samples of a chunk, where a generator gives them.
        hands_on: Whether other lanes than the generator's own work on them.
        index_bytes: Paths, offsets and labels.
        steps: Batches of a pass, or None where unknown.
        whole: Batches come finished, so that the batch size isn't ours to change.
        ranks: Ranks that share a batch.
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

    def queue_bytes(self, lane_count: int) -> int:
        """Raw samples that may wait: the chunk being read, and if others work on them one a lane and one more."""
        return (lane_count + 2 if self.hands_on and lane_count else 1) * self.waiting_bytes

    def _fixed_bytes(self, lane_count: int) -> int:
        """The least besides slots: each lane's scratch, and once what the first sample took."""
        lanes = max(1, lane_count)
        scratch = lanes * _LEAST_LANE_BYTES + self.scratch_bytes if self.scratch_bytes else 0
        return scratch + lanes * self.hand_bytes + self.queue_bytes(lane_count) + self.index_bytes

    def _least_bytes(self, lane_count: int) -> int:
        return 2 * self.layout.slot_bytes + self._fixed_bytes(lane_count)

    def fit(self, lane_count: int, *, fixed: bool) -> Fitted:
        """Divide the budget.

        Args:
            lane_count: Lanes that are wanted.
            fixed: Whether the user set that number; else fewer lanes are tried.
        Raises:
            PlanError: If two slots and one lane (or the lanes that the user set) don't fit.
        """
        wanted = lane_count
        while self._least_bytes(lane_count) > self.budget_bytes:
            if fixed or lane_count <= 1:
                raise self._refusal(wanted if fixed else lane_count)
            lane_count -= 1
        left = self.budget_bytes - self._least_bytes(lane_count)
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
            large_bytes += max(0, min(left, self.large_wanted_bytes - large_bytes))
        return Fitted(lane_count, 2 + more_slots, lane_bytes, large_bytes)

    def _slots_wanted(self) -> int:
        small = min(_MOST_SLOTS, _SMALL_RING_BYTES // self.layout.slot_bytes)
        wanted = max(_SLOTS, small)
        return wanted if self.steps is None else max(2, min(wanted, self.steps + 1))

    def _refusal(self, lane_count: int) -> PlanError:
        slot, rows = self.layout.slot_bytes, self.layout.rows
        parts = [f"2 slots x {format_bytes(slot)} (batch of {rows} x {format_bytes(slot // rows)})"]
        fixed = self._fixed_bytes(lane_count)
        if fixed:
            parts.append(f"{format_bytes(fixed)} for {max(1, lane_count)} lanes, scratch and index")
        least = self._least_bytes(lane_count)
        advice = []
        fits = max(0, self.budget_bytes - fixed) // 2 // -(-slot // rows)
        while fits and 2 * Layout(self.layout.specs, fits).slot_bytes + fixed > self.budget_bytes:
            fits -= 1
        if fits >= 1 and not self.whole:
            advice.append(f"a batch size <= {fits * self.ranks}")
        if lane_count > 1 and self._least_bytes(1) <= self.budget_bytes:
            lanes = max(n for n in range(1, lane_count) if self._least_bytes(n) <= self.budget_bytes)
            advice.append(f"workers <= {lanes}")
        advice.append(f'memory >= "{_round_up(least)}"')
        settings = ", or ".join(advice)
        told = self.memory if isinstance(self.memory, str) else format_bytes(self.memory)
        return PlanError(
            f"The plan needs {format_bytes(least)} but memory={told!r}: {' + '.join(parts)}. Use {settings}."
        )


def _round_up(count: int) -> str:
    """A size with at most three digits that is at least `count`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            step = size // 100 if count < 10 * size else size // 10 if count < 100 * size else size
            return f"{-(-count // step) * step / size:g} {unit}"
    return f"{count} B"
