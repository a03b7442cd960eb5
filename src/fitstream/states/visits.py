"""What a walk through things has read, so that each is read once, and the walk ends where they hold each other.

A thing that is met again inside itself counts by how far outside it stands. So the digest of one on a cycle hangs on
where the walk came from. What may be used again is found as in Tarjan's search for strongly connected components: a
thing that refers to nothing outside closes the cycles through it, and its digest holds wherever none of them is being
read. The others' digests are of use until then, and only where the way there is always the same (`mark`, `forget`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

from fitstream.states.plain import blake

__all__ = ["TooMany", "Visit", "Visits"]

_MOST_THINGS = 50_000
_NOTHING = _MOST_THINGS + 1


class TooMany(Exception):
    """A thing holds more others than are read."""


@final
class Visit(NamedTuple):
    """The reading of one thing, and how things were when it began."""

    thing: Any
    number: int
    mark: int
    cyclic_before: int
    lowest_before: int


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

    def begin(self, thing: Any) -> Visit:
        """Begin to read a thing that isn't known.

        Raises:
            TooMany: If more were read than the limit. Only `clear` is of use then.
        """
        self._count += 1
        if self._count > _MOST_THINGS:
            raise TooMany
        visit = Visit(thing, self._count, self.mark(), len(self._cyclic), self._lowest)
        self._active[id(thing)] = self.depth, visit.number
        self._lowest = _NOTHING
        return visit

    def end(self, visit: Visit, found: bytes) -> None:
        """Take in the digest of what was read."""
        key, lowest = id(visit.thing), self._lowest
        del self._active[key]
        self._lowest = min(visit.lowest_before, lowest)
        if lowest < visit.number:
            self._open[key] = visit.thing, found, visit.number
            self._cyclic.append(key)
            return
        self.forget(visit.mark)
        inside = (key, *self._cyclic[visit.cyclic_before :]) if lowest == visit.number else ()
        del self._cyclic[visit.cyclic_before :]
        self._closed[key] = visit.thing, found, frozenset(inside)

    def mark(self) -> int:
        """A place to go back to with `forget`."""
        return len(self._open)

    def forget(self, mark: int) -> None:
        """Make what was read since a mark, and refers to what is being read, be read again where it is met again."""
        while len(self._open) > mark:
            self._open.popitem()
