"""The immutable description of a dataset: a source and a tuple of operations.

Each method returns a new description and reads nothing, except those that say so. `plan` proves that it fits,
`loader` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from fitstream.batching import BatchOrder
from fitstream.checking import check_samples
from fitstream.errors import PlanError
from fitstream.events import Observer
from fitstream.loader import Loader
from fitstream.looking import SAMPLE_LIMIT_BYTES, class_weights, one_batch, one_sample
from fitstream.operations import Batch, Last, Map, Operation, told, whole_number, with_map_batch
from fitstream.plan import Plan
from fitstream.planning import make_plan
from fitstream.policy import DEFAULT, OnBadSample, Policy
from fitstream.probe import batch_order, probe, sample_order
from fitstream.sampling import Order, Shard, Shuffle, Split, Take
from fitstream.sources.base import Sequential, Source

__all__ = ["Dataset"]


@final
class Dataset:
    """Samples from a source, and what is done to them. Made by the `fs.from_...` functions.

    Operations go in this order: `take`, `split`, then `shuffle`, then `batch`; `map` anywhere before `batch`; `shard`
    before `batch` to divide samples, or after it to divide each global batch.
    """

    __slots__ = ("_operations", "_source", "_whole_batch_size")

    def __init__(
        self, source: Source | Sequential, operations: Sequence[Operation] = (), whole_batch_size: int | None = None
    ) -> None:
        self._source = source
        self._operations = tuple(operations)
        self._whole_batch_size = whole_batch_size

    def _with(self, *operations: Operation) -> Dataset:
        return Dataset(self._source, (*self._operations, *operations), self._whole_batch_size)

    def _has(self, *kinds: type) -> bool:
        return any(isinstance(operation, kinds) for operation in self._operations)

    # Operations.

    def map(self, fn: Callable[..., Any]) -> Dataset:
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

    def shuffle(self, seed: int = 0) -> Dataset:
        """Give each pass its own order, a keyed permutation of all samples that is computed and not stored.

        Args:
            seed: Equal seeds give equal orders, on every machine. Also seeds random transforms.
        Raises:
            PlanError: If the source has no random access, or batches or another shuffle come before.
        """
        seed = whole_number(seed, "seed", 0)
        self._must_be_random_access("shuffle()", "Shuffle inside the generator, or put its samples on disk.")
        if self._has(Batch):
            raise PlanError(f"shuffle() must come before batch(): write .shuffle({seed}).batch(64).")
        if self._has(Shuffle):
            raise PlanError("the dataset is shuffled already; one shuffle() gives each pass its own full order.")
        return self._with(Shuffle(seed))

    def batch(
        self,
        size: int,
        last: Last = "keep",
        *,
        mask: bool = False,
        pad: bool | Sequence[int | str] = False,
        max_length: int | None = None,
        bucket_by: Callable[..., int] | Sequence[int] | None = None,
    ) -> Dataset:
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
                batch. True for all arrays, or the parts, by key or place: `pad=["tokens"]`, `pad=[0]`.
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

    def map_batch(self, fn: Callable[..., Any]) -> Dataset:
        """Call a function for each finished batch, in the thread that takes the batch: it should be fast.

        Args:
            fn: Called as `map` does, with arrays `(batch, ...)` of the samples (of its part, for a shard), without
                padding and mask. It changes them in place, or returns others of the same shapes and dtypes, which are
                copied. `rng` is seeded by (seed, pass, place in the chain, step).
        Raises:
            PlanError: If it isn't callable, or comes before `batch`.
        """
        return Dataset(self._source, with_map_batch(self._operations, fn, batched=self.batched), self._whole_batch_size)

    def shard(self, index: int, count: int) -> Dataset:
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

    def take(self, count: int) -> Dataset:
        """Keep the first `count` samples (or all, if there are fewer).

        Raises:
            PlanError: If it comes after `shuffle` or `batch`, or the source has no random access.
        """
        count = whole_number(count, "count", 1)
        self._must_be_random_access("take()", "Use from_generator(fn, length=...), which ends a pass there.")
        self._must_come_first(f"take({count})")
        return self._with(Take(count))

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Divide the samples at random into two datasets without overlap.

        Args:
            fraction: Share of the first, between 0 and 1; rounded to whole samples, at least one on each side.
            seed: Which samples go where.
        Returns:
            `(first, rest)`.
        Raises:
            PlanError: If it comes after `shuffle` or `batch`, or a side would be empty.
        """
        self._must_be_random_access("split()", "Give the two parts as two generators.")
        self._must_come_first(f"split({fraction})")
        return self._split(len(self._operations), fraction, seed)

    def split_off(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
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
        ordering = (Shuffle, Shard, Batch)
        at = next((i for i, one in enumerate(self._operations) if isinstance(one, ordering)), len(self._operations))
        train, validation = self._split(at, 1 - fraction, seed)
        kept = [
            Batch(one.size, "keep", False) if isinstance(one, Batch) and not one.mask else one
            for one in validation._operations
            if not isinstance(one, Shuffle)
        ]
        return train, Dataset(self._source, kept, self._whole_batch_size)

    def _split(self, at: int, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
            raise PlanError(f"fraction={fraction!r} must be between 0 and 1.")
        seed = whole_number(seed, "seed", 0)
        before, after = self._operations[:at], self._operations[at:]
        count = Dataset(self._source, before)._order().count
        if count < 2:
            raise PlanError(f"a dataset of {count} sample can't be split into two.")
        first = min(count - 1, max(1, round(count * fraction)))
        parts = [Split(0, first, seed), Split(first, count - first, seed)]
        one, other = (Dataset(self._source, (*before, part, *after), self._whole_batch_size) for part in parts)
        return one, other

    def _must_be_random_access(self, what: str, advice: str) -> None:
        if isinstance(self._source, Sequential):
            raise PlanError(
                f"{what} needs samples that can be read in any order, but these come from a generator. {advice}"
            )

    def _must_come_first(self, call: str) -> None:
        if self._has(Shuffle, Batch):
            advice = f"must come before shuffle() and batch(): write .{call}.shuffle(0).batch(64)."
            raise PlanError(f"{call.partition('(')[0]}() {advice}")

    # What can be asked.

    def _order(self) -> Order:
        assert isinstance(self._source, Source)
        return sample_order(self._source, self._operations)

    @property
    def _batch(self) -> Batch | None:
        return next((operation for operation in self._operations if isinstance(operation, Batch)), None)

    def _batch_order(self, batch: Batch) -> BatchOrder:
        last = self._operations[-1]
        assert isinstance(self._source, Source)
        return batch_order(self._source, self._operations, batch, last if isinstance(last, Shard) else None)

    @property
    def batched(self) -> bool:
        """Whether it gives batches."""
        return self._batch is not None or self._whole_batch_size is not None

    @property
    def shuffled(self) -> bool:
        """Whether passes have orders of their own."""
        return self._has(Shuffle)

    def __len__(self) -> int:
        """Batches of a pass if it is batched, else samples.

        Raises:
            TypeError: If the source doesn't know.
        """
        batch = self._batch
        if isinstance(self._source, Sequential):
            length = self._source.length
            if length is None:
                raise TypeError("the generator's length isn't known; give it as from_generator(fn, length=...).")
            if batch is None:
                return length
            return length // batch.size if batch.last == "drop" else -(-length // batch.size)
        return self._order().count if batch is None else self._batch_order(batch).steps

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int) -> Any:
        """Read one sample (or batch, if it is batched) of pass 0, in the calling thread.

        Raises:
            IndexError: If there is no such sample.
            PlanError: If the source is a generator.
            SampleError: If it can't be made.
        """
        self._must_be_random_access("ds[i]", "Iterate a loader.")
        count = len(self)
        if not isinstance(index, (int, np.integer)):
            raise TypeError(f"ds[i] takes one integer, not a {type(index).__name__}.")
        place = int(index) + count if index < 0 else int(index)
        if not 0 <= place < count:
            raise IndexError(f"index {index} is out of range: there are {count}.")
        if (batch := self._batch) is not None:
            return one_batch(self.plan(workers=0), self._operations, self._batch_order(batch).rows(0, place), place)
        assert isinstance(self._source, Source)
        return one_sample(self._source, self._operations, self._order(), place)

    @property
    def spec(self) -> Any:
        """Tree of `ArraySpec` of a sample, or of a batch with None for an axis that varies. Reads one sample."""
        if self.batched:
            return self.plan(workers=0).batch_spec
        first = probe(self._source, self._operations, whole=False, limit_bytes=SAMPLE_LIMIT_BYTES)
        return first.structure.build(first.specs)

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in label order, or None where labels aren't classes."""
        return self._source.class_names

    def class_weights(self) -> dict[int, float]:
        """Weights that make classes count alike: samples / (classes * samples of the class), for `class_weight=`.

        Returns:
            A weight for each class that has samples, by label.
        Raises:
            PlanError: If the labels aren't known, or aren't whole numbers, one a sample.
        """
        labels = self._source.labels() if isinstance(self._source, Source) else None
        if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
            raise PlanError("class_weights() needs one whole number a sample as label, known without reading samples.")
        order = self._order()
        return class_weights(labels[order.indices(0, np.arange(order.count))])

    # Running it.

    def plan(
        self,
        memory: int | str = "auto",
        workers: int | str = "auto",
        processes: int | None = None,
        policy: Policy = DEFAULT,
        *,
        check: bool = False,
    ) -> Plan:
        """Work out the memory, or refuse.

        Reads one sample and starts nothing; safe in a notebook.

        Args:
            memory: Budget for all that fitstream allocates, in bytes or as text such as "2 GB"; "auto" is a quarter of
                what is free, at most 2 GiB.
            workers: Lanes that decode. 0 runs every stage in the calling thread; "auto" is one for each core, and while
                running only as many as keep the consumer from waiting.
            processes: Worker processes to spread the lanes over; 0 for threads of this process. None starts with
                threads, and moves to processes if batches are measured to come faster from there and the budget has
                room for them.
            policy: What becomes of samples that can't be made, as `loader` says it.
            check: Look for all files first, without reading them. Samples that are no files can't be looked for.
        Returns:
            A plan with `projected_bytes <= budget_bytes`. `print(plan)` explains it.
        Raises:
            PlanError: If two slots and one lane cannot fit.
            SampleError: If the first sample can't be made.
            SourceError: If `check` finds files that are missing, empty, closed to us, or no files; names the first ten.
        """
        if check and isinstance(self._source, Source):
            check_samples(self._source, self._operations)
        # fmt: off
        return make_plan(
            self._source, self._operations, whole_batch_size=self._whole_batch_size, memory=memory, workers=workers,
            processes=processes, policy=policy)
        # fmt: on

    def loader(
        self,
        memory: int | str = "auto",
        workers: int | str = "auto",
        processes: int | None = None,
        on_bad_sample: OnBadSample = "raise",
        max_bad_fraction: float = 0.01,
        sample_timeout_s: float | None = 300.0,
        observers: Sequence[Observer] = (),
    ) -> Loader:
        """Plan, and make a loader.

        Args:
            memory: As in `plan`.
            workers: As in `plan`.
            processes: As in `plan`. Worker processes that are asked for are started here.
            on_bad_sample: What becomes of a sample that can't be made, takes too long, or ends its worker process:
                "raise" its error; "skip" it, so that its batch is smaller; or "replace" it by another of the same pass,
                drawn by its place. `loader.stats().bad_samples` lists them.
            max_bad_fraction: Share of a pass's samples above which the epoch fails all the same, from 10 bad ones on.
            sample_timeout_s: Seconds that one sample may take; None for no deadline. A worker process that hangs is
                replaced, and `on_bad_sample` decides; with threads it is a `Stalled` error. With `workers=0` nobody
                watches.
            observers: Called with each event.
        Raises:
            PlanError: If the plan is refused, or a function or the source can't be sent to a worker process.
        """
        policy = Policy(on_bad_sample, max_bad_fraction, sample_timeout_s)
        return Loader(self.plan(memory, workers, processes, policy), observers)

    def __repr__(self) -> str:
        steps = [repr(self._source), *(told(operation) for operation in self._operations)]
        return f"Dataset({' > '.join(steps)})"
