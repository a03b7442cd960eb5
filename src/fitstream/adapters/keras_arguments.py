"""Checks of what users give to fit, evaluate and predict, and what follows from it alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fitstream.adapters.keras import keras
from fitstream.adapters.keras_feed import Feed
from fitstream.adapters.loader_feed import LoaderFeed
from fitstream.errors import PlanError
from fitstream.operations import whole_number

__all__ = [
    "check_execution",
    "check_repeats",
    "check_targets",
    "check_validation",
    "count_steps",
    "count_validations",
    "needs_targets",
    "output_names",
    "validation_frequency",
]

#: What a program's own model may do in its own way.
_STEPS = ("train_step", "test_step", "compute_loss")


def count_steps(name: str, given: int | None, length: int | None, *, at_most_a_pass: bool = False) -> int | None:
    """Batches of an epoch or evaluation; None for those of a pass of unknown length."""
    if given is None:
        return length
    given = whole_number(given, name, 1, ", or None for a pass")
    if at_most_a_pass and length is not None and given > length:
        raise PlanError(f"{name}={given}, but a pass has {length} batches. Use {name} <= {length}, or leave it out.")
    return given


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
        return [whole_number(epoch, "validation_freq", 1) for epoch in given]
    return whole_number(given, "validation_freq", 1, ", or a list of epochs")


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


def check_targets(model: Any, feeds: Sequence[Feed | None]) -> None:
    """Refuse batches without the targets that a loss compares: some backends would fail in the middle of a step."""
    for feed in feeds:
        if feed is not None and needs_targets(model) and not (isinstance(feed.spec, tuple) and len(feed.spec) > 1):
            raise PlanError(
                f"batches are inputs alone, {feed.spec!r}, but the model's loss compares targets. Give (x, y), or "
                "samples with a label."
            )


def needs_targets(model: Any) -> bool:
    """Whether a model's loss compares targets, and its steps are Keras's own."""
    own_steps = any(getattr(type(model), name, None) is not getattr(keras.Model, name) for name in _STEPS)
    losses = keras.tree.flatten(getattr(model, "loss", None))
    return any(loss is not None for loss in losses) and not own_steps


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
