"""The progress line as Keras drives it: on a terminal, in a pipe, and when training fails."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from recorder import BACKEND, KERAS_WARNINGS, keras
from rich.console import Console

import fitstream as fs
from fitstream.reporting.progress import Progress, make_callback

pytestmark = KERAS_WARNINGS

STEPS = 8


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal() -> Console:
    return Console(file=Terminal(), force_terminal=True, width=100, color_system=None, legacy_windows=False)


@pytest.fixture
def pipe() -> Console:
    return Console(file=io.StringIO(), width=80)


@pytest.fixture
def loader() -> Iterator[fs.Loader]:
    features = np.random.default_rng(0).normal(size=(4 * STEPS, 3)).astype(np.float32)
    dataset = fs.from_arrays((features, np.arange(4 * STEPS) % 2)).shuffle(0).batch(4)
    with dataset.loader(memory="1 MB", workers=1) as opened:
        yield opened


def small_model() -> keras.Model:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(loader: fs.Loader, progress: Progress, *callbacks: keras.callbacks.Callback, epochs: int = 2) -> None:
    validation = (np.zeros((8, 3), np.float32), np.zeros(8))
    try:
        small_model().fit(
            loader.keras(),
            epochs=epochs,
            validation_data=validation,
            callbacks=[progress, *callbacks],
            verbose=0,
        )
    finally:
        progress.close()


def test_the_line_of_a_resumed_epoch_begins_at_its_step(terminal: Console, loader: fs.Loader) -> None:
    now_s = [0.0]
    progress = Progress([loader], 2, 10, 0, terminal, moves=True, clock=lambda: now_s[0])
    progress.first_step = 6
    for epoch, first in ((0, 6), (1, 0)):
        progress.on_epoch_begin(epoch)
        assert progress._snapshot().step == first
        now_s[0] += 2
        progress.on_train_batch_end(first)
        assert progress._snapshot().left_s == 2 * (9 - first)
        progress.on_epoch_end(epoch)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines_left(text: str) -> list[str]:
    """What a terminal shows in the end. Knows the control sequences that rich uses, and no others."""
    rows, row, column = [""], 0, 0
    for control, plain in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", text):
        if plain:
            rows[row] = rows[row][:column].ljust(column) + plain + rows[row][column + len(plain) :]
            column += len(plain)
        elif control == "\n":
            row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
        elif control == "\r":
            column = 0
        elif control == "\x1b[1A":
            row -= 1
        elif control == "\x1b[2K":
            rows[row] = ""
        else:
            assert control[-1] in "mhl", f"unknown control sequence {control!r}"
    return [line.rstrip() for line in rows if line.strip()]


def test_in_a_pipe_each_epoch_is_one_plain_line(loader: fs.Loader, pipe: Console) -> None:
    train(loader, make_callback(loader, 2, STEPS, console=pipe, verbose=1))
    lines = written(pipe).splitlines()
    assert [line.split(" - ")[:2] for line in lines] == [["Epoch 1/2", "8 steps"], ["Epoch 2/2", "8 steps"]]
    for line in lines:
        assert re.search(r" - loss: \S+ - val_accuracy: \S+ - val_loss: \S+ - [\d,.]+ samples/s - ", line)
        assert re.search(r" - [\d.]+ kB/1 MB - waited \d+%$", line)


def test_on_a_terminal_each_epoch_leaves_its_record(loader: fs.Loader, terminal: Console) -> None:
    train(loader, make_callback(loader, 2, STEPS, console=terminal))
    records = lines_left(written(terminal))
    assert [record.split("  ")[0].rsplit(" ", 1)[0] for record in records] == ["Epoch 1/2", "Epoch 2/2"]
    assert all(re.search(r"loss \S+ val \S+ accuracy \S+ val \S+  [\d,.]+/s ", record) for record in records)


def test_the_line_is_drawn_while_the_epoch_runs(loader: fs.Loader, terminal: Console) -> None:
    train(loader, make_callback(loader, 1, STEPS, console=terminal), epochs=1)
    assert "0/8 -:-- left" in written(terminal)


@pytest.mark.parametrize(("verbose", "kind"), [("auto", "moving"), (1, "moving"), (2, "plain"), (0, "")])
def test_verbose_means_on_a_terminal_what_keras_users_know(
    loader: fs.Loader, terminal: Console, verbose: Any, kind: str
) -> None:
    train(loader, make_callback(loader, 1, STEPS, verbose=verbose, console=terminal), epochs=1)
    text = written(terminal)
    assert ("━" in text or "─" in text) == (kind == "moving")
    assert (" - val_loss: " in text) == (kind == "plain")
    assert bool(text) == bool(kind)


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_a_pipe_never_gets_control_characters(loader: fs.Loader, pipe: Console, verbose: Any) -> None:
    train(loader, make_callback(loader, 1, STEPS, verbose=verbose, console=pipe), epochs=1)
    assert "\x1b" not in written(pipe)
    assert "\r" not in written(pipe)


def test_auto_is_quiet_where_there_is_no_terminal(loader: fs.Loader, pipe: Console) -> None:
    train(loader, make_callback(loader, 1, STEPS, verbose="auto", console=pipe), epochs=1)
    assert written(pipe) == ""


def test_colour_that_is_forced_on_a_pipe_still_gives_plain_lines(loader: fs.Loader) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    train(loader, make_callback(loader, 1, STEPS, console=console, verbose=1), epochs=1)
    assert written(console).count("\n") == 1
    assert "\r" not in written(console)


def test_epochs_are_counted_on_from_the_first(loader: fs.Loader, pipe: Console) -> None:
    progress = make_callback(loader, 5, STEPS, initial_epoch=4, console=pipe, verbose=1)
    try:
        small_model().fit(loader.keras(), epochs=5, initial_epoch=4, callbacks=[progress], verbose=0)
    finally:
        progress.close()
    assert written(pipe).startswith("Epoch 5/5 - ")


def test_steps_that_are_not_known_are_learned_from_the_first_epoch(loader: fs.Loader, terminal: Console) -> None:
    train(loader, make_callback(loader, 2, None, console=terminal))
    assert "Epoch 1/2 step 0" in written(terminal)
    assert "0/8 -:--" in written(terminal)


def test_the_memory_of_all_loaders_counts_against_the_whole_budget(loader: fs.Loader, pipe: Console) -> None:
    other_dataset = fs.from_arrays((np.zeros((8, 3), np.float32), np.zeros(8))).batch(4)
    with other_dataset.loader(memory="1 MB", workers=1) as other:
        list(other)
        progress = make_callback(loader, 1, STEPS, others=[other], console=pipe, verbose=1)
        train(loader, progress, epochs=1)
        used = loader.stats().peak_bytes + other.stats().peak_bytes
        budget = 10**6 + other.plan.projected_bytes
    shown = re.search(r" - ([\d.]+) kB/([\d.]+) MB - ", written(pipe))
    assert shown is not None
    assert float(shown[1]) == pytest.approx(used / 1e3, rel=0.01)
    assert float(shown[2]) == pytest.approx(budget / 1e6, rel=0.01)


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            raise RuntimeError("in the middle")


def test_after_a_failure_the_cursor_is_back_and_no_line_is_left(loader: fs.Loader, terminal: Console) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        train(loader, make_callback(loader, 1, STEPS, console=terminal), Fails())
    text = written(terminal)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert lines_left(written(terminal)) == []


def test_what_others_print_in_the_middle_stays_above_the_line(loader: fs.Loader) -> None:
    class Says(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3:
                print("a user's own words")  # noqa: T201

    text = on_a_pty(lambda: train(loader, make_callback(loader, 1, STEPS), Says(), epochs=1))
    words, record = lines_left(text)
    assert words == "a user's own words"
    assert re.match(r"Epoch 1/1 \d:\d\d  loss \S+ val ", record)
    assert len(record) <= 80


def on_a_pty(do: Any) -> str:
    """Run with standard output on a real pseudo-terminal of 80 columns; what arrived there."""
    parent, child = pty.openpty()
    received: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(parent, 65536):
                received.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(child, "w") as stream, contextlib.redirect_stdout(stream), pytest.MonkeyPatch.context() as patch:
            patch.setenv("TERM", "xterm-256color")
            patch.setenv("COLUMNS", "80")
            do()
    finally:
        reader.join()
        os.close(parent)
    return b"".join(received).decode()


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_speed_time_left_and_waiting_come_from_the_epoch_s_training(loader: fs.Loader, pipe: Console) -> None:
    list(loader)  # 8 batches of 4
    clock = Clock()
    progress = Progress([loader], 1, 10, 0, pipe, moves=False, clock=clock)
    progress.on_epoch_begin(0)
    clock.now += 30  # the first step compiles
    progress.on_train_batch_end(0, {"loss": 1.0})
    clock.now += 2
    progress.on_train_batch_end(4, {"loss": 0.5})
    now = progress._snapshot()
    assert now.samples_per_s == pytest.approx(4 * 4 / 2)
    assert now.left_s == pytest.approx(5 * 2 / 4)
    assert now.elapsed_s == 32
    progress.on_test_begin()
    clock.now += 1000  # validation
    progress.on_test_end()
    assert progress._snapshot().samples_per_s == pytest.approx(4 * 4 / 2)


def test_steps_that_report_late_or_twice_change_nothing(loader: fs.Loader, pipe: Console) -> None:
    progress = make_callback(loader, 1, 10, console=pipe, verbose=1)
    progress.on_epoch_begin(0)
    progress.on_train_batch_end(6, {"loss": 0.25})
    progress.on_train_batch_end(2, {"loss": 9.0})
    now = progress._snapshot()
    assert (now.step, dict(now.metrics)) == (7, {"loss": 0.25})


def test_drawing_is_at_most_eight_times_a_second(loader: fs.Loader, terminal: Console) -> None:
    clock = Clock()
    progress = Progress([loader], 1, 1000, 0, terminal, moves=True, clock=clock)
    progress.on_epoch_begin(0)
    for step in range(1000):
        clock.now += 0.001
        progress.on_train_batch_end(step, {"loss": 1.0})
    progress.close()
    assert 8 <= written(terminal).count("Epoch 1/1") <= 10


@pytest.mark.skipif(BACKEND != "jax", reason="Keras dispatches callbacks in threads on JAX only")
def test_the_callback_does_not_make_keras_wait_for_each_step(loader: fs.Loader, pipe: Console) -> None:
    callbacks = keras.callbacks.CallbackList(
        [make_callback(loader, 1, STEPS, console=pipe, verbose=1)], add_history=True
    )
    assert callbacks._async_train
