"""Blocks of a file that are read and unpacked whole, some of which a lane keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, final

import numpy as np
import numpy.typing as npt

from fitstream.sampling import Indices

__all__ = ["KeptBlocks", "by_block"]

_Block = TypeVar("_Block")


@final
class KeptBlocks(Generic[_Block]):
    """The blocks that one lane used last. It never holds more than `most` of them, also while one is read.

    Args:
        read: Reads one block.
        most: How many are kept, at least 1.
    """

    def __init__(self, read: Callable[[int], _Block], most: int) -> None:
        self._read = read
        self._most = most
        self._kept: OrderedDict[int, _Block] = OrderedDict()

    def get(self, number: int) -> _Block:
        """One block, by its number."""
        found = self._kept.pop(number, None)
        if found is None:
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            found = self._read(number)
        self._kept[number] = found
        return found

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()


def by_block(numbers: Indices) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Each block, and the rows that are in it, in the order in which they are first needed."""
    for number in dict.fromkeys(numbers.tolist()):
        yield number, np.flatnonzero(numbers == number)
