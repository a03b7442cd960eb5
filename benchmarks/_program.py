"""The command line that the benchmarks without pictures share: run the rounds, then write table, JSON and plot."""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import _harness
import _peers
import _report

__all__ = ["Benchmark", "run"]

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """What is measured and how it is shown.

    Attributes:
        name: Of the files that are written.
        title: Heads table and plot.
        unit: What is counted, in the plural.
        script: The program of the child processes.
        contenders: All of them; the keys of limits begin with "limit", ours with "fitstream".
        panels: Title by setting.
        inputs: Gives the inputs of the timed jobs and those of the memory run, for a quick run or a full one.
        limit: Key of the contender that ratios refer to.
        warm_up: Samples to take before timing starts.
        seconds: Default length of a measurement.
        comparisons: As in `_report.Report`.
        units_per_sample: As there.
        cpu_units: As there.
        memory: As there.
        before: Called before each run with the inputs of the timed jobs.
    """

    name: str
    title: str
    unit: str
    script: Path
    contenders: Sequence[_harness.Contender]
    panels: Mapping[str, str]
    inputs: Callable[[bool], tuple[Mapping[str, Any], Mapping[str, Any]]]
    warm_up: int
    limit: str = "limit"
    seconds: float = 1.5
    comparisons: Sequence[tuple[str, str]] = ()
    units_per_sample: float = 1.0
    cpu_units: int = 1000
    memory: Literal["all", "unbacked"] = "all"
    before: Callable[[Mapping[str, Any]], None] | None = None


def run(benchmark: Benchmark, description: str | None, arguments: Sequence[str]) -> None:
    """Measure as the arguments say, then write the results."""
    options = _parse(benchmark, description, arguments)
    timed_inputs, whole_inputs = benchmark.inputs(options.quick)
    cores = sorted(os.sched_getaffinity(0))[: _peers.LANES]
    if options.quick:
        timed_inputs = {**timed_inputs, "check": True}
    job = _harness.Job("", "", benchmark.warm_up, None, whole_inputs, cores)
    # A second table differs in nothing that could stop working.
    panels = dict(list(benchmark.panels.items())[: 1 if options.quick else None])
    contenders = [one for one in benchmark.contenders if one.key in options.contenders]
    before = benchmark.before
    outcomes = _harness.run_rounds(
        benchmark.script,
        contenders,
        tuple(panels),
        rounds=options.rounds,
        timed=dataclasses.replace(job, inputs=timed_inputs, seconds=options.seconds, warm_up_s=options.warm_up),
        whole=None if options.quick else job,
        timeout_s=options.timeout,
        log=lambda line: print(line, flush=True),
        before=None if before is None else lambda: before(timed_inputs),
    )
    report = _report.Report(
        title=benchmark.title,
        unit=benchmark.unit,
        limit=benchmark.limit,
        ours="fitstream",
        panels=panels,
        contenders=contenders,
        outcomes=outcomes,
        facts={
            "inputs": {name: value for name, value in timed_inputs.items() if name != "path"},
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warm_up_s": options.warm_up,
            "packages": _report.versions(_peers.PACKAGES),
        },
        units_per_sample=benchmark.units_per_sample,
        cpu_units=benchmark.cpu_units,
        memory=benchmark.memory,
        comparisons=benchmark.comparisons,
    )
    report.write(options.out / benchmark.name)
    print(f"\n{report.markdown()}\nWritten to {options.out}.")


def _parse(benchmark: Benchmark, description: str | None, arguments: Sequence[str]) -> argparse.Namespace:
    keys = [one.key for one in benchmark.contenders]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="how often each loader is measured (default: 5)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=benchmark.seconds,
        help=f"length of each measurement (default: {benchmark.seconds:g})",
    )
    parser.add_argument("--warm-up", type=float, default=0.3, help="least seconds before that (default: 0.3)")
    parser.add_argument("--contenders", nargs="+", choices=keys, default=keys, metavar="NAME", help=", ".join(keys))
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds after which a run hangs (default: 120)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="little data, one run of 0.5 s each, nothing kept")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.warm_up = 1, 0.5, 0.1
    if options.out is None:
        options.out = Path(tempfile.gettempdir(), "fitstream-bench-quick") if options.quick else HERE / "results"
    return options
