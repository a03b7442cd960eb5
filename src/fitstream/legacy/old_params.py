"""What callbacks of Keras 1 and 2 knew of a training: its validation data, its samples, its metrics, a batch's size.

Keras 3 tells them the epochs, the steps and the verbosity. `fit` and `fit_generator` note the rest when they begin,
and the list of callbacks hands it on when it is made.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fitstream.adapters.keras import keras

__all__ = ["install"]

#: What is known of the trainings that run, the innermost last.
_running: list[dict[str, Any]] = []


def install() -> None:
    """Tell all callbacks."""
    model = keras.Model
    for name in ("fit", "fit_generator"):
        setattr(model, name, _noting(getattr(model, name)))
    kind = keras.callbacks.CallbackList
    kind.set_params = _telling_params(kind.set_params)
    for name in ("on_train_batch_begin", "_on_train_batch_end"):
        setattr(kind, name, _telling_size(getattr(kind, name)))
    bar = keras.callbacks.ProgbarLogger
    bar.on_train_batch_end = _without_size(bar.on_train_batch_end)


def _noting(original: Any) -> Any:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = {name: value for name, value in kwargs.items() if name in signature.parameters}
        with contextlib.suppress(TypeError):  # which the method itself says better
            known = signature.bind_partial(self, *args, **known).arguments
        with _noted(_facts(self, known)):
            return original(self, *args, **kwargs)

    noting.__signature__ = signature  # type: ignore[attr-defined]
    return noting


@contextlib.contextmanager
def _noted(facts: dict[str, Any]) -> Iterator[None]:
    _running.append(facts)
    try:
        yield
    finally:
        _running.pop()


def _facts(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What Keras 2 told callbacks, as far as arrays tell it."""
    facts: dict[str, Any] = {"validation_data": None}
    x, y, others = _list(given.get("x")), _list(given.get("y")), given.get("validation_data")
    rows = _rows(x)
    if rows is not None:
        split = given.get("validation_split") or 0.0
        kept = int(rows * (1.0 - split))
        facts |= {"samples": kept, "nb_sample": kept, "batch_size": given.get("batch_size") or 32}
        if others is None and kept < rows and _rows(y) == rows:
            others = ([part[kept:] for part in x], [part[kept:] for part in y])
    if isinstance(others, (tuple, list)) and 2 <= len(others) <= 3 and _rows(_list(others[0])) is not None:
        inputs, targets = _list(others[0]), _list(others[1])
        weights = _list(others[2]) if len(others) > 2 else [np.ones(_rows(inputs) or 0) for _ in targets]
        facts["validation_data"] = [*inputs, *targets, *weights]
    names = model.metrics_names if model.compiled else []
    facts["do_validation"] = others is not None
    facts["metrics"] = [*names, *(f"val_{name}" for name in names if others is not None)]
    return facts


def _list(parts: Any) -> list[Any]:
    return list(parts) if isinstance(parts, (list, tuple)) else [] if parts is None else [parts]


def _rows(parts: list[Any]) -> int | None:
    """How many rows arrays have; None where they aren't arrays."""
    if not parts or not all(hasattr(part, "shape") and hasattr(part, "__getitem__") for part in parts):
        return None
    return int(parts[0].shape[0])


def _telling_params(original: Any) -> Any:
    @functools.wraps(original)
    def set_params(self: Any, params: Any) -> None:
        if _running and params:
            facts = dict(_running[-1])
            for callback in self.callbacks:
                callback.validation_data = facts["validation_data"]
            del facts["validation_data"]
            params = {**facts, "nb_epoch": params.get("epochs"), **params}
        original(self, params)

    return set_params


def _telling_size(original: Any) -> Any:
    @functools.wraps(original)
    def telling(self: Any, batch: int, logs: Any = None) -> None:
        facts = _running[-1] if _running else {}
        if "samples" in facts:
            left = facts["samples"] - batch * facts["batch_size"]
            logs = {**(logs or {}), "batch": batch, "size": min(facts["batch_size"], left)}
        original(self, batch, logs)

    return telling


def _without_size(original: Any) -> Any:
    """The progress bar shows all that is in the logs."""

    @functools.wraps(original)
    def showing(self: Any, batch: int, logs: Any = None) -> None:
        original(self, batch, {name: value for name, value in (logs or {}).items() if name not in ("batch", "size")})

    return showing
