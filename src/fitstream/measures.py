"""What a loader counts and measures, and how one delivered batch is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from fitstream.events import BatchDelivered, Event, Observer, PassEnded, PassStarted

__all__ = ["Delivered", "Meter", "Stats"]


@final
@dataclass(frozen=True, slots=True)
class Delivered:
    """One batch and where it stands.

    Attributes:
        batch: Tree of arrays `(batch, ...)`, valid as long as any of them is held.
        pass_index: The pass, from 0.
        step: The batch's place in the pass, from 0.
        sample_count: Real samples in it, padding left out.
        last_of_pass: Whether the pass ends with it; False where that isn't known yet.
    """

    batch: Any
    pass_index: int
    step: int
    sample_count: int
    last_of_pass: bool


@final
@dataclass(frozen=True, slots=True)
class Stats:
    """What a loader measured so far.

    Attributes:
        pass_index: The pass of the last delivered batch.
        step: Its place in the pass.
        batch_count: Batches delivered.
        sample_count: Samples delivered.
        elapsed_s: Seconds since the first batch was asked for, pauses between streams left out.
        waited_s: Seconds of them that the consumer waited for batches.
        peak_bytes: Most memory that fitstream held: ring, scratch, index, waiting samples as accounted for, and
            worker processes as measured.
        projected_bytes: What the plan allowed for that.
        budget_bytes: What the user allowed.
        lane_count: Lanes now; 0 where the calling thread does the work.
        process_count: Worker processes that hold them; 0 for threads of this process.
        reason: Why that many lanes, and there, in words.
        fallback_count: JPEG files that the fast decoder refused and Pillow read.
        copy_count: Batches handed out as copies, because the consumer held all of the ring.
    """

    pass_index: int
    step: int
    batch_count: int
    sample_count: int
    elapsed_s: float
    waited_s: float
    peak_bytes: int
    projected_bytes: int
    budget_bytes: int
    lane_count: int
    process_count: int
    reason: str
    fallback_count: int
    copy_count: int

    @property
    def samples_per_s(self) -> float:
        """Samples delivered per second."""
        return self.sample_count / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def waited_share(self) -> float:
        """Share of the time that the consumer waited for data, from 0 to 1."""
        return self.waited_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


@final
class Meter:
    """Counts what was delivered. Written by the consumer's thread, read by any."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self.pass_index = self.step = self.batch_count = self.sample_count = 0
        self.elapsed_s = self.waited_s = 0.0
        self._since: float | None = None
        self._pass_batches = self._pass_samples = 0

    def asked(self) -> float:
        now = time.perf_counter()
        if self._since is not None:
            self.elapsed_s += now - self._since
        self._since = now
        return now

    def got(self, delivered: Delivered, asked: float) -> None:
        now = time.perf_counter()
        self.elapsed_s += now - asked
        self.waited_s += now - asked
        self._since = now
        self.pass_index, self.step = delivered.pass_index, delivered.step
        self.batch_count += 1
        self.sample_count += delivered.sample_count
        if not self._observers:
            return
        if delivered.step == 0:
            self._pass_batches = self._pass_samples = 0
            self.emit(PassStarted(delivered.pass_index))
        self._pass_batches += 1
        self._pass_samples += delivered.sample_count
        self.emit(BatchDelivered(delivered.pass_index, delivered.step, delivered.sample_count, now - asked))
        if delivered.last_of_pass:
            self.emit(PassEnded(delivered.pass_index, self._pass_batches, self._pass_samples))

    def pause(self) -> None:
        self._since = None

    def emit(self, event: Event) -> None:
        for observer in self._observers:
            observer.on_event(event)
