"""Batches of samples of like length, so that little is padded.

The order of a pass is cut into pools of neighbouring samples; each is sorted by length and cut into batches, and the
batches of a pool come in an order of their own. A pool is computed where one of its batches is needed: nothing is
stored but the lengths. Each sample comes once a pass, and how they are grouped differs from pass to pass as far as the
shuffle does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.sampling import Indices, Order, Permutation, Shuffle

__all__ = ["Buckets", "Lengths"]

#: Batches of a pool. More pad less, fewer keep more of the shuffle.
_POOL_BATCHES = 64
#: Lanes are at most a pool apart, also where a pass begins.
_KEPT_POOLS = 3


@final
class Lengths:
    """How long samples are.

    Args:
        given: One whole number a sample of the source, `(length,)`; or a function that tells it of a sample, called as
            a map's would be.
    """

    def __init__(self, given: Callable[..., Any] | Sequence[int] | npt.NDArray[Any]) -> None:
        self.fn = given if callable(given) else None
        self._array: npt.NDArray[np.int64] | None = None
        if self.fn is None:
            try:
                array = np.asarray(given)
            except ValueError as error:
                raise PlanError(f"bucket_by= is no list of lengths: {error}.") from None
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise PlanError(
                    f"bucket_by= must be a function or one whole number a sample, not {array.dtype} {array.shape}."
                )
            if array.min(initial=0) < 0:
                raise PlanError(f"bucket_by= has the length {array.min()}; lengths are whole numbers from 0 on.")
            self._array = array.astype(np.int64)

    def of(self, count: int, read: Callable[[], npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """The lengths of a source's samples.

        Args:
            count: Samples of the source.
            read: Asks the function for all of them. Called once.
        Raises:
            PlanError: If they are not one a sample.
        """
        if self._array is None:
            self._array = read()
        if len(self._array) != count:
            raise PlanError(f"bucket_by= has {len(self._array):,} lengths for {count:,} samples of the source.")
        return self._array

    def renewed(self) -> Lengths:
        """The same for other samples of the source, whose lengths weren't asked for."""
        return self if self.fn is None else Lengths(self.fn)

    def __repr__(self) -> str:
        return getattr(self.fn, "__qualname__", "lengths")


@final
class Buckets:
    """The batches of an order, grouped by length.

    Args:
        order: Of the samples.
        size: Samples of a batch.
        lengths: Of all samples of the source, `(length,)`.
        count: Samples of a pass that are grouped, the first of its order. Where the rest is dropped it is dropped
            before, since what would be left of sorted samples are the longest, pass after pass.
    """

    def __init__(self, order: Order, size: int, lengths: npt.NDArray[np.int64], count: int) -> None:
        self.lengths = lengths
        self._order, self._size, self._count = order, size, count
        self._seed = next((one.seed for one in order.selections if isinstance(one, Shuffle)), None)
        self._pools: dict[tuple[int, int], tuple[Indices, Indices]] = {}

    @property
    def index_bytes(self) -> int:
        """Memory of the lengths, and of the pools that are kept: two numbers of 8 bytes a sample."""
        return self.lengths.nbytes + _KEPT_POOLS * 16 * min(_POOL_BATCHES * self._size, self._order.count)

    def rows(self, pass_index: int, step: int) -> tuple[Indices, Indices]:
        """Source indices of one batch, and their positions in the order."""
        pool, place = divmod(step, _POOL_BATCHES)
        part = slice(place * self._size, (place + 1) * self._size)
        indices, positions = self._pool(pass_index, pool)
        return indices[part], positions[part]

    def _pool(self, pass_index: int, pool: int) -> tuple[Indices, Indices]:
        found = self._pools.get((pass_index, pool))
        if found is None:
            start = pool * _POOL_BATCHES * self._size
            stop = min(start + _POOL_BATCHES * self._size, self._count)
            indices = self._order.span(pass_index, start, stop)
            places = np.argsort(self.lengths[indices], kind="stable")
            whole = len(places) // self._size
            if self._seed is not None and whole > 1:
                # A smaller last batch stays the last one.
                turn = Permutation(whole, ("bucket", self._seed, pass_index, pool))(np.arange(whole))
                batches = places[: whole * self._size].reshape(whole, self._size)[turn]
                places = np.concatenate([batches.reshape(-1), places[whole * self._size :]])
            found = indices[places], start + places
            for old in list(self._pools)[: 1 - _KEPT_POOLS]:
                self._pools.pop(old, None)  # another lane may have let it go
            self._pools[pass_index, pool] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pools": {}}
