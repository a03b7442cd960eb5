"""`fit_generator`, `evaluate_generator` and `predict_generator` of Keras 1 and 2, on Keras 3's own loops.

Each opens what it is given (`opening.py`), lets Keras run over it, and says at the end what a generator that ended
early left out. Nothing is read ahead of what a call needs but by the queue, and that is bounded by what the call asks
for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fitstream.adapters.class_weights import Weights
from fitstream.adapters.keras import keras
from fitstream.adapters.keras_arguments import check_execution, output_names, validation_frequency
from fitstream.adapters.keras_callbacks import end_threads, flat_callbacks
from fitstream.adapters.keras_data import as_keras_data
from fitstream.adapters.keras_feed import Feed, FeedCallback, build_ahead
from fitstream.legacy.feed import SupplyFeed, first_leaf
from fitstream.legacy.keywords import takes_old_keywords
from fitstream.legacy.opening import (
    Asked,
    Epochs,
    Opener,
    Settings,
    is_batches,
    to_class_weights,
    to_count,
    validation_arrays,
    whole,
)
from fitstream.legacy.program import warn

__all__ = ["evaluate_generator", "fit_arrays", "fit_generator", "predict_generator"]


@takes_old_keywords
def fit_generator(
    model: Any,
    generator: Any,
    steps_per_epoch: float | None = None,
    epochs: int = 1,
    verbose: Any = 1,
    callbacks: Any = None,
    validation_data: Any = None,
    validation_steps: float | None = None,
    validation_freq: int | Sequence[int] = 1,
    class_weight: Weights | None = None,
    max_queue_size: int = 10,
    workers: int = 1,
    use_multiprocessing: bool = False,
    shuffle: bool = True,
    initial_epoch: int = 0,
    *,
    memory: int | str = "auto",
    seed: int = 0,
    sample_timeout_s: float | None = 300.0,
    samples_per_epoch: float | None = None,
    nb_val_samples: float | None = None,
) -> Any:
    """Train a model on batches from a generator or a `Sequence`, as Keras 1 and 2 did; every batch exactly once.

    Keras 1's keywords work as well: `nb_epoch`, `max_q_size`, `nb_worker`, `pickle_safe`.

    Args:
        model: A compiled `keras.Model`.
        generator: Anything with `__next__` or `next`, a generator function, or a Sequence: anything with `__getitem__`
            and `__len__`. Batches are `x`, `(x, y)` or `(x, y, sample_weight)`, tuples or lists; lists and dicts inside
            are several inputs or outputs. A batched Dataset too, or an object whose `as_dataset()` makes one.
        steps_per_epoch: Batches of an epoch; a fraction counts as a whole one. None for a pass of the Sequence, whose
            length is read anew each epoch. Fewer go on in the next epoch, more wrap.
        epochs: The last epoch.
        verbose: 0 is quiet, 1 a bar, 2 a line an epoch.
        callbacks: Keras callbacks.
        validation_data: Arrays `(x, y)` or `(x, y, sample_weight)`, a generator, which goes on from validation to
            validation, or a Sequence, whose batches are the same each time. If it is the generator that trains, each
            batch goes to the one that asks for it.
        validation_steps: Batches of a validation; None for a pass of a Sequence.
        validation_freq: Validate every so many epochs, or after those listed, counted from 1.
        class_weight: `{class: weight}`, or an array of the weights of classes 0, 1, ...; for several outputs a dict of
            these by output, or a list. Multiplied with sample weights.
        max_queue_size: Batches in flight, at most.
        workers: Lanes that make a Sequence's batches; 0 makes all in the calling thread. A generator runs in one.
        use_multiprocessing: Whether a Sequence's batches are made in worker processes.
        shuffle: Whether each pass of a Sequence has an order of its own.
        initial_epoch: Epochs that were done before.
        memory: Budget for batches in flight, as in `ds.plan`; with validation beside it, for both.
        seed: Of the shuffled order, and of the random numbers in worker processes.
        sample_timeout_s: Seconds that one batch may take; None for no deadline.
        samples_per_epoch: Keras 1: an epoch ends once so many samples were seen.
        nb_val_samples: Keras 1: likewise a validation.
    Returns:
        Keras's `History`.
    Raises:
        PlanError: If something can't work, before anything starts.
        SampleError: What failed while a batch was made; also an instance of what the program's own code raised.
        FitstreamError: What else failed while batches were made.
    """
    class_weight = to_class_weights(class_weight)
    when = Epochs(whole("initial_epoch", initial_epoch), whole("epochs", epochs), validation_frequency(validation_freq))
    wanted = to_count("steps_per_epoch", steps_per_epoch, "samples_per_epoch", samples_per_epoch)
    train = Asked("generator", generator, wanted, when.trained, f"epochs={when.last}")
    wanted = to_count("validation_steps", validation_steps, "nb_val_samples", nb_val_samples)
    other = None
    if is_batches(validation_data):
        other = Asked("validation_data", validation_data, wanted, when.validations, f"validations: {when.validations}")
    settings = Settings(workers, use_multiprocessing, max_queue_size, memory, seed, sample_timeout_s)
    with contextlib.ExitStack() as opened:
        opener = Opener(opened, model, settings, [train] if other is None else [train, other])
        arrays = None if other is not None else validation_arrays(model, validation_data)
        feed = opener.open_training(train, when.first, shuffle=shuffle)
        other_feed = None if other is None else opener.open(other)
        if class_weight is not None:
            feed.weigh(class_weight, output_names(model))
        check_execution(model, [feed, other_feed])
        told = _Told(
            [FeedCallback(feed, other_feed, when.last), *flat_callbacks(callbacks)],
            add_history=True,
            **_shown(model, feed, verbose, when.last),
        )
        told.follow(feed, other_feed, when)
        opened.callback(end_threads, told)
        with _keeping_causes(feed, other_feed):
            history = _run(model, feed, arrays if other_feed is None else as_keras_data(other_feed), told, when)
        _warn_of_missing(train, feed, "Training stopped there.")
        _warn_of_missing(other, other_feed, "Training stopped there.")
    return history


def _run(model: Any, feed: Feed, validation: Any, told: _Told, when: Epochs) -> Any:
    build_ahead(model, feed.spec)
    return model.fit(
        x=as_keras_data(feed),
        epochs=when.last,
        initial_epoch=when.first,
        validation_data=validation,
        validation_batch_size=len(first_leaf(feed.blank())),
        validation_freq=when.frequency,
        callbacks=told,
        verbose=0,
        shuffle=False,
    )


def fit_arrays(
    fit: Callable[..., Any],
    model: Any,
    validation_data: Any,
    *,
    epochs: int = 1,
    initial_epoch: int = 0,
    validation_steps: float | None = None,
    validation_freq: int | Sequence[int] = 1,
    callbacks: Any = None,
    max_queue_size: int = 10,
    workers: int = 1,
    use_multiprocessing: bool = False,
    **given: Any,
) -> Any:
    """Keras's own `fit` over arrays, which validates with a generator or a `Sequence`; arguments as in `fit_generator`.

    Args:
        fit: Keras's method.
        model: A compiled `keras.Model`.
        validation_data: A generator or a Sequence.
        given: Other arguments of `fit`.
    """
    when = Epochs(whole("initial_epoch", initial_epoch), whole("epochs", epochs), validation_frequency(validation_freq))
    wanted = to_count("validation_steps", validation_steps, "nb_val_samples", None)
    asked = Asked("validation_data", validation_data, wanted, when.validations, f"validations: {when.validations}")
    settings = Settings(workers, use_multiprocessing, max_queue_size, "auto", 0, 300.0)
    with contextlib.ExitStack() as opened:
        feed = Opener(opened, model, settings, [asked]).open(asked)
        check_execution(model, [feed])
        with _keeping_causes(feed):
            history = fit(
                model,
                epochs=when.last,
                initial_epoch=when.first,
                validation_data=as_keras_data(feed),
                validation_freq=when.frequency,
                callbacks=[FeedCallback(other=feed), *flat_callbacks(callbacks)],
                **given,
            )
        _warn_of_missing(asked, feed, "Later validations had none.")
    return history


@takes_old_keywords
def evaluate_generator(
    model: Any,
    generator: Any,
    steps: float | None = None,
    callbacks: Any = None,
    max_queue_size: int = 10,
    workers: int = 1,
    use_multiprocessing: bool = False,
    verbose: Any = 0,
    *,
    memory: int | str = "auto",
    seed: int = 0,
    sample_timeout_s: float | None = 300.0,
    val_samples: float | None = None,
    return_dict: bool = False,
) -> Any:
    """Measure losses and metrics over batches from a generator or a `Sequence`; each batch weighs as its samples.

    Args:
        model: A compiled `keras.Model`.
        generator: As in `fit_generator`. A Sequence isn't shuffled.
        steps: Batches to use; None for a pass of a Sequence.
        callbacks: Keras callbacks.
        max_queue_size: As in `fit_generator`.
        workers: As in `fit_generator`.
        use_multiprocessing: As in `fit_generator`.
        verbose: 1 shows a bar.
        memory: As in `fit_generator`.
        seed: Of the random numbers in worker processes.
        sample_timeout_s: As in `fit_generator`.
        val_samples: Keras 1: ends once so many samples were seen.
        return_dict: Whether to return values by name, as Keras's `evaluate` does.
    Returns:
        The loss, or a list of the loss and the metrics; with `return_dict` a dict of them.
    Raises:
        PlanError: If something can't work, before anything starts.
        FitstreamError: What failed while batches were made, as in `fit_generator`.
    """
    asked = Asked("generator", generator, to_count("steps", steps, "val_samples", val_samples), 1)
    settings = Settings(workers, use_multiprocessing, max_queue_size, memory, seed, sample_timeout_s)
    with contextlib.ExitStack() as opened:
        feed = Opener(opened, model, settings, [asked]).open(asked)
        check_execution(model, [feed])
        told = _one_run(opened, model, feed, callbacks, verbose)
        with _keeping_causes(feed):
            result = model.evaluate(as_keras_data(feed), callbacks=told, return_dict=return_dict)
        _warn_of_missing(asked, feed, "The results are over those that came.")
    return result


@takes_old_keywords
def predict_generator(
    model: Any,
    generator: Any,
    steps: float | None = None,
    callbacks: Any = None,
    max_queue_size: int = 10,
    workers: int = 1,
    use_multiprocessing: bool = False,
    verbose: Any = 0,
    *,
    memory: int | str = "auto",
    seed: int = 0,
    sample_timeout_s: float | None = 300.0,
    val_samples: float | None = None,
) -> Any:
    """Predict for batches from a generator or a `Sequence`, in their order.

    Args:
        model: A `keras.Model`.
        generator: As in `fit_generator`; of tuples the first part is used, and what is no tuple is the inputs.
        steps: As in `evaluate_generator`, and so are the others.
        callbacks: Keras callbacks.
        max_queue_size: As in `fit_generator`.
        workers: As in `fit_generator`.
        use_multiprocessing: As in `fit_generator`.
        verbose: 1 shows a bar.
        memory: As in `fit_generator`.
        seed: Of the random numbers in worker processes.
        sample_timeout_s: As in `fit_generator`.
        val_samples: Keras 1: ends once so many samples were seen.
    Returns:
        An array `(samples, ...)`, or a list of them for several outputs.
    Raises:
        PlanError: If something can't work, before anything starts.
        FitstreamError: What failed while batches were made, as in `fit_generator`.
    """
    asked = Asked("generator", generator, to_count("steps", steps, "val_samples", val_samples), 1)
    settings = Settings(workers, use_multiprocessing, max_queue_size, memory, seed, sample_timeout_s)
    with contextlib.ExitStack() as opened:
        feed = Opener(opened, model, settings, [asked]).open(asked, predicts=True)
        check_execution(model, [feed])
        told = _one_run(opened, model, feed, callbacks, verbose)
        with _keeping_causes(feed):
            result = model.predict(as_keras_data(feed), callbacks=told)
        _warn_of_missing(asked, feed, "The results are of those that came.")
    return result


@contextlib.contextmanager
def _keeping_causes(*feeds: Feed | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        for feed in feeds:
            if isinstance(feed, SupplyFeed):
                feed.restore_cause(error)
        raise


def _one_run(opened: contextlib.ExitStack, model: Any, feed: Feed, callbacks: Any, verbose: Any) -> Any:
    told = keras.callbacks.CallbackList(
        [FeedCallback(other=feed), *flat_callbacks(callbacks)], **_shown(model, feed, verbose, epochs=1)
    )
    opened.callback(end_threads, told)
    return told


def _shown(model: Any, feed: Feed, verbose: Any, epochs: int) -> dict[str, Any]:
    """What a `CallbackList` is made with."""
    return {
        "add_progbar": verbose != 0,
        "model": model,
        "verbose": verbose,
        "epochs": epochs,
        "steps": feed.epoch_steps,
    }


class _Told(keras.callbacks.CallbackList):
    """Callbacks that learn how long each epoch is; ends training where no batch is left for the next."""

    def follow(self, feed: Feed, other_feed: Feed | None, when: Epochs) -> None:
        """Take what is trained on and validated with, and when."""
        self._feed, self._other_feed, self._when = feed, other_feed, when
        self._began = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._began and self._feed.steps is None and self._feed.epoch_steps is not None:
            self.set_params({**self.params, "steps": self._feed.epoch_steps})
        self._began = True
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        # Only now, since a callback that stops training leaves the generator where it is.
        if self.model.stop_training or epoch + 1 >= self._when.last:
            return
        other = self._other_feed if self._when.validates_after(epoch + 1) else None
        if not self._feed.has_more() or (other is not None and not other.has_more()):
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.model.stop_training and isinstance(self._feed, SupplyFeed):
            self._feed.leave_pass()
        super().on_train_end(logs)


def _warn_of_missing(asked: Asked | None, feed: Feed | None, what_then: str) -> None:
    """Say what a generator that ended early left out."""
    if asked is None or not isinstance(feed, SupplyFeed) or not feed.ended:
        return
    by_samples = asked.amount.samples is not None
    each = asked.amount.samples if by_samples else asked.amount.steps
    if each is None:
        return
    total, seen = each * asked.runs, feed.seen_samples if by_samples else feed.seen_batches
    if seen >= total:
        return
    unit, name = ("samples", asked.samples_name) if by_samples else ("batches", asked.steps_name)
    warn(
        f"the {asked.name} ended early: {total:g} {unit} were asked for ({name}={each:g}"
        f"{', ' + asked.runs_told if asked.runs_told else ''}), {seen} came, {total - seen:g} are missing. {what_then} "
        f"A generator should go on for ever (while True:), or ask for fewer.",
    )
