"""A model that remembers which samples it was trained on, in which order, inside the compiled step."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from old_rows import samples

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip(
    "keras", reason="needs Keras and the backend that KERAS_BACKEND names", exc_type=ImportError
)

import fitstream as fs  # noqa: E402

BACKEND: str = keras.backend.backend()

#: Keras's own, under NumPy 2; all other warnings stay errors.
KERAS_WARNINGS = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@keras.saving.register_keras_serializable("fitstream-tests")
class Recorder(keras.Model):
    """One dense layer to three classes; samples are `(id, feature)`."""

    def __init__(self, room: int = 160, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.room = room
        self.dense = keras.layers.Dense(3, name="dense")
        blank = keras.initializers.Constant(-1)
        self.seen = self.add_weight(shape=(room,), initializer=blank, trainable=False, name="seen")
        self.count = self.add_weight(shape=(), initializer="zeros", dtype="int32", trainable=False, name="count")

    def call(self, x: Any, training: bool = False) -> Any:
        ops = keras.ops
        if training:
            ids, rows = x[:, 0], ops.shape(x)[0]
            seen, count = ops.convert_to_tensor(self.seen), ops.convert_to_tensor(self.count)
            place = ops.arange(self.room)
            here = (place >= count) & (place < count + rows)
            self.seen.assign(ops.where(here, ops.take(ids, ops.clip(place - count, 0, rows - 1)), seen))
            self.count.assign(count + rows)
        return self.dense(x / 25)

    @property
    def ids(self) -> list[int]:
        count = int(keras.ops.convert_to_numpy(self.count))
        return [int(one) for one in keras.ops.convert_to_numpy(self.seen)[:count]]


def recorder(built: bool = False, **compile_arguments: Any) -> Recorder:
    model = Recorder()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], **compile_arguments)
    if built:
        model(np.zeros((1, 2), np.float32))
    return model


def shuffled(count: int, size: int = 5) -> fs.Dataset:
    return fs.from_arrays(samples(count)).shuffle(0).batch(size)


def planned(count: int, passes: Iterable[int], size: int = 5) -> list[int]:
    """Ids in the order in which a plain loop over a loader gives them."""
    ids: list[int] = []
    with shuffled(count, size).loader(workers=0) as loader:
        for pass_index in passes:
            loader.set_epoch(pass_index)
            ids += [int(one) for x, _ in loader for one in x[:, 0]]
    return ids


class StopAfter(keras.callbacks.Callback):
    """Stops training after a batch of its first epoch, or raises there."""

    def __init__(self, batch: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.batch = batch
        self.error = error

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == self.batch:
            if self.error is not None:
                raise self.error
            self.model.stop_training = True


class Diary(keras.callbacks.Callback):
    """Writes down the hooks that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.lines.append("begin")

    def on_train_end(self, logs: Any = None) -> None:
        self.lines.append("end")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.lines.append(f"epoch {epoch}")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.lines.append(f"<{batch}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.lines.append(f"{batch}>")
