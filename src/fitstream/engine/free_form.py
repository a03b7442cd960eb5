"""Batches of free form: any tree of any shapes, as the program made them, each as bytes in its slot.

A batch is written by `packing`, header and arrays, and read where it lies: its arrays are views of the slot, and lease
it. A batch that is larger than its slot gets larger memory for it, which stays the slot's: where a worker process makes
the batch, memory that it reserves and whose descriptor goes with its answer. How large a slot may become is decided
when the first batch is there, and the number of slots with it (`board`), so that nothing is read only to be measured.

What has no form in bytes is handed over as it is, where one process does all.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SampleError
from fitstream.failures import RowError
from fitstream.filler import Filler
from fitstream.packing import TooBig, Unpackable, pack_samples
from fitstream.spec import aligned, format_bytes

__all__ = ["Place", "fill_free_form", "reseed", "room_for"]


class Place(Protocol):
    """Where one batch is put."""

    @property
    def area(self) -> npt.NDArray[np.uint8]:
        """Its bytes, uint8 `(area_bytes,)`."""

    def grow(self, need_bytes: int) -> None:
        """Get an area of at least so many bytes.

        Raises:
            Exception: If it may not, with a message for people.
        """

    def keep(self, batch: Any) -> bool:
        """Hold a batch as it is. Returns False if that can't be done here."""


@final
class _TooLarge(Exception):
    """A batch that the budget has no room for. The message is for people."""


def fill_free_form(filler: Filler, place: Place, index: int, pass_index: int, given: Any) -> None:
    """Make one batch and put it in its place.

    Args:
        filler: The lane's own.
        place: Where it goes.
        index: The batch's place in its source.
        pass_index: Its pass.
        given: The batch, where a generator gave it.
    Raises:
        RowError: If it can't be made or placed.
    """
    chain = filler.chain
    try:
        batch = chain.sample(index, pass_index, given)
    except SampleError as error:
        raise RowError(0, error) from error.__cause__
    try:
        _put(batch, place)
    except Exception as error:
        raise RowError(0, chain.failure(error, index, "batch")) from error
    finally:
        del batch, given  # who keeps the error keeps this frame, which must not keep the batch
        chain.arena.reset()


def _put(batch: Any, place: Place) -> None:
    try:
        _pack(batch, place)
    except Unpackable:
        if not place.keep(batch):
            _pack(_plain(batch), place)


def _pack(batch: Any, place: Place) -> None:
    try:
        pack_samples([batch], place.area)
    except TooBig as error:
        place.grow(error.need_bytes)
        pack_samples([batch], place.area)


def _plain(part: Any) -> Any:
    """The same with plain tuples, lists, dicts and arrays for what only derives from them or can be read as one."""
    if isinstance(part, tuple):
        return tuple(_plain(each) for each in part)
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if isinstance(part, Mapping):
        return {key: _plain(each) for key, each in part.items()}
    if hasattr(part, "__array__") and not isinstance(part, np.generic):
        return np.asarray(part)
    return part


def room_for(need_bytes: int, limit_bytes: int) -> int:
    """How large a slot should become: with an eighth to spare, so that it seldom grows again.

    Raises:
        Exception: If the batch needs more than it may; says how much.
    """
    if need_bytes > limit_bytes:
        raise _TooLarge(
            f"the batch takes {format_bytes(need_bytes)}, but memory= leaves {format_bytes(limit_bytes)} for each of "
            "the batches in flight. Use more memory=, a smaller max_queue_size, or smaller batches"
        )
    return min(aligned(need_bytes + need_bytes // 8), limit_bytes // 64 * 64)


def reseed(seed: int, pass_index: int, index: int) -> None:
    """Seed the random numbers that a program may draw in a worker process, by the batch that it makes.

    By the batch, and not by the worker: then they are the same whatever the number of workers, and after a crash.
    """
    words = [number >> shift & 0xFFFFFFFF for number in (seed, pass_index, index) for shift in (0, 32)]
    np.random.seed(words)  # noqa: NPY002  the generator that old programs use
    random.seed(sum(word << 32 * place for place, word in enumerate(words)))
