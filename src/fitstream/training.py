"""`fs.fit`, `fs.evaluate` and `fs.predict`: Keras's own loops, fed by loaders that live as long as the call.

What is given is made a loader first. A loader that is made here is closed at the end, whatever ends the call; a user's
stays open and has moved on. One budget covers training and validation together: validation is planned in a quarter of
it if that works, and training in what its plan leaves.

Epoch e of a Dataset is pass e, whether training began at epoch 0 or went on at e (`initial_epoch`). Each validation is
a pass too, that of its epoch, so that a run that was resumed validates on what an unbroken one does.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

from fitstream.adapters.class_weights import Weights
from fitstream.adapters.keras import check_batch, keras
from fitstream.adapters.keras_arguments import (
    check_execution,
    check_repeats,
    check_targets,
    check_validation,
    count_steps,
    count_validations,
    output_names,
)
from fitstream.adapters.keras_callbacks import end_threads, flat_callbacks
from fitstream.adapters.keras_checkpoint import Keeper, KeptCallbacks, open_keeper
from fitstream.adapters.keras_data import as_keras_data
from fitstream.adapters.keras_feed import FeedCallback, build_ahead
from fitstream.adapters.keras_inputs import (
    Batches,
    Running,
    open_both,
    open_one,
    split_off,
    to_batches,
    to_validation,
)
from fitstream.adapters.loader_feed import LoaderFeed
from fitstream.checkpoints import Checkpoint
from fitstream.dataset import Dataset
from fitstream.errors import PlanError
from fitstream.loader import Loader
from fitstream.operations import whole_number
from fitstream.plan import Plan
from fitstream.policy import OnBadSample, Policy

__all__ = ["evaluate", "fit", "predict"]

Verbose: TypeAlias = Literal["auto", 0, 1, 2]


def fit(
    model: Any,
    train: Any,
    validation_data: Any = None,
    validation_split: float | None = None,
    epochs: int = 1,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    class_weight: Weights | None = None,
    callbacks: Any = None,
    verbose: Verbose = "auto",
    memory: int | str = "auto",
    workers: int | str = "auto",
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    processes: int | None = None,
    on_bad_sample: OnBadSample = "raise",
    max_bad_fraction: float = 0.01,
    sample_timeout_s: float | None = 300.0,
    batch_size: int | None = None,
    validation_freq: int | Sequence[int] = 1,
    seed: int = 0,
) -> Any:
    """Train a compiled Keras model. Each sample is trained on once an epoch, in the planned order.

    An unbuilt model is built from the plan's spec. Lanes read ahead across epochs and end with the call.

    Args:
        model: A compiled `keras.Model`, on TensorFlow, PyTorch or JAX.
        train: A Dataset, a Loader, or arrays: `x`, `(x, y)` or `(x, y, sample_weight)`, which are shuffled. Batches are
            `x`, `(x, y)` or `(x, y, sample_weight)`; dicts and tuples inside are several inputs or outputs.
        validation_data: A Dataset, a Loader, arrays, a generator of batches or a function that makes one; anything else
            goes to Keras as it is.
        validation_split: Share of `train` to validate on instead, chosen by `seed` before any shuffle.
        epochs: The last epoch.
        initial_epoch: Epochs that were done before. A Dataset starts with that pass, a Loader where it is.
        steps_per_epoch: Batches of an epoch; passes are laid end to end. None for a pass an epoch; where its length
            isn't known, each epoch ends when its pass does.
        validation_steps: Batches of a validation, from the start of a pass on. A generator that can run only once goes
            on from validation to validation instead.
        class_weight: `{class: weight}`; for several outputs a dict of these by output, or a list. Multiplied with
            sample weights. Classes that are left out weigh 1.
        callbacks: Keras callbacks.
        verbose: 0 is quiet, 1 a line that moves, 2 a line an epoch; "auto" is 1 on a terminal, 2 in a
            notebook, and 0 elsewhere.
        memory: Budget for training and validation together, as in `ds.plan`; a Loader keeps its own.
        workers: Lanes of each loader that is made here, as in `ds.plan`.
        checkpoint: A folder for checkpoints, or a `fitstream.Checkpoint` that also says when they are written. Called
            again with the same arguments, training goes on from the newest one that is whole, whatever the model's
            weights and `initial_epoch` are. Where it was complete, its outcome is restored; with more `epochs` it goes
            on.
        processes: Worker processes of each, as in `ds.plan`.
        on_bad_sample: What becomes of samples that can't be made, as in `ds.loader`; a Loader keeps its own.
        max_bad_fraction: As in `ds.loader`.
        sample_timeout_s: As in `ds.loader`.
        batch_size: For a Dataset that isn't batched, and for arrays (32 if None).
        validation_freq: Validate every so many epochs, or after those listed, counted from 1.
        seed: Of the split, and of the order of arrays.
    Returns:
        Keras's `History`.
    Raises:
        PlanError: If something can't work, before anything starts.
        StateError: If checkpoints are of other data or another model, none is whole, or one can't be written.
        FitstreamError: What failed while batches were made, on each backend.
    """
    running = Running(memory, workers, processes, Policy(on_bad_sample, max_bad_fraction, sample_timeout_s))
    epochs, initial_epoch = whole_number(epochs, "epochs", 1), whole_number(initial_epoch, "initial_epoch", 0)
    seed = whole_number(seed, "seed", 0)
    if initial_epoch > epochs:
        raise PlanError(f"initial_epoch={initial_epoch}, but epochs={epochs} is the last one. Use more epochs.")
    batches = to_batches("train", train, batch_size, shuffle_seed=seed)
    validation_freq = check_validation(validation_data, validation_split, validation_steps, validation_freq)
    if validation_split is not None:
        batches, validation_data = split_off(batches, validation_split, seed)
    other = None if validation_data is None else to_validation(validation_data, batch_size, batches, memory)
    with contextlib.ExitStack() as opened:
        feed, other_feed = _open_both(opened, batches, other, running)
        _set_training(feed, model, steps_per_epoch, class_weight, epochs - initial_epoch)
        if other_feed is not None:
            other_feed.steps = count_steps("validation_steps", validation_steps, other_feed.steps, at_most_a_pass=True)
            count = count_validations(epochs, initial_epoch, validation_freq)
            check_repeats(other_feed, "validation_data", "validation_steps", validation_steps, count)
        check_execution(model, [feed, other_feed])
        check_targets(model, [feed, other_feed])
        build_ahead(model, feed.spec)
        keeper = open_keeper(opened, checkpoint, model, (feed, other_feed), epochs, flat_callbacks(callbacks))
        start = (initial_epoch, 0) if keeper is None or keeper.start is None else keeper.start
        progress = _progress(opened, verbose, feed, other_feed, epochs, *start)
        told = [FeedCallback(feed, other_feed, epochs), *flat_callbacks(callbacks), *progress]
        return model.fit(
            x=as_keras_data(feed),
            epochs=epochs,
            initial_epoch=start[0],
            validation_data=validation_data if other_feed is None else as_keras_data(other_feed),
            validation_steps=validation_steps if other_feed is None else None,
            validation_freq=validation_freq,
            callbacks=_fit_callbacks(opened, told, keeper, model=model, epochs=epochs, steps=feed.steps),
            verbose=0,
            shuffle=False,
        )


def evaluate(
    model: Any,
    data: Any,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: Verbose = "auto",
    callbacks: Any = None,
    memory: int | str = "auto",
    workers: int | str = "auto",
    processes: int | None = None,
    on_bad_sample: OnBadSample = "raise",
    max_bad_fraction: float = 0.01,
    sample_timeout_s: float | None = 300.0,
    return_dict: bool = False,
) -> Any:
    """Measure losses and metrics over one pass.

    Args:
        model: A compiled `keras.Model`.
        data: As `train` of `fit`; arrays aren't shuffled.
        batch_size: As in `fit`.
        steps: Batches to use, at most a pass; None for all.
        verbose: As in Keras; "auto" shows Keras's bar on a terminal and is quiet elsewhere.
        callbacks: Keras callbacks.
        memory: Budget, as in `ds.plan`; a Loader keeps its own.
        workers: Lanes, as in `ds.plan`.
        processes: Worker processes, as in `ds.plan`.
        on_bad_sample: As in `fit`.
        max_bad_fraction: As in `ds.loader`.
        sample_timeout_s: As in `ds.loader`.
        return_dict: Return a dict by name.
    Returns:
        The loss, or a list of the loss and the metrics, or a dict, as Keras does.
    Raises:
        PlanError: If something can't work, before anything starts.
        FitstreamError: What failed while batches were made.
    """
    running = Running(memory, workers, processes, Policy(on_bad_sample, max_bad_fraction, sample_timeout_s))
    with contextlib.ExitStack() as opened:
        feed = _open_one(opened, to_batches("data", data, batch_size), steps, running)
        check_execution(model, [feed])
        check_targets(model, [feed])
        told = _one_pass_callbacks(opened, model, feed, callbacks, verbose)
        return model.evaluate(as_keras_data(feed), callbacks=told, return_dict=return_dict)


def predict(
    model: Any,
    data: Any,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: Verbose = "auto",
    callbacks: Any = None,
    memory: int | str = "auto",
    workers: int | str = "auto",
    processes: int | None = None,
    on_bad_sample: OnBadSample = "raise",
    max_bad_fraction: float = 0.01,
    sample_timeout_s: float | None = 300.0,
) -> Any:
    """Predict for one pass, in its order.

    A shuffled Dataset gives its predictions in the shuffled order of pass 0, and one with `bucket_by` in the order of
    its batches, with a warning. What `last="pad"` adds is left out, and what `last="drop"` drops is missing.

    Args:
        model: A `keras.Model`.
        data: As `train` of `fit`; arrays aren't shuffled. Of `(x, y)`, `x` is used.
        batch_size: As in `fit`.
        steps: Batches to use, at most a pass; None for all.
        verbose: As in `evaluate`.
        callbacks: Keras callbacks.
        memory: Budget, as in `ds.plan`; a Loader keeps its own.
        workers: Lanes, as in `ds.plan`.
        processes: Worker processes, as in `ds.plan`.
        on_bad_sample: As in `fit`.
        max_bad_fraction: As in `ds.loader`.
        sample_timeout_s: As in `ds.loader`.
    Returns:
        An array `(samples, ...)`, or the tree of them that the model gives.
    Raises:
        PlanError: If something can't work, before anything starts.
        FitstreamError: What failed while batches were made.
    """
    running = Running(memory, workers, processes, Policy(on_bad_sample, max_bad_fraction, sample_timeout_s))
    with contextlib.ExitStack() as opened:
        feed = _open_one(opened, to_batches("data", data, batch_size), steps, running)
        check_execution(model, [feed])
        told = _one_pass_callbacks(opened, model, feed, callbacks, verbose)
        plan = feed.loader.plan
        _warn_of_order(data, plan)
        with _saying_why_not_joined(plan):
            outputs = model.predict(as_keras_data(feed), callbacks=told)
        count = feed.sample_count
        if plan.last == "wrap" and plan.sample_count is not None:
            count = min(count, plan.sample_count)
        return keras.tree.map_structure(lambda array: array[:count], outputs)


def _warn_of_order(data: Any, plan: Plan) -> None:
    if isinstance(data, Dataset) and data.shuffled:
        warnings.warn(
            "the dataset is shuffled, so predictions come in its shuffled order. Predict on it without shuffle().",
            stacklevel=3,
        )
    if plan.order is not None and plan.order.buckets is not None:
        warnings.warn(
            "bucket_by= joins samples of like length, so predictions come in that order. Predict without it: "
            "batch(n, pad=True, max_length=...).",
            stacklevel=3,
        )


@contextlib.contextmanager
def _saying_why_not_joined(plan: Plan) -> Iterator[None]:
    """Keras joins predictions along the batch, and so can't where batches differ in length."""
    try:
        yield
    except ValueError as error:
        if plan.padded and "concatenation axis" in str(error):
            raise PlanError(
                "the model gives arrays as long as the batches, which differ in length, so that they can't be "
                "joined. Go through the batches of a loader with model.predict_on_batch(), or pad all samples to "
                "one length in a map (transforms.sequences.pad)."
            ) from error
        raise


# Opening.


def _open_both(
    opened: contextlib.ExitStack, train: Batches, other: Batches | None, running: Running
) -> tuple[LoaderFeed, LoaderFeed | None]:
    own = isinstance(train, Dataset)
    if other is None:
        return _feed(opened, open_one(train, running), own=own), None
    loader, other_loader = open_both(train, other, running)
    return _feed(opened, loader, own=own), _feed(opened, other_loader, own=isinstance(other, Dataset), trims=True)


def _open_one(opened: contextlib.ExitStack, batches: Batches, steps: int | None, running: Running) -> LoaderFeed:
    feed = _feed(opened, open_one(batches, running), own=isinstance(batches, Dataset), trims=True)
    feed.steps = count_steps("steps", steps, feed.steps, at_most_a_pass=True)
    return feed


def _feed(opened: contextlib.ExitStack, loader: Loader, *, own: bool, trims: bool = False) -> LoaderFeed:
    if own:
        opened.enter_context(loader)
    check_batch(loader.plan.batch_spec)
    feed = LoaderFeed(loader, loader.plan.steps, own=own, trims=trims)
    opened.callback(feed.close)
    return feed


# Running.


def _set_training(feed: LoaderFeed, model: Any, steps: int | None, class_weight: Weights | None, epochs: int) -> None:
    """Set what fit says about training's batches; `epochs` is how many there are to train."""
    feed.steps = count_steps("steps_per_epoch", steps, feed.steps)
    feed.goes_on = steps is not None
    check_repeats(feed, "train", "steps_per_epoch", steps, epochs)
    if class_weight is not None:
        feed.weigh(class_weight, output_names(model))


def _callbacks(opened: contextlib.ExitStack, told: Sequence[Any], **settings: Any) -> keras.callbacks.CallbackList:
    callbacks = keras.callbacks.CallbackList(list(told), **settings)
    opened.callback(end_threads, callbacks)
    return callbacks


def _fit_callbacks(
    opened: contextlib.ExitStack, told: list[Any], keeper: Keeper | None, **settings: Any
) -> keras.callbacks.CallbackList:
    settings |= {"add_history": True, "verbose": 0}
    if keeper is None:
        return _callbacks(opened, told, **settings)
    # Where only the outcome is restored, nobody hears of a training.
    called = [each for each in told if not keeper.complete or isinstance(each, FeedCallback)]
    callbacks = KeptCallbacks(keeper, called, **settings)
    opened.callback(end_threads, callbacks)
    return callbacks


def _one_pass_callbacks(
    opened: contextlib.ExitStack, model: Any, feed: LoaderFeed, callbacks: Any, verbose: Verbose
) -> keras.callbacks.CallbackList:
    _check_verbose(verbose)
    bar = int(sys.stdout.isatty()) if verbose == "auto" else verbose
    told = [FeedCallback(other=feed), *flat_callbacks(callbacks)]
    return _callbacks(opened, told, add_progbar=bar != 0, model=model, verbose=bar, epochs=1, steps=feed.steps)


def _check_verbose(verbose: Verbose) -> None:
    if verbose not in ("auto", 0, 1, 2):
        raise PlanError(f'verbose={verbose!r} must be 0, 1, 2 or "auto".')


def _progress(
    opened: contextlib.ExitStack,
    verbose: Verbose,
    feed: LoaderFeed,
    other: LoaderFeed | None,
    epochs: int,
    initial_epoch: int,
    initial_step: int,
) -> list[keras.callbacks.Callback]:
    _check_verbose(verbose)
    if verbose == 0:
        return []
    # Loads rich, which training in silence needn't.
    from fitstream.reporting.progress import make_callback

    others = [] if other is None else [other.loader]
    callback = make_callback(feed.loader, epochs, feed.steps, initial_epoch, verbose, others, initial_step=initial_step)
    opened.callback(callback.close)
    return [callback]
