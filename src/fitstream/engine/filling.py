"""The work of a lane on a random-access source: give free slots their batch, fill chunks of rows.

Lanes of a sequential source do the same work on chunks that the reading lane gave samples.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.engine.board import Board
from fitstream.engine.free_form import Place, fill_free_form, room_for
from fitstream.engine.job import Job
from fitstream.engine.rescue import Filled, Rescue, Work
from fitstream.engine.ring import Slot
from fitstream.engine.tokens import FINE, Chunk, Outcome
from fitstream.failures import RowError
from fitstream.filler import Filler
from fitstream.machine import thread_fault_count

__all__ = ["Filling", "Progress", "fill_chunk", "fill_rows", "open_slot"]


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
    if plan.free_form:
        index = int(order.rows(slot.pass_index, step).indices[0])
        board.add_chunk(Chunk(slot, run, slot.pass_index, step, 0, 1, index))
        board.finish_part(slot)
        return
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
        place = _SlotPlace(board, slot) if board.plan.free_form else None
        filled = fill_rows(board.job, filler, slot.leaves, chunk, chunk.given, goes_on, place)
    except RowError as failed:
        return Outcome((failed.row, failed.error))
    finally:
        progress.end()
    if board.plan.whole_batches:
        board.set_rows(slot, filled.rows, filled.rows)
    return Outcome(bad=tuple(filled.bad)) if filled.bad else FINE


@final
class _SlotPlace:
    """A slot of this process's ring, for a batch of free form."""

    def __init__(self, board: Board, slot: Slot) -> None:
        self._board, self._slot = board, slot

    @property
    def area(self) -> npt.NDArray[np.uint8]:
        area: npt.NDArray[np.uint8] = self._slot.leaves[0][0]
        return area

    def grow(self, need_bytes: int) -> None:
        self._slot.grow(room_for(need_bytes, self._board.limit_bytes))
        self._board.grown(self._slot)

    def keep(self, batch: Any) -> bool:
        self._slot.kept = batch
        return True


def fill_rows(
    job: Job,
    filler: Filler,
    leaves: Sequence[npt.NDArray[Any]],
    work: Work,
    given: Sequence[Any] | None,
    goes_on: Callable[[int], bool],
    place: Place | None = None,
) -> Filled:
    """Make the samples of some rows: the work of every lane, in whichever process.

    Args:
        job: What is run.
        filler: The lane's own.
        leaves: Arrays of the whole batch.
        work: Which rows.
        given: Raw samples, where the source is sequential.
        goes_on: Called with each row before its sample is made; the rest is left out once it says no.
        place: Where a batch of free form is put, instead of `leaves`.
    Raises:
        RowError: At the first row that fails, as the policy wants it, or that no other sample could be found for.
    """
    if place is not None:
        goes_on(work.start)
        fill_free_form(filler, place, work.first_index, work.pass_index, None if given is None else given[0])
        return Filled(1, ())
    if job.order is None:
        indices = np.arange(work.first_index, work.first_index + work.row_count, dtype=np.int64)
        passes, draws = np.full(work.row_count, work.pass_index, dtype=np.int64), None
    else:
        whole = job.order.rows(work.pass_index, work.step)
        part = slice(work.start, work.start + work.row_count)
        indices, passes = whole.indices[part], whole.passes[part]
        draws = None if whole.draws is None else whole.draws[part]
    rescue = None if job.policy.on_bad_sample == "raise" else Rescue(job, filler, leaves, work, goes_on)
    try:
        if job.whole_batches or work.attempt:
            goes_on(work.start)
            raw = None if given is None else given[0]
            if rescue is not None:
                return rescue.fill_one(int(indices[0]), int(passes[0]), raw)
            return Filled(filler.fill_whole(leaves, int(indices[0]), int(passes[0]), raw), ())
        on_bad = None if rescue is None else rescue.take_in
        filler.fill(leaves, work.start, indices, passes, given, goes_on, on_bad, draws)
        return Filled(work.row_count, () if rescue is None else rescue.bad)
    finally:
        leaves = ()  # who keeps an error keeps this frame, which must not keep the batch's memory
        if rescue is not None:
            rescue.forget()
