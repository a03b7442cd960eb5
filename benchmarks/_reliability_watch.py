"""Watches one run of a program of `reliability.py` from outside, and finds what it leaves behind.

The program gets a session, a temporary folder and an environment variable of its own, which all its processes inherit,
whoever their parent is by then: that is how they are found, and ended by number at the end. It hangs if it neither
ends nor gets a batch for `deadline_s` seconds. What is left is counted when the last of its processes is gone, or two
seconds after the main one.

Where user namespaces are allowed, the watcher runs in one with a `/dev/shm` of its own, so that several can run side by
side; else they run one by one, and nothing else may use `/dev/shm` meanwhile.
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
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Seen", "Watch", "isolation", "watch"]

_PROGRAM = Path(__file__).with_name("_reliability_program.py")
_MARK = "RELIABILITY_RUN"
_POLL_S, _LEAVING_S, _STARTING_S = 0.02, 2.0, 90.0
_PRIVATE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"')


@dataclasses.dataclass(frozen=True, slots=True)
class Watch:
    """What to run and what to do to it.

    Attributes:
        scripts: Of `_reliability_program.Script`, as dictionaries; each goes on in the folder of the one before.
        deadline_s: How long nothing may happen.
        signum: What to send to the last program: SIGKILL to its main process, SIGINT to its whole group.
        signal_after: When: after this many batches.
        signal_wait_s: And so much later.
    """

    scripts: tuple[Mapping[str, Any], ...]
    deadline_s: float
    signum: int | None = None
    signal_after: int = 1
    signal_wait_s: float = 0.0


@dataclasses.dataclass(slots=True)
class Seen:
    """What was seen of one program.

    Attributes:
        code: Of the main process, as subprocess has it; None if it hung.
        events: What it wrote.
        fault_s: When the transform went wrong first, a worker was killed or the signal was sent; None if nothing was.
        end_s: When the main process ended.
        processes: Processes that were left.
        shared_bytes: Size of what was left in `/dev/shm`.
        files: Names of the files and folders that were left in the temporary folder.
        errors: The end of what it printed to stderr.
        interrupts: How often "KeyboardInterrupt" ended a traceback there.
    """

    code: int | None
    events: list[dict[str, Any]]
    fault_s: float | None
    end_s: float
    processes: int
    shared_bytes: int
    files: list[str]
    errors: str
    interrupts: int

    @property
    def finished(self) -> bool:
        """Whether it did all that it was to do."""
        names = {event["event"] for event in self.events}
        return self.code == 0 and "done" in names and not names & {"error", "not offered"}


def isolation() -> tuple[str, ...]:
    """What to put before the watcher's command to give it a `/dev/shm` of its own; empty if that isn't allowed."""
    with contextlib.suppress(OSError):
        if subprocess.run([*_PRIVATE, "sh", "true"], capture_output=True, check=False).returncode == 0:
            return (*_PRIVATE, "sh")
    return ()


def watch(job: Watch) -> list[Seen]:
    """Run the programs, one after the other, until one doesn't come to its end."""
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        for number, script in enumerate(job.scripts):
            last = number == len(job.scripts) - 1
            home = Path(folder)
            for old in [home / "progress", home / "fault", *home.glob("worker-*")]:
                old.unlink(missing_ok=True)
            seen.append(_Run(job, script, home, send=last).watch())
            if not seen[-1].finished:
                break
    return seen


class _Run:
    def __init__(self, job: Watch, script: Mapping[str, Any], home: Path, *, send: bool) -> None:
        self._job, self._home = job, home
        self._signum = job.signum if send else None
        self._signal_s: float | None = None
        self._mark = uuid.uuid4().hex
        self._temporary = home / f"temporary-{self._mark[:8]}"
        self._temporary.mkdir()
        self._shared_before = set(_shared())
        with (home / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM), json.dumps(script), str(home)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                # PyTorch's compiler would make its cache, which is to stay, in the temporary folder.
                env={
                    **os.environ,
                    _MARK: self._mark,
                    "TMPDIR": str(self._temporary),
                    "TORCHINDUCTOR_CACHE_DIR": str(home / "cache"),
                },
            )

    def watch(self) -> Seen:
        try:
            code = self._wait()
            end_s = time.time()
            processes = self._wait_for_children() if code is not None else len(self._alive())
            left = _shared()
            shared_bytes = sum(size for name, size in left.items() if name not in self._shared_before)
            files = sorted(path.name for path in self._temporary.iterdir())
        finally:
            self._end_all()
            for name in set(_shared()) - self._shared_before:
                Path("/dev/shm", name).unlink(missing_ok=True)
        printed = (self._home / "stderr").read_text(encoding="utf-8", errors="replace")
        interrupts = sum(line.startswith("KeyboardInterrupt") for line in printed.splitlines())
        events = self._events()
        fault_s = self._fault_s(events)
        return Seen(code, events, fault_s, end_s, processes, shared_bytes, files, printed[-2000:], interrupts)

    def _wait(self) -> int | None:
        """Wait for the end of the main process, and send the signal; None if it hangs."""
        size, happened_s = 0, time.monotonic()
        while self._process.poll() is None:
            time.sleep(_POLL_S)
            now_s = time.monotonic()
            progress = self._home / "progress"
            size_now = progress.stat().st_size if progress.exists() else 0
            if size_now != size:
                size, happened_s = size_now, now_s
            if self._signum is not None and self._signal_s is None and self._batches() >= self._job.signal_after:
                time.sleep(self._job.signal_wait_s)
                self._signal_s, happened_s = time.time(), time.monotonic()
                (os.kill if self._signum == signal.SIGKILL else os.killpg)(self._process.pid, self._signum)
            # Importing a framework may take long on a busy machine, and is not the loader's fault.
            if now_s - happened_s > (self._job.deadline_s if size else _STARTING_S):
                return None
        return self._process.returncode

    def _batches(self) -> int:
        return sum(event["event"] == "batch" for event in self._events())

    def _events(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            lines = (self._home / "progress").read_text(encoding="utf-8").splitlines(keepends=True)
            return [json.loads(line) for line in lines if line.endswith("\n")]
        return []

    def _fault_s(self, events: list[dict[str, Any]]) -> float | None:
        if self._signal_s is not None:
            return self._signal_s
        killed = [event["time_s"] for event in events if event["event"] == "killed"]
        if killed:
            return float(killed[0])
        with contextlib.suppress(FileNotFoundError):
            return (self._home / "fault").stat().st_mtime
        return None

    def _wait_for_children(self) -> int:
        end_s = time.monotonic() + _LEAVING_S
        while (count := len(self._alive())) and time.monotonic() < end_s:
            time.sleep(_POLL_S)
        return count

    def _alive(self) -> list[int]:
        wanted = f"{_MARK}={self._mark}".encode()
        return [pid for pid, environ in _environs() if wanted in environ.split(b"\0")]

    def _end_all(self) -> None:
        # Again and again, since a pool may start a new worker for one that is ended.
        while pids := self._alive():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
            time.sleep(_POLL_S)
        self._process.wait()


def _environs() -> Iterator[tuple[int, bytes]]:
    """The environment of each process that we may read; one that has ended and waits to be asked has none."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            yield int(name), Path("/proc", name, "environ").read_bytes()


def _shared() -> dict[str, int]:
    """Size by name of what is in `/dev/shm`."""
    found = {}
    for entry in os.scandir("/dev/shm"):
        with contextlib.suppress(FileNotFoundError):
            found[entry.name] = entry.stat(follow_symlinks=False).st_size
    return found


if __name__ == "__main__":
    told = watch(Watch(**json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps([dataclasses.asdict(one) for one in told]), encoding="utf-8")
