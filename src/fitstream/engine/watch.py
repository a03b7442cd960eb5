"""Looking after worker processes: who hangs is ended, and how one ended is told.

A worker hangs when a lane is at one sample for longer than the deadline (`marks` tells), when it began nothing of what
it was given for as long, as if it was stopped, or when it doesn't get ready. It is asked for its stack, and killed; the
pool then finds it dead, as any other.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from typing import final

from fitstream.engine.marks import NOTHING, LaneMark, Marks
from fitstream.engine.process import Overdue, Process, told_exit
from fitstream.machine import memory_limit_bytes, oom_kill_count
from fitstream.policy import Policy
from fitstream.spec import format_bytes

__all__ = ["Watch"]

#: How long a worker may take to import what it needs, at least.
_START_S = 60.0
#: How often workers that have work in hand are looked after, at most.
_OFTEN_S = 0.25
#: The same while they have none. What was handed out before lanes moved to them rings no bell when it comes back.
_SELDOM_S = 1.0


@final
class Watch:
    """Looks after the workers of one pool, in the pool's thread.

    Args:
        policy: Says how long a sample may take.
        marks: What lanes are at.
    """

    def __init__(self, policy: Policy, marks: Marks) -> None:
        self._limit_s = policy.sample_timeout_s
        #: How long a worker may take to import what it needs.
        self.start_s = max(_START_S, policy.sample_timeout_s or 0)
        self._often_s = min(_OFTEN_S, (policy.sample_timeout_s or 1) / 8)
        #: Who looks so much later than it meant to was stopped itself, as by Ctrl-Z, or the whole machine was.
        self._late_s = (policy.sample_timeout_s or 2) / 2
        self._marks = marks
        self._looked_s = 0.0
        #: When this process was last found to have been stopped itself.
        self._awake_s = 0.0
        self._oom_kills, self._counted_s = oom_kill_count(), time.monotonic()

    def patience_ms(self, processes: Iterable[Process]) -> float:
        """How long the pool may sleep when it hears nothing."""
        busy = any(process.in_flight or process.state in ("starting", "attaching") for process in processes)
        return 1000 * (self._often_s if busy else _SELDOM_S)

    def look(self, processes: Iterable[Process]) -> None:
        """End those that hang."""
        now_s = time.monotonic()
        if now_s < self._looked_s + self._often_s:
            return
        if now_s - self._looked_s > self._late_s:
            self._awake_s = now_s  # what lanes did meanwhile isn't known yet
        self._looked_s = now_s
        if now_s - self._counted_s > _SELDOM_S and not any(process.gone for process in processes):
            # Who was killed before is not among ours.
            self._oom_kills, self._counted_s = oom_kill_count(), now_s
        for process in processes:
            if process.overdue is None:
                process.overdue = self._overdue(process, now_s)
                if process.overdue is not None:
                    process.kill()

    def _overdue(self, process: Process, now_s: float) -> Overdue | None:
        quiet_s, limit_s = now_s - max(process.heard_s, self._awake_s), self._limit_s
        if process.state in ("starting", "attaching"):
            return Overdue(NOTHING, None, quiet_s, "") if quiet_s > self.start_s else None
        if limit_s is None or not process.in_flight:
            return None
        marks = [mark for mark in self.marks_of(process) if mark.token in process.in_flight]
        spent_s = [now_s - max(mark.since_ns / 1e9, self._awake_s) for mark in marks]
        for mark, after_s in zip(marks, spent_s, strict=True):
            chunk, _ = process.in_flight[mark.token]
            alone = mark.row is not None or chunk.row_count == 1
            if after_s > (limit_s if alone else limit_s * chunk.row_count):
                stack = process.stack(mark.thread)
                # Lanes that stand still together may wait for one of them, which holds the interpreter lock. And who
                # can't tell where it is may have been stopped from outside.
                known = alone and stack and sum(one_s > limit_s / 2 for one_s in spent_s) == 1
                return Overdue(mark.token, mark.row if known else None, after_s, stack)
        return Overdue(NOTHING, None, quiet_s, "") if not marks and quiet_s > limit_s else None

    def marks_of(self, process: Process) -> list[LaneMark]:
        """What its lanes are at, or were when it ended."""
        return [self._marks.read(process.first_lane + i) for i in range(process.lane_count)]

    def clear(self, first_lane: int, lane_count: int) -> None:
        """Forget what the lanes of a worker were at, before another takes its place."""
        for lane in range(first_lane, first_lane + lane_count):
            self._marks.end(lane)

    def forget(self) -> None:
        """Let go of the page."""
        self._marks = Marks.none()

    def how_it_ended(self, process: Process) -> str:
        """How a worker ended, in words. Reaps it."""
        code = process.reap()
        if process.overdue is not None:
            return f"it did nothing for {process.overdue.after_s:.1f} s, and was ended"
        if process.hung_up:
            return "it closed its connection to the main process, and was ended"
        before, self._oom_kills = self._oom_kills, oom_kill_count()
        if code != -signal.SIGKILL or before is None or self._oom_kills is None:
            return told_exit(code)
        if self._oom_kills == before:
            return "it was ended by SIGKILL from outside: the system did not run out of memory"
        return (
            "it was ended by the system's out-of-memory killer: the limit of all processes here together is "
            f"{format_bytes(memory_limit_bytes())}. Let functions hold less, use fewer processes, or a smaller memory="
        )
