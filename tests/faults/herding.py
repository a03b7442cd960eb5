"""The herd: cells that run in processes of their own, because what they do may end, stop or hang a process.

Starting Python and importing takes longest, so one program imports all and forks a child for each cell. The child
leaves the program's loop and ends as any program does. A cell is a dictionary that `cells.run` understands; what it
writes to its result file, and how its process ended, come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Self

#: The environment variable that a process and all that it starts are known by.
MARK = "FITSTREAM_TEST_CELL"


class Ended(NamedTuple):
    """How a cell ended.

    Attributes:
        code: Its exit code, the signal's number, negative; or None if it had to be ended at its deadline.
        told: What it wrote, or nothing.
        took_s: How long it took.
        left: What of it stayed there: processes, files, shared memory.
        error_text: What it wrote to its standard error.
    """

    code: int | None
    told: dict[str, Any]
    took_s: float
    left: list[str]
    error_text: str


class Herd:
    """Runs cells, one after another.

    Args:
        folder: For their files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.stdout.close()
        self._program.wait(100)

    def run(self, limit_s: float, **cell: Any) -> Ended:
        """Run one cell; end it if it takes longer."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        name = uuid.uuid4().hex
        folder = self._folder / name
        temporary = folder / "temporary"
        temporary.mkdir(parents=True)
        named = set(os.listdir("/dev/shm"))
        asked = {**cell, "name": name, "folder": str(folder), "limit_s": limit_s}
        self._program.stdin.write(json.dumps(asked) + "\n")
        self._program.stdin.flush()
        answer = json.loads(self._program.stdout.readline())
        end_s = time.monotonic() + 20
        while (left := processes_of(name)) and time.monotonic() < end_s:
            time.sleep(0.005)
        found = [f"process {pid}" for pid in left]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        found += [f"/dev/shm/{one}" for one in set(os.listdir("/dev/shm")) - named if "fitstream" in one]
        found += [f"temporary file {one}" for one in os.listdir(temporary)]
        result = folder / "result"
        told = json.loads(result.read_text()) if result.exists() else {}
        return Ended(answer["code"], told, answer["took_s"], found, (folder / "errors").read_text())


def processes_of(name: str) -> list[int]:
    """Processes that were started by a cell, also if it is gone. Those that ended don't count."""
    wanted, found = f"{MARK}={name}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def watch(pid: int, cell: dict[str, Any]) -> tuple[int | None, float]:
    """Wait for a process; wake it when it stops, and end it at its deadline.

    Args:
        pid: The process.
        cell: Says when that is, and for how long it may stay stopped, with all that it started.
    """
    limit_s, stopped_s = cell["limit_s"], cell.get("stopped_s", 0)
    begun_s = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        took_s = time.monotonic() - begun_s
        if ended and os.WIFSTOPPED(status):
            others = processes_of(cell["name"]) if stopped_s else []
            for number in (signal.SIGSTOP, signal.SIGCONT):
                for one in (*others, pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, number)
                if number == signal.SIGSTOP:
                    time.sleep(stopped_s)
        elif ended:
            return os.waitstatus_to_exitcode(status), took_s
        elif took_s > limit_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None, took_s
        time.sleep(0.005)


def main() -> None:
    """Fork a child for each cell that is asked for."""
    import cells

    for line in sys.stdin:
        cell = json.loads(line)
        pid = os.fork()
        if pid == 0:
            folder = Path(cell["folder"])
            os.environ.update({MARK: cell["name"], "TMPDIR": str(folder / "temporary")})
            for fd, path in ((0, "/dev/null"), (1, folder / "output"), (2, folder / "errors")):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), fd)
            cells.run(cell)
            return
        code, took_s = watch(pid, cell)
        sys.stdout.write(json.dumps({"code": code, "took_s": took_s}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
