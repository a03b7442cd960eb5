"""What users give to fit, evaluate and predict, made loaders.

A user's Loader is used as it is. All else becomes a batched Dataset and is opened here, in its share of the budget.
"""

from __future__ import annotations

import contextlib
import types
from dataclasses import asdict
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np

from fitstream.budget import round_up
from fitstream.constructors import from_arrays, from_batches
from fitstream.dataset import Dataset
from fitstream.errors import PlanError
from fitstream.loader import Loader
from fitstream.plan import Plan
from fitstream.policy import DEFAULT, Policy
from fitstream.spec import format_bytes

__all__ = ["Batches", "Running", "open_both", "open_one", "split_off", "to_batches", "to_validation"]

#: Something that gives batches: a Loader, or a batched Dataset.
Batches: TypeAlias = Loader | Dataset

#: Batch size for arrays, as in Keras.
_ARRAYS_BATCH = 32
#: Eighths of the budget that validation is planned in, until one leaves training enough.
_SHARES = (2, 1, 3, 4, 5, 6, 7)
#: Packages whose data Keras takes as it is: PyDataset, tf.data, DataLoader, Grain.
_KERAS_TAKES = {"keras", "tensorflow", "torch", "grain"}


@final
class Running(NamedTuple):
    """How loaders that are made here run: the arguments of `ds.plan`."""

    memory: int | str = "auto"
    workers: int | str = "auto"
    processes: int | None = None
    policy: Policy = DEFAULT


def to_batches(name: str, data: Any, batch_size: int | None, shuffle_seed: int | None = None) -> Batches:
    """Make batches of a Dataset, a Loader or arrays.

    Args:
        name: The argument's name, for errors.
        data: What the user gave.
        batch_size: For a Dataset that isn't batched, and for arrays (32 if None).
        shuffle_seed: Shuffles arrays; None keeps their order.
    Raises:
        PlanError: If it is something else, or not batched, or batched twice.
    """
    if isinstance(data, Loader):
        if batch_size is not None:
            raise PlanError(f"batch_size={batch_size}, but the Loader has batches of {data.plan.batch_size} already.")
        return data
    if isinstance(data, Dataset):
        if data.batched and batch_size is not None:
            raise PlanError(f"batch_size={batch_size}, but the dataset is batched already. Give one of the two.")
        if not data.batched and batch_size is None:
            raise PlanError(
                f"{name} isn't batched. Call .batch(32), or another size, on the dataset, or give batch_size=."
            )
        return data if batch_size is None else data.batch(batch_size)
    if not _is_arrays(data):
        raise PlanError(
            f"{name} is a {type(data).__name__}. Give a Dataset, a Loader, or arrays (x, y) or (x, y, sample_weight). "
            "For generators and sequences use fs.from_generator, fs.from_batches or fs.from_sequence."
        )
    dataset = from_arrays(tuple(data) if isinstance(data, list) else data)
    if shuffle_seed is not None:
        dataset = dataset.shuffle(shuffle_seed)
    return dataset.batch(_ARRAYS_BATCH if batch_size is None else batch_size)


def to_validation(data: Any, batch_size: int | None, train: Batches, memory: int | str) -> Batches | None:
    """Make batches to validate with; datasets and arrays that aren't batched get the size of training's.

    Returns:
        None if Keras is to take the data as it is.
    Raises:
        PlanError: If it is the Loader that trains, or nothing that can be validated with.
    """
    if data is train and isinstance(data, Loader):
        raise PlanError("a Loader reads one stream at a time. Validate with a Loader of its own, or with the Dataset.")
    if isinstance(data, types.FunctionType) or hasattr(data, "__next__"):
        return from_batches(data)
    if isinstance(data, Loader) or (isinstance(data, Dataset) and data.batched):
        return data
    if not (isinstance(data, Dataset) or _is_arrays(data)):
        if _KERAS_TAKES.isdisjoint(each.__module__.split(".")[0] for each in type(data).__mro__):
            raise PlanError(
                f"validation_data is a {type(data).__name__}. Give a Dataset, a Loader, arrays (x, y) or (x, y, "
                "sample_weight), a generator of batches, or what Keras takes itself, such as a PyDataset."
            )
        return None
    if batch_size is None:
        batch_size = (train.plan if isinstance(train, Loader) else train.plan(memory, workers=0)).batch_size
    return to_batches("validation_data", data, batch_size)


def split_off(train: Batches, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Divide into training and validation.

    Raises:
        PlanError: If `fraction` isn't between 0 and 1, or the data can't be divided.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float, np.floating)) or not 0 < fraction < 1:
        raise PlanError(f"validation_split={fraction!r} must be between 0 and 1, such as 0.2.")
    if isinstance(train, Loader):
        raise PlanError("validation_split can't divide a Loader, which is planned already. Give its Dataset.")
    return train.split_off(fraction, seed)


def open_one(batches: Batches, running: Running) -> Loader:
    """Open a loader, or take a user's.

    Raises:
        PlanError: If the plan is refused, or settings are given that a Loader has already.
    """
    if isinstance(batches, Dataset):
        return Loader(batches.plan(*running))
    given = running._asdict() | asdict(running.policy)
    del given["policy"]
    own = Running()._asdict() | asdict(DEFAULT)
    for name, value in given.items():
        if value != own[name]:
            raise PlanError(
                f"{name}={value!r} is for a Dataset; a Loader has its own. Give it to ds.loader({name}=...)."
            )
    return batches


def open_both(train: Batches, other: Batches, running: Running) -> tuple[Loader, Loader]:
    """Open loaders for training and validation within one budget.

    Validation is planned in a quarter of it, or else in the first other share that leaves training enough; training is
    planned in what validation's plan leaves. A user's Loader keeps its own budget, and the other gets all.

    Raises:
        PlanError: If no share lets both fit.
    """
    if isinstance(train, Dataset) and isinstance(other, Dataset):
        return _start_both(*_divide(train, other, running), running)
    if isinstance(train, Loader) and isinstance(other, Dataset):
        return train, open_one(other, running)
    assert isinstance(other, Loader)
    return open_one(train, running), other


def _start_both(plan: Plan, other_plan: Plan, running: Running) -> tuple[Loader, Loader]:
    """Open two loaders. Worker processes that were asked for are measured here, and may cost more than was planned."""
    with contextlib.ExitStack() as undo:
        try:
            loader = undo.enter_context(Loader(plan))
            other = undo.enter_context(Loader(other_plan))
        except PlanError as error:
            if error.needed_bytes is None:
                raise
            # Validation is planned in a quarter of all, and training in what that leaves.
            enough = round_up(4 * error.needed_bytes)
            raise PlanError(
                f"training and validation each start {running.processes} worker processes of their own, which turned "
                f"out to cost more than their share of memory={running.memory!r}: one of the two needs "
                f'{format_bytes(error.needed_bytes)}. Use memory="{enough}", fewer processes, or processes=0.'
            ) from error
        undo.pop_all()
        return loader, other


def _divide(train: Dataset, other: Dataset, running: Running) -> tuple[Plan, Plan]:
    whole = train.plan(*running)
    budget = whole.budget_bytes
    for eighths in _SHARES:
        try:
            other_plan = other.plan(*running._replace(memory=budget * eighths // 8))
            return train.plan(*running._replace(memory=budget - other_plan.projected_bytes)), other_plan
        except PlanError:
            continue
    needed = whole.projected_bytes + other.plan(*running._replace(memory=budget)).projected_bytes
    raise PlanError(
        f"training and validation together don't fit memory={format_bytes(budget)}, though each alone does: training's "
        f"plan takes {format_bytes(whole.projected_bytes)}, and {format_bytes(needed)} with validation. "
        f'Use memory="{round_up(needed)}", a smaller batch for validation, workers=1, or processes=0.'
    )


def _is_arrays(data: Any) -> bool:
    if isinstance(data, list):
        return bool(data) and all(map(_is_arrays, data))
    return isinstance(data, (tuple, dict)) or (hasattr(data, "__array__") and hasattr(data, "shape"))
