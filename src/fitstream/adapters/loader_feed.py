"""One loader's batches as a `Feed`.

Where a pass has no known length, one batch more is read ahead, so that its last batch is known before it is trained on.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any, final

import numpy as np

from fitstream.adapters.class_weights import map_tree
from fitstream.adapters.keras import blank_length, next_pass, runs_once, too_short
from fitstream.adapters.keras_feed import Feed
from fitstream.errors import LoaderClosed
from fitstream.loader import Loader, Stream
from fitstream.spec import ArraySpec

__all__ = ["LoaderFeed"]


@final
class LoaderFeed(Feed):
    """Hands a loader's batches to Keras, run by run.

    Args:
        loader: Where they come from.
        steps: Batches of an epoch (training) or of a run (else); None for a pass of unknown length.
        trims: Whether padding is cut off, as it must be where results are averaged over samples.
        own: Whether the loader is ours: epoch e then starts where epoch e of an unbroken training does. A user's loader
            goes on where it is.

    Attributes:
        goes_on: Whether a user's loader goes on in mid-pass, and not with the next pass.
        sample_count: Real samples of the batches of this run.
        one_shot: Whether the source is a generator that can run only once.
        resumed: Steps of the first epoch that an earlier run trained on; the loader's next batch is the one after them.
            None where no earlier run is resumed.
        place: Pass and step of the batch after those of the steps that have begun.
    """

    def __init__(self, loader: Loader, steps: int | None, *, own: bool, trims: bool = False) -> None:
        super().__init__(steps, loader.plan.batch_spec)
        self.loader = loader
        self.goes_on = False
        self._trims = trims and loader.plan.last == "pad"
        if self._trims:
            self.spec = map_tree(lambda leaf: ArraySpec((None, *leaf.shape[1:]), leaf.dtype), self.spec)
        self.sample_count = 0
        self.one_shot = runs_once(loader)
        self.resumed: int | None = None
        self.place = (0, 0)
        self._own = own
        self._stream: Stream | None = None
        self._places: deque[tuple[int, int]] = deque()
        self._first = (0, 0)
        self._taken = 0
        self._planned: int | None = None
        self._in_epochs = False

    # Runs. Called in the main thread.

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """As in `Feed`. Where the length of a pass isn't known, each epoch is a run of its own."""
        if self.steps is None:
            self.start_pass(epoch)
        elif not self._in_epochs:
            self._start_epochs(epoch, self.steps, epochs - epoch)
        first = self._begun == 0 and self._epoch_steps is None
        self._epoch_steps = None if self.steps is None else self.steps - (self.resumed or 0) * first
        self._before = self._begun
        self._in_epochs = True

    def _start_epochs(self, epoch: int, steps: int, count: int) -> None:
        """Begin a run of `count` epochs of `steps` batches, passes laid end to end."""
        length = self.loader.plan.steps
        place: tuple[int | None, int] = (None, 0)
        if self.resumed is not None:
            pass
        elif self._own:
            place = (epoch, 0) if length is None else divmod(epoch * steps, length)
        elif not self.goes_on:
            place = (next_pass(self.loader), 0)
        planned = steps * count - (self.resumed or 0)
        self._start(self.loader.stream(first_pass=place[0], first_step=place[1], steps=planned))
        self._planned = planned

    def start_pass(self, epoch: int) -> None:
        """Begin a run of `steps` batches from the start of a pass on, or of one whole pass.

        A generator that can run only once isn't started again, but goes on.
        """
        if self.one_shot and self._stream is not None:
            self._run = object()
            return
        if self.resumed is not None and self._stream is None:
            self._start(self.loader.stream(single_pass=True))
            return
        first = epoch if self._own else next_pass(self.loader)
        steps = None if self.one_shot else self.steps
        self._start(self.loader.stream(first_pass=first, steps=steps, single_pass=self.steps is None))
        self._planned = steps

    def _start(self, stream: Stream) -> None:
        with self._lock:
            self._run, self._stream, self._first = object(), stream, stream.position
            self._waiting.clear()
            self._places.clear()
            self.place = stream.position
            self._taken = self._given = self._begun = self.sample_count = 0
            self._end = self._planned = None

    def end_run(self) -> None:
        super().end_run()
        if self._stream is not None and not self.one_shot:
            self._stream.close()

    def close(self) -> None:
        """End the last run, and move a user's loader back over batches that were read ahead but not used."""
        self._run = None
        if self._stream is None:
            return
        self._stream.close()
        length = self.loader.plan.steps
        failed, self.error = self.error is not None, None  # an error holds frames, and they this
        if self._own or self.one_shot or length is None or failed or self._begun >= self._taken:
            return
        place = divmod(self._first[0] * length + self._first[1] + self._begun, length)
        with contextlib.suppress(LoaderClosed):
            self.loader.stream(first_pass=place[0], first_step=place[1], steps=0).close()

    def expect(self, count: int) -> None:
        self._begun += count
        if self._given < self._begun:
            with self._lock:
                if self.error is not None:
                    raise self.error
                self._fill(self._begun - self._given)
        for _ in range(min(count, len(self._places))):
            self.place = self._places.popleft()

    @property
    def open(self) -> bool:
        return self.steps is None or bool(self.resumed)

    def is_over(self, steps: int) -> bool:
        end = self._end if self.steps is None else self._epoch_steps
        return end is not None and steps >= end

    def next_epoch_place(self) -> tuple[int, int]:
        """Pass and step of the first batch of the epoch after this one, once this one has ended."""
        pass_index, step = self.place
        return (pass_index, step) if self.goes_on else (pass_index + (step > 0), 0)

    # Batches. Called in any thread.

    def blank(self) -> Any:
        rows, length = self.loader.plan.batch_size, blank_length(self.loader.plan)
        return map_tree(
            lambda leaf: np.zeros((rows, *(length if n is None else n for n in leaf.shape[1:])), leaf.dtype),
            self.spec,
        )

    def _next(self, run: object) -> Any:
        with self._lock:
            if run is not self._run or self.error is not None:
                return None
            try:
                self._fill(1)
            except Exception:  # noqa: BLE001
                # Kept as `error`, and raised in the main thread before the step that wants this batch.
                return None
            if not self._waiting:
                return None
            self._given += 1
            return self._waiting.popleft()

    def _fill(self, count: int) -> None:
        """Take batches until `count` wait (and one more where the end of a pass must be foreseen), or the run ends."""
        stream = self._stream
        assert stream is not None
        count += self.steps is None
        while len(self._waiting) < count and self._end is None:
            try:
                delivered = stream.take()
                batch = delivered.batch
                if self._trims:
                    batch = map_tree(lambda leaf, count=delivered.sample_count: leaf[:count], batch)
                if self.prepare is not None:
                    batch = self.prepare(batch)
            except StopIteration:
                self._end = self._taken
                if self._planned is not None and self._taken < self._planned:
                    self.error = too_short(self._taken, self._planned)
                    raise self.error from None
                if self.steps is None and stream.position[1] > 0:
                    self.loader.set_epoch(stream.position[0] + 1)
                return
            except Exception as error:
                if self._run is not None or not isinstance(error, LoaderClosed):
                    self.error = error
                raise
            self._waiting.append(batch)
            self._places.append(stream.position)
            self._taken += 1
            self.sample_count += delivered.sample_count
            if self.steps is None and delivered.last_of_pass:
                self._end = self._taken
