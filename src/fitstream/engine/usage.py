"""What worker processes take of memory, measured while there is work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from fitstream.engine.process import Process
from fitstream.events import MemoryExceeded
from fitstream.machine import private_bytes
from fitstream.plan import Plan

__all__ = ["Usage"]

#: How often it is measured.
_MEASURE_S = 0.25


@final
class Usage:
    """The memory of the workers of one pool.

    Attributes:
        peak_bytes: The most that was measured, of all.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._measured_s = 0.0
        self._told = False

    def look(self, plan: Plan, processes: Sequence[Process], shared_bytes: int) -> MemoryExceeded | None:
        """Add up the memory of the workers, if it is time to.

        Args:
            plan: What they may take.
            processes: All of them.
            shared_bytes: What they share besides slots.
        Returns:
            What is to be told, once, if it is more than was planned.
        """
        now_s = time.monotonic()
        if now_s - self._measured_s < _MEASURE_S:
            return None
        self._measured_s = now_s
        private = sum(private_bytes(process.pid) for process in processes)
        self.peak_bytes = max(self.peak_bytes, private + shared_bytes)
        measured = self.peak_bytes + plan.kept_bytes
        if measured <= plan.projected_bytes or self._told:
            return None
        self._told = True
        return MemoryExceeded(measured, plan.projected_bytes)
