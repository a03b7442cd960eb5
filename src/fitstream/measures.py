"""What a loader counts and measures, and how one delivered batch is told."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, final

from fitstream.errors import SampleError
from fitstream.events import BadSampleFound, BatchDelivered, Event, Observer, PassEnded, PassStarted
from fitstream.plan import Plan
from fitstream.policy import BadSample

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
        changed_count: Reads of files that were changed after the dataset was made.
        copy_count: Batches handed out as copies, because the consumer held all of the ring.
        bad_samples: Those that were skipped or replaced, each once, as they were met first.
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
    changed_count: int
    copy_count: int
    bad_samples: tuple[BadSample, ...]

    def write_bad_samples(self, path: str | os.PathLike[str]) -> None:
        """Write `bad_samples` as a CSV with a header, one line each.

        Raises:
            OSError: If the file can't be written.
        """
        import csv  # late, because only this needs it

        names = [one.name for one in fields(BadSample)]
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([getattr(bad, name) for name in names] for bad in self.bad_samples)

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
        self._bad: dict[tuple[int | None, str | None], BadSample] = {}
        self._bad_counts: dict[int, int] = {}

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """Those that were skipped or replaced, each once."""
        return tuple(self._bad.values())

    def found_bad(self, found: Sequence[BadSample], plan: Plan) -> None:
        """Take in the bad samples of a batch.

        Raises:
            SampleError: If there are more in the pass than the policy allows.
        """
        found = sorted(found, key=lambda bad: bad.row)
        for bad in found:
            if not self._bad:
                done = "left out" if bad.donor_index is None else f"replaced by sample {bad.donor_index}"
                warnings.warn(
                    f"{str(bad).rstrip('.')}. It was {done}, as on_bad_sample={plan.policy.on_bad_sample!r} says. "
                    "This is told once: loader.stats().bad_samples lists all.",
                    RuntimeWarning,
                    stacklevel=5,
                )
            self._bad.setdefault((bad.index, bad.path), bad)
            self.emit(BadSampleFound(bad))
        pass_index = found[0].pass_index
        count = self._bad_counts.get(pass_index, 0) + len(found)
        self._bad_counts = {pass_index: count}  # of older passes nobody asks any more
        total = plan.pass_sample_count
        if total is None:
            total = self.sample_count + count
        if not plan.policy.allows(count, total):
            raise SampleError(
                f"{count:,} of {total:,} samples of pass {pass_index} are bad, more than "
                f"max_bad_fraction={plan.policy.max_bad_fraction:g} allows. The last one: {found[-1].reason}. "
                "loader.stats().bad_samples lists all. Mend them, or raise max_bad_fraction.",
                index=found[-1].index,
                path=found[-1].path,
                stage=found[-1].stage,
            )

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
