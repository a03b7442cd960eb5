"""A training run as the command line knows it: open the data, make a model for it, train, write down what came out.

What is printed is one column of names and one of facts, so that a person finds a number by its name and a program too.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras

from fitstream.adapters.keras_inputs import Running, open_both, open_one
from fitstream.dataset import Dataset
from fitstream.errors import PlanError
from fitstream.loader import Loader
from fitstream.measures import Stats
from fitstream.models import Head, build_model
from fitstream.policy import OnBadSample, Policy
from fitstream.reporting.history import plot_history, write_history
from fitstream.sources.labels import LabelMode
from fitstream.spec import format_bytes
from fitstream.training import fit

__all__ = ["Outcome", "Settings", "check_validation", "head_for", "train"]

Say: TypeAlias = Callable[[str], object]
#: Classes that are taken as they come; more must be found in the samples.
_CLASSES_ENOUGH = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        model: As `build_model` takes it.
        batch_size: Samples of a batch.
        epochs: Passes over the training data.
        memory: Budget for training and validation together.
        workers: Lanes.
        processes: Worker processes, or None for as many as are measured to gain.
        seed: Of the model's weights, the order and all else that is random.
        output: Folder for the files, which is there.
        checkpoint: Folder for checkpoints, or None.
        on_bad_sample: As in `ds.loader`.
    """

    model: str
    batch_size: int
    epochs: int
    memory: str
    workers: int | Literal["auto"]
    processes: int | None
    seed: int
    output: Path
    checkpoint: Path | None = None
    on_bad_sample: OnBadSample = "raise"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        metrics: Losses and metrics of the last epoch.
        peak_bytes: Most memory that fitstream used for training and validation, measured.
        budget_bytes: What it was allowed.
        samples_per_s: Samples trained on a second, validation apart; 0 where training was complete already.
        waited_share: Share of the training time spent waiting for data.
        files: What was written.
    """

    metrics: dict[str, float]
    peak_bytes: int
    budget_bytes: int
    samples_per_s: float
    waited_share: float
    files: tuple[Path, ...]


def head_for(dataset: Dataset, label_mode: LabelMode) -> Head:
    """Tell what a model for these labels has to give.

    Raises:
        PlanError: If samples aren't `(image, label)`, the classes can't be counted, or numbers that are no classes were
            taken for them.
    """
    spec = dataset.spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise PlanError("training needs labels, and this data has none. Name their column by --label.")
    label = spec[1]
    if label.dtype.kind not in "iu":
        width = math.prod(label.shape)
        # Several label columns are one vector of numbers, whatever the mode.
        head = Head(label_mode if label_mode in ("categorical", "binary") else "raw", width)
    else:
        names = dataset.class_names
        head = Head("int", len(names) if names else 1 + max(dataset.class_weights()))
    # A model has an output for each number up to the largest label, so one identity among the labels would fill memory.
    if head.kind in ("int", "categorical") and head.width > max(_CLASSES_ENOUGH, len(dataset)):
        raise PlanError(
            f"the labels go up to {head.width - 1:,}: a model would need {head.width:,} outputs for {len(dataset):,} "
            "samples. If they are names, write them as text, such as id-7. If they are numbers to be met, use "
            "--label-mode raw."
        )
    return head


def check_validation(validation: Dataset, head: Head) -> None:
    """Refuse labels that the model has no output for: some backends would go on and measure nonsense.

    Raises:
        PlanError: If validation's labels are of another kind or width, or beyond the model's classes.
    """
    spec = validation.spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise PlanError("validation needs labels, and this data has none. Name their column by --label.")
    label = spec[1]
    if (label.dtype.kind in "iu") != (head.kind == "int"):
        raise PlanError(f"validation has labels {label}, but the model's are of kind {head.kind!r}. Give both alike.")
    if head.kind == "int":
        width, what = 1 + max(validation.class_weights()), "classes"
    else:
        width, what = math.prod(label.shape), "values a label"
    if width > head.width or (head.kind != "int" and width != head.width):
        raise PlanError(
            f"validation has {width:,} {what}, but training, and so the model, has {head.width:,}. "
            "Both need the same ones, in the same columns."
        )


def train(data: Dataset, validation: Dataset | None, head: Head, settings: Settings, say: Say) -> Outcome:
    """Train a model and write it, its history and the names of its classes into the output folder.

    Args:
        data: Samples `(image, label)`, images `(height, width, channels)`, not shuffled and not batched.
        validation: The same, or None.
        head: What the model has to give.
        settings: How.
        say: Takes each line for people.
    Raises:
        PlanError: If something can't work, before training starts.
        FitstreamError: What failed while training.
    """
    keras.utils.set_random_seed(settings.seed)
    if validation is not None:
        check_validation(validation, head)
    model = build_model(settings.model, data.spec[0].shape, head)
    batches = data.shuffle(settings.seed).batch(settings.batch_size)
    with contextlib.ExitStack() as opened:
        loaders = _open(batches, validation, settings)
        for loader in loaders:
            opened.callback(loader.close)
        say(f"{loaders[0].plan}\n")
        budget_bytes = loaders[0].plan.budget_bytes
        for other in loaders[1:]:
            budget_bytes += other.plan.projected_bytes
            beside = format_bytes(other.plan.projected_bytes)
            say(f"Beside it, validation is planned in {beside}, within the same {format_bytes(budget_bytes)}.\n")
        backend = keras.backend.backend()
        say(f"Model        {model.name}, {model.count_params():,} parameters, Keras {keras.__version__} on {backend}\n")
        clock = _Clock()
        history = fit(
            model,
            loaders[0],
            validation_data=loaders[1] if len(loaders) > 1 else None,
            epochs=settings.epochs,
            callbacks=[clock],
            verbose=1,
            checkpoint=settings.checkpoint,
        ).history
        stats = [loader.stats() for loader in loaders]
        outcome = Outcome(
            metrics={name: float(values[-1]) for name, values in history.items()},
            peak_bytes=sum(each.peak_bytes for each in stats),
            budget_bytes=budget_bytes,
            samples_per_s=stats[0].sample_count / clock.training_s if clock.training_s else 0.0,
            waited_share=min(1.0, stats[0].waited_s / clock.training_s) if clock.training_s else 0.0,
            files=(*_write(model, history, data.class_names, settings), *_write_bad(stats, settings.output)),
        )
    _tell(outcome, say)
    return outcome


def _open(batches: Dataset, validation: Dataset | None, settings: Settings) -> Sequence[Loader]:
    running = Running(settings.memory, settings.workers, settings.processes, Policy(settings.on_bad_sample))
    if validation is None:
        return (open_one(batches, running),)
    return open_both(batches, validation.batch(settings.batch_size), running)


def _write(
    model: keras.Model, history: dict[str, list[float]], class_names: list[str] | None, settings: Settings
) -> tuple[Path, ...]:
    output = settings.output
    files = [output / "model.keras", output / "history.csv"]
    # An earlier run's model stays whole until this one is.
    unfinished = output / "model.unfinished.keras"
    model.save(unfinished)
    unfinished.replace(files[0])
    write_history(history, files[1])
    if class_names is not None:
        files.append(output / "class_names.json")
        files[-1].write_text(json.dumps(class_names, ensure_ascii=False) + "\n", encoding="utf-8")
    plot = output / "history.png"
    if plot_history(history, plot, title=f"{model.name}, {settings.epochs} epochs"):
        files.append(plot)
    return tuple(files)


def _write_bad(stats: Sequence[Stats], output: Path) -> tuple[Path, ...]:
    """List the samples that were skipped or replaced, if there were some."""
    file = output / "bad_samples.csv"
    file.unlink(missing_ok=True)
    bad = tuple(one for each in stats for one in each.bad_samples)
    if not bad:
        return ()
    replace(stats[0], bad_samples=bad).write_bad_samples(file)
    return (file,)


def _tell(outcome: Outcome, say: Say) -> None:
    kind = "val_" if "val_loss" in outcome.metrics else ""
    metrics = {name.removeprefix(kind): value for name, value in outcome.metrics.items() if name.startswith(kind)}
    told = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    waited = f"training waited for data {outcome.waited_share:.0%} of the time"
    say(f"\n{'Validation' if kind else 'Training':<13}{told}")
    say(f"Memory       peak {format_bytes(outcome.peak_bytes)} of {format_bytes(outcome.budget_bytes)}")
    if outcome.samples_per_s:
        say(f"Speed        {outcome.samples_per_s:,.0f} samples/s; {waited}")
    names = {"model.keras": "Model", "history.csv": "History", "class_names.json": "Classes", "history.png": "Plot"}
    names["bad_samples.csv"] = "Bad samples"
    for file in outcome.files:
        say(f"{names[file.name]:<13}{file}")
    if not any(file.name == "history.png" for file in outcome.files):
        say('Plot         none: it needs matplotlib (pip install "fitstream[plot]")')


@dataclass(slots=True)
class _Times:
    training_s: float = 0.0
    since_s: float | None = None


class _Clock(keras.callbacks.Callback):
    """Adds up the time of training steps, without validation."""

    def __init__(self) -> None:
        super().__init__()
        # In an object, so that a checkpoint doesn't take over the times of another process.
        self._times = _Times()

    @property
    def training_s(self) -> float:
        return self._times.training_s

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._times.since_s = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self._stop()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._stop()

    def _stop(self) -> None:
        since_s, self._times.since_s = self._times.since_s, None
        if since_s is not None:
            self._times.training_s += time.perf_counter() - since_s
