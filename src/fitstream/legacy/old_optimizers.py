"""What optimizers of Keras 1 and 2 had: `lr`, and `decay`, which divided the rate by `1 + decay * iterations`."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from fitstream.adapters.keras import keras
from fitstream.legacy.program import program

__all__ = ["install"]


def install() -> None:
    """Give them to all optimizers.

    The rate itself stays a variable that callbacks read and set, as in Keras 2: `decay` applies to what each step uses.
    """
    base = keras.optimizers.Optimizer
    make, config = base.__init__, base.get_config

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        decay = kwargs.pop("decay", None)
        make(self, *args, **kwargs)
        self.decay = float(decay or 0.0)
        if self.decay:
            program.tell("optimizer decay= -> each step's rate is learning_rate / (1 + decay * iterations)")
            # Of this object alone: on PyTorch, classes that are loaded later have a step of their own.
            self._backend_update_step = _decaying(self, self._backend_update_step)

    @functools.wraps(config)
    def get_config(self: Any) -> Any:
        # Keras alone ignores it, with a warning.
        return config(self) | ({"decay": self.decay} if self.decay else {})

    __init__.__signature__ = inspect.signature(make)  # type: ignore[attr-defined]
    base.__init__ = __init__
    base.get_config = get_config
    base.lr = property(_rate, _set_rate)


def _rate(self: Any) -> Any:
    return self.learning_rate


def _set_rate(self: Any, value: Any) -> None:
    self.learning_rate = value


def _decaying(optimizer: Any, step: Any) -> Any:
    @functools.wraps(step)
    def decayed(grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        iterations = keras.ops.cast(optimizer.iterations, learning_rate.dtype)
        return step(grads, trainable_variables, learning_rate / (1.0 + optimizer.decay * iterations))

    return decayed
