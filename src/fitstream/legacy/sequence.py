"""`Sequence`, the base class of old programs, and how a Sequence and a generator are told from other things.

Programs bring classes of their own: Keras's, one of these, or one that only has the methods. So a Sequence is known by
what it can do. What has both kinds of methods, such as Keras's directory iterators, counts as a Sequence.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["Sequence", "as_iterator", "is_sequence"]


class Sequence:
    """Batches that can be fetched in any order, each exactly once a pass, in worker processes too.

    A subclass tells how many batches there are and makes each of them:

        class Photos(fitstream.Sequence):
            def __len__(self): return math.ceil(len(self.paths) / 32)
            def __getitem__(self, index): return load(self.paths[index * 32 : (index + 1) * 32])
            def on_epoch_end(self): random.shuffle(self.paths)
    """

    #: The same promise as in Keras 2.
    use_sequence_api = True

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Make the batch at a place in the pass, from 0: `x`, `(x, y)` or `(x, y, sample_weight)`."""
        raise NotImplementedError

    @abstractmethod
    def __len__(self) -> int:
        """Batches of the next pass. Read anew for each."""
        raise NotImplementedError

    def on_epoch_end(self) -> None:
        """Called in the main process once a pass, before any batch of the next one is fetched."""

    def __iter__(self) -> Iterator[Any]:
        """The batches of one pass."""
        for index in range(len(self)):
            yield self[index]


def is_sequence(data: Any) -> bool:
    """Whether batches are fetched by their place: it has `__getitem__` and a length, and is no array or container."""
    if isinstance(data, (str, bytes, tuple, list, Mapping, np.ndarray)) or inspect.isclass(data):
        return False
    if hasattr(type(data), "__array__") or hasattr(data, "iloc"):
        return False
    return callable(getattr(data, "__getitem__", None)) and (
        callable(getattr(data, "__len__", None)) or getattr(data, "num_batches", None) is not None
    )


def as_iterator(data: Any) -> Iterator[Any] | None:
    """The iterator in what an old program gives as a generator; None if it is none.

    Args:
        data: Anything with `__next__`, or `next` as in Python 2, or a function that makes such a thing.
    """
    if isinstance(data, _Next):
        return data
    if hasattr(data, "__next__"):
        return _Next(data, data.__next__)
    if callable(getattr(data, "next", None)):
        return _Next(data, data.next)
    if inspect.isfunction(data) or inspect.ismethod(data):
        return as_iterator(data())
    if hasattr(type(data), "__iter__") and not isinstance(data, (str, bytes, tuple, list, Mapping, np.ndarray)):
        return as_iterator(iter(data))
    return None


#: A lock for each iterator, since a program may give one to several calls at once: fit, and a callback that evaluates.
_LOCKS: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()


class _Next(Iterator[Any]):
    """What has `__next__`, or `next` as in Python 2, asked by one thread at a time and never for its `__iter__`.

    Programs write classes without one, or with one that begins again.
    """

    def __init__(self, data: Any, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self.__qualname__ = getattr(data, "__qualname__", None) or type(data).__name__
        try:
            self._lock = _LOCKS.setdefault(data, threading.Lock())
        except TypeError:  # no weak references to it, or no hash
            self._lock = threading.Lock()

    def __next__(self) -> Any:
        with self._lock:
            return self._ask()
