"""What a walk through things has read, so that each is read once, and the walk ends where they hold each other.

A thing that is met again inside itself counts by how far outside it stands. So the digest of one on a cycle hangs on
where the walk came from. What may be used again is found as in Tarjan's search for strongly connected components: a
thing that refers to nothing outside closes the cycles through it, and its digest holds wherever none of them is being
read. The others' digests are of use until then, and only where the way there is always the same (`mark`, `forget`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from fitstream.plain import blake

__all__ = ["TooMany", "Visits"]

_MOST_THINGS = 50_000
_NOTHING = _MOST_THINGS + 1


class TooMany(Exception):
    """A thing holds more others than are read."""


@final
class Visits:
    """The digests of one walk, by the address of what they are of."""

    def __init__(self) -> None:
        self._count = 0
        self.clear()

    def clear(self) -> None:
        """Forget all digests, but not how many there were."""
        #: The thing (so that its address stays its own), its digest, and what is on a cycle with it.
        self._closed: dict[int, tuple[Any, bytes, frozenset[int]]] = {}
        #: The thing, its digest, and its number.
        self._open: dict[int, tuple[Any, bytes, int]] = {}
        self._cyclic: list[int] = []
        #: What is being read: how deep, and its number in the order of reading.
        self._active: dict[int, tuple[int, int]] = {}
        #: The lowest number that the thing being read refers to.
        self._lowest = _NOTHING

    @property
    def depth(self) -> int:
        """How many things are being read, each inside the one before."""
        return len(self._active)

    def known(self, thing: Any) -> bytes | None:
        """The digest of a thing, if it was read or is being read."""
        key = id(thing)
        if key in self._active:
            outer, number = self._active[key]
            self._lowest = min(self._lowest, number)
            return blake(b"cycle", str(self.depth - outer).encode())
        closed = self._closed.get(key)
        if closed is not None and closed[2].isdisjoint(self._active):
            return closed[1]
        if key in self._open:
            _, found, number = self._open[key]
            self._lowest = min(self._lowest, number)
            return found
        return None

    def read(self, thing: Any, reads: Callable[[], bytes]) -> bytes:
        """Read a thing that isn't known.

        Args:
            thing: What is read.
            reads: Reads it.
        Raises:
            TooMany: If more were read than the limit.
        """
        self._count += 1
        if self._count > _MOST_THINGS:
            raise TooMany
        key, number, outer_lowest = id(thing), self._count, self._lowest
        before, cyclic_before = self.mark(), len(self._cyclic)
        self._active[key], self._lowest = (self.depth, number), _NOTHING
        try:
            found = reads()
        finally:
            self._active.pop(key, None)
        lowest, self._lowest = self._lowest, min(outer_lowest, self._lowest)
        if lowest < number:
            self._open[key] = thing, found, number
            self._cyclic.append(key)
            return found
        self.forget(before)
        members = frozenset((key, *self._cyclic[cyclic_before:])) if lowest == number else frozenset()
        del self._cyclic[cyclic_before:]
        self._closed[key] = thing, found, members
        return found

    def mark(self) -> int:
        """A place to go back to with `forget`."""
        return len(self._open)

    def forget(self, mark: int) -> None:
        """Make what was read since a mark, and refers to what is being read, be read again where it is met again."""
        while len(self._open) > mark:
            self._open.popitem()
