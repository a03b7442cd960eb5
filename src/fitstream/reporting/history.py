"""The files that tell how training went: a CSV of all metrics, and a picture of them."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["plot_history", "write_history"]


def write_history(history: Mapping[str, Sequence[float]], path: Path) -> None:
    """Write one row an epoch: its number, counted from 1, and every metric in full precision.

    Args:
        history: Values by metric, one an epoch, of training from its first epoch on.
        path: Where to.
    Raises:
        ValueError: If metrics differ in length: Keras doesn't tell which epochs the shorter ones are of.
    """
    rows = list(zip(*history.values(), strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history])
        writer.writerows([number, *map(repr, map(float, row))] for number, row in enumerate(rows, 1))


def plot_history(history: Mapping[str, Sequence[float]], path: Path, title: str = "") -> bool:
    """Draw each metric over the epochs, beside its values in validation.

    Args:
        history: Values by metric, one an epoch.
        path: A PNG file.
        title: Above the plot.
    Returns:
        False if matplotlib is not installed; nothing is drawn then.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    # A second to load, and only here.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = [name for name in history if not (name.startswith("val_") and name[4:] in history)]
    names.sort(key=lambda name: name != "loss")
    # A figure of its own, not pyplot's, which would pick a window system and keep every figure.
    figure = Figure(figsize=(4.5 * len(names), 3.6), layout="constrained", dpi=120)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for key, label, style in ((name, "training", "o-"), (f"val_{name}", "validation", "s--")):
            if key in history:
                axes.plot(range(1, len(history[key]) + 1), history[key], style, markersize=3.5, label=label)
        axes.set(title=name.replace("_", " "), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path)
    return True
