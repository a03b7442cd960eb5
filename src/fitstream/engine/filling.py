"""The work of a lane on a random-access source: give free slots their batch, fill chunks of rows.

Lanes of a sequential source do the same work on chunks that the reading lane gave samples.
"""

from __future__ import annotations

from typing import Any, final

from fitstream.chain import Filler, RowError
from fitstream.engine.board import Board, Chunk
from fitstream.engine.ring import Slot

__all__ = ["Filling", "fill_chunk"]


@final
class Filling:
    """What one lane does with a token.

    Args:
        board: The shared state.
        filler: The lane's own chain.
    """

    def __init__(self, board: Board, filler: Filler) -> None:
        self._board = board
        self._filler = filler

    def work(self, token: Any) -> None:
        if isinstance(token, Slot):
            self._open(token)
        else:
            self._fill(token)

    def _open(self, slot: Slot) -> None:
        board, plan = self._board, self._board.plan
        order = plan.order
        assert order is not None
        begun = board.begin(slot)
        if begun is None:
            return
        run, number = begun
        passes, step = divmod(run.first_step + number, order.steps)
        slot.pass_index, slot.step = run.first_pass + passes, step
        slot.last_of_pass = step == order.steps - 1
        rows = order.rows(slot.pass_index, step)
        real = len(rows.indices)
        if not plan.whole_batches:
            board.set_rows(slot, real, rows.count)
        for start in range(0, real, plan.chunk_rows):
            part = slice(start, start + plan.chunk_rows)
            board.add_chunk(Chunk(slot, run, start, rows.indices[part], rows.passes[part]))
        board.finish_part(slot)

    def _fill(self, chunk: Chunk) -> None:
        # The failure is no variable of a frame that it refers to: the cycle would keep the batch's memory.
        self._board.finish_part(chunk.slot, self._failure(chunk))

    def _failure(self, chunk: Chunk) -> tuple[int, BaseException] | None:
        board = self._board
        try:
            return fill_chunk(board, self._filler, chunk) if board.current(chunk.run) else None
        finally:
            if chunk.given is not None:
                board.room.release()

    def close(self) -> None:
        self._filler.chain.close()


def fill_chunk(board: Board, filler: Filler, chunk: Chunk) -> tuple[int, BaseException] | None:
    """Fill the rows of one chunk.

    Returns:
        The first row that failed and its error, or None.
    """
    slot = chunk.slot
    try:
        if board.plan.whole_batches:
            given = None if chunk.given is None else chunk.given[0]
            rows = filler.fill_whole(slot.leaves, int(chunk.indices[0]), int(chunk.passes[0]), given)
            board.set_rows(slot, rows, rows)
        else:
            run = chunk.run
            filler.fill(slot.leaves, chunk.start, chunk.indices, chunk.passes, chunk.given, lambda: board.current(run))
    except RowError as failed:
        return failed.row, failed.error
    return None
