"""Room in shared memory for a generator's raw samples, on their way to the worker that maps over them.

Each chunk in a worker's hand has one area, twice as large as the first samples need. A chunk that doesn't fit, because
samples grew, gets a block of its own that is gone when the chunk is; there is one such at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from fitstream.memory import Block
from fitstream.packing import TooBig, pack_samples

__all__ = ["BESIDE", "NOWHERE", "Areas"]

#: Area numbers: the samples need none; they are in a block that comes beside the message.
NOWHERE, BESIDE = -1, -2


@final
class Areas:
    """Kept room for some chunks.

    Args:
        count: Areas.
        each_bytes: Size of one.

    Attributes:
        block: The memory of all.
        beside_bytes: The most that a block beside them took.
    """

    def __init__(self, count: int, each_bytes: int) -> None:
        self.block = Block.make(count * each_bytes, "Room for a generator's samples")
        self._rows = self.block.bytes.reshape(count, each_bytes)
        self._free = list(range(count))
        self._beside = False
        self.beside_bytes = 0

    def place(self, samples: Sequence[Any]) -> tuple[int, Block | None] | None:
        """Put samples where a worker can read them.

        Returns:
            The area's number, or BESIDE and the block, which is to be closed once it was sent; None if that must wait.
        Raises:
            Unpackable: If they are not made of arrays, numbers and text.
            PlanError: If more memory is needed than is free.
        """
        number = self._free[-1]
        try:
            pack_samples(samples, self._rows[number])
        except TooBig as error:
            if self._beside:
                return None
            block = Block.make(error.need_bytes, "A chunk of a generator's samples")
            pack_samples(samples, block.bytes)
            self._beside = True
            self.beside_bytes = max(self.beside_bytes, error.need_bytes)
            return BESIDE, block
        return self._free.pop(), None

    def free(self, number: int) -> None:
        """Let an area be used again."""
        if number >= 0:
            self._free.append(number)
        elif number == BESIDE:
            self._beside = False
