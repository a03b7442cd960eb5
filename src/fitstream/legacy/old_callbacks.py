"""Callbacks as Keras 1 and 2 made them: `mode="auto"` by the monitored name, `ModelCheckpoint(period=)`, file names."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from typing import Any

from fitstream.adapters.keras import keras
from fitstream.legacy.program import program

__all__ = ["direction", "install"]


def install() -> None:
    """Let the callbacks of Keras 3 do what the old ones did."""
    for name in ("EarlyStopping", "ModelCheckpoint", "ReduceLROnPlateau"):
        _choose_direction(getattr(keras.callbacks, name))
    for name in ("LearningRateScheduler", "ReduceLROnPlateau"):
        _log_rate(getattr(keras.callbacks, name))
    _any_file(keras.callbacks.ModelCheckpoint)
    base = keras.callbacks.Callback
    base.model = base.model.setter(_set_model)  # programs do so themselves, above all in __init__
    missing = [name for name in ("tensorflow", "tensorboard") if importlib.util.find_spec(name) is None]
    if missing:
        _without_logs(keras.callbacks.TensorBoard, " and ".join(missing))


def _set_model(self: Any, model: Any) -> None:
    self._model = model


def direction(monitor: str) -> str:
    """What "auto" meant: the larger the better where the name says accuracy, else the smaller."""
    return "max" if "acc" in monitor or monitor.endswith("auc") or monitor.startswith("fmeasure") else "min"


def _choose_direction(callback: Any) -> None:
    make = callback.__init__
    signature = inspect.signature(make)

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        given = signature.bind_partial(self, *args, **kwargs)
        given.apply_defaults()
        if given.arguments["mode"] == "auto":
            # Keras 3 looks for a metric of that very name, and refuses where there is none.
            given.arguments["mode"] = direction(given.arguments["monitor"])
        make(*given.args, **given.kwargs)

    callback.__init__ = __init__


def _without_logs(callback: Any, missing: str) -> None:
    """TensorBoard where what writes its files is not installed: it says so, and training goes on."""
    make = callback.__init__

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        program.tell(f"TensorBoard(...) writes no logs: {missing} is not installed (pip install {missing})")
        make(self, *args, **kwargs)

    for name in [name for name in vars(callback) if name.startswith("on_") or name == "set_model"]:
        delattr(callback, name)  # those of Callback do nothing
    callback.__init__ = __init__


def _log_rate(callback: Any) -> None:
    """The rate by its old name too, which History and the callbacks behind it read."""
    end = callback.on_epoch_end

    @functools.wraps(end)
    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        end(self, epoch, logs)
        if logs and "learning_rate" in logs:
            logs["lr"] = logs["learning_rate"]

    callback.on_epoch_end = on_epoch_end


def _any_file(callback: Any) -> None:
    """ModelCheckpoint with `period=`, and under names that Keras 3 refuses: `model.save` takes them here."""
    make, end = callback.__init__, callback.on_epoch_end

    @functools.wraps(make)
    def __init__(self: Any, filepath: Any, *args: Any, period: int = 1, **kwargs: Any) -> None:  # noqa: N807
        given = inspect.signature(make).bind(self, filepath, *args, **kwargs)
        weights_only = given.arguments.get("save_weights_only", False)
        make(self, f"{filepath}.weights.h5" if weights_only else f"{filepath}.keras", *args, **kwargs)
        self.filepath = str(filepath)
        self.period = period
        self.epochs_since_last_save = 0
        if period != 1:
            program.tell("ModelCheckpoint(period=) is kept: Keras 3 has save_freq, in batches")

    @functools.wraps(end)
    def on_epoch_end(self: Any, epoch: int, logs: Any = None) -> None:
        self.epochs_since_last_save += 1
        if self.epochs_since_last_save >= self.period:
            self.epochs_since_last_save = 0
            # Keras 1 counted from 0 in {epoch}.
            end(self, epoch - (program.keras == 1), logs)

    callback.__init__ = __init__
    callback.on_epoch_end = on_epoch_end
