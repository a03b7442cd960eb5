"""The work of a lane on a random-access source: give free slots their batch, fill chunks of rows.

Lanes of a sequential source do the same work on chunks that the reading lane gave samples.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from fitstream.chain import Filler
from fitstream.engine.board import FINE, Board, Chunk, Outcome
from fitstream.engine.job import Job
from fitstream.engine.ring import Slot
from fitstream.errors import SampleError
from fitstream.failures import RowError
from fitstream.machine import thread_fault_count
from fitstream.policy import BadSample

__all__ = ["MOST_DONORS", "Filled", "Filling", "Progress", "Work", "fill_chunk", "fill_rows", "open_slot"]

#: How many samples are drawn to take a bad one's place, before that is given up.
MOST_DONORS = 10


@final
class Progress:
    """What a lane in a thread is at, for whoever watches it. Only the lane writes it, and nobody waits for it.

    Attributes:
        work: The rows that it fills, or None for what belongs to no batch yet.
        row: The one that it is at, or None while rows are read together.
        since_ns: When it began with that, by the monotonic clock; 0 while it has nothing to do.
    """

    __slots__ = ("row", "since_ns", "work")

    def __init__(self) -> None:
        self.work: Chunk | None = None
        self.row: int | None = None
        self.since_ns = 0

    def begin(self, work: Chunk | None = None) -> None:
        """Something begins that may take long."""
        self.work, self.row = work, None
        self.since_ns = time.monotonic_ns()

    def end(self) -> None:
        """It is done."""
        self.since_ns, self.work = 0, None


@final
class Filling:
    """What one lane does with a token.

    Args:
        board: The shared state.
        filler: The lane's own chain.
        on_close: Called when the lane ends.

    Attributes:
        progress: What it is at.
        thread: The lane's thread.
        wall_ns: Time spent on chunks.
        cpu_ns: CPU time of it.
        fault_count: Page faults meanwhile.
    """

    def __init__(self, board: Board, filler: Filler, on_close: Callable[[Filling], None] = lambda _: None) -> None:
        self._board = board
        self._on_close = on_close
        self.filler = filler
        self.progress = Progress()
        self.thread = threading.current_thread()
        self.wall_ns = self.cpu_ns = self.fault_count = 0

    def work(self, token: Any) -> None:
        if isinstance(token, Slot):
            open_slot(self._board, token)
        else:
            wall_ns, cpu_ns, faults = time.perf_counter_ns(), time.thread_time_ns(), thread_fault_count()
            self._fill(token)
            self.wall_ns += time.perf_counter_ns() - wall_ns
            self.cpu_ns += time.thread_time_ns() - cpu_ns
            self.fault_count += thread_fault_count() - faults

    def _fill(self, chunk: Chunk) -> None:
        # The failure is no variable of a frame that it refers to: the cycle would keep the batch's memory.
        self._board.finish_chunk(chunk, self._outcome(chunk))

    def _outcome(self, chunk: Chunk) -> Outcome:
        board = self._board
        return fill_chunk(board, self.filler, chunk, self.progress) if board.current(chunk.run) else FINE

    def close(self) -> None:
        self.filler.chain.close()
        self._on_close(self)


def open_slot(board: Board, slot: Slot) -> None:
    """Give a free slot the next batch of a random-access source, and hand its rows out as chunks."""
    plan, order = board.plan, board.plan.order
    assert order is not None
    begun = board.begin(slot)
    if begun is None:
        return
    run, number = begun
    passes, step = divmod(run.first_step + number, order.steps)
    slot.pass_index, slot.step = run.first_pass + passes, step
    slot.last_of_pass = step == order.steps - 1
    real, count = order.row_counts(step)
    if not plan.whole_batches:
        board.set_rows(slot, real, count)
    for start in range(0, real, plan.chunk_rows):
        board.add_chunk(Chunk(slot, run, slot.pass_index, step, start, min(plan.chunk_rows, real - start)))
    board.finish_part(slot)


def fill_chunk(board: Board, filler: Filler, chunk: Chunk, progress: Progress) -> Outcome:
    """Fill the rows of one chunk in this process.

    Returns:
        The first row that failed and its error, or what was skipped or replaced.
    """
    slot, run = chunk.slot, chunk.run

    def goes_on(row: int) -> bool:
        progress.row = row
        progress.since_ns = time.monotonic_ns()
        return board.run is run and not board.closed

    progress.begin(chunk)
    try:
        filled = fill_rows(board.job, filler, slot.leaves, chunk, chunk.given, goes_on)
    except RowError as failed:
        return Outcome((failed.row, failed.error))
    finally:
        progress.end()
    if board.plan.whole_batches:
        board.set_rows(slot, filled.rows, filled.rows)
    return Outcome(bad=tuple(filled.bad))


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


@final
@dataclass(frozen=True, slots=True)
class Filled:
    """What became of some rows.

    Attributes:
        rows: Rows of the batch, where it comes finished; else those that were asked for.
        bad: Samples that were skipped or replaced.
    """

    rows: int
    bad: Sequence[BadSample]


def fill_rows(
    job: Job,
    filler: Filler,
    leaves: Sequence[npt.NDArray[Any]],
    work: Work,
    given: Sequence[Any] | None,
    goes_on: Callable[[int], bool],
) -> Filled:
    """Make the samples of some rows: the work of every lane, in whichever process.

    Args:
        job: What is run.
        filler: The lane's own.
        leaves: Arrays of the whole batch.
        work: Which rows.
        given: Raw samples, where the source is sequential.
        goes_on: Called with each row before its sample is made; the rest is left out once it says no.
    Raises:
        RowError: At the first row that fails, as the policy wants it, or that no other sample could be found for.
    """
    rows = _Rows(job, filler, leaves, work, goes_on)
    if job.order is None:
        indices = np.arange(work.first_index, work.first_index + work.row_count, dtype=np.int64)
        passes = np.full(work.row_count, work.pass_index, dtype=np.int64)
    else:
        whole = job.order.rows(work.pass_index, work.step)
        part = slice(work.start, work.start + work.row_count)
        indices, passes = whole.indices[part], whole.passes[part]
    on_bad = rows.take_in if job.policy.on_bad_sample != "raise" else None
    try:
        if work.attempt:
            told = SampleError("", index=int(indices[0]))  # the main process knows what is the matter with it
            rows.take_in(work.start, int(passes[0]), told)
        elif job.whole_batches:
            rows.fill_whole(int(indices[0]), int(passes[0]), None if given is None else given[0], on_bad)
        else:
            filler.fill(leaves, work.start, indices, passes, given, goes_on, on_bad)
        return Filled(rows.count, rows.bad)
    finally:
        leaves = ()  # who keeps an error keeps this frame, which must not keep the batch's memory
        rows.forget()


@final
class _Rows:
    """The rows of one chunk, and what is done about samples that can't be made."""

    def __init__(
        self,
        job: Job,
        filler: Filler,
        leaves: Sequence[npt.NDArray[Any]],
        work: Work,
        goes_on: Callable[[int], bool],
    ) -> None:
        self.bad: list[BadSample] = []
        self.count = work.row_count
        self._job, self._filler, self._leaves, self._work, self._goes_on = job, filler, leaves, work, goes_on

    def fill_whole(
        self, index: int, pass_index: int, given: Any, on_bad: Callable[[int, int, SampleError], None] | None
    ) -> None:
        """Place one finished batch."""
        self._goes_on(0)
        try:
            self.count = self._filler.fill_whole(self._leaves, index, pass_index, given)
        except RowError as failed:
            if on_bad is None:
                raise
            self.count = 0
            on_bad(0, pass_index, failed.error)

    def take_in(self, row: int, pass_index: int, error: SampleError) -> None:
        """Record a bad sample, and find another for its row if that is wanted."""
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
            self.count = self._filler.fill_whole(self._leaves, index, pass_index)
        except RowError as failed:
            return failed.error
        return None

    def forget(self) -> None:
        """Let go of the batch's memory, which an error's frames may keep alive otherwise."""
        self._leaves = ()
