"""Batches of one generator or Sequence, in their order."""

from __future__ import annotations

from typing import Any, final

from fitstream.errors import PlanError
from fitstream.legacy.sequence import as_iterator, is_sequence

__all__ = ["Supply"]


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
        workers: Lanes; 0 makes batches in the thread that takes them.
        use_multiprocessing: Whether a Sequence's batches are made in worker processes.
        max_queue_size: Batches in flight, at most.
        shuffle: Whether each pass of a Sequence has an order of its own.
        seed: Of that order, and of the random numbers in worker processes.
        memory: Budget, as in `ds.plan`.
        sample_timeout_s: Seconds that one batch may take; None for no deadline.
        total: Batches that a generator will be asked for, over all runs; None where that isn't known.
    Raises:
        PlanError: If it is neither, or an argument is impossible.

    Attributes:
        is_sequence: Whether it is a Sequence.
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
    ) -> None:
        # A stand-in: everything in the calling thread.
        self.is_sequence = is_sequence(data)
        self._data = data
        self._iterator = None if self.is_sequence else as_iterator(data)
        if self._iterator is None and not self.is_sequence:
            raise PlanError(f"{name} is a {type(data).__name__}, neither a generator nor a Sequence.")
        self.taken = 0
        self.ended = False
        self._total = total
        self._left: int | None = 0
        self._place = 0
        self._length = 0

    def length(self) -> int | None:
        """Batches of a pass, as a Sequence says now; None for a generator."""
        return len(self._data) if self.is_sequence else None

    def start(self, count: int | None = None) -> None:
        """Begin a run, and end the one before. A generator goes on where it was; a Sequence begins a pass.

        Args:
            count: Batches that will be taken, at most; None where it isn't known. No more are made ahead of a Sequence.
        """
        self._left = count
        if self.is_sequence:
            self._place, self._length = 0, len(self._data)

    def take(self) -> Any:
        """The next batch of the run.

        Raises:
            StopIteration: After the run's last one, or when the generator has ended.
            FitstreamError: If a batch can't be made. What the program's own code raised is its `__cause__`.
        """
        if self._left == 0:
            raise StopIteration
        if self._iterator is not None:
            if self._total is not None and self.taken >= self._total:
                raise StopIteration
            try:
                batch = next(self._iterator)
            except StopIteration:
                self.ended = True
                raise
        else:
            if self._place == self._length:
                self.finish_pass()
                self._place, self._length = 0, len(self._data)
            batch = self._data[self._place]
            self._place += 1
        if self._left is not None:
            self._left -= 1
        self.taken += 1
        return batch

    def finish_pass(self) -> None:
        """Call the Sequence's `on_epoch_end`, if all batches of its pass were taken and it wasn't called for it."""
        if self.is_sequence and self._place and self._place == self._length:
            self._place = self._length = 0
            if hasattr(self._data, "on_epoch_end"):
                self._data.on_epoch_end()

    def stop(self) -> None:
        """End the run: nothing more is made ahead. Batches of a generator that were made are kept for the next run."""
        self._left = 0

    def close(self) -> None:
        """End all lanes and worker processes. Batches that are still held stay valid."""
        self._left = 0
