"""Checks of what users give to fit, evaluate and predict, and what follows from it alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.adapters.keras_feed import Feed
from fitstream.adapters.loader_feed import LoaderFeed
from fitstream.errors import PlanError

__all__ = [
    "check_execution",
    "check_repeats",
    "check_validation",
    "count_steps",
    "count_validations",
    "output_names",
    "validation_frequency",
    "whole_number",
]


def count_steps(name: str, given: int | None, length: int | None, *, at_most_a_pass: bool = False) -> int | None:
    """Batches of an epoch or evaluation; None for those of a pass of unknown length."""
    if given is None:
        return length
    given = whole_number(name, given, 1, ", or None for a pass")
    if at_most_a_pass and length is not None and given > length:
        raise PlanError(f"{name}={given}, but a pass has {length} batches. Use {name} <= {length}, or leave it out.")
    return given


def whole_number(name: str, given: Any, least: int, otherwise: str = "") -> int:
    """A whole number that isn't below `least`."""
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)) or given < least:
        raise PlanError(f"{name}={given!r} must be a whole number from {least} on{otherwise}.")
    return int(given)


def check_validation(data: Any, split: float | None, steps: int | None, given: Any) -> int | list[int]:
    """Refuse what can't be meant together. Returns how often to validate."""
    frequency = validation_frequency(given)
    if split is not None and data is not None:
        raise PlanError("validation_split and validation_data are both given. Use one.")
    if split is None and data is None and (steps is not None or frequency != 1):
        name = "validation_freq" if steps is None else "validation_steps"
        raise PlanError(f"{name} is given, but nothing to validate with. Give validation_data or validation_split.")
    return frequency


def validation_frequency(given: Any) -> int | list[int]:
    """Every how many epochs, or after which, one validates."""
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        return [whole_number("validation_freq", epoch, 1) for epoch in given]
    return whole_number("validation_freq", given, 1, ", or a list of epochs")


def check_repeats(feed: LoaderFeed, name: str, steps_name: str, given: int | None, passes: int) -> None:
    """Refuse several passes over a generator that can run only once."""
    if feed.one_shot and given is None and passes > 1:
        raise PlanError(
            f"{name} is a generator that can run only once, but {passes} passes over it are planned. "
            f"Give the function that makes it, without calling it, or {steps_name}=."
        )


def check_execution(model: Any, feeds: Sequence[Feed | None]) -> None:
    """Refuse what JAX can't foresee: the end of a pass within an execution."""
    count = int(model.steps_per_execution)
    if count > 1 and keras.backend.backend() == "jax" and any(feed is not None and feed.unforeseen for feed in feeds):
        raise PlanError(
            f"steps_per_execution={count} on JAX needs to know how long an epoch is, and the source doesn't tell its "
            "length. Give it as length=, give steps, or compile with steps_per_execution=1."
        )


def count_validations(epochs: int, initial_epoch: int, frequency: int | list[int]) -> int:
    """How often a fit validates."""
    done = range(initial_epoch + 1, epochs + 1)
    return sum(epoch % frequency == 0 if isinstance(frequency, int) else epoch in frequency for epoch in done)


def output_names(model: Any) -> list[str]:
    """The outputs' names in their order; of a Sequential its last layer's. None of a model that doesn't tell them."""
    names = getattr(model, "output_names", None)
    if not names and isinstance(model, keras.Sequential):
        names = [layer.name for layer in model.layers[-1:]]
    return list(names or [])
