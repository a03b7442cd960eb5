"""What a benchmark found, as JSON, as a Markdown table and as a plot. All three come from one list of rows.

The table gives medians with the smallest and largest value behind them, since with five rounds nothing finer is honest.
A ratio is taken within each round first and summarised then, so that a slow minute of the machine cancels out. Whoever
could not be measured keeps its line, with the reason.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from _harness import Contender, Measurement, Outcome

__all__ = ["BEST_PEER", "Report", "Row", "Spread", "versions"]

#: In `Report.comparisons`: whoever of the others has the highest median.
BEST_PEER = "best peer"

_INK, _MUTED, _GRID = "#1f2933", "#6b7785", "#e4e8ec"
_OURS, _PEER, _LIMIT = "#0b6e99", "#b4c3cf", "#c2410c"


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and the smallest and largest of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Summarise at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    def text(self, form: str) -> str:
        """Write as `median (least-most)`, each in this format."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One contender in one panel; what could not be measured is None.

    Attributes:
        key: Of the contender.
        title: Of the contender.
        status: As in `Outcome`.
        detail: As in `Outcome`.
        rate: Units a second.
        ratio: Rate by that of the limit in the same round.
        cpu_s: CPU seconds for `Report.cpu_units` units, all processes.
        first_from_start_s: From the start of the process to the first batch.
        first_from_creation_s: From the creation of the loader to the first batch.
        peak_bytes: Largest proportional set size of the process tree, counted as `Report.memory` says.
        facts: What the loader said of itself, the largest of all runs where it is a number.
    """

    key: str
    title: str
    status: str
    detail: str
    rate: Spread | None
    ratio: Spread | None
    cpu_s: Spread | None
    first_from_start_s: Spread | None
    first_from_creation_s: Spread | None
    peak_bytes: int | None
    facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of one benchmark.

    Attributes:
        title: Heads table and plot.
        unit: What is counted, in the plural.
        limit: Key of the contender that ratios refer to: its measurement in the panel, or else in "own". The keys of
            all limits begin with "limit".
        ours: Key of the contender that the plot brings out; with several, what their keys begin with.
        panels: Title by setting; contenders whose setting is "own" are in all of them.
        contenders: In any order.
        outcomes: By contender and setting.
        facts: What else the JSON file is to hold.
        units_per_sample: How many units a sample is.
        cpu_units: For how many units CPU time is given.
        memory: "all" counts every page of the process tree, "unbacked" leaves out those that a file backs.
        comparisons: Pairs of keys; the first's rate by the second's, within a round, stands below the table. The second
            may be `BEST_PEER`.
    """

    title: str
    unit: str
    limit: str
    ours: str
    panels: Mapping[str, str]
    contenders: Sequence[Contender]
    outcomes: Mapping[tuple[str, str], Outcome]
    facts: Mapping[str, Any]
    units_per_sample: float = 1.0
    cpu_units: int = 1000
    memory: Literal["all", "unbacked"] = "all"
    comparisons: Sequence[tuple[str, str]] = ()

    def is_ours(self, key: str) -> bool:
        """Tell whether a contender is one of ours."""
        return key.startswith(self.ours)

    def outcome(self, key: str, panel: str) -> Outcome | None:
        """Give the outcome in a panel, which for contenders with one setting is "own"."""
        return self.outcomes.get((key, panel), self.outcomes.get((key, "own")))

    def rows(self, panel: str) -> list[Row]:
        """Give the rows of a panel: the limit, then the fastest first, then those that were not measured."""
        outcomes = [(one, self.outcome(one.key, panel)) for one in self.contenders]
        limit = self.outcome(self.limit, panel)
        limits = limit.rounds if limit else {}
        rows = [_row(self, one, outcome, limits) for one, outcome in outcomes if outcome]
        return sorted(rows, key=lambda row: (row.key != self.limit, -row.rate.median if row.rate else 0.0))

    def markdown(self) -> str:
        """Write one table a panel. "First batch" counts from the start of the process, then from making the loader."""
        parts = []
        for panel, title in self.panels.items():
            parts += [
                f"**{title}**",
                "",
                f"| | {self.unit}/s | of the limit | CPU s for {self.cpu_units:,} | peak memory | first batch |",
                "| --- | ---: | ---: | ---: | ---: | ---: |",
                *(_line(row) for row in self.rows(panel)),
                "",
                *_notes(self, panel),
            ]
        return "\n".join(parts)

    def write(self, stem: Path) -> None:
        """Write `stem` with `.json`, `.md` and `.png`."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        found = {
            "title": self.title,
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": {
                "cores": os.cpu_count(),
                "architecture": platform.machine(),
                "system": platform.system(),
                "python": platform.python_version(),
            },
            **self.facts,
            "panels": {panel: [dataclasses.asdict(row) for row in self.rows(panel)] for panel in self.panels},
            "runs": [
                {"contender": key, "setting": setting, **dataclasses.asdict(outcome)}
                for (key, setting), outcome in self.outcomes.items()
            ],
        }
        stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        stem.with_suffix(".md").write_text(f"# {self.title}\n\n{self.markdown()}", encoding="utf-8")
        _plot(self, stem.with_suffix(".png"))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Give the installed version of each package that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _row(report: Report, one: Contender, outcome: Outcome, limits: Mapping[int, Measurement]) -> Row:
    def spread(values: list[float]) -> Spread | None:
        return Spread.of(values) if values else None

    rounds = outcome.rounds
    rates = {number: found.samples / found.seconds for number, found in rounds.items()}
    units = report.units_per_sample
    return Row(
        key=one.key,
        title=one.title,
        status=outcome.status,
        detail=outcome.detail,
        rate=spread([rate * units for rate in rates.values()]),
        ratio=spread([rates[n] * limits[n].seconds / limits[n].samples for n in rates if n in limits]),
        cpu_s=spread([found.cpu_s * report.cpu_units / (found.samples * units) for found in rounds.values()]),
        first_from_start_s=spread([found.first_from_start_s for found in rounds.values()]),
        first_from_creation_s=spread([found.first_from_creation_s for found in rounds.values()]),
        peak_bytes=outcome.peak_bytes if report.memory == "all" else outcome.peak_unbacked_bytes,
        facts=_largest([found.facts for found in (*rounds.values(), outcome.whole) if found]),
    )


def _largest(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    largest: dict[str, Any] = {}
    for name, value in (pair for told in facts for pair in told.items()):
        number = isinstance(value, (int, float)) and isinstance(largest.get(name), (int, float))
        largest[name] = max(value, largest[name]) if number else value
    return largest


def _notes(report: Report, panel: str) -> list[str]:
    """What stands below a table: comparisons, then what our own contenders counted themselves; each a list entry."""
    rows = {row.key: row for row in report.rows(panel)}
    best_peer = next((key for key in rows if not key.startswith(("limit", report.ours))), "")
    notes = []
    for one, named in report.comparisons:
        other = best_peer if named == BEST_PEER else named
        above, below = (
            {} if outcome is None else outcome.rounds
            for outcome in (report.outcome(key, panel) for key in (one, other))
        )
        ratios = [
            (above[n].samples / above[n].seconds) * (below[n].seconds / below[n].samples)
            for n in above.keys() & below.keys()
        ]
        if ratios:
            notes.append(f"- {rows[one].title} / {rows[other].title}: {Spread.of(ratios).text('.2f')}")
    for row in rows.values():
        if {"peak_bytes", "projected_bytes"} <= row.facts.keys():
            held, planned = row.facts["peak_bytes"] / 1e6, row.facts["projected_bytes"] / 1e6
            notes.append(f"- {row.title}: held {held:,.1f} MB by its own count, of {planned:,.1f} MB projected")
        if row.status == "ok" and row.detail:
            notes.append(f"- {row.title}: {row.detail}")
    return [*notes, ""] if notes else []


def _line(row: Row) -> str:
    def text(value: Spread | None, form: str) -> str:
        return value.text(form) if value else "-"

    def middle(value: Spread | None, form: str) -> str:
        return f"{value.median:{form}}" if value else "-"

    title = row.title if row.status == "ok" else f"{row.title}: {_reason(row)}"
    cpu_form = ".2f" if row.cpu_s and row.cpu_s.median >= 0.1 else ".3f"
    cells = [
        title.replace("|", "\\|"),
        text(row.rate, ",.0f"),
        text(row.ratio, ".2f"),
        middle(row.cpu_s, cpu_form),
        f"{row.peak_bytes / 1e6:,.0f} MB" if row.peak_bytes else "-",
        f"{middle(row.first_from_start_s, '.1f')} s, {middle(row.first_from_creation_s, '.2f')} s" if row.rate else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _reason(row: Row, most: int = 200) -> str:
    text = f"{row.status}: {row.detail}" if row.status == "failed" else f"{row.status} ({row.detail})"
    return text if len(text) <= most else text[: most - 3] + "..."


def _plot(report: Report, path: Path) -> None:
    # Drawn on a Figure and not by pyplot, which would look for a display; imported here, since only the parent draws.
    from matplotlib.figure import Figure

    panels = {panel: [row for row in report.rows(panel) if row.key != report.limit] for panel in report.panels}
    limits = {
        panel: next((row.rate for row in report.rows(panel) if row.key == report.limit), None) for panel in panels
    }
    counts = [max(1, len(rows)) for rows in panels.values()]
    figure = Figure(figsize=(9.0, 1.5 + 0.36 * sum(counts) + 0.55 * len(counts)), dpi=160, layout="constrained")
    figure.set_facecolor("white")
    figure.suptitle(report.title, x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=_INK)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (panel, rows) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, report, rows, limits[panel])
        axes.set_title(report.panels[panel], loc="left", fontsize=10, color=_INK)
    rates = [*limits.values(), *(row.rate for rows in panels.values() for row in rows)]
    all_axes[0].set_xlim(0, 1.16 * max((rate.most for rate in rates if rate), default=1.0))
    rounds = max((len(outcome.rounds) for outcome in report.outcomes.values()), default=0)
    all_axes[-1].set_xlabel(
        f"{report.unit} a second; bar: median of {rounds} rounds, whisker: smallest to largest; "
        "in brackets: median share of the limit",
        fontsize=8,
        color=_MUTED,
    )
    figure.savefig(path)


def _draw_panel(axes: Any, report: Report, rows: Sequence[Row], limit: Spread | None) -> None:
    if limit is not None:
        axes.axvspan(limit.least, limit.most, color=_LIMIT, alpha=0.10, linewidth=0)
        axes.axvline(limit.median, color=_LIMIT, linestyle="--", linewidth=1.2)
        axes.annotate(
            f"bare limit {limit.median:,.0f}",
            (limit.median, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=_LIMIT,
        )
    for place, row in enumerate(rows):
        colour = _OURS if report.is_ours(row.key) else _PEER
        if row.rate is None:
            axes.annotate(_reason(row, 90), (0, place), (4, 0), textcoords="offset points", va="center", fontsize=8,
                          style="italic", color=_MUTED)  # fmt: skip
            continue
        rate = row.rate
        axes.barh(place, rate.median, height=0.62, color=colour)
        spread = [[rate.median - rate.least], [rate.most - rate.median]]
        axes.errorbar(rate.median, place, xerr=spread, color=_INK, elinewidth=1, capsize=2.5, capthick=1)
        share = f"  ({row.ratio.median:.2f})" if row.ratio else ""
        axes.annotate(f"{rate.median:,.0f}{share}", (0, place), (6, 0), textcoords="offset points", va="center",
                      fontsize=8.5, color="white" if report.is_ours(row.key) else _INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=9, color=_INK)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if report.is_ours(row.key) else "normal")
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", labelsize=8, colors=_MUTED)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
