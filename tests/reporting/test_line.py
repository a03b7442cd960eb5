"""The progress line: what it says, and that it fits."""

from __future__ import annotations

import dataclasses

import pytest

from fitstream.reporting.line import Snapshot, live_line, plain_line, record_line

MANY = {f"output_{i}_sparse_categorical_accuracy": 0.5 for i in range(6)}
TRAINED = {"accuracy": 0.9123, "loss": 0.23456}
VALIDATED = {**TRAINED, "val_accuracy": 0.97, "val_loss": 0.13}
RUNNING = Snapshot(
    epoch=2,
    epochs=5,
    step=12,
    steps=123,
    metrics=TRAINED,
    elapsed_s=5.2,
    left_s=43.4,
    samples_per_s=1640.4,
    waited_share=0.021,
    peak_bytes=45_400_000,
    budget_bytes=64_000_000,
)
ENDED = dataclasses.replace(RUNNING, step=123, metrics=VALIDATED, left_s=0.0)


def test_the_live_line_says_all_of_it_at_80_columns() -> None:
    line = live_line(RUNNING, 80).plain
    assert line == "Epoch 2/5  12/123 0:43  loss 0.2346 accuracy 0.9123  1,640/s 45.4/64 MB wait 2%"


def test_a_wide_terminal_gets_a_bar_and_whole_words() -> None:
    line = live_line(RUNNING, 120).plain
    assert "━" + "─" * 19 in line
    assert line.endswith("1,640 samples/s 45.4/64 MB waited 2%")
    assert "0:43 left" in line


@pytest.mark.parametrize("width", range(20, 130, 7))
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"metrics": {}, "left_s": None, "samples_per_s": None, "step": 0},
        {"metrics": {**TRAINED, **MANY}, "step": 123_456, "steps": 1_234_567, "left_s": 360_000.0, "epochs": 10_000},
        {"steps": None, "left_s": None},
        {"validating": True, "steps": None},
    ],
)
def test_no_line_is_wider_than_the_terminal(width: int, change: dict[str, object]) -> None:
    now = dataclasses.replace(RUNNING, **change)  # type: ignore[arg-type]
    assert live_line(now, width).cell_len <= width
    assert record_line(now, width).cell_len <= width


def test_metrics_that_do_not_fit_are_counted_and_the_loss_goes_last() -> None:
    line = live_line(dataclasses.replace(RUNNING, metrics={**TRAINED, **MANY}), 80).plain
    assert "loss 0.2346" in line
    assert " +7  " in line
    assert line.endswith("1,640/s 45.4/64 MB wait 2%")


def test_a_record_sets_each_metric_beside_its_validation() -> None:
    line = record_line(ENDED, 100).plain
    assert line == "Epoch 2/5 0:05  loss 0.2346 val 0.1300 accuracy 0.9123 val 0.9700  1,640/s 45.4/64 MB wait 2%"


def test_a_metric_of_validation_alone_keeps_its_name() -> None:
    only = dataclasses.replace(ENDED, metrics={"loss": 0.5, "val_extra": 0.25})
    assert "loss 0.5000 val_extra 0.2500" in record_line(only, 100).plain


def test_a_plain_line_has_every_metric_by_its_full_name() -> None:
    assert plain_line(ENDED) == (
        "Epoch 2/5 - 123 steps - 5.2s - accuracy: 0.9123 - loss: 0.2346 - val_accuracy: 0.9700 - val_loss: 0.1300"
        " - 1,640 samples/s - 45.4/64 MB - waited 2%"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.000_012_3, "1.2e-05"),
        (9.87654, "9.8765"),
        (-12.345_67, "-12.346"),
        (4321.09, "4321.1"),
        (1_234_567.0, "1.2e+06"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_metrics_of_any_size_stay_short(value: float, text: str) -> None:
    assert f"loss: {text} -" in plain_line(dataclasses.replace(RUNNING, metrics={"loss": value}))


@pytest.mark.parametrize(("share", "style"), [(0.0, "green"), (0.1, "yellow"), (0.5, "bold red")])
def test_waiting_is_coloured_by_how_much_it_is(share: float, style: str) -> None:
    line = live_line(dataclasses.replace(RUNNING, waited_share=share), 120)
    assert str(line.spans[-1].style) == style


def test_validation_shows_its_own_steps() -> None:
    line = live_line(dataclasses.replace(RUNNING, validating=True, step=7, steps=None), 80).plain
    assert line.startswith("Epoch 2/5 validating 7  loss")
