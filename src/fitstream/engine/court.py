"""The trial of samples that worker processes die or hang at.

A death accuses the chunks whose rows were in the making, and no other. A chunk that two workers died at is divided, and
its samples are under suspicion: each is made by a worker that has nothing else in hand. One that two workers die at
even so is guilty. One that takes longer than the deadline is guilty at once. The policy says what becomes of it.

    accused ─[a second death]─> suspects, one sample each ─[finished]─> innocent
                                          └─[two deaths, alone]─> guilty ─> raised, skipped, or replaced: tried again
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from fitstream.engine.board import Board
from fitstream.engine.marks import NOTHING
from fitstream.engine.process import Overdue, Process
from fitstream.engine.rescue import MOST_DONORS
from fitstream.engine.tokens import Chunk, Outcome
from fitstream.errors import FitstreamError, SampleError
from fitstream.policy import BadSample

__all__ = ["Court", "blamed"]

#: How many workers die at a chunk until it is under suspicion, and then at one of its samples until it is guilty.
_DEATHS = 2


@final
class Court:
    """Knows what is under suspicion. Used by the pool's thread alone.

    Args:
        board: Whose batches they belong to.

    Attributes:
        seat: The worker that is kept free for a sample under suspicion, or has it in hand.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._suspects: deque[Chunk] = deque()
        self.seat: Process | None = None

    @property
    def waiting(self) -> bool:
        """Whether samples are under suspicion that nobody works on."""
        return bool(self._suspects)

    def give_back(self, chunk: Chunk) -> None:
        """Let a sample be the next."""
        self._suspects.appendleft(chunk)

    def accuse(
        self, chunk: Chunk, row: int | None, overdue: Overdue | None, *, its_own: bool
    ) -> tuple[list[Chunk], bool]:
        """Take in that a worker is gone that was at a chunk.

        Args:
            chunk: The chunk.
            row: The row that was in the making, or None if all were read together.
            overdue: What the worker hung at, if it was ended for that.
            its_own: Whether that was this chunk.
        Returns:
            Chunks to be given out as before, of which the first is guilty if that is True.
        """
        if overdue is not None and overdue.token != NOTHING and overdue.row is not None:
            if not its_own:
                return [chunk], False
            if chunk.start <= overdue.row < chunk.start + chunk.row_count:
                return self._single_out(chunk, overdue.row), True
        if overdue is None:
            chunk.deaths += 1
        elif overdue.token != NOTHING:
            # One of several lanes that stood still: to wait for the deadline a second time would tell nothing new.
            chunk.deaths = _DEATHS
        if chunk.deaths < _DEATHS:
            return [chunk], False
        if chunk.suspect:
            return [chunk], True
        # What was in the making comes last: what is finished before it shows that not all is lost.
        rows = sorted(range(chunk.start, chunk.start + chunk.row_count), key=lambda one: one == row)
        self._suspects.extend(self._divided(chunk, [(one, 1) for one in rows], suspect=True))
        return [], False

    def convict(self, chunk: Chunk, error: FitstreamError, bad: BadSample) -> None:
        """Do with a guilty sample what the policy says.

        Args:
            chunk: The sample.
            error: For who raises.
            bad: For who doesn't.
        """
        policy, whole = self._board.plan.policy.on_bad_sample, self._board.plan.whole_batches
        bad = bad if chunk.blame is None else chunk.blame
        if policy == "raise" or chunk.attempt == MOST_DONORS:
            self._board.finish_chunk(chunk, Outcome((chunk.start, error)))
        elif policy == "skip":
            if whole:
                self._board.set_rows(chunk.slot, 0, 0)
            self._board.finish_chunk(chunk, Outcome(bad=(bad,)))
        else:
            # Another sample takes its row; that one may be of the same kind.
            chunk.attempt, chunk.blame, chunk.deaths, chunk.suspect = chunk.attempt + 1, bad, 0, True
            self._suspects.appendleft(chunk)

    def hear(self, processes: Sequence[Process], send: Callable[[Process, Chunk], bool]) -> None:
        """Give the next sample under suspicion to a worker that has nothing else in hand, and nothing else to it.

        Args:
            processes: All workers.
            send: Gives a chunk to a worker; False if it can't take it now.
        """
        if self.seat not in processes:
            self.seat = None
        while self._suspects or self.seat is not None:
            if self.seat is None:
                free = [process for process in processes if process.state == "working"]
                if not free:
                    return
                self.seat = min(free, key=lambda process: len(process.in_flight))
            if self.seat.in_flight:
                return
            if not self._suspects:
                self.seat = None
                return
            chunk = self._suspects.popleft()
            if not self._board.current(chunk.run):
                self._board.finish_chunk(chunk, Outcome())
            elif not send(self.seat, chunk):
                return

    def _single_out(self, chunk: Chunk, row: int) -> list[Chunk]:
        """One row of a chunk, and then all others."""
        end = chunk.start + chunk.row_count
        cuts = [(row, 1), (chunk.start, row - chunk.start), (row + 1, end - row - 1)]
        return self._divided(chunk, [(start, count) for start, count in cuts if count])

    def _divided(self, chunk: Chunk, cuts: Sequence[tuple[int, int]], *, suspect: bool = False) -> list[Chunk]:
        parts = [chunk.part(start, count) for start, count in cuts]
        # Its raw samples leave the queue when the last part is done.
        stake = [0] if chunk.stake is None else chunk.stake
        stake.extend(range(len(stake), len(stake) + len(parts) - 1))
        for part in parts:
            part.suspect, part.stake = suspect, stake
        self._board.add_parts(chunk.slot, len(parts) - 1)
        return parts


def blamed(blame: BadSample, outcome: Outcome) -> Outcome:
    """Say of a sample that another took the place of what the workers that made it could not."""
    if outcome.failure is None:
        return Outcome(bad=tuple(replace(blame, donor_index=one.donor_index) for one in outcome.bad))
    row, error = outcome.failure
    reason = error.reason if isinstance(error, SampleError) else f"{error}"
    told = SampleError(f"{blame.reason}{reason}", index=blame.index, path=blame.path, stage=blame.stage)
    return Outcome((row, told))
