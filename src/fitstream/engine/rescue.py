"""What a lane does about samples that can't be made, where the policy isn't to raise: record them, draw others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, final

import numpy.typing as npt

from fitstream.engine.job import Job
from fitstream.errors import SampleError
from fitstream.failures import RowError
from fitstream.filler import Filler
from fitstream.policy import BadSample

__all__ = ["MOST_DONORS", "Filled", "Rescue", "Work"]

#: How many samples are drawn to take a bad one's place, before that is given up.
MOST_DONORS = 10


class Work(Protocol):
    """Which rows of which batch: what a `Chunk` says, and a message to a worker process."""

    @property
    def pass_index(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def row_count(self) -> int: ...
    @property
    def first_index(self) -> int: ...
    @property
    def attempt(self) -> int: ...


class Filled(NamedTuple):
    """What became of some rows.

    Attributes:
        rows: Rows of the batch, where it comes finished; else those that were asked for.
        bad: Samples that were skipped or replaced.
    """

    rows: int
    bad: Sequence[BadSample]


@final
class Rescue:
    """The bad samples of one chunk.

    Args:
        job: What is run.
        filler: The lane's own.
        leaves: Arrays of the whole batch.
        work: Which rows.
        goes_on: As in `fill_rows`; called with a row before another sample is tried there.

    Attributes:
        bad: What was skipped or replaced so far.
    """

    def __init__(
        self,
        job: Job,
        filler: Filler,
        leaves: Sequence[npt.NDArray[Any]],
        work: Work,
        goes_on: Callable[[int], bool],
    ) -> None:
        self.bad: list[BadSample] = []
        self._job, self._filler, self._leaves, self._work, self._goes_on = job, filler, leaves, work, goes_on
        self._rows = work.row_count

    def fill_one(self, index: int, pass_index: int, given: Any) -> Filled:
        """Place one finished batch; or the sample that takes the place of one that is known to be bad."""
        work = self._work
        if work.attempt:
            # The main process knows what is the matter with it.
            self.take_in(work.start, pass_index, SampleError("", index=index))
            return Filled(self._rows, self.bad)
        try:
            self._rows = self._filler.fill_whole(self._leaves, index, pass_index, given)
        except RowError as failed:
            self._rows = 0
            self.take_in(0, pass_index, failed.error)
        return Filled(self._rows, self.bad)

    def take_in(self, row: int, pass_index: int, error: SampleError) -> None:
        """Record a bad sample, and find another for its row if that is wanted.

        Raises:
            RowError: If none of those that are drawn can be made.
        """
        work = self._work
        donor = self._replace(row, pass_index, error) if self._job.policy.on_bad_sample == "replace" else None
        self.bad.append(BadSample.of(error, work.pass_index, work.step, row, donor))

    def _replace(self, row: int, pass_index: int, error: SampleError) -> int:
        work, order = self._work, self._job.order
        assert order is not None
        last: SampleError | None = None
        for attempt in range(max(1, work.attempt), MOST_DONORS + 1):
            self._goes_on(row)
            donor = order.donor(pass_index, work.step, row, attempt)
            last = self._place(row, donor, pass_index)
            if last is None:
                return donor
        reason = f"{error.reason}. None of {MOST_DONORS} samples drawn to replace it could be made, the last of them: "
        told = SampleError(f"{reason}{last}", index=error.index, path=error.path, stage=error.stage)
        raise RowError(row, told)

    def _place(self, row: int, index: int, pass_index: int) -> SampleError | None:
        if not self._job.whole_batches:
            return self._filler.fill_row(self._leaves, row, index, pass_index)
        try:
            self._rows = self._filler.fill_whole(self._leaves, index, pass_index)
        except RowError as failed:
            return failed.error
        return None

    def forget(self) -> None:
        """Let go of the batch's memory, which an error's frames may keep alive otherwise."""
        self._leaves = ()
