"""What a program gives to the `fit_generator` family, opened as feeds.

A generator or a Sequence becomes a `Supply`. What is a Dataset underneath (`as_dataset()`) goes its own way, through a
loader, where samples and not whole batches are the unit. A generator that both trains and validates has one line.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from fitstream.adapters.keras import check_batch, keras
from fitstream.adapters.keras_arguments import count_validations
from fitstream.adapters.keras_feed import Feed, build_for
from fitstream.adapters.keras_inputs import Running, open_one, to_batches
from fitstream.adapters.loader_feed import LoaderFeed
from fitstream.dataset import Dataset
from fitstream.errors import PlanError
from fitstream.legacy.batches import BatchReader
from fitstream.legacy.feed import Count, Line, SupplyFeed
from fitstream.legacy.program import warn
from fitstream.legacy.sequence import is_sequence
from fitstream.legacy.supply import Supply
from fitstream.loader import Loader
from fitstream.operations import whole_number
from fitstream.policy import Policy
from fitstream.spec import ArraySpec, parse_bytes

__all__ = [
    "Asked",
    "Epochs",
    "Opener",
    "Settings",
    "is_batches",
    "to_class_weights",
    "to_count",
    "validation_arrays",
    "whole",
]


@final
class Settings(NamedTuple):
    """How batches are made: the arguments of the methods with these names."""

    workers: int
    use_multiprocessing: bool
    max_queue_size: int
    memory: int | str
    seed: int
    sample_timeout_s: float | None

    def running(self) -> Running:
        """The same for a loader. One worker is what nobody chose: as many as measuring finds best."""
        lanes: int | str = "auto" if self.workers == 1 else self.workers
        processes = max(1, self.workers) if self.use_multiprocessing and self.workers else 0
        return Running(self.memory, lanes, processes, Policy(sample_timeout_s=self.sample_timeout_s))


@final
class Asked(NamedTuple):
    """What a call wants of one generator or Sequence.

    Attributes:
        name: The argument's name.
        data: What was given.
        amount: Batches or samples of a run.
        runs: Epochs, or validations.
        runs_told: The same in words, for a statement.
    """

    name: str
    data: Any
    amount: Count
    runs: int
    runs_told: str = ""

    @property
    def steps_name(self) -> str:
        """The argument that counts batches."""
        if not self.runs_told:
            return "steps"
        return "steps_per_epoch" if self.name == "generator" else "validation_steps"

    @property
    def samples_name(self) -> str:
        """The argument that counts samples."""
        if not self.runs_told:
            return "val_samples"
        return "samples_per_epoch" if self.name == "generator" else "nb_val_samples"

    @property
    def total(self) -> int | None:
        """Batches of all runs, where they are counted."""
        return None if self.amount.steps is None else self.amount.steps * self.runs or None


@final
class Epochs(NamedTuple):
    """Which epochs a call trains.

    Attributes:
        first: Epochs that were done before.
        last: The last one, counted from 1.
        frequency: Every how many epochs it validates, or after which.
    """

    first: int
    last: int
    frequency: int | list[int]

    @property
    def trained(self) -> int:
        """How many there are."""
        return max(0, self.last - self.first)

    @property
    def validations(self) -> int:
        """How many validations there are."""
        return count_validations(self.last, self.first, self.frequency)

    def validates_after(self, epoch: int) -> bool:
        """Whether a validation is to come once so many epochs are done."""
        return count_validations(self.last, epoch, self.frequency) > 0


def whole(name: str, value: Any) -> int:
    """A count of epochs; a fraction counts as a whole one.

    Raises:
        PlanError: If it isn't a number from 0 on.
    """
    return whole_number(math.ceil(value) if isinstance(value, (float, np.floating)) else value, name, 0)


def to_count(steps_name: str, steps: Any, samples_name: str, samples: Any) -> Count:
    """How much a run takes. A fraction of a batch counts as a whole one, as in `while done < steps`.

    Raises:
        PlanError: If a number isn't positive.
    """
    for name, value in ((steps_name, steps), (samples_name, samples)):
        if value is None:
            continue
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            unit = "batches" if name == steps_name else "samples"
            raise PlanError(
                f"{name}={value!r} must be a number of {unit} above 0. (len(samples) // batch_size is 0 where there "
                "are fewer samples than a batch has.)"
            )
    return Count(None if steps is None else math.ceil(steps), samples)


def to_class_weights(given: Any) -> Any:
    """Class weights; also what programs give though Keras 2 never looked at it: scikit-learn's arrays, and "auto"."""
    if isinstance(given, str):
        warn(
            f"class_weight={given!r} never had a meaning: as in Keras 2, all classes weigh the same. Give a dict of "
            "class to weight."
        )
        return None
    of_numbers = isinstance(given, (list, tuple)) and given and all(np.isscalar(weight) for weight in given)
    if not of_numbers and not isinstance(given, np.ndarray):
        return given
    weights = np.asarray(given)
    if weights.ndim != 1 or weights.dtype.kind not in "iuf":
        raise PlanError(f"class_weight={given!r} is neither a dict of class to weight nor one weight for each class.")
    warn(
        f"class_weight is no dict: its {len(weights)} numbers are taken for the weights of classes 0 to "
        f"{len(weights) - 1}. Keras 2 looked at dicts alone."
    )
    return dict(enumerate(weights.tolist()))


def is_batches(data: Any) -> bool:
    """Whether something gives batches, and isn't arrays."""
    return data is not None and not isinstance(data, (tuple, list, dict, np.ndarray))


def validation_arrays(model: Any, data: Any) -> Any:
    """Validation data as Keras takes it; None if there is none.

    Raises:
        PlanError: If it isn't `(x, y)` or `(x, y, sample_weight)`.
    """
    if data is None or (isinstance(data, (tuple, list)) and not data):
        return None
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        what = f"a {type(data).__name__}" + (f" of {len(data)} parts" if isinstance(data, (tuple, list)) else "")
        raise PlanError(f"validation_data is {what}. Give (x, y) or (x, y, sample_weight), a generator, or a Sequence.")
    parts = data[:2] if data[-1] is None else data
    if all(hasattr(part, "shape") for part in parts):
        return tuple(parts)
    return BatchReader(model, "validation_data").read(tuple(parts), 0)


@final
class Opener:
    """Opens what one call was given, and says first what can't work.

    Args:
        opened: Closes it.
        model: What it is for.
        settings: How batches are made.
        asked: All that the call wants, training first.
    Raises:
        PlanError: If a generator comes without a count.
    """

    def __init__(self, opened: contextlib.ExitStack, model: Any, settings: Settings, asked: Sequence[Asked]) -> None:
        self._opened, self._model = opened, model
        _build_for_texts(model)
        self._asked = asked
        self._settings = settings
        self._lines: dict[int, Line] = {}
        whole_number(settings.workers, "workers", 0)
        for each in asked:
            if isinstance(each.data, Loader) or _is_dataset(each.data) or is_sequence(each.data):
                continue
            if each.amount == Count():
                raise PlanError(
                    f"{each.name} is a generator (a {type(each.data).__name__}), whose length nobody knows: give "
                    f"{each.steps_name}=, the number of batches of {'an epoch' if each.runs_told else 'the run'}. Only "
                    "a Sequence, with __len__ and __getitem__, can do without."
                )
        if self._runs_in_one_thread(asked[0].data):
            warn(
                "use_multiprocessing=True, but a generator runs once, in one thread: copies would give each batch "
                "several times. Only a Sequence (__len__ and __getitem__) can be made by several workers.",
            )

    def _runs_in_one_thread(self, data: Any) -> bool:
        wants_processes = self._settings.use_multiprocessing and self._settings.workers > 0
        return wants_processes and not isinstance(data, Loader) and not _is_dataset(data) and not is_sequence(data)

    def open_training(self, asked: Asked, initial_epoch: int, *, shuffle: bool) -> Feed:
        """Open what a model is trained on."""
        if isinstance(asked.data, Loader) or _is_dataset(asked.data):
            feed = self._open_dataset(asked)
            feed.goes_on = asked.amount != Count()
            return feed
        line = self._line(asked, shuffle)
        reader = BatchReader(self._model, f"the {asked.name}")
        length = line.supply.length()
        first_pass = initial_epoch
        if length and asked.amount.steps is not None:
            first_pass = initial_epoch * asked.amount.steps // length
        return self._closed(SupplyFeed(line, reader, asked.amount, asked.name, asked.total, first_pass))

    def open(self, asked: Asked, *, predicts: bool = False) -> Feed:
        """Open what a model is validated with, evaluated on, or predicts for."""
        if isinstance(asked.data, Loader) or _is_dataset(asked.data):
            return self._open_dataset(asked, trims=True)
        line = self._line(asked, shuffle=False)
        reader = BatchReader(self._model, f"the {asked.name}", predicts=predicts)
        length = line.supply.length() if asked.amount == Count() else asked.amount.steps
        return self._closed(SupplyFeed(line, reader, asked.amount, asked.name, length))

    def _closed(self, feed: SupplyFeed) -> SupplyFeed:
        self._opened.callback(feed.close)
        return feed

    def _line(self, asked: Asked, shuffle: bool) -> Line:
        """The line of a generator, which is one for all that ask for it, or a line of a Sequence's own."""
        if not is_sequence(asked.data) and id(asked.data) in self._lines:
            return self._lines[id(asked.data)]
        totals = [each.total for each in self._asked if each.data is asked.data]
        total = None if is_sequence(asked.data) or None in totals else sum(filter(None, totals))
        settings = self._settings
        supply = Supply(
            asked.data,
            name=asked.name,
            workers=settings.workers,
            use_multiprocessing=settings.use_multiprocessing,
            max_queue_size=settings.max_queue_size,
            shuffle=shuffle,
            seed=settings.seed,
            memory=self._share(asked),
            sample_timeout_s=settings.sample_timeout_s,
            total=total,
        )
        self._opened.callback(supply.close)
        return self._lines.setdefault(id(asked.data), Line(supply)) if not supply.is_sequence else Line(supply)

    def _share(self, asked: Asked) -> int | str:
        """A budget that was given is for training and validation together: a quarter is validation's."""
        memory = self._settings.memory
        if memory == "auto" or len({id(each.data) for each in self._asked}) == 1:
            return memory
        whole_bytes = parse_bytes(memory)
        return whole_bytes // 4 if asked.name == "validation_data" else whole_bytes - whole_bytes // 4

    def _open_dataset(self, asked: Asked, *, trims: bool = False) -> LoaderFeed:
        data = asked.data.as_dataset() if hasattr(asked.data, "as_dataset") else asked.data
        batches = to_batches(asked.name, data, None)
        own = isinstance(batches, Dataset)
        running = self._settings.running()._replace(memory=self._share(asked)) if own else Running()
        loader = open_one(batches, running)
        if own:
            self._opened.enter_context(loader)
        check_batch(loader.plan.batch_spec)
        steps = loader.plan.steps if asked.amount == Count() else asked.amount.steps
        if asked.amount.samples is not None:
            steps = math.ceil(asked.amount.samples / loader.plan.batch_size)
        feed = LoaderFeed(loader, steps, own=own, trims=trims)
        self._opened.callback(feed.close)
        return feed


def _build_for_texts(model: Any) -> None:
    """Build a Sequential that begins with an Embedding for texts of any length, as Keras 2 did when it was made."""
    if not isinstance(model, keras.Sequential) or model.built or not model.layers:
        return
    first = model.layers[0]
    if not isinstance(first, keras.layers.Embedding) or getattr(first, "input_length", None) is not None:
        return
    spec = ArraySpec((None, None), np.dtype(np.int64))
    drawn = random.getstate()
    # On trial: a Sequential that could not be built for one shape refuses every other.
    with contextlib.suppress(Exception):
        if build_for(keras.models.clone_model(model), spec):
            random.setstate(drawn)
            build_for(model, spec)
    random.setstate(drawn)


def _is_dataset(data: Any) -> bool:
    return isinstance(data, Dataset) or callable(getattr(data, "as_dataset", None))
