"""`reliability.md`, written from the outcomes: method, what the loaders document, the table and its summary."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence

import _reliability_judge as judge
from _reliability_cases import CASES, Case
from _reliability_judge import Grade, Outcome
from _reliability_loaders import LOADERS, PACKAGES

import fitstream

__all__ = ["Facts", "render", "versions"]

_METHOD = """\
# What becomes of an epoch when something goes wrong?

Workers crash, samples are corrupt or never come, programs are interrupted. This is what each loader made of it. The
page is written by `benchmarks/reliability.py`.

## Method

- Every run is a fresh program with 640 samples of 1 kB, batches of 16, seeded shuffling and two workers. All loaders
  call the same transform, which takes a millisecond a sample and misbehaves at one of them, drawn at random.
- {runs}, seeded alike for all loaders; the cell shows the worst outcome and the longest time. What hangs or ends the
  main process is not run again, and what is no matter of timing (raising, another number of workers) is run once.
- "All batches, same bytes" means: the same batches in the same order as in an undisturbed run of the same loader. Each
  row is also compared with the data, and each sample counted; "in another order" loses nothing.
- A program that neither ends nor gets a batch for {deadline:g} s hangs. Times count from the fault to the error as the
  training loop sees it; cells run side by side on two cores, so tenths of a second mean little.
- What is there two seconds after the main process has ended is left behind: processes, bytes in `/dev/shm`, files and
  folders in the temporary folder, empty or not (`results/reliability.json` names them). All of them are then removed.
- In a loader with threads, a transform that crashes is in the main process; nothing but that process can die.
- Every loader is set up as its documentation says, with the timeout or the state that it offers; what it does not
  offer is "no such feature", and no case against it.

## What the loaders document

- **PyTorch DataLoader**: raises RuntimeError when a worker dies, and the worker's own exception, with its traceback,
  when a sample raises; `timeout=` limits the wait for a batch and is off by default. No state, no skipping.
- **torchdata StatefulDataLoader**: the same, with `state_dict` and `load_state_dict` for the middle of an epoch; the
  number of workers has to stay the same.
- **Keras PyDataset**: `workers`, `use_multiprocessing` and `max_queue_size`. Nothing is said of failures, timeouts or
  state. Its enqueuer rests on `multiprocessing.Pool`, which starts a new worker for a dead one and forgets its work.
- **Grain**: an order that does not depend on the number of workers, `get_state` and `set_state` of an iterator, and
  RuntimeError when a worker process has died. `close()` is recommended for iterators with processes. No timeout, no
  skipping of samples that raise.
- **fitstream**: `docs/` says what it promises; in short, what stands under "at best" below.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """Of the whole run: when it began, the command, how often each case was run, when a program hangs."""

    start: dt.datetime
    command: str
    runs: int
    deadline_s: float


def versions() -> dict[str, str]:
    """The version of Python and of each package that is installed."""
    found = {"python": platform.python_version(), "fitstream": fitstream.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def render(facts: Facts, loaders: Sequence[str], outcomes: Mapping[tuple[str, str], Sequence[Outcome]]) -> str:
    """Write the page; cases and loaders without outcome are left out."""
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    runs = "Each case is run once" if facts.runs == 1 else f"Each case is run {facts.runs} times"
    titles = [LOADERS[key].title for key in loaders]
    cases = [case for case in CASES if any((case.key, key) in outcomes for key in loaders)]
    lines = [
        _METHOD.format(runs=runs, deadline=facts.deadline_s),
        "## Result",
        "",
        f"`{facts.command}` on {facts.start:%Y-%m-%d}, {platform.system()}, {os.cpu_count()} cores.",
        f"Versions: {told}.",
        "",
        f"| | at best | {' | '.join(titles)} |",
        f"| --- | --- |{' --- |' * len(titles)}",
    ]
    for case in cases:
        cells = [judge.worst(outcomes[case.key, key]) for key in loaders]
        lines.append(f"| **{case.title}** | {case.due} | {' | '.join(cells)} |")
    lines += ["", "How many of the cases came to what, by the worst that happened in each:", ""]
    lines += [f"| | {' | '.join(titles)} |", f"| --- |{' ---: |' * len(titles)}"]
    counts = {key: Counter(_summed(case, outcomes[case.key, key]) for case in cases) for key in loaders}
    for grade, title in _SUMMARY.items():
        lines.append(f"| {title} | {' | '.join(str(counts[key][grade]) for key in loaders)} |")
    return "\n".join(lines) + "\n"


def _summed(case: Case, outcomes: Sequence[Outcome]) -> Grade:
    grade = max(one.grade for one in outcomes)
    return Grade.WHOLE if grade == case.best else grade


_SUMMARY = {
    Grade.WHOLE: "as at best",
    Grade.ERROR: "an error instead",
    Grade.REORDERED: "every sample once, in another order",
    Grade.LEFT: "left something behind, or more than one KeyboardInterrupt",
    Grade.WRONG: "samples lost, doubled or wrong",
    Grade.DIED: "the main process died",
    Grade.HANGS: "hangs",
    Grade.NOT_APPLICABLE: "no such feature",
}
