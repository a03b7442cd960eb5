"""Keras 1's keywords and positional arguments in calls of Keras 2's methods.

`samples_per_epoch`, `nb_val_samples` and `val_samples` count samples and are kept as such: the methods know both. The
others are other names for the same thing.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fitstream.errors import PlanError

__all__ = ["RENAMED", "SIGNATURES", "by_keras_1", "takes_old_keywords"]

#: Keras 1's name -> the name here.
RENAMED = {
    "nb_epoch": "epochs",
    "max_q_size": "max_queue_size",
    "nb_worker": "workers",
    "pickle_safe": "use_multiprocessing",
}

#: Counts of samples -> the counts of batches that mean the same; only one of the two can be given.
_COUNTS = {"samples_per_epoch": "steps_per_epoch", "nb_val_samples": "validation_steps", "val_samples": "steps"}

_QUEUE = ("max_q_size", "nb_worker", "pickle_safe")
#: Keras 1.2.2's arguments in their order, after the model.
# fmt: off
SIGNATURES = {
    "fit_generator": (
        "generator", "samples_per_epoch", "nb_epoch", "verbose", "callbacks", "validation_data", "nb_val_samples",
        "class_weight", *_QUEUE, "initial_epoch",
    ),
    "evaluate_generator": ("generator", "val_samples", *_QUEUE),
    "predict_generator": ("generator", "val_samples", *_QUEUE),
}
# fmt: on

_Method = TypeVar("_Method", bound=Callable[..., Any])


def takes_old_keywords(method: _Method) -> _Method:
    """Let a method of the family be called with Keras 1's keywords as well."""
    parameters = list(inspect.signature(method).parameters)

    @functools.wraps(method)
    def call(*args: Any, **given: Any) -> Any:
        if parameters[3:4] == ["callbacks"] and len(args) > 3 and isinstance(args[3], int):
            args = (*args[:3], None, *args[3:])  # Keras 2.0 to 2.2 had the queue's arguments here
        if parameters[8:9] == ["validation_freq"] and len(args) > 8 and not _is_frequency(args[8]):
            args = (*args[:8], 1, *args[8:])  # and class weights here
        told = _translated(method.__name__, parameters, dict(zip(parameters, args, strict=False)), given)
        return method(*args, **told)

    return cast("_Method", call)


def _is_frequency(value: Any) -> bool:
    return isinstance(value, (numbers.Integral, list, tuple))


def by_keras_1(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with its positional arguments in Keras 1's order."""
    names = SIGNATURES[method.__name__]

    @functools.wraps(method)
    def call(model: Any, *args: Any, **given: Any) -> Any:
        if len(args) > len(names):
            raise PlanError(f"{method.__name__}() of Keras 1 takes {len(names)} arguments, but {len(args)} are given.")
        for name in names[: len(args)]:
            if name in given:
                raise PlanError(f"{method.__name__}() is given {name} twice: by its place and by its name.")
        return method(model, **dict(zip(names, args, strict=False)), **given)

    return call


def _translated(method: str, parameters: list[str], placed: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in given.items():
        new = RENAMED.get(name, name)
        if new not in parameters:
            near = difflib.get_close_matches(name, [*parameters, *RENAMED], 1)
            hint = f" Did you mean {near[0]}=?" if near else f" It takes {', '.join(parameters[1:])}."
            raise PlanError(f"{method}() has no argument {name}=.{hint}")
        if new in told or (new != name and new in placed):
            raise PlanError(f"{method}() is given both {name}= and {new}=, two names for the same. Use one.")
        told[new] = value
    for samples, steps in _COUNTS.items():
        if told.get(samples) is not None and {**placed, **told}.get(steps) is not None:
            raise PlanError(
                f"{method}() is given both {samples}= (Keras 1: samples) and {steps}= (Keras 2: batches). Use one."
            )
    return told
