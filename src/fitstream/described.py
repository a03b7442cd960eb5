"""What a dataset is made of, and the operations that describe another one.

Each method returns a new description and reads nothing.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from fitstream.errors import PlanError
from fitstream.operations import Batch, Last, Map, Operation, whole_number, with_map_batch
from fitstream.sampling import Draw, Shard, Shuffle, Take
from fitstream.sources.base import Sequential, Source

__all__ = ["Described"]


class Described(ABC):  # noqa: B024  what describes is a Dataset, in `dataset`
    """A source and a tuple of operations. Immutable."""

    __slots__ = ("_operations", "_source", "_whole_batch_size")

    def __init__(
        self, source: Source | Sequential, operations: Sequence[Operation] = (), whole_batch_size: int | None = None
    ) -> None:
        self._source = source
        self._operations = tuple(operations)
        self._whole_batch_size = whole_batch_size

    def _with(self, *operations: Operation) -> Self:
        return type(self)(self._source, (*self._operations, *operations), self._whole_batch_size)

    def _has(self, *kinds: type) -> bool:
        return any(isinstance(operation, kinds) for operation in self._operations)

    # Operations.

    def map(self, fn: Callable[..., Any]) -> Self:
        """Call a function for each sample.

        Args:
            fn: Called as `fn(*parts)` for a tuple, `fn(sample)` otherwise, in several lanes at once. If its
                signature names `rng`, it gets a `numpy.random.Generator` seeded by (seed, pass, place in the chain,
                source index), so that epochs differ and are the same again with any number of workers. The arrays that
                it gets are its own: it may change or keep them. Finished batches of `from_batches` are passed whole.
        Raises:
            PlanError: If it isn't callable, or comes after `batch`.
        """
        if not callable(fn):
            raise PlanError(f"map() needs a function, not a {type(fn).__name__}.")
        if self._has(Batch):
            raise PlanError("map() works on samples and must come before batch(): write .map(fn).batch(64).")
        return self._with(Map.of(fn))

    def shuffle(self, seed: int = 0, *, within: Literal["chunks"] | None = None, window_blocks: int = 8) -> Self:
        """Give each pass its own order, a keyed permutation of all samples that is computed and not stored.

        Args:
            seed: Equal seeds give equal orders, on every machine. Also seeds random transforms.
            within: "chunks" for sources that are read in blocks (HDF5 and zarr in chunks, Parquet, tars): the blocks
                are permuted, and then the samples of each `window_blocks` blocks, so that each block is read once by
                each lane. Samples of one block stay near each other: see docs/sampling.md for the price.
            window_blocks: Blocks whose samples are mixed, which each lane keeps in memory.
        Raises:
            PlanError: If the source has no random access or no blocks, or batches or another shuffle come before.
        """
        seed = whole_number(seed, "seed", 0)
        self._must_be_random_access("shuffle()", "Shuffle inside the generator, or put its samples on disk.")
        if self._has(Batch):
            raise PlanError(f"shuffle() must come before batch(): write .shuffle({seed}).batch(64).")
        if self._has(Shuffle):
            raise PlanError("the dataset is shuffled already; one shuffle() gives each pass its own full order.")
        if within is None:
            return self._with(Shuffle(seed))
        if within != "chunks":
            raise PlanError(f'within={within!r} must be "chunks", or None for all samples.')
        window = whole_number(window_blocks, "window_blocks", 1)
        assert isinstance(self._source, Source)
        from fitstream.choosing import chunk_shuffle  # late: it and what it imports would slow `import fitstream`

        source, shuffle = chunk_shuffle(self._source, self._operations, seed, window)
        return type(self)(source, (*self._operations, shuffle), self._whole_batch_size)

    def batch(
        self,
        size: int,
        last: Last = "keep",
        *,
        mask: bool = False,
        pad: bool | Sequence[int | str] = False,
        max_length: int | None = None,
        bucket_by: Callable[..., int] | Sequence[int] | None = None,
    ) -> Self:
        """Join samples to batches.

        Args:
            size: Samples of a batch; of a global batch, where `shard` follows.
            last: What becomes of a pass's rest: "keep" a smaller batch, "drop" it, "pad" it with zero samples, or
                "wrap" into the next pass (batch k of epoch e holds the samples from `(e * len + k) * size` on, of the
                passes laid end to end).
            mask: Add a last part, float32 `(batch,)`, that is 1 for samples and 0 for padding; Keras takes it as
                sample weights when samples are `(x, y)`. With `pad`, float32 `(batch, length)`: 1 where the first array
                that is padded has numbers of a sample.
            pad: Samples differ in length: pad each array's first axis with zeros at its end, up to the longest in the
                batch. True for all arrays, or the parts, by key (at any depth) or place: `pad=["tokens"]`, `pad=[0]`.
            max_length: The longest that a sample may be, where they are padded; memory is planned for it. None for the
                largest that `bucket_by` says.
            bucket_by: Join samples of like length: a function that tells a sample's length, called as a map's would be
                (when the plan is made, every sample is made once for it), or one number a sample of the source. Of
                every 64 batches of the shuffled order the samples are sorted by length; the batches come shuffled.
        Raises:
            PlanError: If the size isn't positive, the policy unknown, or the dataset batched already.
        """
        size = whole_number(size, "batch size", 1)
        max_length = None if max_length is None else whole_number(max_length, "max_length", 1)
        if last not in ("keep", "drop", "pad", "wrap"):
            raise PlanError(f'last={last!r} must be "keep", "drop", "pad" or "wrap".')
        if self._has(Batch) or self._whole_batch_size is not None:
            raise PlanError("the dataset gives batches already; call batch() once, and not after from_batches().")
        if last == "wrap":
            self._must_be_random_access('batch(last="wrap")', 'Use "keep", "drop" or "pad".')
        if bucket_by is not None:
            self._must_be_random_access("batch(bucket_by=)", "Use pad=True with max_length=.")
        return self._with(Batch.padding(size, last, mask, pad, max_length, bucket_by))

    def map_batch(self, fn: Callable[..., Any]) -> Self:
        """Call a function for each finished batch, in the thread that takes the batch: it should be fast.

        Args:
            fn: Called as `map` does, with arrays `(batch, ...)` of the samples (of its part, for a shard), without
                padding and mask. It changes them in place, or returns others of the same shapes and dtypes, which are
                copied. `rng` is seeded by (seed, pass, place in the chain, step).
        Raises:
            PlanError: If it isn't callable, or comes before `batch`.
        """
        batched = self._has(Batch) or self._whole_batch_size is not None
        operations = with_map_batch(self._operations, fn, batched=batched)
        return type(self)(self._source, operations, self._whole_batch_size)

    def shard(self, index: int, count: int) -> Self:
        """Keep one rank's part.

        After `batch(G)`: the contiguous `index`-th of `count` parts of each global batch, so that the ranks' batches
        together are the global batch and all ranks take equally many steps. Before: every `count`-th sample from the
        `index`-th on; then ranks may differ by one sample.

        Args:
            index: Our rank, from 0.
            count: Number of ranks.
        Raises:
            PlanError: If the rank is outside the range, or the source has no random access.
        """
        count = whole_number(count, "shard count", 1)
        index = whole_number(index, "shard index", 0)
        if index >= count:
            raise PlanError(f"shard({index}, {count}): the index must be below the count, ranks count from 0.")
        self._must_be_random_access("shard()", "Divide the samples inside the generator.")
        if self._operations and isinstance(self._operations[-1], Shard):
            raise PlanError("the dataset is sharded already.")
        return self._with(Shard(index, count))

    def take(self, count: int) -> Self:
        """Keep the first `count` samples (or all, if there are fewer).

        Raises:
            PlanError: If it comes after `shuffle` or `batch`, or the source has no random access.
        """
        count = whole_number(count, "count", 1)
        self._must_be_random_access("take()", "Use from_generator(fn, length=...), which ends a pass there.")
        self._must_come_first(f"take({count})")
        return self._with(Take(count))

    def sample(self, count: int, replacement: bool = True, seed: int = 0, *, balance: bool = False) -> Self:
        """Draw samples anew each pass, so that a pass has `count`.

        Args:
            count: Samples of a pass; with replacement also more than there are.
            replacement: Whether a sample may come more than once. Random transforms then differ each time.
            seed: Which samples come.
            balance: All classes equally often (to one), whatever their sizes.
        Raises:
            PlanError: If it comes after `shuffle` or `batch`, there are too few samples, or classes aren't known.
        """
        count, seed = whole_number(count, "count", 1), whole_number(seed, "seed", 0)
        self._must_be_random_access("sample()", "Draw inside the generator.")
        self._must_come_first(f"sample({count})")
        assert isinstance(self._source, Source)
        from fitstream.choosing import draw  # late: it and what it imports would slow `import fitstream`

        return self._with(draw(self._source, self._operations, count, seed, replacement=replacement, balance=balance))

    def split(self, fraction: float, seed: int = 0, stratify: bool = False) -> tuple[Self, Self]:
        """Divide the samples at random into two datasets without overlap.

        Args:
            fraction: Share of the first, between 0 and 1; rounded to whole samples, at least one on each side.
            seed: Which samples go where.
            stratify: Give each class the same share on both sides; one of two samples or more is on both.
        Returns:
            `(first, rest)`.
        Raises:
            PlanError: If it comes after `sample`, `shuffle` or `batch`, a side would be empty, or classes aren't known.
        """
        self._must_be_random_access("split()", "Give the two parts as two generators.")
        self._must_come_first(f"split({fraction})")
        return self._split(len(self._operations), fraction, seed, stratify)

    def split_off(self, fraction: float, seed: int = 0) -> tuple[Self, Self]:
        """Divide for training and validation, before any shuffle and batch that the dataset has.

        Args:
            fraction: Share of the validation samples, between 0 and 1.
            seed: Which samples go where.
        Returns:
            `(train, validation)`; validation isn't shuffled and keeps its last, smaller batch.
        Raises:
            PlanError: If a side would be empty, or the source has no random access.
        """
        self._must_be_random_access("validation_split", "Give validation_data=.")
        ordering = (Draw, Shuffle, Shard, Batch)
        at = next((i for i, one in enumerate(self._operations) if isinstance(one, ordering)), len(self._operations))
        train, validation = self._split(at, 1 - fraction, seed)
        kept = [
            replace(one, last="keep") if isinstance(one, Batch) and not one.mask else one
            for one in validation._operations
            if not isinstance(one, (Draw, Shuffle))
        ]
        return train, type(self)(self._source, kept, self._whole_batch_size)

    def _split(self, at: int, fraction: float, seed: int, stratify: bool = False) -> tuple[Self, Self]:
        assert isinstance(self._source, Source)
        source, before, after = self._source, self._operations[:at], self._operations[at:]
        from fitstream.choosing import renewed, split  # late: it and what it imports would slow `import fitstream`

        parts = split(source, before, fraction, whole_number(seed, "seed", 0), stratify=stratify)
        one, other = (
            type(self)(source, (*before, part, *renewed(source, (*before, part), after)), self._whole_batch_size)
            for part in parts
        )
        return one, other

    def _must_be_random_access(self, what: str, advice: str) -> None:
        if isinstance(self._source, Sequential):
            raise PlanError(
                f"{what} needs samples that can be read in any order, but these {self._source.why}. "
                f"{self._source.remedy or advice}"
            )

    def _must_come_first(self, call: str) -> None:
        if self._has(Shuffle, Batch):
            name = call.split("(", maxsplit=1)[0]
            raise PlanError(f"{name}() must come before shuffle() and batch(): write .{call}.shuffle(0).batch(64).")
