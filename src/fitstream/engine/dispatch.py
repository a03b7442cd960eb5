"""Giving chunks to worker processes and taking in what they finished. Used by the pool's thread alone.

Each worker has two chunks a lane in hand, one that is worked on and one that waits, so that no lane waits for the main
process while the training loop holds the interpreter lock. What a worker had in hand when it died is given out again: a
chunk is finished when its `Done` was read, and doing one twice writes the same bytes.
What workers die or hang at is tried (`court`).

Raw samples of a generator travel through shared memory (`areas`). Those that can't, because they are other things than
arrays, numbers and text, are worked on here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty
from typing import final

from fitstream.engine.areas import NOWHERE, Areas
from fitstream.engine.board import Board
from fitstream.engine.court import Court, blamed
from fitstream.engine.filling import Progress, fill_chunk, open_slot
from fitstream.engine.messages import Done, Fill, read_failure
from fitstream.engine.process import Process
from fitstream.engine.ring import Slot
from fitstream.engine.sending import Parcel
from fitstream.engine.tokens import FINE, Chunk, Outcome
from fitstream.errors import PlanError, SampleError
from fitstream.filler import Filler
from fitstream.memory import Block
from fitstream.packing import Unpackable
from fitstream.spec import copied

__all__ = ["Dispatcher", "Recalled"]

#: Chunks that a worker has in hand, for each of its lanes.
_DEPTH = 2
#: Chunks of which some rows are made twice and compared, when lanes have moved by measurement.
_CHECKED_CHUNKS, _CHECKED_ROWS = 4, 4


@final
@dataclass(slots=True)
class Recalled:
    """What a worker that is gone had in hand.

    Attributes:
        chunks: All of it.
        guilty: Of that, each a chunk of one sample, what is known to end or to hang workers.
        suspect: Whether it was at a sample under suspicion.
        begun: Whether it was at anything.
    """

    chunks: list[Chunk] = field(default_factory=list)
    guilty: list[Chunk] = field(default_factory=list)
    suspect: bool = False
    begun: bool = False


@final
class Dispatcher:
    """The work of one board, for worker processes.

    Args:
        board: Where tokens come from.
        lane_counts: Lanes of each worker.
        progress: Tells what is worked on here.
        parcel: As the attribute.

    Attributes:
        board: The same.
        court: Tries what workers die or hang at.
        active: Whether tokens are taken.
        parcel: What a worker must have opened to be given work.
        differs: Whether workers were found to make other bytes than this process; then it does their work, until the
            lanes move back.
    """

    def __init__(self, board: Board, lane_counts: Sequence[int], progress: Progress, parcel: Parcel) -> None:
        plan = board.plan
        self._progress = progress
        self.parcel = parcel
        self.board = board
        self.active = False
        self.differs = False
        # Who asked for processes wants them; who did not must not notice that there are any.
        self._checks = _CHECKED_CHUNKS if plan.auto_processes else 0
        self._returned: deque[Chunk] = deque()
        self._next_token = 0
        self._home: Filler | None = None
        self.court = Court(board)
        self._areas = Areas(_DEPTH * sum(lane_counts), plan.area_bytes) if plan.order is None else None

    @property
    def holding(self) -> bool:
        """Whether it has chunks that nobody works on."""
        return bool(self._returned) or self.court.waiting

    @property
    def checking(self) -> bool:
        """Whether work is done twice, so that rates tell nothing."""
        return self._checks > 0

    @property
    def area_count_bytes(self) -> int:
        """Shared memory for raw samples, at most so far."""
        return 0 if self._areas is None else self._areas.block.count_bytes + self._areas.beside_bytes

    def recall(self, process: Process, begun: Mapping[int, int | None]) -> Recalled:
        """Take back what a worker that is gone had in hand.

        Args:
            process: The worker.
            begun: By token, the row that a lane was at, or None for all. What was not begun can't be at fault.
        """
        recalled, overdue = Recalled(), process.overdue
        for token, (chunk, area) in process.in_flight.items():
            self._free(area)
            recalled.chunks.append(chunk)
            if not self.board.current(chunk.run):
                self.board.finish_chunk(chunk)
                continue
            back, guilty = [chunk], False
            if token in begun:
                recalled.begun = True
                recalled.suspect |= chunk.suspect
                its_own = overdue is not None and token == overdue.token
                back, guilty = self.court.accuse(chunk, begun[token], overdue, its_own=its_own)
            if guilty:
                recalled.guilty.append(back.pop(0))
            for part in reversed(back):
                self._give_back(part)
        process.in_flight.clear()
        process.bad.clear()
        return recalled

    def done(self, process: Process, done: Done, text: bytes, grown: Block | None) -> None:
        """Take in that a chunk is finished.

        Args:
            process: By whom.
            done: What it told.
            text: What failed, if something did.
            grown: Memory that is the slot's from now on, or None.
        """
        chunk, area = process.in_flight.pop(done.token)
        self._free(area)
        if grown is not None:
            chunk.slot.adopt(grown)
            process.slots[chunk.slot.index] = grown
            self.board.grown(chunk.slot)
        outcome = Outcome(bad=tuple(process.bad.pop(done.token, ())))
        if done.abandoned and self.board.current(chunk.run):
            self._give_back(chunk)  # the worker saw another run's number, which can't be any more
            return
        if done.failed_row >= 0:
            outcome = Outcome((done.failed_row, read_failure(text)))
        elif self.board.plan.whole_batches:
            self.board.set_rows(chunk.slot, done.rows, done.rows)
        if chunk.blame is not None:
            outcome = blamed(chunk.blame, outcome)
        elif self.board.plan.auto_processes and (outcome.failure or outcome.bad or self._checks or self.differs):
            outcome = self._compare(chunk, outcome)
        self.board.finish_chunk(chunk, outcome)

    def _compare(self, chunk: Chunk, outcome: Outcome) -> Outcome:
        """Do some of a chunk again here, and see whether a worker made the same; if not, all of it.

        A worker imports modules anew: a function that depends on what the program changed in one, or in a library's
        settings, makes something else there. One that is never the same twice can't be told from it by one comparison.
        """
        self._checks = max(0, self._checks - 1)
        if outcome.failure is not None or outcome.bad or self.differs:
            here = self._fill_here(chunk)
            self.differs |= here.failure is None and len(here.bad) != len(outcome.bad)
            return here
        some = chunk
        if not self.board.plan.whole_batches:
            given = None if chunk.given is None else chunk.given[:_CHECKED_ROWS]
            some = replace(chunk, row_count=min(chunk.row_count, _CHECKED_ROWS), given=given)
        theirs = self._rows_of(some)
        here = self._fill_here(some)
        ours = self._rows_of(some)
        if here == FINE and ours == theirs:
            return FINE
        if here == FINE and self._fill_here(some) == FINE and self._rows_of(some) != ours:
            return FINE
        self.differs = True
        return self._fill_here(chunk)

    def _rows_of(self, chunk: Chunk) -> list[bytes]:
        whole, slot = self.board.plan.whole_batches, chunk.slot
        rows = slice(0, slot.rows) if whole else slice(chunk.start, chunk.start + chunk.row_count)
        return [leaf[rows].tobytes() for leaf in slot.leaves]

    def _free(self, area: int) -> None:
        if self._areas is not None:
            self._areas.free(area)

    def _give_back(self, chunk: Chunk) -> None:
        if chunk.suspect:
            self.court.give_back(chunk)
        else:
            self._returned.appendleft(chunk)

    def hand_out(self, processes: Sequence[Process], shares: Sequence[int]) -> None:
        """Give the ring to those that lack it, and work to those that have room for it.

        Args:
            processes: All workers.
            shares: How many lanes of each may work.
        """
        board = self.board
        for each in processes:
            if each.state == "ready":
                self._attach(each)
        while self._returned and not self.active:
            board.work_queue.put(self._returned.popleft())
        self.court.hear(processes, self._send)
        while self.active:
            process = self._freest(processes, shares)
            chunk = self._next_chunk() if process is not None else None
            if process is None or chunk is None:
                break
            if not board.current(chunk.run):
                self.board.finish_chunk(chunk)
            elif not self._send(process, chunk):
                break

    def _attach(self, process: Process) -> None:
        plan = self.board.plan
        fds = []
        if self._areas is not None and process.state == "ready":
            fds.append(self._areas.block.fd)
        slots = {
            slot.index: slot.block
            for slot in self.board.slots
            if slot.block is not None and process.slots.get(slot.index) is not slot.block
        }
        # fmt: off
        process.attach(
            slots, fds, lane_bytes=plan.lane_bytes, large_bytes=plan.large_bytes, budget_bytes=plan.budget_bytes,
            area_bytes=plan.area_bytes if self._areas is not None else 0, limit_bytes=self.board.limit_bytes,
        )
        # fmt: on

    def _freest(self, processes: Sequence[Process], shares: Sequence[int]) -> Process | None:
        """The worker with the most room, if any has some."""
        most, found = 0, None
        for process, share in zip(processes, shares, strict=True):
            room = _DEPTH * share - len(process.in_flight)
            if process.state == "working" and room > most and process is not self.court.seat:
                most, found = room, process
        return found

    def _next_chunk(self) -> Chunk | None:
        while True:
            if self._returned:
                return self._returned.popleft()
            try:
                token = self.board.work_queue.get_nowait()
            except Empty:
                return None
            if isinstance(token, Chunk):
                return token
            if isinstance(token, Slot):
                open_slot(self.board, token)

    def _send(self, process: Process, chunk: Chunk) -> bool:
        """Give one chunk to a worker. Returns False if it can't take it now."""
        if chunk.slot.block is None or (self.differs and not chunk.suspect):
            # It was opened when only threads worked; or workers can't be trusted with it.
            self.board.finish_chunk(chunk, self._fill_here(chunk))
            return True
        if process.parcel is not self.parcel:
            self._give_back(chunk)
            return False
        if process.slots.get(chunk.slot.index) is not chunk.slot.block:
            self._give_back(chunk)
            self._attach(process)
            return False
        area, beside = NOWHERE, None
        if chunk.given is not None and self._areas is not None:
            try:
                placed = self._areas.place(chunk.given)
            except Unpackable:
                self.board.finish_chunk(chunk, self._fill_here(chunk))
                return True
            except PlanError as error:
                failed = SampleError(str(error), index=chunk.first_index, stage="read")
                self.board.finish_chunk(chunk, Outcome((chunk.start, failed)))
                return True
            if placed is None:
                self._give_back(chunk)
                return False
            area, beside = placed
        token, self._next_token = self._next_token, self._next_token + 1
        if not process.in_flight:
            process.heard_s = time.monotonic()
        process.in_flight[token] = (chunk, area)
        # fmt: off
        fill = Fill(token, chunk.run.serial, chunk.slot.index, chunk.pass_index, chunk.step, chunk.start,
                    chunk.row_count, chunk.first_index, area, chunk.attempt)
        # fmt: on
        if not process.send(fill.write(), () if beside is None else (beside.fd,)):
            del process.in_flight[token]
            self._free(area)
            self._give_back(chunk)
            return False
        if beside is not None:
            beside.close()
        return True

    def _fill_here(self, chunk: Chunk) -> Outcome:
        if self._home is None:
            self._home = self.board.job.filler(self.board.job.allowance())
        if chunk.given is not None:
            chunk = replace(chunk, given=[copied(sample) for sample in chunk.given])
        return fill_chunk(self.board, self._home, chunk, self._progress)
