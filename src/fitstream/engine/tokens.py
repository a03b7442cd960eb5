"""What lanes take and what they report: runs, chunks, their outcomes, and the queue of tokens.

A token is a free slot, to be given the next batch, or a chunk, some rows of a batch to be filled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from typing import Any, final

from fitstream.engine.bell import Bell
from fitstream.engine.replay import Replay
from fitstream.engine.ring import Slot
from fitstream.policy import BadSample

__all__ = ["FINE", "Chunk", "Outcome", "Run", "TokenQueue"]


@final
@dataclass(eq=False, slots=True)
class Run:
    """One stream of batches.

    Attributes:
        first_pass: The pass that it begins in.
        first_step: The step of that pass that it begins with.
        total: Batches in all, or None where it goes on for ever or its end isn't known yet.
        single_pass: It ends with the pass that it begins in.
        serial: Its number among the board's runs, from 1; set when it starts.
        replay: What the samples of a generator before `first_step` must be, or None.
    """

    first_pass: int
    first_step: int
    total: int | None
    single_pass: bool
    serial: int = 0
    replay: Replay | None = None


@final
@dataclass(eq=False, slots=True)
class Chunk:
    """Some rows of a batch, to be filled by one lane. Which samples they are follows from its numbers alone.

    Attributes:
        pass_index: The batch's pass.
        step: Its place in the pass.
        start: First row.
        row_count: Rows.
        first_index: Index of the first row's sample, where the source is sequential.
        given: Raw samples, where the source is sequential.
        deaths: Worker processes that ended while they were at it.
        attempt: 0 for the samples themselves, k for the k-th that is drawn to take the place of the only one.
        blame: Why the only sample is bad, where `attempt` is not 0.
        suspect: Whether its only sample may be what ends workers.
        stake: Of a part of what was one chunk, a number for each part that is not finished; all share it.
    """

    slot: Slot
    run: Run
    pass_index: int
    step: int
    start: int
    row_count: int
    first_index: int = 0
    given: Sequence[Any] | None = None
    deaths: int = 0
    attempt: int = 0
    blame: BadSample | None = None
    suspect: bool = False
    stake: list[int] | None = None

    def part(self, start: int, row_count: int) -> Chunk:
        """Some rows of it."""
        skipped = start - self.start
        given = None if self.given is None else self.given[skipped : skipped + row_count]
        return replace(
            self, start=start, row_count=row_count, first_index=self.first_index + skipped, given=given, deaths=0
        )


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one part of a batch.

    Attributes:
        failure: The lowest row that failed, and its error, or None.
        bad: Samples that were skipped or replaced.
    """

    failure: tuple[int, BaseException] | None = None
    bad: tuple[BadSample, ...] = ()


FINE = Outcome()


@final
class TokenQueue:
    """Tokens for lanes: chunks in their order, so that a batch is finished before the next begins, and then slots.

    Of free slots the last one comes first: where the consumer is quick, its memory is still in the processor's cache.
    There is a permit for each token: a slot is its own, and a chunk is in its place before its permit is given. So
    whoever has a permit finds a token. `put` may be called from any thread, and inside a collection.

    Attributes:
        bell: Rung after each token, while worker processes take them.
    """

    __slots__ = ("_chunks", "_permits", "_slots", "bell")

    def __init__(self) -> None:
        self._permits: SimpleQueue[Slot | None] = SimpleQueue()
        self._chunks: deque[Any] = deque()
        self._slots: list[Slot] = []
        self.bell: Bell | None = None

    def put(self, token: Any) -> None:
        if isinstance(token, Slot):
            self._permits.put(token)
        else:
            self._chunks.append(token)
            self._permits.put(None)
        bell = self.bell
        if bell is not None:
            bell.ring()

    def putters(self, slot: Slot) -> tuple[Callable[[Any], object], ...]:
        """The parts of `put(slot)`, last one first, as functions that run no bytecode, for the end of a lease.

        Python looks for Ctrl-C between bytecodes. Where that happens in a callback the interrupt is lost, and the rest
        of the callback with it.
        """
        put = partial(self._permits.put, slot)  # what it is called with becomes `block`, which a put doesn't look at
        bell = self.bell
        return (put,) if bell is None else (bell.ringer(), put)

    def get(self) -> Any:
        """Wait for a token."""
        return self._pop(self._permits.get())

    def get_nowait(self) -> Any:
        """A token.

        Raises:
            Empty: If there is none.
        """
        return self._pop(self._permits.get_nowait())

    def _pop(self, permit: Slot | None) -> Any:
        if permit is not None:
            self._slots.append(permit)
        try:
            return self._chunks.popleft()
        except IndexError:
            return self._slots.pop()
