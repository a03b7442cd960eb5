"""Batches of one generator or Sequence, in their order, through the ring.

A generator is one stream from the first batch to the last, whatever loops ask for them. A Sequence is a stream a pass:
between two passes nothing is read ahead, because `on_epoch_end` may change what the next one holds, and its length.
What it changed reaches worker processes before they make another batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence as Several
from typing import Any, final

from fitstream.batching import BatchOrder
from fitstream.errors import PlanError
from fitstream.events import Observer
from fitstream.legacy.program import warn
from fitstream.legacy.sequence import as_iterator, is_sequence
from fitstream.legacy.sources import BatchSequence
from fitstream.loader import Loader, Stream
from fitstream.machine import available_cores, why_no_processes
from fitstream.operations import whole_number
from fitstream.planning import make_free_plan
from fitstream.policy import Policy
from fitstream.sampling import Order, Shuffle
from fitstream.sources.generators import GeneratorSource

__all__ = ["Supply"]

#: Batches in flight where a program asks for a queue without a limit; the budget limits them as well.
_MANY = 100


@final
class Supply:
    """What makes the batches of one generator or Sequence, from the first one to `close`.

    Batches come as the program made them: the same tuples, lists and dicts, whose arrays stay valid as long as they are
    held. Of a generator each batch comes once, over all runs. A Sequence is taken in passes laid end to end: its length
    is read at the start of each, and `on_epoch_end` is called, by the caller of `take` or `finish_pass`, once all
    batches of a pass were taken.

    Args:
        data: A generator or a Sequence.
        name: What it is called in errors, such as "generator" or "validation_data".
        workers: Lanes; 0 makes batches in the thread that takes them. A generator runs in one.
        use_multiprocessing: Whether a Sequence's batches are made in worker processes, as many as `workers` but no more
            than cores (or two). Where that can't be, a warning says why, and threads make them.
        max_queue_size: Batches in flight, at most (with the one in the consumer's hand, at least 2); 0 for as many as
            `memory` allows.
        shuffle: Whether each pass of a Sequence has an order of its own.
        seed: Of that order, and of the random numbers in worker processes: `random` and `numpy.random` are seeded there
            for each batch, by (seed, pass, place).
        memory: Budget, as in `ds.plan`.
        sample_timeout_s: Seconds that one batch may take; None for no deadline.
        total: Batches that a generator will be asked for, over all runs; None where that isn't known.
        observers: Called with each event.
    Raises:
        PlanError: If it is neither, or an argument is impossible.

    Attributes:
        is_sequence: Whether it is a Sequence.
        loader: What runs it.
        taken: Batches taken so far, of all runs.
        ended: Whether a generator was found to have no more.
    """

    def __init__(
        self,
        data: Any,
        *,
        name: str = "generator",
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        shuffle: bool = False,
        seed: int = 0,
        memory: int | str = "auto",
        sample_timeout_s: float | None = 300.0,
        total: int | None = None,
        observers: Several[Observer] = (),
    ) -> None:
        self.is_sequence = is_sequence(data)
        self._data, self._name = data, name
        seed = whole_number(seed, "seed", 0)
        self._shuffle = [Shuffle(seed)] if shuffle else []
        self._total = total
        self.taken = 0
        self.ended = False
        self._left: int | None = 0
        self._stream: Stream | None = None
        self._pass = self._length = self._given = 0
        self._lock = threading.Lock()
        self._source: BatchSequence | GeneratorSource = self._find_source(data, name)
        self._observers = observers
        self._settings: dict[str, Any] = {
            "most_slots": whole_number(max_queue_size, "max_queue_size", 0) or _MANY,
            "memory": memory,
            "workers": whole_number(workers, "workers", 0),
            "seed": seed,
            "policy": Policy(sample_timeout_s=sample_timeout_s),
        }
        # More processes than cores make nothing faster, and each may import a framework.
        most = max(2, available_cores())
        self.loader = self._open(processes=min(workers, most) if use_multiprocessing and self.is_sequence else 0)

    def _find_source(self, data: Any, name: str) -> BatchSequence | GeneratorSource:
        if self.is_sequence:
            return BatchSequence(data, name)
        iterator = as_iterator(data)
        if iterator is None:
            raise PlanError(
                f"{name} is a {type(data).__name__}, neither a generator nor a Sequence. Give something with __next__, "
                "or with __len__ and __getitem__; arrays go to fs.fit or model.fit."
            )
        return GeneratorSource(iterator, None, "batches")

    def _open(self, processes: int) -> Loader:
        if processes and (why_not := why_no_processes()) is not None:
            self._warn_of_threads(why_not)
            processes = 0
        try:
            return Loader(self._plan(processes), self._observers)
        except PlanError as error:
            if not processes:
                raise
            self._warn_of_threads(f"{error}")
            return Loader(self._plan(0), self._observers)

    def _plan(self, processes: int) -> Any:
        settings = self._settings | ({"workers": processes} if processes else {})
        return make_free_plan(self._source, self._order(), processes=processes, **settings)

    def _warn_of_threads(self, why: str) -> None:
        warn(f"use_multiprocessing=True, but batches of the {type(self._data).__name__} are made in threads: {why}")

    def _order(self) -> BatchOrder | None:
        if isinstance(self._source, GeneratorSource):
            return None
        return BatchOrder(Order(len(self._source), self._shuffle), 1, "keep")

    def length(self) -> int | None:
        """Batches of a pass, as a Sequence says now; None for a generator."""
        return self._source.look() if isinstance(self._source, BatchSequence) else None

    def start(self, count: int | None = None, first_pass: int | None = None) -> None:
        """Begin a run, and end the one before. A generator goes on where it was; a Sequence begins a pass.

        Args:
            count: Batches that will be taken, at most; None where it isn't known. No more are made ahead of a Sequence.
            first_pass: Number of the first pass, which a shuffled order depends on; None for the next one.
        """
        self.stop()
        self._left = count
        if self.is_sequence:
            self._pass = self._pass if first_pass is None else first_pass
            self._begin_pass()

    def _begin_pass(self) -> None:
        assert isinstance(self._source, BatchSequence)
        self._length, self._given = self._source.look(), 0
        order = self._order()
        assert order is not None
        try:
            self.loader.renew(order)
        except PlanError as error:
            # What workers could be sent at first they can't be sent any more.
            self._warn_of_threads(f"{error}")
            self.loader.close()
            self.loader = self._open(processes=0)
        steps = self._length if self._left is None else min(self._length, self._left)
        self._stream = self.loader.stream(first_pass=self._pass, steps=steps)
        self._pass += 1

    def take(self) -> Any:
        """The next batch of the run.

        Raises:
            StopIteration: After the run's last one, or when the generator has ended.
            FitstreamError: If a batch can't be made. What the program's own code raised is its `__cause__`.
        """
        if self._left == 0 or self.ended or (self._total is not None and self.taken >= self._total):
            raise StopIteration
        if self.is_sequence and self._given == self._length:
            self.finish_pass()
            self._begin_pass()
        elif self._stream is None:
            self._stream = self.loader.stream(first_pass=0, steps=self._total, single_pass=True)
        stream = self._stream
        assert stream is not None
        try:
            batch = stream.take().batch
        except StopIteration:
            self.ended = not self.is_sequence
            raise
        self._given += 1
        self.taken += 1
        if self._left is not None:
            self._left -= 1
        return batch

    def finish_pass(self, *, left: bool = False) -> None:
        """Call the Sequence's `on_epoch_end`, if all batches of its pass were taken and it wasn't called for it.

        Args:
            left: The pass is over though batches are left, if any was taken.
        """
        with self._lock:
            over = self.is_sequence and self._length > 0 and (self._given == self._length or (left and self._given > 0))
            if over:
                self._length = self._given = 0
        if over and callable(told := getattr(self._data, "on_epoch_end", None)):
            told()

    def stop(self) -> None:
        """End the run: nothing more is made ahead. Batches of a generator that were made are kept for the next run."""
        self._left = 0
        if self.is_sequence and self._stream is not None:
            self._stream.close()
            self._stream = None

    def close(self) -> None:
        """End all lanes and worker processes. Batches that are still held stay valid."""
        self._left = 0
        if self._stream is not None:
            self._stream.close()
        self.loader.close()

    def __enter__(self) -> Supply:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
