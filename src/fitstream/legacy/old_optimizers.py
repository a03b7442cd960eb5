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
    make, step, config = base.__init__, base._backend_update_step, base.get_config

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        decay = kwargs.pop("decay", None)
        make(self, *args, **kwargs)
        self.decay = float(decay or 0.0)
        if self.decay:
            program.tell("optimizer decay= -> each step's rate is learning_rate / (1 + decay * iterations)")

    @functools.wraps(step)
    def _backend_update_step(self: Any, grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        if self.decay:
            iterations = keras.ops.cast(self.iterations, learning_rate.dtype)
            learning_rate = learning_rate / (1.0 + self.decay * iterations)
        return step(self, grads, trainable_variables, learning_rate)

    @functools.wraps(config)
    def get_config(self: Any) -> Any:
        # Keras alone ignores it, with a warning.
        return config(self) | ({"decay": self.decay} if self.decay else {})

    __init__.__signature__ = inspect.signature(make)  # type: ignore[attr-defined]
    base.__init__ = __init__
    base._backend_update_step = _backend_update_step
    base.get_config = get_config
    base.lr = property(_rate, _set_rate)


def _rate(self: Any) -> Any:
    return self.learning_rate


def _set_rate(self: Any, value: Any) -> None:
    self.learning_rate = value
