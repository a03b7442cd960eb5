"""Run contenders side by side: each in a process of its own, in interleaved rounds, on the same cores.

A benchmark keeps its `Contender`s in a script of their own, which ends in `child_main`, and calls `run_rounds`. That
runs the script once for each measurement, as a child that does one `Job` and writes one JSON file. Four things make the
numbers comparable:

- A round measures every contender once, in an order that is rotated each round, so that a machine that slows down for a
  minute slows all of them; ratios are taken within a round.
- All processes of a contender share the same few cores (`sched_setaffinity`), so a loader can't gain by using more.
- Throughput is taken after a warm-up part, over whole batches for some seconds. Start-up is a column of its own.
- Peak memory comes from a run of its own over one whole short epoch, because reading `smaps_rollup` stalls the process
  that is read. The same run checks that each sample arrives exactly once. Two figures are kept: all pages, and those
  that no file backs, which is the one to show where the data is a mapped file.

Linux only: it reads `/proc`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Contender", "Job", "Ledger", "Measurement", "Outcome", "child_main", "cpu_seconds", "measure", "run_rounds"]

_SAMPLING_S = 0.1
_PARTING_S = 3.0
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One run of one contender, as the child process gets it.

    Attributes:
        contender: Key of the contender.
        setting: Which of the contender's settings.
        warm_up: Samples to take before timing starts.
        seconds: How long to measure; None measures to the end of the epoch.
        inputs: What the benchmark passes to its contenders; JSON.
        cores: The cores that the process and all its children may use.
        spawned_s: When the parent started the child, by the monotonic clock.
        warm_up_s: How long to take batches, from the first on, before timing starts; `warm_up` samples must come too.
    """

    contender: str
    setting: str
    warm_up: int
    seconds: float | None
    inputs: Mapping[str, Any]
    cores: Sequence[int]
    spawned_s: float = 0.0
    warm_up_s: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """What a child found.

    Attributes:
        samples: Samples of the timed part.
        seconds: Length of the timed part.
        cpu_s: CPU time of all processes during the timed part.
        first_from_start_s: From the start of the process, so with imports, to the first batch.
        first_from_creation_s: From the creation of the loader to the first batch.
        facts: What the loader says of itself, such as the memory that it planned.
    """

    samples: int
    seconds: float
    cpu_s: float
    first_from_start_s: float
    first_from_creation_s: float
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing the benchmark's work.

    Attributes:
        key: Name on the command line.
        title: Name in tables and plots.
        run: Measures, in the child; imports what it needs by itself.
        settings: The settings that it is measured in.
        requires: Modules that must be there; if one is not, the contender is reported as not installed.
        settles_s: The least warm-up, for one that measures and changes itself while it runs.
    """

    key: str
    title: str
    run: Callable[[Job], Measurement]
    settings: tuple[str, ...]
    requires: tuple[str, ...] = ()
    settles_s: float = 0.0


@dataclasses.dataclass(slots=True)
class Outcome:
    """All that is known of one contender in one setting.

    Attributes:
        status: "ok", "not installed", "failed" or "timed out".
        detail: What is missing, the last line of the error, or what went wrong after the measurement.
        rounds: The measurement of each round, by its number; rounds after a failure are missing.
        peak_bytes: Largest proportional set size of the process tree; None if it was not sampled.
        peak_unbacked_bytes: The same without pages of files: neither data that is mapped nor programs.
        whole: The measurement of the memory run.
    """

    status: str = "ok"
    detail: str = ""
    rounds: dict[int, Measurement] = dataclasses.field(default_factory=dict)
    peak_bytes: int | None = None
    peak_unbacked_bytes: int | None = None
    whole: Measurement | None = None


class Ledger(Protocol):
    """Takes delivery of batches and checks them."""

    def take(self, batch: Any) -> int:
        """Touch a batch and return its number of samples."""

    def finish(self, *, complete: bool) -> None:
        """Raise if what was delivered is wrong; `complete` says that the epoch came to its end."""


def measure(
    job: Job, stream: Callable[[], Iterator[Any]], ledger: Ledger, facts: Mapping[str, Any] | None = None
) -> Measurement:
    """Measure a loader in the child.

    Args:
        job: What to do.
        stream: Makes the loader and yields the batches of one epoch; the loader is closed where the generator is.
        ledger: Takes each batch.
        facts: What the loader says of itself; the stream has filled it in when it is closed.
    Raises:
        RuntimeError: If the epoch ended before the timed part began.
    """
    created_s = time.monotonic()
    batches = stream()
    samples = ledger.take(next(batches))
    first_s = time.monotonic()
    while samples < job.warm_up or time.monotonic() - first_s < job.warm_up_s:
        samples += ledger.take(next(batches))
    samples, complete = 0, True
    cpu_s, start_s = cpu_seconds(), time.monotonic()
    for batch in batches:
        samples += ledger.take(batch)
        if job.seconds is not None and time.monotonic() - start_s >= job.seconds:
            complete = False
            break
    end_s = time.monotonic()
    cpu_s = cpu_seconds() - cpu_s
    ledger.finish(complete=complete)
    if not samples:
        raise RuntimeError(f"the epoch ended within the warm-up of {job.warm_up} samples.")
    close = getattr(batches, "close", None)
    if close is not None:
        close()
    return Measurement(samples, end_s - start_s, cpu_s, first_s - job.spawned_s, first_s - created_s, dict(facts or {}))


def child_main(contenders: Sequence[Contender], arguments: Sequence[str]) -> None:
    """Do one job and write its result; `arguments` are the job as JSON and the path of the result."""
    job = Job(**json.loads(arguments[0]))
    os.sched_setaffinity(0, job.cores)
    contender = next(one for one in contenders if one.key == job.contender)
    missing = [name for name in contender.requires if not _is_installed(name)]
    result = {"missing": missing} if missing else {"measured": dataclasses.asdict(contender.run(job))}
    Path(arguments[1]).write_text(json.dumps(result), encoding="utf-8")


def run_rounds(
    script: Path,
    contenders: Sequence[Contender],
    settings: Sequence[str],
    *,
    rounds: int,
    timed: Job,
    whole: Job | None,
    timeout_s: float,
    log: Callable[[str], None],
    before: Callable[[], None] | None = None,
) -> dict[tuple[str, str], Outcome]:
    """Run every contender in every one of its settings, once for memory and then in rounds.

    Args:
        script: What to run as the child; it calls `child_main`.
        contenders: In the order of the first round.
        settings: Those to measure; others are left out.
        rounds: How often each is measured.
        timed: The job of a round; `contender` and `setting` are filled in here.
        whole: The job of the memory run, over one whole epoch; None leaves it out and samples memory in the rounds.
        timeout_s: After which a run counts as hanging and its processes are killed.
        log: Gets one line for each run.
        before: Called before each run, such as to read a file into the page cache.
    Returns:
        The outcome by contender and setting. Whoever fails once is left out of later rounds.
    """
    runs = [(one, setting) for one in contenders for setting in one.settings if setting in settings]
    outcomes = {(one.key, setting): Outcome() for one, setting in runs}

    def attempt(one: Contender, setting: str, job: Job, label: str, *, number: int | None) -> None:
        outcome = outcomes[one.key, setting]
        if outcome.status != "ok":
            return
        if before is not None:
            before()
        job = dataclasses.replace(job, contender=one.key, setting=setting)
        if job.seconds is not None:
            job = dataclasses.replace(job, warm_up_s=max(job.warm_up_s, one.settles_s))
        found = _run_child(script, job, timeout_s, sample_memory=whole is None or number is None, outcome=outcome)
        text = f"{outcome.status}: {outcome.detail}"
        if found is not None and number is None:
            outcome.whole = found
            text = f"{(outcome.peak_bytes or 0) / 1e6:,.0f} MB"
        elif found is not None and number is not None:
            outcome.rounds[number] = found
            text = f"{found.samples / found.seconds:,.0f} a second"
        log(f"{label:<12} {one.title + ', ' + setting:<44} {text}")

    for one, setting in runs if whole is not None else ():
        attempt(one, setting, whole, "memory", number=None)
    for number in range(rounds):
        turn = number % len(runs)
        for one, setting in runs[turn:] + runs[:turn]:
            attempt(one, setting, timed, f"round {number + 1}/{rounds}", number=number)
    return outcomes


def _run_child(
    script: Path, job: Job, timeout_s: float, *, sample_memory: bool, outcome: Outcome
) -> Measurement | None:
    """Run one job and return its measurement; peak memory, if asked for, and a failure are written into `outcome`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result, errors = Path(folder, "result.json"), Path(folder, "errors.txt")
        job = dataclasses.replace(job, spawned_s=time.monotonic())
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(script), json.dumps(dataclasses.asdict(job)), str(result)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                peaks = _wait(process, timeout_s, sample_memory=sample_memory)
            except subprocess.TimeoutExpired:
                outcome.status, outcome.detail = "timed out", f"no result within {timeout_s:g} s"
            finally:
                if process.returncode != 0:
                    _kill_session(process)
        if outcome.status != "ok":
            return None
        if not result.exists():
            lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            outcome.status = "failed"
            outcome.detail = lines[-1].strip() if lines else f"exit code {process.returncode}, no message"
            return None
        if process.returncode != 0:
            outcome.detail = f"ended with exit code {process.returncode} after it was measured"
        if sample_memory:
            outcome.peak_bytes, outcome.peak_unbacked_bytes = peaks
        found = json.loads(result.read_text(encoding="utf-8"))
    if "missing" in found:
        outcome.status, outcome.detail = "not installed", ", ".join(found["missing"])
        return None
    return Measurement(**found["measured"])


def _wait(process: subprocess.Popen[bytes], timeout_s: float, *, sample_memory: bool) -> tuple[int, int]:
    """Wait for the end, and give the largest sizes of the process tree, as in `Outcome`; zeros if not sampled."""
    if not sample_memory:
        process.wait(timeout_s)
        return 0, 0
    peak, peak_unbacked, deadline_s = 0, 0, time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline_s:
            raise subprocess.TimeoutExpired(process.args, timeout_s)
        sizes = [_pss_bytes(pid) for pid in _tree(process.pid)]
        peak = max(peak, sum(whole for whole, _ in sizes))
        peak_unbacked = max(peak_unbacked, sum(whole - file for whole, file in sizes))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SAMPLING_S)
    return peak, peak_unbacked


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    # By session and not by parent: a worker whose parent died has another parent by now, but still this session.
    def survivors() -> list[int]:
        return [pid for pid, fields in _processes().items() if int(fields[3]) == process.pid and fields[0] != "Z"]

    # multiprocessing's resource tracker ignores SIGTERM and clears /dev/shm of what the others left when they are gone.
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for pid in survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        deadline_s = time.monotonic() + _PARTING_S
        while survivors() and time.monotonic() < deadline_s:
            time.sleep(_SAMPLING_S)
    process.wait()


def cpu_seconds() -> float:
    """Give the CPU time so far of this process and its descendants, also of those that ended and were waited for."""
    processes = _processes()
    tree = [pid for pid in _tree(os.getpid(), processes) if pid in processes]
    return sum(int(ticks) for pid in tree for ticks in processes[pid][11:15]) / _CLOCK_TICKS


def _processes() -> dict[int, list[str]]:
    """The fields of `/proc/PID/stat` from the state on (state, parent, group, session, ...) by process."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                # The second field is the program's name, which may hold anything, in parentheses.
                found[int(name)] = stat.read().rpartition(")")[2].split()
    return found


def _tree(root: int, processes: Mapping[int, list[str]] | None = None) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, fields in (processes if processes is not None else _processes()).items():
        children.setdefault(int(fields[1]), []).append(pid)
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, []))
    return tree


def _pss_bytes(pid: int) -> tuple[int, int]:
    """The proportional set size of a process, and the part of it that files back; zeros if it has ended."""
    sizes = {"Pss:": 0, "Pss_File:": 0}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as rollup:
        for line in rollup:
            name, *rest = line.split()
            if name in sizes:
                sizes[name] = int(rest[0]) * 1024
    return sizes["Pss:"], sizes["Pss_File:"]


def _is_installed(name: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.util.find_spec(name) is not None
    return False
