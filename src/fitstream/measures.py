"""What a loader counts and measures, and how one delivered batch is told."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, final

from fitstream.chain import Tally
from fitstream.errors import SampleError
from fitstream.events import (
    BadSampleFound,
    BatchDelivered,
    Event,
    MemoryExceeded,
    Observer,
    PassEnded,
    PassStarted,
    checked_observers,
)
from fitstream.plan import Plan
from fitstream.policy import BadSample
from fitstream.sources.base import Source
from fitstream.spec import format_bytes

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
    """Counts what was delivered. Written by the consumer's thread, read by any.

    Args:
        observers: Told of each event.
    Raises:
        PlanError: If something can't be told.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = checked_observers(observers)
        self.pass_index = self.step = self.batch_count = self.sample_count = 0
        self.elapsed_s = self.waited_s = 0.0
        self._since: float | None = None
        self._pass = -1
        self._pass_batches = self._pass_samples = 0
        self._bad: dict[tuple[int | None, str | None], BadSample] = {}
        #: Steps and rows of the bad samples of the pass: what is met again when it is run again counts once.
        self._bad_rows: set[tuple[int, int]] = set()
        self._told_changed = self._told_exceeded = self._exceeded = False

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """Those that were skipped or replaced, each once."""
        return tuple(self._bad.values())

    def begin(self, pass_index: int, step: int) -> None:
        """The batch of a step is there."""
        if pass_index != self._pass:
            self._bad_rows.clear()
        if pass_index != self._pass or step == 0:
            self._pass, self._pass_batches, self._pass_samples = pass_index, 0, 0
            self.emit(PassStarted(pass_index))

    def end(self, *, last_of_pass: bool) -> None:
        """It was delivered, or left out."""
        if last_of_pass:
            self.emit(PassEnded(self._pass, self._pass_batches, self._pass_samples))

    def tell(self, tally: Tally, peak_bytes: int, plan: Plan) -> None:
        """Warn, once of each, of files that were changed while they were in use, and of functions that take too much.

        Args:
            tally: What the lanes counted.
            peak_bytes: The most that the ring and the lanes took.
            plan: What runs.
        """
        if tally.changed_count and not self._told_changed:
            self._told_changed = True
            path = plan.source.path(tally.changed_index) if isinstance(plan.source, Source) else None
            warnings.warn(
                f"Files were changed after the dataset was made, {path or f'sample {tally.changed_index}'} for one "
                f"({tally.changed_count:,} reads so far). Batches hold what the files hold now, so a pass may differ "
                "from the one before. Make the dataset anew when the files are final.",
                RuntimeWarning,
                stacklevel=5,
            )
        peak_bytes += plan.index_bytes + plan.queue_bytes
        if self._exceeded and peak_bytes > plan.budget_bytes and not self._told_exceeded:
            self._told_exceeded = True
            warnings.warn(
                f"Worker processes took more memory than planned: {format_bytes(peak_bytes)} in all, where "
                f"{format_bytes(plan.projected_bytes)} were planned and memory= allows "
                f"{format_bytes(plan.budget_bytes)}. What functions keep, and libraries that they import late, "
                "can't be planned. Give more memory, fewer processes=, or processes=0; loader.stats() has the peak.",
                RuntimeWarning,
                stacklevel=5,
            )

    def found_bad(self, found: Sequence[BadSample], row_count: int, plan: Plan) -> None:
        """Take in the bad samples of a batch.

        Args:
            found: The bad samples.
            row_count: Rows that the batch is left with.
            plan: What runs.
        Raises:
            SampleError: If there are more in the pass than the policy allows, or one rank of several is left without a
                batch, so that it would take fewer steps.
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
        self._bad_rows.update((bad.step, bad.row) for bad in found)
        count, total = len(self._bad_rows), plan.pass_sample_count
        if total is None:
            total = count + (self._pass_batches if plan.whole_batches else self._pass_samples)
        if not plan.policy.allows(count, total):
            raise SampleError(
                f"{count:,} of {total:,} samples of pass {found[0].pass_index} are bad, more than "
                f"max_bad_fraction={plan.policy.max_bad_fraction:g} allows. The last one: "
                f"{found[-1].reason.rstrip('.')}. loader.stats().bad_samples lists all. Mend them, or raise "
                "max_bad_fraction.",
                index=found[-1].index,
                path=found[-1].path,
                stage=found[-1].stage,
            )
        if row_count == 0 and plan.needs.ranks > 1:
            raise SampleError(
                f"all samples of this rank's part of batch {found[0].step} are bad, and to leave it out would give "
                'this rank fewer steps than the others. Use on_bad_sample="replace", or last="pad". The first one: '
                f"{found[0].reason}",
                index=found[0].index,
                path=found[0].path,
                stage=found[0].stage,
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
        self._pass_batches += 1
        self._pass_samples += delivered.sample_count
        if self._observers:
            self.emit(BatchDelivered(delivered.pass_index, delivered.step, delivered.sample_count, now - asked))
        self.end(last_of_pass=delivered.last_of_pass)

    def pause(self) -> None:
        self._since = None

    def emit(self, event: Event) -> None:
        # Of the pool's thread, where a warning would reach nobody; and more may be taken later.
        self._exceeded = self._exceeded or isinstance(event, MemoryExceeded)
        for observer in self._observers:
            observer.on_event(event)
