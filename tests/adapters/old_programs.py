"""What programs of Keras 1 and 2 train with: generators and Sequences over the samples of `recorder.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recorder import keras

#: A generator that ends early is what the test is about, or its one thread isn't.
ENDS_EARLY = pytest.mark.filterwarnings("ignore:the .* ended early:UserWarning")
ONE_THREAD = pytest.mark.filterwarnings("ignore:.*a generator runs once, in one thread:UserWarning")


class Called(keras.callbacks.Callback):
    """Calls functions at the ends of batches and epochs."""

    def __init__(self, epoch_end: Callable[[int], None] | None = None, batch_end: Any = None) -> None:
        super().__init__()
        self._epoch_end, self._batch_end = epoch_end, batch_end

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._epoch_end is not None:
            self._epoch_end(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._batch_end is not None:
            self._batch_end(batch)


def two_sided(**compile_arguments: Any) -> Any:
    """A model of inputs `a`, `b` and outputs `c` (3 classes) and `d` (one number)."""
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    c = keras.layers.Dense(3, activation="softmax", name="c")(a)
    d = keras.layers.Dense(1, name="d")(keras.layers.Concatenate()([a, b]))
    model = keras.Model([a, b], [c, d])
    model.compile(**{"optimizer": "sgd", "loss": ["sparse_categorical_crossentropy", "mse"], **compile_arguments})
    return model


def one_sided(loss: str = "mse", units: int = 1, **compile_arguments: Any) -> Any:
    """A linear model of two inputs that starts at zero, so that what it learns tells what it was given."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, kernel_initializer="zeros")])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.01), "loss": loss, **compile_arguments})
    return model


def weights_of(model: Any) -> np.ndarray:
    return np.concatenate([np.asarray(keras.ops.convert_to_numpy(w)).reshape(-1) for w in model.weights])
