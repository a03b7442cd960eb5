"""`fs.fit`, on the backend that KERAS_BACKEND names: what reaches training, and what remains."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from recorder import BACKEND, KERAS_WARNINGS, Diary, StopAfter, keras, planned, recorder, samples, shuffled

import fitstream as fs

pytestmark = KERAS_WARNINGS
QUIET: dict[str, Any] = {"verbose": 0, "workers": 2, "memory": "10 MB"}


@pytest.fixture
def loader() -> Iterator[fs.Loader]:
    with shuffled(23).loader(workers=2) as loader:
        yield loader


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not isinstance(thread, threading._DummyThread):  # TensorFlow's threads look like this for ever
            thread.join(60)
            assert not thread.is_alive(), f"{thread} was left behind"


@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
@pytest.mark.parametrize("count", [23, 10, 4], ids=["5 batches", "2 batches", "1 batch"])
def test_each_epoch_trains_on_each_sample_once_in_the_planned_order(count: int, built: bool) -> None:
    model = recorder(built)
    history = fs.fit(model, shuffled(count), epochs=3, **QUIET)
    assert model.ids == planned(count, range(3))
    assert isinstance(history, keras.callbacks.History)
    assert history.epoch == [0, 1, 2]
    assert len(history.history["loss"]) == 3


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of tf.data")
def test_no_thread_of_tensorflow_tunes_what_there_is_nothing_to_tune_in() -> None:
    # Whoever lets go of an iterator that is tuned may wait for that thread, for up to a minute.
    given: list[Any] = []

    class Spy(keras.Sequential):
        def fit(self, x: Any = None, **arguments: Any) -> Any:
            given.extend([x, arguments["validation_data"]])
            return super().fit(x=x, **arguments)

    model = Spy([keras.layers.Dense(3)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    fs.fit(model, shuffled(10), validation_data=shuffled(5), **QUIET)
    assert [dataset.options().autotune.enabled for dataset in given] == [False, False]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_order_does_not_depend_on_the_lanes(workers: int) -> None:
    model = recorder()
    fs.fit(model, shuffled(23), epochs=2, verbose=0, workers=workers)
    assert model.ids == planned(23, range(2))


@pytest.mark.skipif(BACKEND == "jax", reason="takes seconds on JAX and goes the same ways there")
def test_the_order_is_the_planned_one_where_steps_run_eagerly() -> None:
    model = recorder(run_eagerly=True)
    fs.fit(model, shuffled(23), epochs=2, **QUIET)
    assert model.ids == planned(23, range(2))


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
@pytest.mark.parametrize("steps", [None, 3])
def test_several_steps_an_execution_keep_epochs_apart(loader: fs.Loader, steps: int | None) -> None:
    model = recorder(steps_per_execution=2)
    fs.fit(model, loader, epochs=3, steps_per_epoch=steps, verbose=0)
    assert model.ids == (planned(23, range(3)) if steps is None else planned(23, range(2))[:43])


@pytest.mark.parametrize(("steps", "epochs", "trained"), [(3, 4, 56), (7, 2, 66), (1, 3, 15)])
def test_steps_per_epoch_lays_passes_end_to_end(steps: int, epochs: int, trained: int) -> None:
    model = recorder()
    diary = Diary()
    fs.fit(model, shuffled(23), epochs=epochs, steps_per_epoch=steps, callbacks=diary, **QUIET)
    assert model.ids == planned(23, range(3))[:trained]
    assert diary.lines.count("<0") == epochs
    assert diary.lines.count(f"{steps - 1}>") == epochs


def test_training_goes_on_at_initial_epoch_as_if_it_had_not_stopped() -> None:
    model = recorder()
    fs.fit(model, shuffled(23), initial_epoch=1, epochs=3, **QUIET)
    assert model.ids == planned(23, [1, 2])
    model = recorder()
    fs.fit(model, shuffled(23), initial_epoch=2, epochs=3, steps_per_epoch=3, **QUIET)
    assert model.ids == planned(23, range(2))[28:43]


def test_nothing_is_read_before_training_begins_and_no_step_too_much(loader: fs.Loader) -> None:
    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            assert loader.stats().batch_count == 0

    fs.fit(recorder(), loader, epochs=2, verbose=0, callbacks=[Look()])
    assert loader.stats().batch_count == 10
    assert loader.epoch == 2


def test_arrays_are_shuffled_and_batched_by_32() -> None:
    x, y = samples(70)
    model = recorder()
    diary = Diary()
    fs.fit(model, (x, y), callbacks=[diary], **QUIET)
    assert model.ids == planned(70, [0], size=32)
    assert diary.lines == ["begin", "epoch 0", "<0", "0>", "<1", "1>", "<2", "2>", "end"]


def test_a_list_of_arrays_is_taken_as_a_tuple_is() -> None:
    model = recorder()
    fs.fit(model, list(samples(70)), **QUIET)
    assert model.ids == planned(70, [0], size=32)


@pytest.mark.parametrize("error", [None, RuntimeError("in a callback")], ids=["flag", "error"])
def test_a_loader_goes_on_with_the_next_pass_after_a_fit_that_was_stopped(
    loader: fs.Loader, error: RuntimeError | None
) -> None:
    model = recorder()
    if error is None:
        fs.fit(model, loader, epochs=3, verbose=0, callbacks=[StopAfter(2)])
    else:
        with pytest.raises(RuntimeError) as caught:
            fs.fit(model, loader, epochs=3, verbose=0, callbacks=[StopAfter(2, error)])
        assert caught.value is error
    assert model.ids == planned(23, [0])[:15]
    fs.fit(model, loader, epochs=2, verbose=0)
    assert model.ids[15:] == planned(23, [1, 2])
    assert loader.epoch == 3


def test_with_steps_per_epoch_a_loader_goes_on_with_the_batch_after_the_last_trained_one(loader: fs.Loader) -> None:
    model = recorder()
    fs.fit(model, loader, epochs=3, steps_per_epoch=4, verbose=0, callbacks=[StopAfter(1)])
    fs.fit(model, loader, epochs=1, steps_per_epoch=5, verbose=0)
    assert model.ids == planned(23, range(2))[:33]


def test_early_stopping_ends_training_and_closes_what_fit_opened() -> None:
    model = recorder()
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    history = fs.fit(model, shuffled(23), epochs=9, callbacks=[stop], **QUIET)
    assert history.epoch == [0, 1]
    assert model.ids == planned(23, range(2))


def test_a_blocked_look_ahead_does_not_hold_up_a_fit_that_stops() -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold(x: Any, y: Any) -> Any:
        if x[0] == 17:
            held.set()
            assert go_on.wait(60)
        return x, y

    class StopWhenHeld(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                assert held.wait(60)
                self.model.stop_training = True

    with fs.from_arrays(samples(25)).map(hold).batch(5).loader(workers=1) as loader:
        model = recorder()
        fs.fit(model, loader, verbose=0, callbacks=[StopWhenHeld()])
        assert not go_on.is_set()
        go_on.set()
    assert model.ids == [*range(10)]


def test_keras_restores_an_interrupted_training_at_its_epoch(tmp_path: Any) -> None:
    class Fail(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise RuntimeError("interrupted")

    def backup() -> Any:
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(RuntimeError, match="interrupted"):
        fs.fit(recorder(), shuffled(23), epochs=3, callbacks=[backup(), Fail()], **QUIET)
    model = recorder(built=True)
    fs.fit(model, shuffled(23), epochs=3, callbacks=[backup()], **QUIET)
    assert model.ids == planned(23, range(3))


# Lengths that aren't known.


def stream(counts: list[int]) -> Any:
    """A generator function whose passes have these lengths, one after another."""
    passes = iter(counts)

    def generate() -> Iterator[Any]:
        yield from zip(*samples(next(passes)), strict=True)

    return generate


@pytest.mark.parametrize("size", [5, 10, 20, 32], ids=["4 batches", "2 batches", "1 batch", "a partial batch"])
def test_the_length_of_a_generator_is_found_while_training(size: int) -> None:
    model = recorder()
    diary = Diary()
    dataset = fs.from_generator(stream([20, 20, 20])).batch(size)
    history = fs.fit(model, dataset, epochs=3, callbacks=[diary], **QUIET)
    assert model.ids == [*range(20)] * 3
    assert history.epoch == [0, 1, 2]
    steps = [line for step in range(-(-20 // size)) for line in (f"<{step}", f"{step}>")]
    assert diary.lines == ["begin", "epoch 0", *steps, "epoch 1", *steps, "epoch 2", *steps, "end"]


def test_passes_of_a_generator_may_differ_in_length_and_each_is_an_epoch() -> None:
    model = recorder()
    fs.fit(model, fs.from_generator(stream([11, 23, 4])).batch(5), epochs=3, **QUIET)
    assert model.ids == [*range(11), *range(23), *range(4)]


def test_a_loader_of_unknown_length_moves_on_by_one_pass_an_epoch() -> None:
    with fs.from_generator(stream([10, 10, 10])).batch(5).loader(workers=1) as loader:
        fs.fit(recorder(), loader, epochs=2, verbose=0)
        assert loader.epoch == 2
        assert sum(len(x) for x, _ in loader) == 10


@pytest.mark.parametrize("batch", [1, 3], ids=["in the middle", "at the last batch"])
def test_training_on_a_generator_stops_when_a_callback_says_so(batch: int) -> None:
    model = recorder()
    fs.fit(model, fs.from_generator(stream([20] * 3)).batch(5), epochs=3, callbacks=[StopAfter(batch)], **QUIET)
    assert model.ids == [*range(5 * (batch + 1))]


def test_validation_follows_each_pass_of_a_generator() -> None:
    model = recorder()
    history = fs.fit(
        model,
        fs.from_generator(stream([20, 20])).batch(5),
        validation_data=fs.from_generator(stream([10, 10])).batch(5),
        epochs=2,
        **QUIET,
    )
    assert len(history.history["val_loss"]) == 2
    assert model.ids == [*range(20)] * 2


def test_steps_per_epoch_cuts_an_endless_generator() -> None:
    model = recorder()
    endless = ((samples(5, 5 * step)) for step in range(10**9))
    fs.fit(model, fs.from_batches(endless), epochs=2, steps_per_epoch=3, **QUIET)
    assert model.ids == [*range(30)]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
def test_several_steps_an_execution_need_a_known_length_on_jax_alone() -> None:
    model = recorder(steps_per_execution=2)
    dataset = fs.from_generator(stream([25, 25])).batch(5)
    if BACKEND == "jax":
        with pytest.raises(fs.PlanError, match="steps_per_execution=2"):
            fs.fit(model, dataset, epochs=2, **QUIET)
    else:
        fs.fit(model, dataset, epochs=2, **QUIET)
        assert model.ids == [*range(25)] * 2


# Failures.


def failing_at(index: int) -> Any:
    def fail(x: Any, y: Any) -> Any:
        if x[0] == index:
            raise KeyError("no such thing")
        return x, y

    return fail


@pytest.mark.parametrize("index", [2, 17], ids=["first step", "later step"])
def test_a_sample_that_fails_is_a_sample_error_and_the_model_lives_on(index: int) -> None:
    model = recorder()
    with pytest.raises(fs.SampleError, match=f"Sample {index} failed in map") as caught:
        fs.fit(model, fs.from_arrays(samples(23)).map(failing_at(index)).batch(5), epochs=2, **QUIET)
    assert caught.value.index == index
    assert model.ids == [*range(index // 5 * 5)]
    trained = len(model.ids)
    fs.fit(model, shuffled(23), **QUIET)
    assert model.ids[trained:] == planned(23, [0])
    assert np.isfinite(model.predict(samples(3)[0], verbose=0)).all()


def test_a_sample_that_fails_in_validation_is_a_sample_error() -> None:
    model = recorder()
    bad = fs.from_arrays(samples(23)).map(failing_at(17)).batch(5)
    with pytest.raises(fs.SampleError, match="Sample 17"):
        fs.fit(model, shuffled(23), validation_data=bad, epochs=2, **QUIET)
    assert model.ids == planned(23, [0])


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
def test_a_sample_that_fails_within_an_execution_of_several_steps_is_a_sample_error() -> None:
    with pytest.raises(fs.SampleError, match="Sample 17"):
        dataset = fs.from_arrays(samples(23)).map(failing_at(17)).batch(5)
        fs.fit(recorder(steps_per_execution=4), dataset, **QUIET)


def test_ctrl_c_while_training_waits_ends_it_and_all_lanes() -> None:
    interrupted = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def interrupt(x: Any, y: Any) -> Any:
        if x[0] == 12:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.wait(60)
        return x, y

    model = recorder()
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        with pytest.raises(KeyboardInterrupt):
            fs.fit(model, fs.from_arrays(samples(25)).map(interrupt).batch(5), **QUIET)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(model.ids) <= 10


# Settings.


def test_verbose_2_prints_a_line_an_epoch_and_0_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fs.fit(recorder(), shuffled(23), epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "loss" in lines[1]
    fs.fit(recorder(), shuffled(23), epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


def running() -> Any:
    return fs.from_batches(samples(5, 5 * i) for i in range(5))


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "not batched": (lambda: fs.from_arrays(samples(9)), {}, r"\.batch\(32\)"),
    "batched twice": (lambda: shuffled(9), {"batch_size": 4}, "batched already"),
    "a list": (lambda: [1, 2], {}, "train is a list"),
    "split and data": (lambda: shuffled(9), {"validation_split": 0.1, "validation_data": samples(3)}, "Use one"),
    "steps": (lambda: shuffled(9), {"steps_per_epoch": 0}, "steps_per_epoch=0"),
    "too many steps": (lambda: shuffled(9), {"validation_data": samples(3), "validation_steps": 2}, "has 1 batches"),
    "no targets": (lambda: samples(9)[0], {"class_weight": {0: 2.0}}, r"class_weight needs batches \(x, y\)"),
    "budget": (lambda: shuffled(9), {"memory": 100}, "memory="),
    "runs once": (running, {"epochs": 2}, "can run only once.*steps_per_epoch="),
    "validation runs once": (
        lambda: shuffled(9),
        {"validation_data": (samples(5) for _ in range(5)), "epochs": 2},
        "can run only once.*validation_steps=",
    ),
    "split beyond 1": (lambda: shuffled(9), {"validation_split": 1.5}, r"validation_split=1\.5 must be"),
    "epochs as text": (lambda: shuffled(9), {"epochs": "3"}, "epochs='3' must be a whole number"),
    "epochs as a fraction": (lambda: shuffled(9), {"epochs": 2.0}, r"epochs=2\.0 must be"),
    "no epochs": (lambda: shuffled(9), {"epochs": 0}, "epochs=0 must be"),
    "negative epochs": (lambda: shuffled(9), {"epochs": -1}, "epochs=-1 must be"),
    "negative start": (lambda: shuffled(9), {"initial_epoch": -1}, "initial_epoch=-1 must be"),
    "start after the end": (lambda: shuffled(9), {"initial_epoch": 3, "epochs": 2}, "initial_epoch=3, but epochs=2"),
    "validation_freq 0": (lambda: shuffled(9), {"validation_freq": 0, "validation_data": samples(3)}, "_freq=0 must"),
    "validation_freq of text": (lambda: shuffled(9), {"validation_freq": "2"}, "validation_freq='2' must be"),
    "an epoch 0 to validate after": (lambda: shuffled(9), {"validation_freq": [1, 0]}, "validation_freq=0 must be"),
    "validation_steps alone": (lambda: shuffled(9), {"validation_steps": 2}, "validation_steps is given, but nothing"),
    "validation_freq alone": (lambda: shuffled(9), {"validation_freq": 2}, "validation_freq is given, but nothing"),
    "validation_data as text": (lambda: shuffled(9), {"validation_data": "held out"}, "validation_data is a str"),
    "validation_data as a number": (lambda: shuffled(9), {"validation_data": 3}, "validation_data is a int"),
    "validation_data as a list": (lambda: shuffled(9), {"validation_data": [1, 2]}, "validation_data is a list"),
    "verbose": (lambda: shuffled(9), {"verbose": 3}, "verbose=3"),
    "no seed": (lambda: samples(9), {"seed": None}, "seed=None must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_before_training(case: str) -> None:
    make, settings, message = REFUSED[case]
    diary = Diary()
    with pytest.raises(fs.PlanError, match=message):
        fs.fit(recorder(), make(), callbacks=[diary], **{"verbose": 0, **settings})
    assert diary.lines == []


@pytest.mark.parametrize("how", ["fit", "validation", "evaluate"])
def test_inputs_alone_are_refused_where_the_loss_compares_targets(how: str) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.zeros((8, 3), np.float32), np.zeros((8, 1), np.float32)
    with pytest.raises(fs.PlanError, match=r"inputs alone, float32\(.*, 3\), but the model's loss compares targets"):
        if how == "evaluate":
            fs.evaluate(model, x, verbose=0)
        else:
            fs.fit(model, x if how == "fit" else (x, y), validation_data=x if how == "validation" else None, verbose=0)
    assert fs.predict(model, x, verbose=0).shape == (8, 1)


def test_inputs_alone_are_enough_for_a_model_that_computes_its_own_loss() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            return keras.ops.mean(y_pred**2)

    model = Own()
    model.compile("sgd", "mse")
    assert len(fs.fit(model, np.ones((8, 3), np.float32), epochs=2, verbose=0).history["loss"]) == 2


@pytest.mark.parametrize("settings", [{"memory": "9 MB"}, {"workers": 2}, {"batch_size": 3}, {"validation_split": 0.5}])
def test_settings_that_a_loader_has_already_are_refused(loader: fs.Loader, settings: dict[str, Any]) -> None:
    with pytest.raises(fs.PlanError):
        fs.fit(recorder(), loader, verbose=0, **settings)


def test_one_loader_cannot_train_and_validate_at_a_time(loader: fs.Loader) -> None:
    with pytest.raises(fs.PlanError, match="one stream at a time"):
        fs.fit(recorder(), loader, validation_data=loader, verbose=0)
