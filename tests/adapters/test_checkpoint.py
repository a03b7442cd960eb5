"""`fs.fit(checkpoint=)`, on the backend that KERAS_BACKEND names: resumed training equals unbroken training."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorder import BACKEND, KERAS_WARNINGS, Diary, keras, planned, recorder, samples, shuffled
from resuming import STEPS, Interrupt, Interrupted, dataset, make_model, outcome, pictures, train

import fitstream as fs
from fitstream import checkpoints

pytestmark = KERAS_WARNINGS
QUIET: dict[str, Any] = {"verbose": 0, "workers": 1}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes end in these tests, and not the system."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def unbroken() -> dict[str, Any]:
    return train()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.name != ".lock")


def seeded(**settings: Any) -> Any:
    keras.utils.set_random_seed(5)
    return recorder(**settings)


def fit(
    folder: Path | fs.Checkpoint, data: Any, callbacks: Any = (), steps: int | None = None, **settings: Any
) -> tuple[Any, Any]:
    """Train a model that remembers its samples; it is made anew, as by a new process."""
    model = settings.pop("model", None) or seeded()
    told = [*callbacks, Interrupt(steps)]
    return model, fs.fit(model, data, callbacks=told, checkpoint=folder, **{**QUIET, **settings})


def interrupt(folder: Path | fs.Checkpoint, data: Any, steps: int, **settings: Any) -> None:
    with pytest.raises(Interrupted):
        fit(folder, data, steps=steps, **settings)


# Equal to the bit.


@pytest.mark.parametrize("runs", [[STEPS], [3, 4, 9]], ids=["at an epoch's end", "again and again"])
def test_interrupted_training_ends_with_the_weights_history_and_random_numbers_of_an_unbroken_one(
    runs: list[int], tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=2)
    for steps in runs:
        with pytest.raises(Interrupted):
            train(rules, steps=steps)
    assert train(rules) == unbroken


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("resuming.py")), str(tmp_path / "run")]

    def run(result: str, kill_after: int | None) -> None:
        with subprocess.Popen(
            [*command, str(tmp_path / result), "2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for step, _ in enumerate(process.stdout, 1):
                if step == kill_after:
                    process.kill()
                else:
                    process.stdin.write("go on\n")
            assert process.wait() == (0 if kill_after is None else -signal.SIGKILL)

    run("first", kill_after=10)
    assert not (tmp_path / "first").exists()
    run("second", kill_after=None)
    stop = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    assert json.loads((tmp_path / "second").read_text()) == train(callbacks=[stop])


def test_time_makes_checkpoints_too(tmp_path: Path) -> None:
    interrupt(fs.Checkpoint(tmp_path, every_s=0, keep=9), shuffled(23), 4, epochs=2)
    assert names(tmp_path) == [f"step-00000000{step}" for step in (1, 2, 3)]


def test_without_a_rule_there_is_a_checkpoint_at_each_epochs_end(tmp_path: Path) -> None:
    fit(fs.Checkpoint(tmp_path, every_s=None, keep=9), shuffled(23), epochs=2)
    assert names(tmp_path) == ["final-000000010", "step-000000005", "step-000000010"]


@pytest.mark.parametrize(("steps", "built"), [(2, False), (3, True), (5, False), (6, False), (9, True), (10, False)])
def test_each_sample_is_trained_on_once_wherever_training_was_interrupted(
    steps: int, built: bool, tmp_path: Path
) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    interrupt(rules, shuffled(23), steps, epochs=2)
    model, history = fit(rules, shuffled(23), epochs=2, model=recorder(built=built))
    assert model.ids == planned(23, range(2))
    assert history.epoch == [0, 1]


@pytest.mark.parametrize("per_epoch", [3, 7])
def test_passes_are_laid_end_to_end_across_an_interruption(per_epoch: int, tmp_path: Path) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=2)
    interrupt(rules, shuffled(23), 4, epochs=3, steps_per_epoch=per_epoch)
    model, _ = fit(rules, shuffled(23), epochs=3, steps_per_epoch=per_epoch)
    assert model.ids == planned(23, range(5))[: {3: 43, 7: 97}[per_epoch]]


@pytest.mark.parametrize("per_epoch", [None, 3])
def test_a_loader_goes_on_where_training_was(per_epoch: int | None, tmp_path: Path) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    settings = {"epochs": 2, "steps_per_epoch": per_epoch, "workers": "auto"}
    with shuffled(23).loader(workers=2) as loader:
        loader.set_epoch(4)
        interrupt(rules, loader, 3, **settings)
    with shuffled(23).loader(workers=1) as loader:
        model, _ = fit(rules, loader, **settings)
        assert model.ids == planned(23, [4, 5])[: None if per_epoch is None else 28]
        assert loader.epoch == (6 if per_epoch is None else 5)


def numbers() -> Iterator[Any]:
    yield from zip(*samples(23), strict=True)


@pytest.mark.parametrize("steps", [4, 7])
def test_a_generator_of_unknown_length_goes_on_in_mid_pass(steps: int, tmp_path: Path) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    data = fs.from_generator(numbers).batch(5)
    interrupt(rules, data, steps, epochs=2)
    model, history = fit(rules, fs.from_generator(numbers).batch(5), epochs=2)
    assert model.ids == [*range(23)] * 2
    assert history.epoch == [0, 1]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
@pytest.mark.parametrize("count", [20, 23])
def test_several_steps_an_execution_go_on_in_mid_epoch(count: int, tmp_path: Path) -> None:
    # JAX can't take part of an execution: there, 5 steps an epoch go on from the epoch's begin.
    rules = fs.Checkpoint(tmp_path, every_steps=None, every_s=0)
    interrupt(rules, shuffled(count), 2, epochs=2, model=recorder(steps_per_execution=2))
    if BACKEND == "jax" and count == 23:
        assert names(tmp_path) == []
        return
    assert names(tmp_path) == ["step-000000002"]
    model, _ = fit(rules, shuffled(count), epochs=2, model=recorder(steps_per_execution=2))
    assert model.ids == planned(count, range(2))


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone takes the batches of an execution without asking")
def test_steps_that_cannot_be_gone_on_from_are_refused_as_a_rule(tmp_path: Path) -> None:
    with pytest.raises(fs.PlanError, match="every_steps=1: on JAX, with steps_per_execution=2 and 5 steps"):
        fit(fs.Checkpoint(tmp_path, every_steps=1), shuffled(23), model=recorder(steps_per_execution=2))


# Complete.


def test_complete_training_gives_its_outcome_again_without_training(tmp_path: Path) -> None:
    first, history = fit(tmp_path, shuffled(23), epochs=2)
    diary = Diary()
    model, again = fit(tmp_path, shuffled(23), epochs=2, callbacks=[diary])
    assert diary.lines == []
    assert outcome(model, again) == outcome(first, history)
    assert model.ids == planned(23, range(2))


def test_more_epochs_go_on_as_if_there_had_been_no_end(tmp_path: Path) -> None:
    fit(tmp_path, shuffled(23), epochs=1)
    model, history = fit(tmp_path, shuffled(23), epochs=3)
    whole = seeded()
    assert outcome(model, history) == outcome(whole, fs.fit(whole, shuffled(23), epochs=3, **QUIET))


def test_averaged_weights_come_at_the_end_alone(tmp_path: Path) -> None:
    def averaging() -> Any:
        model = seeded()
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "sparse_categorical_crossentropy")
        return model

    interrupt(tmp_path, shuffled(23), 6, epochs=2, model=averaging())
    first, history = fit(tmp_path, shuffled(23), epochs=2, model=averaging())
    whole = averaging()
    unbroken = outcome(whole, fs.fit(whole, shuffled(23), epochs=2, **QUIET))
    assert outcome(first, history) == unbroken
    assert outcome(*fit(tmp_path, shuffled(23), epochs=2, model=averaging())) == unbroken


def test_fewer_epochs_than_were_trained_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, shuffled(23), epochs=2)
    with pytest.raises(fs.PlanError, match=r"final-000000010 is of epoch 2, but epochs=1 .*Use epochs=2"):
        fit(tmp_path, shuffled(23), epochs=1)


def test_the_newest_checkpoint_counts_and_not_initial_epoch(tmp_path: Path) -> None:
    interrupt(tmp_path, shuffled(23), 7, epochs=3, initial_epoch=1)
    model, history = fit(tmp_path, shuffled(23), epochs=3, initial_epoch=1)
    assert model.ids == planned(23, [1, 2])
    assert history.epoch == [1, 2]


def test_initial_epoch_is_not_lost_by_a_checkpoint_within_the_first_epoch(tmp_path: Path) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    interrupt(rules, shuffled(23), 3, epochs=3, initial_epoch=1)
    model, history = fit(rules, shuffled(23), epochs=3, initial_epoch=1)
    assert model.ids == planned(23, [1, 2])
    assert history.epoch == [1, 2]


def test_a_loader_that_validates_a_part_of_its_pass_begins_a_new_one_after_an_interruption(tmp_path: Path) -> None:
    def settings(loader: fs.Loader) -> dict[str, Any]:
        return {"epochs": 3, "validation_data": loader, "validation_steps": 2}

    rules = fs.Checkpoint(tmp_path / "cut", every_steps=1)
    with shuffled(17).loader("8 MB", workers=1) as loader:
        _, unbroken = fit(tmp_path / "whole", shuffled(23), **settings(loader))
    with shuffled(17).loader("8 MB", workers=1) as loader:
        interrupt(rules, shuffled(23), 7, **settings(loader))
    with shuffled(17).loader("8 MB", workers=1) as loader:
        _, resumed = fit(rules, shuffled(23), **settings(loader))
    assert resumed.history["val_loss"] == unbroken.history["val_loss"]


# Callbacks.


class Falling(keras.callbacks.Callback):
    """Makes up a loss that falls for three epochs and then rises."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["made_up"] = abs(epoch - 2) + 0.5


def stopping() -> Any:
    return keras.callbacks.EarlyStopping("made_up", mode="min", patience=2, restore_best_weights=True)


def test_early_stopping_stops_where_it_would_have_and_gives_the_best_weights_back(tmp_path: Path) -> None:
    whole, stop = seeded(), stopping()
    unbroken = outcome(whole, fs.fit(whole, shuffled(23), epochs=9, callbacks=[Falling(), stop], **QUIET))
    assert stop.stopped_epoch == 4
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    for steps in (17, 3):
        interrupt(rules, shuffled(23), steps, epochs=9, callbacks=[Falling(), stopping()])
    for _ in range(2):  # the second gives the outcome again
        stop = stopping()
        assert outcome(*fit(rules, shuffled(23), [Falling(), stop], epochs=9)) == unbroken
        assert (stop.stopped_epoch, stop.best_epoch, stop.wait) == (4, 2, 2)


@pytest.mark.parametrize("lost", [False, True], ids=["outcome written", "outcome lost"])
def test_training_that_was_stopped_trains_no_more(lost: bool, tmp_path: Path) -> None:
    first, history = fit(tmp_path, shuffled(23), [Falling(), stopping()], epochs=9)
    if lost:
        (tmp_path / "final-000000025").rename(tmp_path / "lost")
    diary = Diary()
    model, again = fit(tmp_path, shuffled(23), [Falling(), stopping(), diary], epochs=9)
    assert outcome(model, again) == outcome(first, history)
    assert diary.lines == (["begin", "end"] if lost else [])


def scheduling() -> list[Any]:
    return [
        Falling(),
        keras.callbacks.ReduceLROnPlateau("made_up", mode="min", factor=0.5, patience=1),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    ]


def test_learning_rates_that_callbacks_set_go_on(tmp_path: Path) -> None:
    whole = seeded()
    unbroken = outcome(whole, fs.fit(whole, shuffled(23), epochs=6, callbacks=scheduling(), **QUIET))
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    for steps in (8, 13):
        interrupt(rules, shuffled(23), steps, epochs=6, callbacks=scheduling())
    assert outcome(*fit(rules, shuffled(23), scheduling(), epochs=6)) == unbroken


def test_settings_of_a_callback_are_those_of_the_program(tmp_path: Path) -> None:
    interrupt(tmp_path, shuffled(23), 7, epochs=3, callbacks=[Falling(), stopping()])
    stop = keras.callbacks.EarlyStopping("loss", patience=7)
    fit(tmp_path, shuffled(23), [stop], epochs=3)
    assert (stop.patience, stop.monitor) == (7, "loss")


def test_callbacks_see_the_batches_numbers_of_the_whole_epoch(tmp_path: Path) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=1)
    interrupt(rules, shuffled(23), 4, epochs=2)
    diary = Diary()
    fit(rules, shuffled(23), [diary], epochs=2)
    rest = [line for step in (3, 4) for line in (f"<{step}", f"{step}>")]
    whole = [line for step in range(5) for line in (f"<{step}", f"{step}>")]
    # A Diary's lines are a list: what the first one wrote is not here, because that was another callback's.
    assert diary.lines == ["begin", "epoch 0", *rest, "epoch 1", *whole, "end"]


class Holds(keras.callbacks.Callback):
    """Keeps what a checkpoint can and can't hold."""

    def __init__(self, thing: Any = None) -> None:
        super().__init__()
        self.kept: Any = None
        self.thing = thing

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.kept = {"a": [1, 2.5, None, ("x", np.arange(3))], 7: np.float32(0.1), "t": keras.ops.ones((2,))}
        self.thing = object()


def test_values_of_callbacks_come_back_and_what_cannot_is_named_once(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"Holds\.thing is a object, which a checkpoint can't hold") as told:
        interrupt(tmp_path, shuffled(23), 13, epochs=3, callbacks=[Holds()])
    assert sum("Holds" in str(each.message) for each in told) == 1
    holds = Holds("mine")

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                assert holds.thing == "mine"
                kept = holds.kept
                assert kept["a"][:3] == [1, 2.5, None]
                assert type(kept["a"][3]) is tuple
                assert kept["a"][3][1].tolist() == [0, 1, 2]
                assert type(kept[7]) is np.float32
                assert keras.ops.is_tensor(kept["t"])
                seen.append(epoch)

    seen: list[int] = []
    with pytest.warns(UserWarning, match="Holds"):
        fit(tmp_path, shuffled(23), [holds, Look()], epochs=3)
    assert seen == [2]


def test_a_callback_that_is_gone_is_named(tmp_path: Path) -> None:
    interrupt(tmp_path, shuffled(23), 7, epochs=2, callbacks=[Falling(), stopping()])
    with pytest.warns(UserWarning, match=r"state of a callback .*EarlyStopping, which isn't given now"):
        fit(tmp_path, shuffled(23), epochs=2)


# What goes wrong.


def test_a_broken_checkpoint_is_passed_over_and_the_outcome_is_the_same(
    tmp_path: Path, unbroken: dict[str, Any]
) -> None:
    rules = fs.Checkpoint(tmp_path, every_steps=3)
    with pytest.raises(Interrupted):
        train(rules, steps=14)
    newest = tmp_path / names(tmp_path)[-1] / "arrays.npz"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=f"{newest.parent.name} is broken: arrays.npz isn't what was written"):
        assert train(rules) == unbroken


def raised(call: Callable[[], Any]) -> fs.StateError:
    with pytest.raises(fs.StateError) as caught:
        call()
    return caught.value


def test_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, steps=8)
    error = raised(lambda: train(tmp_path, model=make_model(width=5)))
    assert "the checkpoint is of another model: variable " in str(error)
    assert any("kernel float32(3, 3, 3, 4) -> " in change and "(3, 3, 3, 5)" in change for change in error.changes)
    adam = raised(lambda: train(tmp_path, model=make_model(optimizer="sgd")))
    assert any("none" in change for change in adam.changes)
    metrics = raised(lambda: train(tmp_path, model=make_model(metrics=[])))
    assert metrics.changes


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"train": lambda: dataset(seed=4)}, "seed"),
        ({"train": lambda: dataset(size=9)}, "batch size 8 -> 9"),
        ({"train": lambda: fs.from_arrays(pictures()).shuffle(3).batch(8)}, "map"),
        ({"steps_per_epoch": 4}, "steps_per_epoch 7 -> 4"),
        ({"validation_data": None}, "validation some -> none"),
        ({"validation_data": fs.from_arrays(pictures(21)).batch(8)}, "20 samples -> 21"),
    ],
)
def test_other_data_is_refused_with_what_differs(settings: dict[str, Any], change: str, interrupted: Path) -> None:
    given = {name: value() if callable(value) else value for name, value in settings.items()}
    error = raised(lambda: train(interrupted, **given))
    assert any(change in one for one in error.changes)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Interrupted):
        train(folder, steps=8)
    return folder


def test_another_backend_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(tmp_path, shuffled(23), 7, epochs=2)
    from fitstream.adapters import keras_checkpoint

    monkeypatch.setattr(keras_checkpoint, "versions", lambda: {"backend": "abacus"})
    assert raised(lambda: fit(tmp_path, shuffled(23), epochs=2)).changes == (f"backend {BACKEND} -> abacus",)


def test_other_versions_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(tmp_path, shuffled(23), 7, epochs=2)
    from fitstream.adapters import keras_checkpoint

    now = keras_checkpoint.versions()
    monkeypatch.setattr(keras_checkpoint, "versions", lambda: {**now, "numpy": "9.9"})
    with pytest.warns(UserWarning, match=r"other versions: numpy .* -> 9\.9"):
        fit(tmp_path, shuffled(23), epochs=2)


def test_two_trainings_cannot_use_one_folder_at_a_time(tmp_path: Path) -> None:
    class Nested(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            fit(tmp_path, shuffled(23))

    with pytest.raises(fs.PlanError, match=f"process {os.getpid()} writes its checkpoints into"):
        fit(tmp_path, shuffled(23), [Nested()])
    fit(tmp_path, shuffled(23))


def test_a_checkpoint_that_cannot_be_written_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    interrupt(tmp_path, shuffled(23), 6, epochs=2)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, "rename", full)
        with pytest.raises(fs.StateError, match=r"after step 10 can't be written.*No space left on device"):
            fit(tmp_path, shuffled(23), epochs=2)
    assert names(tmp_path) == ["step-000000005"]
    model, _ = fit(tmp_path, shuffled(23), epochs=2)
    assert model.ids == planned(23, range(2))


def test_ctrl_c_writes_nothing_more(tmp_path: Path) -> None:
    class Press(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(fs.Checkpoint(tmp_path, every_steps=2), shuffled(23), [Press()])
    assert names(tmp_path) == ["step-000000002"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint": 7}, "checkpoint=7 must be the path"),
        ({"callbacks": [keras.callbacks.BackupAndRestore("backup")]}, "Leave BackupAndRestore out"),
        (
            {"validation_data": (samples(5) for _ in range(9)), "validation_steps": 2},
            "validation_data is a generator that can run only once",
        ),
    ],
)
def test_what_cannot_be_resumed_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(fs.PlanError, match=message):
        fs.fit(recorder(), shuffled(23), **{"checkpoint": tmp_path, **QUIET, **settings})


def test_the_newest_outcome_alone_is_kept(tmp_path: Path) -> None:
    for epochs in (1, 2, 3):
        fit(fs.Checkpoint(tmp_path, keep=1), shuffled(23), epochs=epochs)
    assert names(tmp_path) == ["final-000000015", "step-000000015"]
