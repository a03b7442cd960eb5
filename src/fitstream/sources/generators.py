"""Generators: samples, or finished batches, that come one after another.

They run in one thread of the main process and are never copied or sent away. The sample that `plan()` reads is kept and
delivered first, so that no generator is started twice and no sample is lost.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast, final

from fitstream.errors import SourceError, StateError
from fitstream.sources.base import Sequential, Started

__all__ = ["GeneratorSource"]


@final
class GeneratorSource(Sequential):
    """A function that makes an iterable for each pass, or one iterator that serves a single pass.

    Args:
        make: `make() -> iterable`, called anew each pass; or an iterator.
        length: Samples of a pass, or None. A pass ends there at the latest.
        what: What it yields, "samples" or "batches", for messages.
    Raises:
        SourceError: If it is neither a function nor an iterator.
    """

    def __init__(
        self, make: Callable[[], Iterable[Any]] | Iterator[Any], length: int | None, what: str = "samples"
    ) -> None:
        self.what = what
        self._length = length
        self._lock = threading.Lock()
        self._kept: tuple[Any, Any, Iterator[Any]] | None = None
        self._owner: weakref.ref[Any] | None = None
        self._one_shot: Iterator[Any] | None = None
        self._make: Callable[[], Iterable[Any]] | None = None
        if hasattr(make, "__next__"):
            self._one_shot = cast("Iterator[Any]", make)
        elif callable(make):
            self._make = make
        else:
            raise SourceError(
                f"a {type(make).__name__} is not a generator function. Pass the function itself, without calling it."
            )
        self._given = make if self._make is not None else getattr(make, "gi_code", type(make))
        self.name = getattr(make, "__qualname__", None) or type(make).__name__

    @property
    def length(self) -> int | None:
        return self._length

    @property
    def one_shot(self) -> bool:
        return self._make is None

    def first(self) -> Any:
        with self._lock:
            if self._kept is None:
                made = self._begin()
                iterator = iter(made)
                try:
                    sample = next(iterator)
                except StopIteration:
                    raise SourceError(
                        f"the generator {self.name} yielded nothing, so there is nothing to feed. "
                        "Check the condition that its loop starts with."
                    ) from None
                self._kept = (sample, made, iterator)
            return self._kept[0]

    def start(self, owner: object, own_state: Any = None) -> Started:
        with self._lock:
            if self._make is None:
                taken = self._owner() if self._owner is not None else None
                if taken is not None and taken is not owner:
                    raise SourceError(
                        f"the generator {self.name} can run only once and feeds another loader already. "
                        "Pass a function that makes a new generator."
                    )
                self._owner = weakref.ref(owner)
            kept, self._kept = self._kept, None
            made = self._begin() if kept is None else kept[1]
            if own_state is not None:
                restored = self._restored(made, own_state)
                if restored is not None:
                    return restored
            if kept is None:
                iterator = iter(made)
                return Started(iterator, _maker(made, iterator), False)
            sample, made, iterator = kept
            return Started(itertools.chain([sample], iterator), _maker(made, iterator), False)

    def _restored(self, made: Any, own_state: Any) -> Started | None:
        """A pass from the maker's own state on; None if it takes no state."""
        try:
            if _is_stateful(made):
                made.load_state_dict(own_state)
                iterator = iter(made)
            else:
                iterator = iter(made)
                if not _is_stateful(iterator):
                    return None
                iterator.load_state_dict(own_state)
        except Exception as error:
            raise StateError(
                f"the generator {self.name} failed to take its own state back, in load_state_dict(): "
                f"{type(error).__name__}: {error}"
            ) from error
        return Started(iterator, _maker(made, iterator), True)

    def _begin(self) -> Any:
        if self._make is not None:
            made = self._make()
            if not hasattr(made, "__iter__"):
                why = "returned None; is its yield missing?" if made is None else f"returned a {type(made).__name__}"
                raise SourceError(f"the generator function {self.name} must return an iterable, but it {why}")
            return made
        if self._one_shot is None:
            raise SourceError(
                f"the generator {self.name} can run only once, and its pass has begun already. "
                "Pass a function that makes a new generator for each pass."
            )
        iterator, self._one_shot = self._one_shot, None
        return iterator

    def fingerprint_parts(self) -> dict[str, Any]:
        return {f"generator {self.name}": self._given}

    def __repr__(self) -> str:
        count = "an unknown number of" if self._length is None else f"{self._length:,}"
        return f"{count} {self.what} a pass from the generator {self.name}"


def _is_stateful(thing: Any) -> bool:
    return callable(getattr(thing, "state_dict", None)) and callable(getattr(thing, "load_state_dict", None))


def _maker(made: Any, iterator: Any) -> Any:
    """What can tell where in its pass it is, if anything can."""
    return next((one for one in (made, iterator) if _is_stateful(one)), None)
