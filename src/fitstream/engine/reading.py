"""The reading lane: runs a generator, one pass after another, and gives its samples to slots.

The generator runs here and nowhere else. Where functions are mapped over its samples, chunks of raw samples go to the
other lanes, at most one chunk a lane and one more; where not, this lane fills the rows itself.

A run that begins in mid-pass reads again what comes before, and compares it with what it was (`replay`); or the
generator goes on from a state of its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, NoReturn, final

from fitstream.engine.board import Board
from fitstream.engine.filling import Progress, fill_chunk
from fitstream.engine.replay import Replay, own_state, rolled
from fitstream.engine.ring import Slot
from fitstream.engine.tokens import Chunk, Outcome, Run
from fitstream.errors import FitstreamError, SourceError, StateError
from fitstream.failures import is_ctrl_c
from fitstream.filler import Filler
from fitstream.policy import BadSample
from fitstream.sources.base import Sequential
from fitstream.spec import copied

__all__ = ["Reading"]

_NO_MORE = object()


@final
class Reading:
    """What the reading lane does with a free slot.

    Args:
        board: The shared state.
        filler: The lane's own chain.
        hands_on: Whether other lanes fill the rows.
        owner: The loader's identity, for generators that can run only once.
    """

    def __init__(self, board: Board, filler: Filler, hands_on: bool, owner: object) -> None:
        source = board.plan.source
        assert isinstance(source, Sequential)
        self._source = source
        self._board = board
        self._plan = board.plan
        self._filler = filler
        self._hands_on = hands_on
        # Functions may change what they are given, and lanes look at it only later.
        self._copies = bool(self._plan.recipe.stages)
        # Batches of free form belong to no state.
        self._digests = not self._plan.free_form
        self._owner = owner
        self._size = 1 if self._plan.whole_batches else self._plan.batch_size
        self._run: Run | None = None
        self._iterator: Iterator[Any] | None = None
        self._maker: Any = None
        self._pass = self._step = self._index = self._digest = 0
        self._finished = False
        self._bad: list[BadSample] = []
        #: What this lane is at.
        self.progress = Progress()

    def work(self, slot: Slot) -> None:
        board = self._board
        begun = board.begin(slot)
        if begun is None:
            return
        run, number = begun
        if run is not self._run:
            self._run, self._finished = run, False
            self._start(run.first_pass)
            self._step = run.first_step
        failure: tuple[int, BaseException] | None = None
        if self._finished:
            slot.run = None
        else:
            try:
                self._read(slot, run, number)
            except FitstreamError as error:
                failure, self._finished = (slot.rows, error), True
                run.total = number + 1
        board.finish_part(slot, Outcome(failure, tuple(self._bad)))
        failure, self._bad = None, []  # this frame is in its traceback: the cycle would keep the batch's memory

    def _start(self, pass_index: int) -> None:
        self._iterator = self._maker = None
        self._pass, self._step, self._index, self._digest = pass_index, 0, 0, 0

    def _read(self, slot: Slot, run: Run, number: int) -> None:
        rows = slot.rows = 0
        while True:
            rows, ended = self._collect(slot, run)
            if rows or not ended:
                break
            self._check_end()
            if run.single_pass:
                self._finish(slot, run, number)
                return
            self._start(self._pass + 1)
        if not self._board.current(run):
            slot.run = None
            return
        size = self._size
        if not ended and self._plan.last == "drop" and self._source.length is not None:
            # The rest of the pass would be dropped: the pass is over.
            ended = self._source.length - self._index < size
        if ended and rows < size and self._plan.last == "drop":
            self._drop(slot, run, number)
            return
        slot.pass_index, slot.step, slot.last_of_pass = self._pass, self._step, ended
        slot.replay = Replay(self._digest, *self._own_state())
        if not self._plan.whole_batches:
            self._board.set_rows(slot, rows, size if self._plan.last == "pad" else rows)
        self._step += 1
        if ended:
            if self._plan.last != "drop":
                self._check_end()
            if run.single_pass:
                self._finish(None, run, number + 1)
            self._start(self._pass + 1)

    def _drop(self, slot: Slot, run: Run, number: int) -> None:
        if self._step == 0:
            raise SourceError(
                f'last="drop" leaves no batch of {self._size}: {self._source!r} gave {self._index} samples in a pass. '
                f"Use a batch size <= {self._index}."
            )
        self._check_end()
        slot.run = None
        if run.single_pass:
            self._finish(None, run, number)
        else:
            self._board.give_back(run, number)
        self._start(self._pass + 1)

    def _finish(self, slot: Slot | None, run: Run, total: int) -> None:
        self._finished = True
        if slot is not None:
            slot.run = None
        self._board.end_run(run, total)

    def _collect(self, slot: Slot, run: Run) -> tuple[int, bool]:
        """Read the rows of one batch.

        Returns:
            How many there were, and whether the pass ended with them.
        """
        rows = 0
        ended = False
        while rows < self._size and not ended:
            if not self._wait_for_room(run):
                return rows, False
            # A generator may yield the same array again, filled anew: a sample is placed before the next is read.
            want = min(self._size - rows, self._plan.chunk_rows) if self._hands_on else 1
            first = self._index
            try:
                if self._iterator is None:
                    self._open(run)
                    first = self._index
                given, ended = self._pull(want) if self._board.current(run) else ([], False)
            except BaseException:
                self._give_room()
                slot.rows = rows + self._index - first
                raise
            if not given:
                self._give_room()
                break
            chunk = Chunk(slot, run, self._pass, self._step, rows, len(given), first, given)
            rows += len(given)
            if self._hands_on:
                self._board.add_chunk(chunk)
            else:
                outcome = fill_chunk(self._board, self._filler, chunk, self.progress)
                self._bad += outcome.bad
                if outcome.failure is not None:
                    slot.rows, error = outcome.failure
                    try:
                        raise error
                    finally:
                        del outcome, error
            del given, chunk  # or they would be held while the next ones are read
        return rows, ended

    def _wait_for_room(self, run: Run) -> bool:
        while self._hands_on and not self._board.room.acquire(timeout=0.2):
            if not self._board.current(run):
                return False
        return True

    def _give_room(self) -> None:
        if self._hands_on:
            self._board.room.release()

    def _pull(self, want: int) -> tuple[list[Any], bool]:
        """Up to `want` samples, and whether the pass is known to have ended."""
        length = self._source.length
        given: list[Any] = []
        assert self._iterator is not None
        # No context manager: without functions a lane asks for one sample at a time.
        try:
            while len(given) < want and (length is None or self._index < length):
                self.progress.begin()
                sample = next(self._iterator, _NO_MORE)
                if sample is _NO_MORE:
                    return given, True
                if self._digests:
                    self._digest = rolled(self._digest, sample)
                given.append(copied(sample) if self._copies else sample)
                self._index += 1
        except BaseException as error:  # noqa: BLE001  whatever it is, it is raised again
            self._raise(error)
        finally:
            self.progress.end()
        return given, length is not None and self._index >= length

    def _raise(self, error: BaseException) -> NoReturn:
        """Say what the generator raised as a failure of the sample that it was asked for."""
        if isinstance(error, FitstreamError) or is_ctrl_c(error):
            raise error
        raise self._filler.chain.failure(error, self._index, "read") from error

    def _open(self, run: Run) -> None:
        """Start the pass, and go to the step that the run begins with."""
        replay = run.replay if self._step else None
        own = None if replay is None or replay.own is None else json.loads(replay.own)
        self.progress.begin()
        try:
            started = self._source.start(self._owner, own)
            self._iterator, self._maker = started.samples, started.maker
            if not started.restored:
                self._read_again(self._step * self._size, run, replay)
            elif replay is not None:
                self._index, self._digest = self._step * self._size, replay.digest or 0
        except BaseException as error:  # noqa: BLE001  whatever it is, it is raised again
            self._raise(error)
        finally:
            self.progress.end()

    def _read_again(self, count: int, run: Run, replay: Replay | None) -> None:
        assert self._iterator is not None
        for sample in itertools.islice(self._iterator, count):
            self.progress.begin()
            self._digest = rolled(self._digest, sample)
            self._index += 1
            if not self._board.current(run):
                return
        if self._index < count:
            raise StateError(
                f"{self._source!r}: to go on at batch {self._step} of pass {self._pass}, its first {count:,} samples "
                f"are read again, but it ended after {self._index:,}. It must give the same samples as before."
            )
        if replay is not None and replay.digest is not None and replay.digest != self._digest:
            raise StateError(
                f"{self._source!r}: to go on at batch {self._step} of pass {self._pass}, its first {count:,} samples "
                "were read again, and they differ from those of the run that the state was taken of. Make it give the "
                "same samples each time (seed its random numbers, fix its order), or give what it returns methods "
                "state_dict() and load_state_dict(state), or start the pass anew."
            )

    def _own_state(self) -> tuple[str | None, str | None]:
        return (None, None) if self._maker is None else own_state(self._maker)

    def _check_end(self) -> None:
        length = self._source.length
        if length is not None and self._index < length:
            raise SourceError(
                f"{self._source!r}: pass {self._pass} ended after {self._index} of them. "
                f"Use length={self._index}, or length=None where it varies."
            )
        if self._index == 0 and not self._plan.free_form:
            raise SourceError(
                f"{self._source!r}: pass {self._pass} yielded nothing. Each call must make a new iterable."
            )

    def close(self) -> None:
        self._iterator = self._maker = None
        self._filler.chain.close()
