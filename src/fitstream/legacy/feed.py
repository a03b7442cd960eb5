"""Batches of a `Supply` as a `Feed`: they vary in size, epochs in length, and a generator may end at any of them.

All batches are taken in the main thread, before the step that wants them; TensorFlow's own threads only wait for what
was taken. So with `workers=0` everything happens in the calling thread, errors come at their batch's turn, and nothing
has to be unblocked when a loop ends.

Whether a generator goes on is learned by looking at its next batch, so that the last one is known before it is trained
on. What was looked at stays in the `Line`, and whoever asks next gets it: with one generator for training and
validation the batches go to each in the order in which they ask.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from fitstream.adapters.class_weights import Weights, map_tree
from fitstream.adapters.keras_feed import Feed
from fitstream.errors import PlanError
from fitstream.legacy.batches import BatchReader
from fitstream.legacy.errors import as_raised
from fitstream.legacy.supply import Supply

__all__ = ["Count", "Line", "SupplyFeed", "first_leaf"]


class Count(NamedTuple):
    """How much an epoch, validation, evaluation or prediction takes.

    Attributes:
        steps: Batches; None for a pass of a Sequence, or where samples are counted.
        samples: Samples, of which the last batch may bring too many; None where batches are counted.
    """

    steps: int | None = None
    samples: float | None = None


@final
class Line:
    """A Supply whose next batch can be looked at. The feeds of one loop may share it."""

    def __init__(self, supply: Supply) -> None:
        self.supply = supply
        self.taken = 0
        self._ahead: deque[tuple[Any, Exception | None]] = deque()
        self._untouched = False

    def start(self, count: int | None, first_pass: int | None = None) -> None:
        """Begin a run, unless the one that goes on gave nothing yet."""
        if self._untouched:
            return
        self.supply.start(count, first_pass)
        self._untouched = True

    def goes_on(self) -> bool:
        """Whether there is a batch more, or an error in its place."""
        if not self._ahead:
            try:
                self._ahead.append((self.supply.take(), None))
            except StopIteration:
                return False
            except Exception as error:  # noqa: BLE001  raised when the batch's turn has come
                self._ahead.append((None, as_raised(error)))
        return True

    def look(self) -> Any:
        """The next batch, which stays in the line.

        Raises:
            StopIteration: If there is none.
            FitstreamError: If it can't be made.
        """
        if not self.goes_on():
            raise StopIteration
        batch, error = self._ahead[0]
        if error is not None:
            raise error
        return batch

    def take(self) -> Any:
        """The next batch. Raises as `look` does."""
        batch = self.look()
        self._ahead.clear()
        self._untouched = False
        self.taken += 1
        return batch


@final
class SupplyFeed(Feed):
    """Hands the batches of a generator or a Sequence to Keras.

    The first batch is looked at here: later ones have its form, and it is the first that the loop gets.

    Args:
        line: Where they come from.
        reader: Makes batches of what the program made.
        count: Batches or samples of an epoch or a run.
        name: What they come from, for errors.
        run_steps: Batches of the first run; None where that isn't known.
        first_pass: As in `Supply.start`, of the first run.
    Raises:
        PlanError: If there is no batch at all.
        FitstreamError: If the first batch can't be made.

    Attributes:
        ended: Whether the generator ended before all was given that an epoch or run asked for.
        seen_batches: Given to steps in all runs.
        seen_samples: Likewise.
    """

    def __init__(
        self,
        line: Line,
        reader: BatchReader,
        count: Count,
        name: str,
        run_steps: int | None = None,
        first_pass: int | None = None,
    ) -> None:
        self._line, self._reader, self._count = line, reader, count
        self._of_sequence = line.supply.is_sequence
        self._steps_now = count.steps if count != Count() else self._line.supply.length()
        line.start(run_steps if self._of_sequence else None, first_pass if self._of_sequence else None)
        try:
            first = reader.read(line.look(), 0)
        except StopIteration:
            raise PlanError(f"{name} gives nothing: it ended before its first batch.") from None
        super().__init__(count.steps, reader.set_first(first))
        # Not the first batch itself, which would keep its slot as long as TensorFlow keeps what it was given.
        self._blank = map_tree(np.zeros_like, first)
        self.ended = False
        self.seen_batches = self.seen_samples = 0
        self._samples = 0
        self._cause: BaseException | None = None
        self._owner = threading.get_ident()
        self._arrived = threading.Condition(self._lock)

    def weigh(self, weights: Weights, output_names: Sequence[str]) -> None:
        super().weigh(weights, output_names)
        if self.prepare is not None:
            self._blank = self.prepare(self._blank)

    # Runs. Called in the main thread.

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self._begin(object())

    def end_epoch(self) -> None:
        if self._of_sequence:
            self._line.supply.finish_pass()
            if self._count == Count():
                self._steps_now = self._line.supply.length()

    def leave_pass(self) -> None:
        """Training has stopped early: the pass of a Sequence is over, wherever it is."""
        self._line.supply.finish_pass(left=True)

    def start_pass(self, epoch: int) -> None:
        if self._of_sequence:
            if self._count == Count():
                self._steps_now = self._line.supply.length()
            self._line.start(self._steps_now)
        self._begin(object())

    def _begin(self, run: object) -> None:
        with self._arrived:
            self._run = run
            self._waiting.clear()
            self._given = self._begun = self._samples = 0
            self._end = self._steps_now
            self._arrived.notify_all()

    def end_run(self) -> None:
        with self._arrived:
            super().end_run()
            self._arrived.notify_all()
        self._line.supply.finish_pass()

    def close(self) -> None:
        with self._arrived:
            self._run = None
            self._waiting.clear()
            self._arrived.notify_all()
        self.error = self._cause = None  # an error holds frames, and they this

    def has_more(self) -> bool:
        if self._of_sequence:
            return True
        self.ended = self.ended or not self._line.goes_on()
        return not self.ended

    @property
    def unforeseen(self) -> bool:
        return True

    @property
    def epoch_steps(self) -> int | None:
        return self._steps_now

    def expect(self, count: int) -> None:
        self._begun += count
        with self._arrived:
            if self.error is not None:
                raise self.error
            self._fill(self._begun - self._given)
            if self.error is not None:
                raise self.error
            self._arrived.notify_all()

    def restore_cause(self, error: BaseException) -> None:
        """Give an error of this feed its cause back: Keras raises what it lets through `from None`."""
        if error is self.error:
            error.__cause__ = self._cause

    @property
    def open(self) -> bool:
        return True

    def is_over(self, steps: int) -> bool:
        return self._end is not None and steps >= self._end

    # Batches. Called in any thread.

    def blank(self) -> Any:
        return self._blank

    def _next(self, run: object) -> Any:
        with self._arrived:
            if threading.get_ident() == self._owner:
                self._fill(1)
            else:
                self._arrived.wait_for(lambda: run is not self._run or self._waiting or self.is_over(self._given))
            if run is not self._run or not self._waiting:
                return None
            self._given += 1
            return self._waiting.popleft()

    def _fill(self, count: int) -> None:
        """Take batches until `count` wait, or the epoch or run is over."""
        while len(self._waiting) < count and not self.is_over(self._given + len(self._waiting)) and self.error is None:
            try:
                index = self._line.taken
                batch = self._reader.read(self._line.take(), index)
                rows = len(first_leaf(batch))
                if self.prepare is not None:
                    batch = self.prepare(batch)
            except StopIteration:
                self._end_early()
                return
            except Exception as error:  # noqa: BLE001
                # Raised by `expect`, before the step that wants this batch.
                self.error, self._cause = error, error.__cause__
                return
            self._waiting.append(batch)
            self.seen_batches += 1
            self.seen_samples += rows
            self._samples += rows
            taken = self._given + len(self._waiting)
            if self._count.samples is not None and self._samples >= self._count.samples:
                self._end = taken
            elif not self.is_over(taken) and not self._of_sequence and not self._line.goes_on():
                self._end_early()

    def _end_early(self) -> None:
        self.ended = True
        self._end = self._given + len(self._waiting)


def first_leaf(batch: Any) -> Any:
    """The first array of a batch, whose length is the batch's rows."""
    while isinstance(batch, (tuple, dict)):
        batch = next(iter(batch.values() if isinstance(batch, dict) else batch))
    return batch
