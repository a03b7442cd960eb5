"""A training with everything that makes resuming hard, in the test's process or in one of its own.

`python resuming.py FOLDER OUTCOME EVERY_STEPS` trains with checkpoints in FOLDER, prints a line after each step, waits
for one in return, and writes weights and history to OUTCOME.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip(
    "keras", reason="needs Keras and the backend that KERAS_BACKEND names", exc_type=ImportError
)

import fitstream as fs  # noqa: E402

BACKEND: str = keras.backend.backend()
STEPS, EPOCHS = 7, 3


def pictures(count: int = 50) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    images = rng.normal(size=(count, 8, 8, 3)) + labels[:, None, None, None]
    return images.astype(np.float32), labels.astype(np.int64)


def noisy(x: Any, y: Any, rng: Any) -> Any:
    return x + rng.normal(size=x.shape).astype(np.float32) / 10, y


def dataset(seed: int = 3, size: int = 8) -> fs.Dataset:
    return fs.from_arrays(pictures()).map(noisy).shuffle(seed).batch(size)


def validation() -> fs.Dataset:
    return fs.from_arrays(pictures(20)).batch(8)


def make_model(seed: int = 5, width: int = 4, built: bool = False, **settings: Any) -> Any:
    """Convolution, batch normalisation, dropout, noise, a random flip; Adam with a cosine schedule."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.Conv2D(width, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GaussianNoise(0.1),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.3),
            layers.Dense(3),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(0.01, STEPS * EPOCHS)
    settings = {"optimizer": keras.optimizers.Adam(schedule), "metrics": ["accuracy"], **settings}
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **settings)
    if built:
        model(np.zeros((1, 8, 8, 3), np.float32))
    return model


class Draws(keras.callbacks.Callback):
    """Draws random numbers in each step, so that a random state that isn't restored shows."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.drawn += [random.random(), float(np.random.rand())]  # noqa: NPY002


class Interrupted(BaseException):
    """What ends a training of the tests; nothing catches it."""


class Interrupt(keras.callbacks.Callback):
    """Ends training after so many steps of this run; None for never."""

    def __init__(self, steps: int | None) -> None:
        super().__init__()
        self.steps = itertools.count(1)  # no state that a checkpoint could hold
        self.last = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if next(self.steps) == self.last:
            raise Interrupted


def train(
    folder: Any = None, *, steps: int | None = None, callbacks: Any = (), model: Any = None, **settings: Any
) -> Any:
    """Train, and return the outcome: bytes of each variable, history, numbers drawn.

    Args:
        folder: Of checkpoints, or None.
        steps: Steps until it is interrupted, or None.
    """
    draws = Draws()
    model = make_model() if model is None else model
    told = [draws, *callbacks, Interrupt(steps)]
    settings = {"validation_data": validation(), "epochs": EPOCHS, "workers": 1, "verbose": 0, **settings}
    train = settings.pop("train") if "train" in settings else dataset()
    history = fs.fit(model, train, callbacks=told, checkpoint=folder, **settings)
    return outcome(model, history, draws.drawn)


def outcome(model: Any, history: Any, drawn: Any = ()) -> dict[str, Any]:
    variables = [*model.variables, *(model.optimizer.variables if model.optimizer else ())]
    return {
        "weights": [np.asarray(keras.ops.convert_to_numpy(one)).tobytes().hex() for one in variables],
        "history": repr({name: list(map(float, values)) for name, values in sorted(history.history.items())}),
        "epochs": list(history.epoch),
        "drawn": [repr(one) for one in drawn],
    }


class Tell(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        sys.stdout.write("step\n")
        sys.stdout.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    import json

    folder, result, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rules = fs.Checkpoint(folder, every_steps=every)
    stop = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    done = train(rules, callbacks=[stop, Tell()])
    result.write_text(json.dumps(done))
