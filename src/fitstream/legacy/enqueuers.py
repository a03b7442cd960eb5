"""`GeneratorEnqueuer` and `OrderedEnqueuer`: batches made ahead, for programs with a training loop of their own.

Keras had these two classes in several forms from 1.2 to 2.15, and programs use all of them. So first arguments go by
both of their names, Keras 1's names count beside the later ones, and what has lost its meaning is accepted and said to
be ignored. What runs is a `Supply`: a generator is run by one thread whatever `workers` says, so it needs no lock and
comes in order, each batch once. Keras ran it in several threads (an error, or disorder) or in copies (repetitions).

A batch that can't be made is an error at its turn, ours and of the type that the program's own code raised at once.
Keras 2.3 fetched it again after 30 s, or left it out, with a warning.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, final

from fitstream.errors import FitstreamError, PlanError
from fitstream.legacy.errors import as_raised
from fitstream.legacy.sequence import as_iterator, is_sequence
from fitstream.legacy.supply import Supply

__all__ = ["GeneratorEnqueuer", "OrderedEnqueuer", "ReadyQueue", "SequenceEnqueuer"]


class SequenceEnqueuer(ABC):
    """What both enqueuers do.

        enqueuer = OrderedEnqueuer(sequence)
        enqueuer.start(workers=2, max_queue_size=10)
        for batch in enqueuer.get():
            ...  # leave the loop some time: a Sequence begins again and again
        enqueuer.stop()

    Attributes:
        sequence: The generator or Sequence.
        use_multiprocessing: Whether a Sequence's batches are made in worker processes.
        shuffle: Whether each pass of a Sequence has an order of its own.
        workers: As `start` was told.
        queue: The batches that come next, as Keras 1 programs fetch them; None before `start` and after `stop`.
    """

    def __init__(self, sequence: Any, use_multiprocessing: bool, shuffle: bool) -> None:
        self.sequence = sequence
        self.use_multiprocessing = use_multiprocessing
        self.shuffle = shuffle
        self.workers = 0
        self.queue: ReadyQueue | None = None
        self._data = self._checked()
        self._supply: Supply | None = None
        self._ended = False

    @abstractmethod
    def _checked(self) -> Any:
        """What batches are taken from; a PlanError if it isn't what this class is for."""

    def start(
        self,
        workers: int = 1,
        max_queue_size: int = 10,
        wait_time: float | None = None,
        *,
        nb_worker: int | None = None,
        max_q_size: int | None = None,
        memory: int | str = "auto",
        sample_timeout_s: float | None = 300.0,
    ) -> None:
        """Begin to make batches. A Sequence begins a pass.

        Args:
            workers: How many batches of a Sequence are made at a time. 0 makes each when it is asked for.
            max_queue_size: Batches in flight, at most.
            wait_time: Ignored: nothing waits by sleeping.
            nb_worker: Keras 1's name for `workers`.
            max_q_size: Keras 1's name for `max_queue_size`.
            memory: Budget for the batches in flight, as in `ds.plan`.
            sample_timeout_s: Seconds that one batch may take; None for no deadline.
        Raises:
            PlanError: If an argument is impossible, or it runs already.
        """
        if self.is_running():
            raise PlanError("This enqueuer runs already: call stop() before another start().")
        self.workers = workers if nb_worker is None else nb_worker
        self._supply = Supply(
            self._data,
            workers=self.workers,
            use_multiprocessing=self.use_multiprocessing,
            max_queue_size=max_queue_size if max_q_size is None else max_q_size,
            shuffle=self.shuffle,
            memory=memory,
            sample_timeout_s=sample_timeout_s,
        )
        self._ended = False
        self._supply.start()
        self.queue = ReadyQueue(self._supply, self)

    def is_running(self) -> bool:
        """Whether there may be batches to get: between `start` and `stop`, an error, or a generator's end."""
        return self._supply is not None

    def get(self) -> Iterator[Any]:
        """The batches, as the program made them, in order; those that are None are left out, as Keras always did.

        A Sequence begins again after each pass, with `on_epoch_end` called in between, by the thread that takes the
        batches. It goes on until `stop`; then, and when a generator ends, so does this iterator.

        Raises:
            PlanError: If it was never started.
            FitstreamError: What failed; also an instance of what the program's own code raised. Nothing runs any more
                then.
        """
        if self.queue is None and not self._ended:
            raise PlanError(f"This {type(self).__name__} makes no batches yet: call start() first.")
        while (ready := self.queue) is not None:
            try:
                batch = ready.get()
            except queue.Empty:
                return
            if batch is not None:
                yield batch

    def stop(self, timeout: float | None = None) -> None:
        """End all that runs. Batches made ahead are let go; those that are held stay valid. May be called again.

        Args:
            timeout: Ignored: it waits for the batch being made, within a deadline of its own.
        """
        supply, self._supply, self.queue = self._supply, None, None
        if supply is not None:
            self._ended = True
            supply.close()


@final
class GeneratorEnqueuer(SequenceEnqueuer):
    """Batches of a generator, made ahead by one thread.

    Args:
        generator: Anything with `__next__` or `next`, or a function that makes such a thing.
        use_multiprocessing: Accepted; a generator runs once, here, and never in copies.
        wait_time: Ignored: nothing waits by sleeping.
        random_seed: Ignored: what a generator draws, it draws in this process.
        sequence: Keras 2.2's and 2.3's name for `generator`.
        pickle_safe: Keras 1's name for `use_multiprocessing`.
        seed: Keras 2.1's name for `random_seed`.
    Raises:
        PlanError: If it is no generator.
    """

    def __init__(
        self,
        generator: Any = None,
        use_multiprocessing: bool = False,
        wait_time: float | None = None,
        random_seed: int | None = None,
        *,
        sequence: Any = None,
        pickle_safe: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(generator if sequence is None else sequence, use_multiprocessing or pickle_safe, False)

    def _checked(self) -> Any:
        # A function is called once, here, so that another start() goes on with the same generator.
        data = self.sequence if is_sequence(self.sequence) else as_iterator(self.sequence)
        if data is None:
            raise PlanError(
                f"GeneratorEnqueuer takes a generator, not a {type(self.sequence).__name__}: something with __next__, "
                "or a function that yields batches."
            )
        return data


@final
class OrderedEnqueuer(SequenceEnqueuer):
    """Batches of a Sequence, in order, pass after pass.

    Args:
        sequence: A Sequence, or anything with `__getitem__` and a length, such as Keras 3's PyDataset.
        use_multiprocessing: Whether batches are made in worker processes.
        shuffle: Whether each pass has an order of its own. Always the same orders: they are computed.
        scheduling: Keras 2.0.6's form of `shuffle`: "sequential", or anything else.
        pickle_safe: Keras 1's name for `use_multiprocessing`.
    Raises:
        PlanError: If it is no Sequence.
    """

    def __init__(
        self,
        sequence: Any,
        use_multiprocessing: bool = False,
        shuffle: bool | str = False,
        *,
        scheduling: str = "sequential",
        pickle_safe: bool = False,
    ) -> None:
        shuffled = (shuffle if isinstance(shuffle, bool) else shuffle != "sequential") or scheduling != "sequential"
        super().__init__(sequence, use_multiprocessing or pickle_safe, shuffled)

    def _checked(self) -> Any:
        if not is_sequence(self.sequence):
            raise PlanError(
                f"OrderedEnqueuer takes a Sequence, with __getitem__ and __len__, not a "
                f"{type(self.sequence).__name__}. For a generator there is GeneratorEnqueuer."
            )
        return self.sequence

    def join_end_of_epoch(self) -> None:
        """Call the Sequence's `on_epoch_end` now, if all batches of its pass were taken and it wasn't called yet."""
        if self._supply is not None:
            self._supply.finish_pass()


@final
class ReadyQueue:
    """The batches that come next, as Keras 1 programs ask for them: `while is_running(): if not queue.empty(): ...`.

    How many are ready isn't told: there is no `qsize()`, since the engine may hold some that are half made.
    """

    def __init__(self, supply: Supply, enqueuer: SequenceEnqueuer) -> None:
        self._supply = supply
        self._enqueuer = enqueuer
        self._turn = threading.RLock()
        self._peeked: list[Any] = []

    def empty(self) -> bool:
        """Whether no batch will come. Waits for the next one, if it isn't ready."""
        with self._turn:
            if not self._peeked:
                try:
                    self._peeked.append(self.get())
                except queue.Empty:
                    return True
            return False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The next batch; waits for it. Safe in several threads: each batch goes to one of them.

        Args:
            block: Ignored: it always waits.
            timeout: Ignored: `start(sample_timeout_s=)` bounds the wait.
        Raises:
            queue.Empty: After `stop`, or at a generator's end.
        """
        with self._turn:
            if self._peeked:
                return self._peeked.pop()
            if self._enqueuer.queue is not self:
                raise queue.Empty
            try:
                batch = self._supply.take()
            except StopIteration:
                self._enqueuer.stop()
                raise queue.Empty from None
            except BaseException as error:
                stopped_meanwhile = self._enqueuer.queue is not self
                self._enqueuer.stop()
                if stopped_meanwhile and isinstance(error, FitstreamError):
                    raise queue.Empty from None
                if isinstance(error, FitstreamError):
                    raise as_raised(error) from error.__cause__
                raise
            if self._enqueuer.queue is not self:  # stopped by another thread, while this one waited
                raise queue.Empty
            return batch
