"""The work of a lane on a random-access source: give free slots their batch, fill chunks of rows.

Lanes of a sequential source do the same work on chunks that the reading lane gave samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from fitstream.chain import Filler, RowError
from fitstream.engine.board import Board, Chunk
from fitstream.engine.job import Job
from fitstream.engine.ring import Slot
from fitstream.machine import thread_fault_count

__all__ = ["Filling", "Work", "fill_chunk", "fill_rows", "open_slot"]


@final
class Filling:
    """What one lane does with a token.

    Args:
        board: The shared state.
        filler: The lane's own chain.
        on_close: Called when the lane ends.

    Attributes:
        wall_ns: Time spent on chunks.
        cpu_ns: CPU time of it.
        fault_count: Page faults meanwhile.
    """

    def __init__(self, board: Board, filler: Filler, on_close: Callable[[Filling], None] = lambda _: None) -> None:
        self._board = board
        self._on_close = on_close
        self.filler = filler
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
        self._board.finish_part(chunk.slot, self._failure(chunk))

    def _failure(self, chunk: Chunk) -> tuple[int, BaseException] | None:
        board = self._board
        try:
            return fill_chunk(board, self.filler, chunk) if board.current(chunk.run) else None
        finally:
            if chunk.given is not None:
                board.room.release()

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


def fill_chunk(board: Board, filler: Filler, chunk: Chunk) -> tuple[int, BaseException] | None:
    """Fill the rows of one chunk.

    Returns:
        The first row that failed and its error, or None.
    """
    slot, run = chunk.slot, chunk.run
    try:
        rows = fill_rows(board.job, filler, slot.leaves, chunk, chunk.given, lambda: board.current(run))
    except RowError as failed:
        return failed.row, failed.error
    if board.plan.whole_batches:
        board.set_rows(slot, rows, rows)
    return None


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


def fill_rows(
    job: Job,
    filler: Filler,
    leaves: Sequence[npt.NDArray[Any]],
    work: Work,
    given: Sequence[Any] | None,
    wanted: Callable[[], bool],
) -> int:
    """Make the samples of some rows: the work of every lane, in whichever process.

    Args:
        job: What is run.
        filler: The lane's own.
        leaves: Arrays of the whole batch.
        work: Which rows.
        given: Raw samples, where the source is sequential.
        wanted: Asked before each sample; the rest is left out once it says no.
    Returns:
        The rows of the batch, where it comes finished; else those that were asked for.
    Raises:
        RowError: At the first row that fails.
    """
    if job.order is None:
        indices = np.arange(work.first_index, work.first_index + work.row_count, dtype=np.int64)
        passes = np.full(work.row_count, work.pass_index, dtype=np.int64)
    else:
        rows = job.order.rows(work.pass_index, work.step)
        part = slice(work.start, work.start + work.row_count)
        indices, passes = rows.indices[part], rows.passes[part]
    try:
        if job.whole_batches:
            return filler.fill_whole(leaves, int(indices[0]), int(passes[0]), None if given is None else given[0])
        filler.fill(leaves, work.start, indices, passes, given, wanted)
        return work.row_count
    finally:
        leaves = ()  # who keeps an error keeps this frame, which must not keep the batch's memory
