"""Runs a script again and again, each time in a fresh process, and summarises the numbers that it leaves.

For benchmarks that ask something else than "how many a second": `start.py` and `beside_training.py`. As in
`_harness.py`, rounds are interleaved and their order rotated, every run shares the same cores, and whoever fails keeps
its line with the reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from _report import Spread
from _tree import tree_bytes

__all__ = ["Found", "Run", "bars", "run_fresh"]

_SAMPLING_S = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One thing to run.

    Attributes:
        key: Tells it apart from the others.
        arguments: Of the script, before the settings and the path of the result.
        settings: What the script gets as JSON, with `spawned_s` added.
        rounds: How often.
        memory: Whether to sample the peak memory of the process tree, which disturbs it a little.
    """

    key: str
    arguments: Sequence[str]
    settings: Mapping[str, Any]
    rounds: int
    memory: bool = False


@dataclasses.dataclass(slots=True)
class Found:
    """All that one run left.

    Attributes:
        reason: Why there is no more; empty if nothing failed.
        results: What the script wrote, by round.
    """

    reason: str = ""
    results: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)

    def spread(self, name: str) -> Spread | None:
        """Summarise one number over the rounds; None if it is missing."""
        values = [result[name] for result in self.results if name in result]
        return Spread.of(values) if values else None

    def median(self, name: str) -> float | None:
        """The median alone."""
        spread = self.spread(name)
        return spread.median if spread else None


def run_fresh(
    script: Path, runs: Sequence[Run], *, timeout_s: float, cores: Sequence[int], log: Callable[[str], None]
) -> dict[str, Found]:
    """Run them all, in rounds.

    Args:
        script: What to run.
        runs: In the order of the first round.
        timeout_s: After which a run counts as hanging and is killed.
        cores: Those that each run may use.
        log: Gets one line a run.
    Returns:
        What was found, by key; whoever fails once is left out of later rounds.
    """
    found = {run.key: Found() for run in runs}
    for number in range(max(run.rounds for run in runs)):
        turn = number % len(runs)
        for run in [*runs[turn:], *runs[:turn]]:
            if number < run.rounds and not found[run.key].reason:
                _once(script, run, found[run.key], timeout_s, cores)
                shown = found[run.key].reason or json.dumps(
                    {name: _short(value) for name, value in found[run.key].results[-1].items() if _is_number(value)}
                )
                log(f"round {number + 1}  {run.key:<60} {shown}")
    return found


def _once(script: Path, run: Run, found: Found, timeout_s: float, cores: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result, errors = Path(folder, "result.json"), Path(folder, "errors.txt")
        settings = json.dumps({**run.settings, "spawned_s": time.monotonic()})
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(script), *run.arguments, settings, str(result)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            os.sched_setaffinity(process.pid, cores)
            try:
                peak_bytes = _wait(process, timeout_s, run.memory)
            except subprocess.TimeoutExpired:
                found.reason = f"timed out after {timeout_s:g} s"
            finally:
                if process.returncode != 0:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if found.reason:
            return
        if not result.exists():
            lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            found.reason = f"failed: {lines[-1].strip() if lines else f'exit code {process.returncode}'}"[:200]
            return
        told = json.loads(result.read_text(encoding="utf-8"))
        found.results.append({**told, "peak_tree_bytes": peak_bytes} if run.memory else told)


def _wait(process: subprocess.Popen[bytes], timeout_s: float, memory: bool) -> int:
    peak_bytes, deadline_s = 0, time.monotonic() + timeout_s
    while memory and process.poll() is None and time.monotonic() < deadline_s:
        peak_bytes = max(peak_bytes, tree_bytes(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLING_S)
    process.wait(max(0.0, deadline_s - time.monotonic()))
    return peak_bytes


def bars(path: Path, title: str, panels: Mapping[str, Mapping[str, tuple[Spread | None, str]]]) -> None:
    """Draw one row of horizontal bars a panel.

    Args:
        path: Of the picture.
        title: Above all.
        panels: By the panel's title: value and text of each bar, by its name; names of ours begin with "fitstream".
    """
    from matplotlib.figure import Figure

    counts = [len(panel) for panel in panels.values()]
    figure = Figure(figsize=(9.0, 1.0 + 0.34 * sum(counts) + 0.7 * len(counts)), dpi=160, layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=11.5, fontweight="bold")
    all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
        for place, (label, (value, text)) in enumerate(panel.items()):
            if value is not None:
                colour = "#0b6e99" if label.startswith("fitstream") else "#b4c3cf"
                spread = [[value.median - value.least], [value.most - value.median]]
                axes.barh(place, value.median, height=0.62, color=colour)
                axes.errorbar(value.median, place, xerr=spread, color="#1f2933", elinewidth=1, capsize=2.5)
            axes.annotate(text, (value.most if value else 0, place), (5, 0), textcoords="offset points", va="center",
                          fontsize=8)  # fmt: skip
        axes.set_yticks(range(len(panel)), list(panel), fontsize=8.5)
        axes.set_ylim(len(panel) - 0.5, -0.5)
        axes.set_xlim(0, 1.3 * max((value.most for value, _ in panel.values() if value), default=1.0))
        axes.set_title(name, loc="left", fontsize=9.5)
        axes.tick_params(length=0, labelsize=8)
        axes.grid(axis="x", color="#e4e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
    figure.savefig(path)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: float) -> float:
    return round(value, 3) if isinstance(value, float) else value
