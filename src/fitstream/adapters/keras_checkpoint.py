"""`fs.fit(..., checkpoint=)`: when checkpoints of a Keras training are written, and how it goes on from one.

A training that goes on is one call of `model.fit` whose first epoch lacks the steps that are done. Users' callbacks see
what they would have seen: batches keep their numbers. What is restored, and when:

    end of on_train_begin    everything, where the checkpoint was written between two epochs
    end of on_epoch_begin    everything but random states, where it was written within one: Keras has just reset the
                             metrics, and callbacks have set what they set at an epoch's begin
    before the first batch   random states once more: PyTorch's DataLoader has drawn from them

A checkpoint within an epoch is never written after its last step, where the one at the epoch's end is near, and Keras
couldn't go on with no step left. The outcome, once `on_train_end` has been called and best weights are back, is written
apart: the checkpoint before it is what more epochs go on from.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.adapters.keras_state import (
    Arrays,
    Callbacks,
    Variables,
    decode,
    encode,
    random_states,
    restore_random_states,
    versions,
)
from fitstream.adapters.loader_feed import LoaderFeed
from fitstream.checkpoint_files import Stored
from fitstream.checkpoints import Checkpoint, CheckpointFolder
from fitstream.errors import PlanError, StateError
from fitstream.loader import Loader

__all__ = ["Keeper", "KeptCallbacks", "open_keeper"]


@final
class Keeper:
    """Writes the checkpoints of one fit, and restores the newest one.

    Args:
        folder: Where they are.
        rules: When they are written.
        model: A compiled model.
        feed: What it is trained on; it begins where the checkpoint says.
        other_feed: What it is validated with, or None.
        epochs: The last epoch.
        users: The user's callbacks, whose state is kept.
    Raises:
        PlanError: If this training can't be resumed, or had more epochs than it shall have now.
        StateError: If the newest checkpoint is of another training; with what changed.

    Attributes:
        start: The epoch to go on with, and how many of its steps are done; None if there is no checkpoint.
        complete: Whether training was complete, so that only its outcome is to be restored.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        rules: Checkpoint,
        model: Any,
        feed: LoaderFeed,
        other_feed: LoaderFeed | None,
        epochs: int,
        users: Sequence[Any],
    ) -> None:
        self._folder = folder
        self._rules = rules
        self._model = model
        self._feed = feed
        self._other_feed = other_feed
        self._epochs = epochs
        self._users = [each for each in users if not isinstance(each, keras.callbacks.History)]
        self._within = _can_stop_within(model, feed)
        self._check()
        self._variables = Variables(model)
        self._callbacks: Callbacks | None = None
        self._history = keras.callbacks.History()
        self._found = self._find()
        self._step = self._saved_step = 0
        self._epoch = self._epoch_step = 0
        self._stopped = False
        self._saved_s = time.monotonic()
        #: States of the loaders where training is.
        self._loaders: dict[str, Any] = {}
        self.start: tuple[int, int] | None = None
        self.complete = False
        if self._found is not None:
            self._go_on_from(self._found)

    def _check(self) -> None:
        if self._other_feed is not None and self._other_feed.one_shot:
            raise PlanError(
                "validation_data is a generator that can run only once, so that no later run could go on with it. Give "
                "the function that makes it, or leave checkpoint= out."
            )
        if self._rules.every_steps is not None and not self._within:
            raise PlanError(
                f"every_steps={self._rules.every_steps}: on JAX, with steps_per_execution="
                f"{int(self._model.steps_per_execution)} and {self._feed.steps} steps an epoch, training can go on "
                "only from an epoch's end. Leave every_steps out, or make the steps of an epoch a multiple."
            )

    # Going on.

    def _find(self) -> Stored | None:
        found = self._folder.newest()
        if found is None or not found.content["final"]:
            return found
        # The outcome of fewer epochs than are wanted now is nothing to go on from.
        return self._folder.newest(finals=False) if self._epochs > found.content["epochs"] else found

    def _go_on_from(self, found: Stored) -> None:
        content = found.content
        done = content["epoch"] + (content["epoch_step"] > 0)
        if done > self._epochs:
            raise PlanError(
                f"{found.path} is of epoch {done}, but epochs={self._epochs} is the last one. Use epochs={done} or "
                "more, or another folder."
            )
        # First, because what changed in the data changes the steps of an epoch too.
        self._feed.loader.load_state_dict(content["loader"])
        if self._other_feed is not None and content["validation"] is not None:
            self._other_feed.loader.load_state_dict(content["validation"])
        self._check_same(found)
        self._step = self._saved_step = content["step"]
        self._epoch, self._epoch_step = content["epoch"], content["epoch_step"]
        # A training that a callback stopped has no epoch left, unless more are wanted than then.
        self._stopped = content["stopped"] and self._epochs <= content["epochs"]
        self.complete = content["final"]
        self.start = (self._epochs if self.complete or self._stopped else self._epoch, self._epoch_step)
        self._loaders = {name: content[name] for name in ("loader", "validation")}
        self._feed.resumed = self._epoch_step
        _build_metrics_for_tensorflow(self._model, self._feed)

    def _check_same(self, found: Stored) -> None:
        saved, here = found.content["versions"], versions()
        changes = []
        if saved["backend"] != here["backend"]:
            changes.append(f"backend {saved['backend']} -> {here['backend']}")
        if found.content["steps_per_epoch"] != self._feed.steps:
            changes.append(f"steps_per_epoch {found.content['steps_per_epoch']} -> {self._feed.steps}")
        if (found.content["validation"] is None) != (self._other_feed is None):
            changes.append("validation " + ("none -> some" if self._other_feed is not None else "some -> none"))
        if changes:
            raise StateError(
                f"{found.path} is of another training: {'; '.join(changes)} (checkpoint -> here). Give fit what it was "
                "given then, or another folder.",
                changes=tuple(changes),
            )
        newer = [f"{name} {saved.get(name)} -> {here[name]}" for name in here if saved.get(name) != here[name]]
        if newer:
            warnings.warn(
                f"{found.path} is of other versions: {'; '.join(newer)}. Results may differ in their last bits.",
                stacklevel=2,
            )

    # Called by `KeptCallbacks`.

    def begin(self, history: Any) -> None:
        """Training begins; callbacks have been told."""
        self._callbacks = Callbacks(self._users)
        self._history = history
        if self._found is not None and not self._epoch_step and not self.complete:
            self._restore(self._found)
            self._restore_random()
        self._saved_s = time.monotonic()

    def begin_epoch(self, epoch: int) -> None:
        """An epoch begins; callbacks have been told."""
        self._epoch = epoch
        if self._found is not None:
            self._restore(self._found)

    def begin_step(self) -> None:
        """A step begins; callbacks haven't been told."""
        if self._found is not None:
            self._restore_random()

    def end_step(self, batch: int) -> None:
        """A step has ended.

        Args:
            batch: Its place in its epoch; of several steps in one execution, the last one's.
        """
        done = batch + 1 if self._feed.steps is None else min(batch + 1, self._feed.steps)
        self._step += done - self._epoch_step
        self._epoch_step = done
        if self._within and self._is_due() and not (self._feed.in_last_step or self._model.stop_training):
            self._save(self._feed.place)

    def end_epoch(self, epoch: int) -> None:
        """An epoch has ended, with its validation."""
        self._epoch, self._epoch_step = epoch + 1, 0
        self._stopped = bool(self._model.stop_training)
        self._save(self._feed.next_epoch_place())

    def end(self) -> None:
        """Training has ended, and the model has what callbacks give it last."""
        if self.complete:
            assert self._found is not None
            self._restore(self._found)
            self._restore_random()
        else:
            self._save(None, final=True)

    def _is_due(self) -> bool:
        rules = self._rules
        by_steps = rules.every_steps is not None and self._step - self._saved_step >= rules.every_steps
        return by_steps or (rules.every_s is not None and time.monotonic() - self._saved_s >= rules.every_s)

    def _save(self, place: tuple[int, int] | None, *, final: bool = False) -> None:
        """Write a checkpoint.

        Args:
            place: Where training is in its loader; None for where it was at the last one.
            final: Whether it is the outcome.
        """
        feed, other = self._feed, self._other_feed
        if place is not None or not self._loaders:
            self._loaders = {
                "loader": feed.loader.state_at(*(place or (0, 0))),
                "validation": None if other is None else _next_validation(other.loader),
            }
        arrays: Arrays = {}
        assert self._callbacks is not None
        content = {
            "epoch": self._epoch,
            "epoch_step": self._epoch_step,
            "epochs": self._epochs,
            "stopped": self._stopped,
            "steps_per_epoch": feed.steps,
            **self._loaders,
            "history": encode([self._history.epoch, self._history.history], arrays),
            "callbacks": self._callbacks.save(arrays),
            "random": random_states(arrays),
            "versions": versions(),
            "variables": self._variables.forms(),
        }
        self._folder.write(self._step, content, _both(arrays, self._variables), final=final)
        self._saved_step, self._saved_s = self._step, time.monotonic()

    def _restore(self, found: Stored) -> None:
        content, arrays = found.content, found.arrays
        self._variables.restore(content["variables"], arrays)
        assert self._callbacks is not None
        self._callbacks.restore(content["callbacks"], arrays)
        self._history.epoch, self._history.history = decode(content["history"], arrays)

    def _restore_random(self) -> None:
        assert self._found is not None
        restore_random_states(self._found.content["random"], self._found.arrays)
        self._found = None


@final
class KeptCallbacks(keras.callbacks.CallbackList):
    """Callbacks of a fit, with a keeper that is told before or after all of them.

    Args:
        keeper: What writes and restores.
        told: Callbacks that are called.
        settings: As in Keras.
    """

    def __init__(self, keeper: Keeper, told: Sequence[Any], **settings: Any) -> None:
        super().__init__([*told, _EachStep()], **settings)
        self._keeper = keeper
        #: Batches of this epoch that Keras doesn't know of.
        self._done = 0 if keeper.start is None else keeper.start[1]

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        history = next(each for each in self.callbacks if isinstance(each, keras.callbacks.History))
        self._keeper.begin(history)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._keeper.begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._keeper.begin_step()
        super().on_train_batch_begin(batch + self._done, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch + self._done, logs)
        self._keeper.end_step(batch + self._done)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._done = 0
        self._keeper.end_epoch(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        self._keeper.end()


@final
class _EachStep(keras.callbacks.Callback):
    """Makes Keras tell callbacks of a step when it has ended, and not later from a thread."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


def _next_validation(loader: Loader) -> dict[str, Any]:
    """The state of a loader where the next validation begins: each one is of a pass of its own."""
    state = loader.state_dict()
    return loader.state_at(state["epoch"] + 1, 0) if state["step"] and not loader.resumed else state


def open_keeper(
    opened: contextlib.ExitStack,
    checkpoint: Checkpoint | str | os.PathLike[str] | None,
    model: Any,
    feeds: tuple[LoaderFeed, LoaderFeed | None],
    epochs: int,
    users: Sequence[Any],
) -> Keeper | None:
    """Open the folder of checkpoints, if there is to be one.

    Args:
        opened: Closes it at the end.
        checkpoint: As in `fit`.
        model: A compiled model.
        feeds: What it is trained on, and validated with.
        epochs: The last epoch.
        users: Callbacks that the user gave.
    Raises:
        PlanError: If training can't be resumed, or another run uses the folder.
        StateError: If there are checkpoints, but of another training or none whole.
    """
    if checkpoint is None:
        return None
    if any(isinstance(each, keras.callbacks.BackupAndRestore) for each in users):
        raise PlanError("BackupAndRestore and checkpoint= would both restore the model. Leave BackupAndRestore out.")
    rules = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    folder = opened.enter_context(CheckpointFolder(rules))
    return Keeper(folder, rules, model, *feeds, epochs, users)


def _can_stop_within(model: Any, feed: LoaderFeed) -> bool:
    """Whether an epoch's rest can be trained on: JAX takes the batches of an execution without asking."""
    several = int(model.steps_per_execution)
    return several == 1 or keras.backend.backend() != "jax" or (feed.steps is not None and feed.steps % several == 0)


def _both(arrays: Arrays, variables: Variables) -> Iterator[tuple[str, np.ndarray]]:
    yield from arrays.items()
    yield from variables.arrays()


def _build_metrics_for_tensorflow(model: Any, feed: LoaderFeed) -> None:
    """Have TensorFlow make the metrics' variables, which are to be restored before the first step."""
    if keras.backend.backend() != "tensorflow":
        return
    batch = feed.blank()
    try:
        model.test_on_batch(*(batch if isinstance(batch, tuple) else (batch,)))
    except Exception:  # noqa: BLE001
        return  # What is missing for that reason is named when variables are compared.
