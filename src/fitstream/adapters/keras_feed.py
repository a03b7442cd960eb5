"""One loader's batches on their way into one Keras loop of ours: fit, evaluate or predict.

Since we call Keras here, we know more than a bare `KerasDataset` can: a callback tells when a loop really begins, so
whatever is asked for before that gets blank batches of the plan's spec. Keras builds an unbuilt model on those (and
TensorFlow from the dataset's signature), so nothing is read twice and nothing has to be put back.

A run is one stretch of batches: all epochs of a fit, or one pass where its length isn't known; one validation; one
evaluation. JAX and PyTorch take a run from a PyDataset in the main thread. TensorFlow takes it from a generator in its
own threads, one batch ahead; the generator belongs to the run in which it began, and ends when that run does.

Before each step the callback makes sure, in the main thread, that the step's batches are there. So errors come out as
themselves and not as TensorFlow's, JAX isn't hit between taking the model's variables and giving them back, and Ctrl-C
doesn't wait inside TensorFlow.

Where a pass has no known length, one batch more is read ahead, so that its last batch is known before it is trained on.
The epoch ends there by an `OpenLength` on JAX and PyTorch, which Keras compares its steps to, and on TensorFlow by the
flag that stops a loop; fit takes it back before anyone else can see it. So does the rest of an epoch of which an
earlier run trained on the first steps.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np

from fitstream.adapters.class_weights import map_tree
from fitstream.adapters.keras import keras, next_pass, runs_once, too_short
from fitstream.errors import LoaderClosed
from fitstream.loader import Loader, Stream
from fitstream.spec import ArraySpec

__all__ = ["Feed", "FeedCallback", "build_for_tensorflow"]


@final
class Feed:
    """Hands a loader's batches to Keras, run by run.

    Args:
        loader: Where they come from.
        steps: Batches of an epoch (training) or of a run (else); None for a pass of unknown length.
        trims: Whether padding is cut off, as it must be where results are averaged over samples.
        own: Whether the loader is ours: epoch e then starts where epoch e of an unbroken training does. A user's loader
            goes on where it is.

    Attributes:
        goes_on: Whether a user's loader goes on in mid-pass, and not with the next pass.
        prepare: Called with each batch, or None.
        spec: Tree of `ArraySpec` of the batches that `prepare` returns.
        error: What failed while a batch was made.
        sample_count: Real samples of the batches of this run.
        one_shot: Whether the source is a generator that can run only once.
        resumed: Steps of the first epoch that an earlier run trained on; the loader's next batch is the one after them.
            None where no earlier run is resumed.
        place: Pass and step of the batch after those of the steps that have begun.
    """

    def __init__(self, loader: Loader, steps: int | None, *, own: bool, trims: bool = False) -> None:
        self.loader = loader
        self.steps = steps
        self.goes_on = False
        self.prepare: Callable[[Any], Any] | None = None
        self.spec = loader.plan.batch_spec
        self._trims = trims and loader.plan.last == "pad"
        if self._trims:
            self.spec = map_tree(lambda leaf: ArraySpec((None, *leaf.shape[1:]), leaf.dtype), self.spec)
        self.error: Exception | None = None
        self.sample_count = 0
        self.one_shot = runs_once(loader)
        self.resumed: int | None = None
        self.place = (0, 0)
        self._own = own
        self._lock = threading.Lock()
        self._run: object | None = None
        self._stream: Stream | None = None
        self._waiting: deque[Any] = deque()
        self._places: deque[tuple[int, int]] = deque()
        self._first = (0, 0)
        self._taken = self._given = self._begun = 0
        self._end: int | None = None
        self._planned: int | None = None
        #: Steps of this epoch, where they are known, and those that the run had begun before it.
        self._epoch_steps: int | None = None
        self._before = 0

    # Runs. Called in the main thread.

    def start_epochs(self, epoch: int, count: int) -> None:
        """Begin a run of `count` epochs of `steps` batches, passes laid end to end."""
        assert self.steps is not None
        length = self.loader.plan.steps
        place: tuple[int | None, int] = (None, 0)
        if self.resumed is not None:
            pass
        elif self._own:
            place = (epoch, 0) if length is None else divmod(epoch * self.steps, length)
        elif not self.goes_on:
            place = (next_pass(self.loader), 0)
        steps = self.steps * count - (self.resumed or 0)
        self._start(self.loader.stream(first_pass=place[0], first_step=place[1], steps=steps))
        self._planned = steps

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

    def begin_epoch(self) -> None:
        """Count an epoch's steps from here."""
        first = self._begun == 0 and self._epoch_steps is None
        self._epoch_steps = None if self.steps is None else self.steps - (self.resumed or 0) * first
        self._before = self._begun

    def end_run(self) -> None:
        """Give out nothing more until the next run; ends a wait of TensorFlow's threads."""
        self._run = None
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
        """Wait until the batches of the next step are there.

        Raises:
            FitstreamError: What failed while they were made.
        """
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
        """Whether an epoch may end before Keras has counted its steps."""
        return self.steps is None or bool(self.resumed)

    @property
    def in_last_step(self) -> bool:
        """Whether the step that began last is the last of its epoch."""
        return self.is_over(self._begun - self._before)

    def is_over(self, steps: int) -> bool:
        """Whether this epoch has no more than `steps` steps, as far as is known."""
        end = self._end if self.steps is None else self._epoch_steps
        return end is not None and steps >= end

    def next_epoch_place(self) -> tuple[int, int]:
        """Pass and step of the first batch of the epoch after this one, once this one has ended."""
        pass_index, step = self.place
        return (pass_index, step) if self.goes_on else (pass_index + (step > 0), 0)

    # Batches. Called in any thread.

    def batches(self) -> Iterator[Any]:
        """Batches of an epoch of the run that goes on; blank ones if none does."""
        run = self._run
        steps = self.steps if self._epoch_steps is None else self._epoch_steps
        for _ in itertools.count() if steps is None else range(steps):
            batch = self.blank() if run is None else self._next(run)
            if batch is None:
                return
            yield batch

    def next(self) -> Any:
        """The next batch of the run that goes on; a blank one if there is none."""
        run = self._run
        # JAX on an accelerator asks one batch ahead, and so beyond the end of an epoch that Keras can't foresee.
        if run is None or (self.open and self.is_over(self._given - self._before)):
            return self.blank()
        batch = self._next(run)
        if self.error is not None:
            raise self.error
        if batch is None and self.steps is not None:
            raise LoaderClosed(f"Keras asked for more than {self._given} batches, but no more were planned.")
        return self.blank() if batch is None else batch

    def blank(self) -> Any:
        """A batch of zeros, of the plan's shapes and dtypes."""
        rows = self.loader.plan.batch_size
        return map_tree(lambda leaf: np.zeros((rows, *leaf.shape[1:]), leaf.dtype), self.spec)

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


class FeedCallback(keras.callbacks.Callback):
    """Tells feeds when loops begin and end. Comes first among the callbacks.

    It has no hook for the end of a batch: one such hook makes Keras wait for the device after each step.

    Args:
        train: Batches to train on, or None outside fit.
        other: Batches to validate with, evaluate or predict.
        epochs: The last epoch of fit.
    """

    def __init__(self, train: Feed | None = None, other: Feed | None = None, epochs: int = 1) -> None:
        super().__init__()
        self._train = train
        self._other = other
        self._epochs = epochs
        self._epoch = 0
        self._running = False
        self._by_flag = keras.backend.backend() == "tensorflow"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        if self._train is None:
            return
        if self._train.steps is None:
            self._train.start_pass(epoch)
        elif not self._running:
            self._train.start_epochs(epoch, self._epochs - epoch)
        self._train.begin_epoch()
        self._running = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._train is not None:
            self._expect(self._train, batch)
            if self._by_flag and self._train.open and self._train.in_last_step:
                self.model.stop_training = _PASS_OVER

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._take_flag_back()

    def on_train_end(self, logs: Any = None) -> None:
        if self._train is not None:
            self._train.end_run()

    def on_test_begin(self, logs: Any = None) -> None:
        self._take_flag_back()
        if self._other is not None:
            self._other.start_pass(self._epoch)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._other is not None:
            self._expect(self._other, batch)
            if self._by_flag and self._other.open and self._other.in_last_step:
                self.model.stop_evaluating = True

    def on_test_end(self, logs: Any = None) -> None:
        if self._other is not None:
            self._other.end_run()

    def on_predict_begin(self, logs: Any = None) -> None:
        self.on_test_begin()

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._other is not None:
            self._expect(self._other, batch)
            if self._by_flag and self._other.open and self._other.in_last_step:
                self.model.stop_predicting = True

    def on_predict_end(self, logs: Any = None) -> None:
        self.on_test_end()

    def _expect(self, feed: Feed, batch: int) -> None:
        count = int(self.model.steps_per_execution)
        feed.expect(count if feed.steps is None else min(count, feed.steps - batch))

    def _take_flag_back(self) -> None:
        if getattr(self.model, "stop_training", False) is _PASS_OVER:
            self.model.stop_training = False


#: Stands for True as `model.stop_training`, and is told apart from a True that a user's callback sets.
_PASS_OVER = object()


def build_for_tensorflow(model: Any, spec: Any) -> None:
    """Build an unbuilt model and its optimizer on TensorFlow, where Keras does so in the first step only.

    On JAX and PyTorch Keras builds before training, and callbacks such as BackupAndRestore need that.

    Args:
        model: A compiled model.
        spec: Tree of `ArraySpec` of its batches.
    """
    if keras.backend.backend() != "tensorflow":
        return
    x = spec[0] if isinstance(spec, tuple) else spec
    with model.distribute_strategy.scope():
        if not model.built:
            try:
                model(map_tree(lambda leaf: keras.KerasTensor(leaf.shape, leaf.dtype.name), x))
            except Exception:  # noqa: BLE001
                return  # Not every model can be called without data; Keras builds such a one in the first step.
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
