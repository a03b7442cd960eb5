"""Users' callbacks, and the end of what Keras starts for them."""

from __future__ import annotations

from typing import Any

from fitstream.adapters.keras import keras

__all__ = ["end_threads", "flat_callbacks"]


def flat_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """The callbacks in what a user gives: one, a list, a `CallbackList`, or None."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return keras.tree.flatten(callbacks) if callbacks is not None else []


def end_threads(callbacks: keras.callbacks.CallbackList) -> None:
    """End the threads that Keras calls callbacks from; it does so itself only when a loop ends well."""
    executor = getattr(callbacks, "_executor", None)
    if executor is not None:
        executor.shutdown(cancel_futures=True)
