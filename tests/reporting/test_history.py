"""The files that tell how training went."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from fitstream.reporting.history import plot_history, write_history

# matplotlib's own, where it is older than the pyparsing beside it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HISTORY = {"accuracy": [0.5, 0.75], "loss": [1.25, 1 / 3], "val_loss": [1.5, 0.9]}


def test_the_table_has_a_row_an_epoch_in_full_precision(tmp_path: Path) -> None:
    write_history(HISTORY, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["loss"]) for row in rows] == HISTORY["loss"]
    assert [float(row["val_loss"]) for row in rows] == HISTORY["val_loss"]


def test_a_metric_of_some_epochs_is_refused_rather_than_put_in_wrong_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_history({"loss": [3.0, 2.0, 1.0], "val_loss": [2.5]}, tmp_path / "history.csv")
    assert not (tmp_path / "history.csv").exists()


def test_the_plot_is_a_png_as_wide_as_there_are_metrics(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plot_history(HISTORY, tmp_path / "two.png", "a title")
    assert plot_history({"loss": [1.0, 2.0]}, tmp_path / "one.png")
    two, one = ((tmp_path / name).read_bytes() for name in ("two.png", "one.png"))
    assert two[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(two[16:20], "big") == 2 * int.from_bytes(one[16:20], "big")


def test_the_plot_leaves_pyplot_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    before = "matplotlib.pyplot" in sys.modules
    plot_history(HISTORY, tmp_path / "history.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_without_matplotlib_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not plot_history(HISTORY, tmp_path / "history.png")
    assert list(tmp_path.iterdir()) == []
