"""What becomes of an epoch when something goes wrong: fitstream and its peers, case by case.

Question. Workers crash, samples are corrupt or never come, programs are interrupted. Which loader still delivers every
sample exactly once, which one says what is wrong, and which one hangs, loses samples or leaves things behind?

Method. Each run is a program in a process of its own, with 640 samples of 1 kB, batches of 16, seeded shuffling and two
workers; a sample takes a millisecond. The same transform misbehaves in every loader. A case is run three times, seeded
alike for all loaders, and the table shows the worst outcome; what hangs or ends the main process is not run again, and
what is no matter of timing is run once.
The program hangs if nothing happens for 15 s. Processes, shared memory and temporary files that are there two seconds
after the main process has ended count as left behind. `_reliability_loaders.py` shows how each loader is set up,
`_reliability_cases.py` what is done, `_reliability_watch.py` how it is watched, `_reliability_judge.py` how judged.

    python benchmarks/reliability.py              # about 9 minutes on two idle cores; writes benchmarks/reliability.md
    python benchmarks/reliability.py --quick      # each case once
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import _reliability_cases as cases
import _reliability_judge as judge
import _reliability_page as page
import _reliability_watch as watching
from _reliability_judge import Grade, Outcome, Reference
from _reliability_loaders import LOADERS

HERE = Path(__file__).resolve().parent
_AT_ONCE = 4  # many of them wait most of the time


class _Bench:
    """Runs cells; several at once only where each has a `/dev/shm` of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._isolation = watching.isolation()
        self._printing = threading.Lock()
        self.at_once = options.jobs if self._isolation else 1
        self.found: list[dict[str, Any]] = []

    def references(self, loaders: Sequence[str]) -> dict[str, Reference]:
        """The batches of each loader undisturbed; a loader that can't even do that is left out."""
        with ThreadPoolExecutor(self.at_once) as pool:
            return dict(one for one in pool.map(self._reference, loaders) if one is not None)

    def cells(self, references: dict[str, Reference]) -> dict[tuple[str, str], list[Outcome]]:
        """The outcomes of all runs, by case and loader."""
        chosen = [case for case in cases.CASES if not self._options.cases or case.key in self._options.cases]
        todo = [(case, loader) for case in chosen for loader in references]
        with ThreadPoolExecutor(self.at_once) as pool:
            outcomes = pool.map(lambda one: self._cell(*one, references[one[1]]), todo)
            return {(case.key, loader): got for (case, loader), got in zip(todo, outcomes, strict=True)}

    def _reference(self, loader: str) -> tuple[str, Reference] | None:
        missing = [name for name in LOADERS[loader].requires if importlib.util.find_spec(name) is None]
        if missing:
            self._log(f"{loader}: {', '.join(missing)} not installed")
            return None
        seen = self._watch(cases.reference_run(loader, self._options.deadline))
        expected = judge.reference(seen[-1])
        if set(expected) == set(range(cases.EPOCHS)):
            return loader, expected
        self._log(f"{loader}: no undisturbed epoch: {seen[-1].events[-1:]} {seen[-1].errors}")
        return None

    def _cell(self, case: cases.Case, loader: str, expected: Reference) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for number in range(1 if case.once else self._options.runs):
            seen = self._watch(case.watch(loader, number, self._options.deadline))
            outcomes.append(case.outcome(seen, expected, self._options.deadline))
            self._keep(case, loader, number, seen, outcomes[-1])
            if outcomes[-1].grade in (Grade.HANGS, Grade.DIED, Grade.NOT_APPLICABLE):
                break
        self._log(f"{case.key:<12} {loader:<20} {judge.worst(outcomes)}")
        return outcomes

    def _watch(self, job: watching.Watch) -> list[watching.Seen]:
        with tempfile.TemporaryDirectory(prefix="reliability-result-") as folder:
            result = Path(folder, "seen.json")
            told = json.dumps(dataclasses.asdict(job))
            command = [*self._isolation, sys.executable, watching.__file__, told, str(result)]
            subprocess.run(command, check=True)
            return [watching.Seen(**one) for one in json.loads(result.read_text(encoding="utf-8"))]

    def _keep(self, case: cases.Case, loader: str, number: int, seen: list[watching.Seen], outcome: Outcome) -> None:
        programs = []
        for one in seen:
            events = [event for event in one.events if event["event"] != "batch"]
            batches = sum(event["event"] == "batch" for event in one.events)
            programs.append({**dataclasses.asdict(one), "events": events, "batches": batches})
        kept = {"case": case.key, "loader": loader, "run": number, "text": outcome.text, "seconds": outcome.seconds}
        self.found.append({**kept, "grade": outcome.grade.name, "programs": programs})

    def _log(self, line: str) -> None:
        with self._printing:
            print(line, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run the cells, then write `reliability.md`, and all that was seen to `results/reliability.json`."""
    options = _parse(arguments)
    start = dt.datetime.now(dt.UTC)
    bench = _Bench(options)
    references = bench.references(options.loaders)
    outcomes = bench.cells(references)
    command = " ".join(["python benchmarks/reliability.py", *arguments])
    facts = page.Facts(start, command, options.runs, options.deadline)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "reliability.md").write_text(page.render(facts, list(references), outcomes), encoding="utf-8")
    results = options.out / "results"
    results.mkdir(exist_ok=True)
    told = {"versions": page.versions(), "command": command, "date": start.isoformat(), "runs": bench.found}
    (results / "reliability.json").write_text(_without_paths(json.dumps(told, indent=1)) + "\n", encoding="utf-8")
    minutes = (dt.datetime.now(dt.UTC) - start).total_seconds() / 60
    print(f"{len(bench.found)} runs in {minutes:.1f} minutes, {bench.at_once} at once")


def _without_paths(text: str) -> str:
    """Name the folders of this machine, which tracebacks are full of, by what they are."""
    folders = {str(HERE.parent): "<repository>", sys.prefix: "<environment>", sys.base_prefix: "<python>"}
    for folder, name in folders.items():
        text = text.replace(folder, name)
    return text


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="how often each case")
    parser.add_argument("--deadline", type=float, default=15.0, help="seconds in which something has to happen")
    parser.add_argument("--cases", nargs="+", choices=[case.key for case in cases.CASES], help="only these")
    parser.add_argument("--loaders", nargs="+", choices=list(LOADERS), default=list(LOADERS), help="only these")
    parser.add_argument("--jobs", type=int, default=_AT_ONCE, help="how many at once")
    parser.add_argument("--out", type=Path, default=HERE, help="where reliability.md goes")
    parser.add_argument("--quick", action="store_true", help="each case once")
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs = 1
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
