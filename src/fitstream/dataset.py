"""A dataset: what can be asked of a description, the plan that proves that it fits, and the loader that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from fitstream.batching import BatchOrder
from fitstream.checking import check_samples
from fitstream.described import Described
from fitstream.events import Observer
from fitstream.loader import Loader
from fitstream.looking import SAMPLE_LIMIT_BYTES, class_weights, one_batch, one_sample
from fitstream.operations import Batch, told
from fitstream.plan import Plan
from fitstream.planning import make_plan
from fitstream.policy import DEFAULT, OnBadSample, Policy
from fitstream.probe import batch_order, probe, sample_order
from fitstream.sampling import Order, Shard, Shuffle
from fitstream.sources.base import Sequential, Source

__all__ = ["Dataset"]


@final
class Dataset(Described):
    """Samples from a source, and what is done to them. Made by the `fs.from_...` functions.

    Operations go in this order: `take`, `split`, `sample`, then `shuffle`, then `batch`; `map` anywhere before `batch`;
    `shard` before `batch` to divide samples, or after it to divide each global batch.
    """

    __slots__ = ()

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
                told = "the generator's length isn't known; give it as from_generator(fn, length=...)."
                if self._source.remedy is not None:
                    told = f"the length isn't known, since samples {self._source.why}. {self._source.remedy}"
                raise TypeError(told)
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
        from fitstream.choosing import class_labels  # late, as in `described`

        return class_weights(class_labels(self._source, self._operations, "class_weights()"))

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
