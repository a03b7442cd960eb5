"""Kept scratch memory: one arena a lane, and one allowance for pictures too large for it.

Allocating and freeing half a megabyte for each picture costs as much as decoding it (page faults, and threads that
fight over the address space). So each lane keeps one block and cuts it anew for each sample. The block is bounded by
the plan. A sample that needs more takes the loader's single large allowance: one lane at a time, freed right after, so
that the worst case stays a sum that the plan has done: lanes x lane_bytes + large_bytes.

Memory that a library allocates for itself (Pillow) is not cut from the block but charged against the same limits.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import final

import numpy as np
import numpy.typing as npt

from fitstream.spec import aligned, format_bytes

__all__ = ["Allowance", "Arena", "TooLarge"]


class TooLarge(Exception):
    """One sample needs more scratch memory than the budget leaves; the message says how much would do."""


@final
class Allowance:
    """What all lanes of one loader share: the limits, and the right to go beyond a lane's own.

    Args:
        lane_bytes: Kept by each lane.
        large_bytes: May be used by one lane at a time, on top.
        budget_bytes: The user's budget, to compute the advice in errors.
        suggest: Gives a budget that leaves so many bytes for one sample; None where the budget is scratch alone.
    """

    def __init__(
        self, lane_bytes: int, large_bytes: int, budget_bytes: int, suggest: Callable[[int], int] | None = None
    ) -> None:
        self.lane_bytes = lane_bytes
        self.large_bytes = large_bytes
        self.budget_bytes = budget_bytes
        self._suggest = suggest
        self.large_lock = threading.Lock()
        self.large_peak_bytes = 0

    def refuse(self, need_bytes: int) -> TooLarge:
        suggested = self.budget_bytes + need_bytes - self.large_bytes
        if self._suggest is not None:
            suggested = self._suggest(need_bytes)
        return TooLarge(
            f"it needs {format_bytes(need_bytes)} of scratch memory at once, but the budget leaves "
            f"{format_bytes(max(self.lane_bytes, self.large_bytes))} for one sample. "
            f'Use memory >= "{-(-suggested // 10**6)} MB".'
        )


@final
class Arena:
    """One lane's scratch. Everything taken is valid until the next `reset`."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        # Pages that are never touched cost nothing, so the whole limit can be reserved at once and never moves. NumPy
        # would ask for huge pages, of which one touched byte takes 2 MB.
        self._block = np.frombuffer(mmap.mmap(-1, max(1, aligned(allowance.lane_bytes))), np.uint8)
        self._used = 0
        self._large_used = 0
        self.peak_bytes = 0

    def take(self, count_bytes: int) -> npt.NDArray[np.uint8]:
        """Cut memory, 64-byte aligned, uninitialised.

        Returns:
            uint8 array of `count_bytes`.
        Raises:
            TooLarge: If neither the arena nor the large allowance can hold it.
        """
        need = aligned(count_bytes)
        if self._used + need <= self._allowance.lane_bytes:
            start = self._used
            self._used += need
            self.peak_bytes = max(self.peak_bytes, self._used)
            return self._block[start : start + count_bytes]
        self._charge_large(need)
        return np.empty(count_bytes, np.uint8)

    def charge(self, count_bytes: int) -> None:
        """Account for memory that a library allocates for itself until the next `reset`.

        Raises:
            TooLarge: As `take` does.
        """
        need = aligned(count_bytes)
        if self._used + need <= self._allowance.lane_bytes:
            self._used += need
            self.peak_bytes = max(self.peak_bytes, self._used)
        else:
            self._charge_large(need)

    def _charge_large(self, need: int) -> None:
        allowance = self._allowance
        if self._large_used + need > allowance.large_bytes:
            raise allowance.refuse(self._large_used + need)
        if self._large_used == 0:
            # The holder is a lane inside one sample's decoding, which always ends in `reset`.
            allowance.large_lock.acquire()
        self._large_used += need
        allowance.large_peak_bytes = max(allowance.large_peak_bytes, self._large_used)

    def reset(self) -> None:
        """Give everything back; call it after each sample, also after one that failed."""
        self._used = 0
        if self._large_used:
            self._large_used = 0
            self._allowance.large_lock.release()

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *exception: object) -> None:
        self.reset()
