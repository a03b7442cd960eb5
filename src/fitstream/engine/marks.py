"""What every worker lane is at, in one page of memory that the main process shares with its workers.

A lane writes before each sample, for a few hundred nanoseconds, and nobody waits for it. So when a worker dies it is
known which samples were in the making, and when one hangs, which, and since when: no message could tell that any more.
The page holds the serial number of the current run too, by which lanes leave what was abandoned.

    run | lane 0: token, row, since, thread | lane 1: ... |      (int64 each, a cache line a lane)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.memory import Block

__all__ = ["NOTHING", "LaneMark", "Marks"]

_WORDS = 8
#: The token of a lane that has nothing to do.
NOTHING = -1
#: The row of a lane that reads all rows of its chunk at once.
_TOGETHER = -1


class LaneMark(NamedTuple):
    """What a lane is at.

    Attributes:
        token: Of its chunk, or NOTHING.
        row: The row that it makes, or None while the chunk's rows are read together.
        since_ns: When it began with that, by the monotonic clock, which all processes share.
        thread: Its thread's identity in its process.
    """

    token: int
    row: int | None
    since_ns: int
    thread: int


@final
class Marks:
    """The page.

    Args:
        block: The memory; kept by whoever made it.
    """

    def __init__(self, block: Block) -> None:
        self._words = block.bytes.data.cast("q")
        #: The serial number of the current run, as an array of one.
        self.run: npt.NDArray[np.int64] = block.bytes[:8].view(np.int64)

    @staticmethod
    def block(lane_count: int) -> Block:
        """Memory for so many lanes; all have nothing to do."""
        block = Block.make((1 + lane_count) * _WORDS * 8, "A page of marks")
        words = block.bytes.view(np.int64).reshape(-1, _WORDS)
        words[1:, 0] = NOTHING
        return block

    @staticmethod
    def none() -> Marks:
        """Marks of no lane, in no shared memory."""
        marks = Marks.__new__(Marks)
        marks.run = np.zeros(1, np.int64)
        marks._words = marks.run.data
        return marks

    # What a lane calls.

    def begin(self, lane: int, token: int, thread: int) -> None:
        """A chunk begins."""
        words, base = self._words, (1 + lane) * _WORDS
        words[base + 1], words[base + 2], words[base + 3] = _TOGETHER, time.monotonic_ns(), thread
        words[base] = token

    def stepper(self, lane: int, serial: int) -> Callable[[int], bool]:
        """A function that marks that a row begins, and tells whether a run is still the current one."""
        words, now = self._words, time.monotonic_ns
        row_at = (1 + lane) * _WORDS + 1
        since_at = row_at + 1

        def begins(row: int) -> bool:
            # The time first: who reads between the two must not see the next row as begun long ago.
            words[since_at] = now()
            words[row_at] = row
            return bool(words[0] == serial)

        return begins

    def end(self, lane: int) -> None:
        """The chunk is done."""
        self._words[(1 + lane) * _WORDS] = NOTHING

    def is_run(self, serial: int) -> bool:
        """Whether a run is the current one."""
        return self._words[0] == serial

    # What the main process calls.

    def read(self, lane: int) -> LaneMark:
        """What a lane is at."""
        base = (1 + lane) * _WORDS
        before: list[int] = []
        # Its words are written one by one.
        while (words := self._words[base : base + 4].tolist()) != before:
            before = words
        token, row, since_ns, thread = words
        return LaneMark(token, None if row == _TOGETHER else row, since_ns, thread)
