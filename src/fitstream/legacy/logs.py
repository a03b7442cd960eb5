"""Log keys of old names beside the new ones.

Keras 1 and 2.0 to 2.2 logged "acc" and "val_acc" whether a program asked for "acc" or "accuracy", and "lr"; later ones
log what was asked for. So that callbacks which read or monitor either name find it, each is there under both names.
Callbacks share one dict of logs, and `CallbackList` passes it on, so this is the one place to add them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from fitstream.adapters.keras import keras

__all__ = ["install_log_names", "with_old_names"]

_HOOKS = ("on_epoch_end", "_on_train_batch_end", "_on_test_batch_end", "on_test_end", "on_train_end")
#: Metrics that were never called "acc".
_OF_THEIR_OWN = ("binary", "categorical", "top_k_categorical", "sparse_categorical", "sparse_top_k_categorical")


def with_old_names(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Logs with "acc" beside "accuracy", "val_acc" beside "val_accuracy", "lr" beside "learning_rate", and back."""
    told = dict(logs)
    for name, value in logs.items():
        told.setdefault(_other_name(name), value)
    return told


def _other_name(name: str) -> str:
    if name in ("lr", "learning_rate"):
        return "lr" if name == "learning_rate" else "learning_rate"
    start, _, end = name.rpartition("_")
    if end not in ("acc", "accuracy") or start.removeprefix("val_").endswith(_OF_THEIR_OWN):
        return name
    other = "accuracy" if end == "acc" else "acc"
    return f"{start}_{other}" if start else other


def install_log_names() -> None:
    """Make every `CallbackList` of Keras tell callbacks both names, which they may monitor then.

    Calling it again changes nothing.
    """
    kind = keras.callbacks.CallbackList
    for name in _HOOKS:
        hook = getattr(kind, name)
        if not hasattr(hook, "__wrapped__"):
            setattr(kind, name, _telling(hook))
    for monitor in keras.callbacks.EarlyStopping.__mro__:
        own = vars(monitor).get("_set_monitor_op")
        if own is not None and not hasattr(own, "__wrapped__"):
            monitor._set_monitor_op = _by_name(own)


def _by_name(own: Callable[[Any], None]) -> Callable[[Any], None]:
    """Whether more is better, where Keras 3 can't tell by the metric: as Keras 2 told by the name."""

    @functools.wraps(own)
    def call(callback: Any) -> None:
        try:
            own(callback)
        except ValueError:
            callback.mode = "max" if "acc" in callback.monitor else "min"
            own(callback)

    return call


def _telling(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(callbacks: Any, *args: Any, **given: Any) -> Any:
        *before, logs = args if "logs" not in given else (*args, given.pop("logs"))
        return hook(callbacks, *before, with_old_names(logs) if isinstance(logs, Mapping) else logs, **given)

    return call
