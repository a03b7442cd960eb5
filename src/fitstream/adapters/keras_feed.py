"""Batches on their way into one Keras loop of ours: fit, evaluate or predict.

Since we call Keras here, we know more than a bare `KerasDataset` can: a callback tells when a loop really begins, so
whatever is asked for before that gets blank batches. Keras builds an unbuilt model on those (and TensorFlow from the
dataset's signature), so nothing is read twice and nothing has to be put back.

A run is one stretch of batches: all epochs of a fit, or one pass where its length isn't known; one validation; one
evaluation. JAX and PyTorch take a run from a PyDataset in the main thread. TensorFlow takes it from a generator in its
own threads, one batch ahead; the generator belongs to the run in which it began, and ends when that run does.

Before each step the callback makes sure, in the main thread, that the step's batches are there. So errors come out as
themselves and not as TensorFlow's, JAX isn't hit between taking the model's variables and giving them back, and Ctrl-C
doesn't wait inside TensorFlow.

Where an epoch's length isn't known before, it ends by an `OpenLength` on JAX and PyTorch, which Keras compares its
steps to, and on TensorFlow by the flag that stops a loop; fit takes it back before anyone else can see it. So does the
rest of an epoch of which an earlier run trained on the first steps.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from fitstream.adapters.class_weights import ClassWeights, Weights, map_tree
from fitstream.adapters.keras import keras
from fitstream.errors import LoaderClosed

__all__ = ["Feed", "FeedCallback", "build_ahead", "build_for"]


class Feed(ABC):
    """Hands batches to Keras, run by run. Where they come from is for a subclass to say.

    Args:
        steps: Batches of an epoch (training) or of a run (else); None where that isn't the same for all, or not known.
        spec: Tree of `ArraySpec` of the batches.

    Attributes:
        prepare: Adds class weights to each batch; None without.
        spec: Tree of `ArraySpec` of the batches that `prepare` returns.
        error: What failed while a batch was made.
    """

    def __init__(self, steps: int | None, spec: Any) -> None:
        self.steps = steps
        self.spec = spec
        self.prepare: ClassWeights | None = None
        self.error: Exception | None = None
        self._lock = threading.Lock()
        self._run: object | None = None
        self._waiting: deque[Any] = deque()
        self._given = self._begun = 0
        #: Batches of the run up to the end of its only epoch, once that is known.
        self._end: int | None = None
        #: Steps of this epoch, where they are known, and those that the run had begun before it.
        self._epoch_steps: int | None = None
        self._before = 0

    def weigh(self, weights: Weights, output_names: Sequence[str]) -> None:
        """Multiply class weights into sample weights.

        Raises:
            PlanError: If there are no targets, or they don't match the weights.
        """
        self.prepare = ClassWeights(weights, self.spec, output_names)
        self.spec = self.prepare.spec

    # Runs. Called in the main thread.

    @abstractmethod
    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Begin an epoch of training, of which `epochs` is the last; the first one begins the run."""

    def end_epoch(self) -> None:
        """Training on an epoch's batches, and validation after it, have ended."""

    @abstractmethod
    def start_pass(self, epoch: int) -> None:
        """Begin a run to validate with, evaluate or predict."""

    def end_run(self) -> None:
        """Give out nothing more until the next run; ends a wait of TensorFlow's threads."""
        self._run = None

    @abstractmethod
    def close(self) -> None:
        """End the last run."""

    @abstractmethod
    def expect(self, count: int) -> None:
        """Wait until the batches of the next step are there.

        Raises:
            FitstreamError: What failed while they were made.
        """

    @property
    def unforeseen(self) -> bool:
        """Whether nobody can tell before an epoch how many steps it has."""
        return self.steps is None

    @property
    def epoch_steps(self) -> int | None:
        """Steps of this epoch or run, or else of the next one; None where that isn't known."""
        return self.steps

    def has_more(self) -> bool:
        """Whether there is a batch for another epoch or run. May read one batch ahead."""
        return True

    @property
    @abstractmethod
    def open(self) -> bool:
        """Whether an epoch may end before Keras has counted its steps."""

    @property
    def in_last_step(self) -> bool:
        """Whether the step that began last is the last of its epoch."""
        return self.is_over(self._begun - self._before)

    @abstractmethod
    def is_over(self, steps: int) -> bool:
        """Whether this epoch has no more than `steps` steps, as far as is known."""

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

    @abstractmethod
    def blank(self) -> Any:
        """A batch of zeros, of the shapes and dtypes that batches have."""

    @abstractmethod
    def _next(self, run: object) -> Any:
        """The run's next batch; None if there is none or another run goes on."""


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
        self._by_flag = keras.backend.backend() == "tensorflow"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        if self._train is not None:
            self._train.begin_epoch(epoch, self._epochs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._train is not None:
            self._expect(self._train, batch)
            if self._by_flag and self._train.open and self._train.in_last_step:
                self.model.stop_training = _PASS_OVER

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._take_flag_back()
        if self._train is not None:
            self._train.end_epoch()

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
        # Not by an evaluation within the last step of an epoch.
        if self._train is not None and getattr(self.model, "stop_training", False) is _PASS_OVER:
            self.model.stop_training = False


#: Stands for True as `model.stop_training`, and is told apart from a True that a user's callback sets.
_PASS_OVER = object()


def build_ahead(model: Any, spec: Any) -> None:
    """Build an unbuilt model, and its optimizer on TensorFlow, where Keras does so in the first step only.

    On JAX and PyTorch Keras builds before training (callbacks such as BackupAndRestore need that), but for the shapes
    of one batch: where batches differ in length, later ones wouldn't fit.

    Args:
        model: A compiled model.
        spec: Tree of `ArraySpec` of its batches.
    """
    x = spec[0] if isinstance(spec, tuple) else spec
    if keras.backend.backend() != "tensorflow":
        lengths = [None in leaf.shape[1:] for leaf in keras.tree.flatten(x)]
        if any(lengths) and not model.built:
            build_for(model, x)
        return
    with model.distribute_strategy.scope():
        if not model.built and not build_for(model, x):
            return
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


def build_for(model: Any, x: Any) -> bool:
    """Build a model for inputs of a spec. False if it can't be called without data; Keras builds it in the first step.

    Args:
        model: A model.
        x: Tree of `ArraySpec`, None in the shapes for axes that may vary.
    """
    try:
        model(map_tree(lambda leaf: keras.KerasTensor((None, *leaf.shape[1:]), leaf.dtype.name), x))
    except Exception:  # noqa: BLE001  a program's own model may raise anything
        return False
    return True
