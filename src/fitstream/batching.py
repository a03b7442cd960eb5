"""Which rows make which batch: (pass, step) -> source indices, computed and never stored.

`steps` batches make a pass. Batch k of pass e holds the samples at positions `[k * size, (k + 1) * size)` of that pass;
with `last="wrap"` the positions run on over passes laid end to end, each pass exact and with its own order.
A shard after the batch takes its contiguous part of each global batch, so that the ranks' parts joined are that batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from fitstream.buckets import Buckets
from fitstream.errors import PlanError
from fitstream.operations import Last
from fitstream.sampling import Indices, Order, Selection, Shard

__all__ = ["BatchOrder", "Rows"]


@final
@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one batch.

    Attributes:
        indices: Source indices of the real rows, `(real,)`.
        passes: The pass of each real row, `(real,)`.
        count: All rows, padding included.
        draws: Where a sample may come more than once in a pass, the place of each real row in its pass; else None.
    """

    indices: Indices
    passes: Indices
    count: int
    draws: Indices | None = None


@final
class BatchOrder:
    """The batches of a source of known length.

    Args:
        order: The order of its samples.
        size: Samples of a global batch.
        last: What becomes of the rest that is smaller than a batch.
        shard: The part of each global batch that is ours.
        lengths: Of all samples of the source, where those of like length are joined; or None.
    Raises:
        PlanError: If no batch comes out, or the batch can't be divided among the ranks.
    """

    __slots__ = ("_last", "_order", "_shard", "_size", "buckets", "steps")

    def __init__(
        self,
        order: Order,
        size: int,
        last: Last,
        shard: Shard | None = None,
        lengths: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._order, self._size, self._last, self._shard = order, size, last, shard
        count = order.count
        self.steps = count // size if last == "drop" else -(-count // size)
        grouped = self.steps * size if last == "drop" else count
        self.buckets = None if lengths is None else Buckets(order, size, lengths, grouped)
        if self.steps == 0:
            why = f'last="drop" leaves no batch of {size}' if count else "there are no samples to batch"
            raise PlanError(f"{why}: the dataset has {count} samples. Use a batch size <= {max(count, 1)}.")
        if shard is not None:
            self._check_shard(shard, count % size)

    def _check_shard(self, shard: Shard, rest: int) -> None:
        if self._size % shard.count:
            down = self._size // shard.count * shard.count
            raise PlanError(
                f"a batch of {self._size} can't be divided evenly among {shard.count} ranks. "
                f"Use a batch size of {f'{down} or ' if down else ''}{down + shard.count}."
            )
        if self._last == "keep" and 0 < rest < shard.count:
            raise PlanError(
                f"the last batch has {rest} samples, fewer than the {shard.count} ranks, so some rank would get none "
                'and take fewer steps. Use last="drop", last="pad" or last="wrap".'
            )

    @property
    def size(self) -> int:
        """Samples of a global batch."""
        return self._size

    @property
    def sample_count(self) -> int:
        """Samples of a pass, of all ranks."""
        return self._order.count

    @property
    def selections(self) -> tuple[Selection, ...]:
        """What chooses and orders samples."""
        return self._order.selections

    @property
    def index_bytes(self) -> int:
        """Memory of what is stored of the order."""
        return self._order.index_bytes

    @property
    def capacity(self) -> int:
        """Rows of the largest batch that this rank gets."""
        largest = self._size if self._last in ("pad", "wrap") else min(self._size, self._order.count)
        if self._shard is None:
            return largest
        return -(-largest // self._shard.count)

    @property
    def constant(self) -> bool:
        """Whether all batches have the same number of rows."""
        whole = self._order.count % self._size == 0 or (self.steps == 1 and self._shard is None)
        return self._last != "keep" or whole

    def row_counts(self, step: int) -> tuple[int, int]:
        """Real rows, and all rows with padding, of one batch of this rank."""
        low, end, high = self._part(step)
        return end - low, high - low

    def rows(self, pass_index: int, step: int) -> Rows:
        """The rows of one batch of this rank."""
        low, end, high = self._part(step)
        start = step * self._size
        if self._last == "wrap":
            start += pass_index * self.steps * self._size
            return self._wrapped(start + low, start + end)
        passes = np.full(end - low, pass_index, dtype=np.int64)
        if self.buckets is not None:
            indices, positions = self.buckets.rows(pass_index, step)
            return Rows(indices[low:end], passes, high - low, positions[low:end] if self._order.repeats else None)
        draws = np.arange(start + low, start + end) if self._order.repeats else None
        return Rows(self._order.span(pass_index, start + low, start + end), passes, high - low, draws)

    def donor(self, pass_index: int, step: int, row: int, attempt: int) -> int:
        """The sample that takes a bad one's row.

        Args:
            pass_index: The row's pass.
            row: Of this rank's part; where it is in the global batch decides, so that ranks draw alike.
            attempt: From 1; the next one where this one is bad too.
        Returns:
            A source index of the same pass.
        """
        return self._order.drawn(pass_index, step, self._part(step)[0] + row, attempt)

    def _part(self, step: int) -> tuple[int, int, int]:
        """Where this rank's rows of a global batch start, where the real ones end, and where the padding does."""
        size, count = self._size, self._order.count
        real = size if self._last == "wrap" else min(size, count - step * size)
        total = size if self._last in ("wrap", "pad") else real
        low, high = 0, total
        if self._shard is not None:
            low = total * self._shard.index // self._shard.count
            high = total * (self._shard.index + 1) // self._shard.count
        return low, max(low, min(high, real)), high

    def _wrapped(self, first: int, end: int) -> Rows:
        """Rows at positions of passes laid end to end."""
        count = self._order.count
        indices, passes = [], []
        for one in range(first // count, -(-end // count)):
            start, stop = max(0, first - one * count), min(count, end - one * count)
            indices.append(self._order.span(one, start, stop))
            passes.append(np.full(stop - start, one, dtype=np.int64))
        draws = np.arange(first, end) % count if self._order.repeats else None
        return Rows(np.concatenate(indices), np.concatenate(passes), end - first, draws)
