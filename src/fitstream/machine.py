"""What this machine has to give: cores and free memory, limits of containers (cgroups, versions 1 and 2) counted."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

__all__ = [
    "available_cores",
    "available_memory_bytes",
    "is_opening",
    "memory_limit_bytes",
    "module_being_imported",
    "oom_kill_count",
    "opening_a_worker",
    "private_bytes",
    "thread_fault_count",
    "why_no_processes",
]

_OPENING = threading.Event()

_CGROUPS = "/sys/fs/cgroup"


def available_cores() -> int:
    """Cores that this process may use: its affinity, cut by the cgroup's quota. At least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _own_groups("cpu"):
        quota, period = _number(f"{group}/cpu.cfs_quota_us"), _number(f"{group}/cpu.cfs_period_us")
        words = _text(f"{group}/cpu.max").split()
        if len(words) == 2 and words[0].isdigit():
            quota, period = int(words[0]), int(words[1])
        if quota and period:
            cores = min(cores, -(-quota // period))
    return max(1, cores)


def available_memory_bytes() -> int:
    """Bytes that can be allocated without swapping, cut by the limits of the cgroup and its parents."""
    import psutil  # not needed where the user gives a budget

    free = int(psutil.virtual_memory().available)
    for group in _own_groups("memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _number(f"{group}/{limit_name}"), _number(f"{group}/{used_name}")
            if limit is not None and used is not None:
                free = min(free, max(0, limit - used + _reclaimable(group)))
    return free


def memory_limit_bytes() -> int:
    """The least of the machine's memory and the limits of the cgroup and its parents."""
    import psutil  # as above

    limits = [int(psutil.virtual_memory().total)]
    for group in _own_groups("memory"):
        limits += [_number(f"{group}/{name}") or limits[0] for name in ("memory.max", "memory.limit_in_bytes")]
    return min(limits)


def oom_kill_count() -> int | None:
    """Processes that the system has killed because memory ran out: of this cgroup, or else of all; None if unknown."""
    counts: list[int | None] = []
    for group in _own_groups("memory"):
        counts += [_named(f"{group}/{name}", "oom_kill") for name in ("memory.events", "memory.oom_control")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else _named("/proc/vmstat", "oom_kill")


def private_bytes(pid: int) -> int:
    """Memory of a process that it shares with no other and with no file; 0 if that is not known, or it is gone.

    Resident less shared pages of `/proc/PID/statm`, which costs microseconds. Exact proportions cost milliseconds, and
    stop the process that is looked at.
    """
    words = _text(f"/proc/{pid}/statm").split()
    return max(0, int(words[1]) - int(words[2])) * os.sysconf("SC_PAGE_SIZE") if len(words) > 2 else 0


try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # not on Linux

    def thread_fault_count() -> int:
        """Always 0, since this system doesn't tell."""
        return 0
else:

    def thread_fault_count() -> int:
        """Pages that the calling thread touched first so far, so that the system had to make them.

        It costs a microsecond and keeps the interpreter lock. To ask from another thread would mean to wait for that
        lock many times while lanes hold it.
        """
        return getrusage(RUSAGE_THREAD).ru_minflt


@contextlib.contextmanager
def opening_a_worker() -> Iterator[None]:
    """Mark that this process is a worker which imports what it needs."""
    _OPENING.set()
    try:
        yield
    finally:
        _OPENING.clear()


def is_opening() -> bool:
    """Whether this process is a worker that is not ready yet: whatever runs was started by an import."""
    return _OPENING.is_set()


def module_being_imported() -> str | None:
    """A module whose import has not ended; to pickle something of it by name would wait for that."""
    for name, module in list(sys.modules.items()):
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            return name
    return None


def why_no_processes() -> str | None:
    """Why this system can't run worker processes, or None if it can."""
    if not sys.platform.startswith("linux") or not hasattr(os, "pidfd_open"):
        return f"worker processes need Linux, and this is {sys.platform}"
    if not sys.executable:
        return "this program runs inside another, so that it isn't known which Python to start worker processes with"
    return None


def _reclaimable(group: str) -> int:
    """Bytes of the page cache that the system would rather drop than refuse memory."""
    path = f"{group}/memory.stat"
    return _named(path, "total_inactive_file") or _named(path, "inactive_file") or 0


def _own_groups(controller: str) -> Iterator[str]:
    """The folders of this process's cgroup and its parents, for one controller."""
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            base = _CGROUPS
        elif controller in controllers.split(","):
            base = f"{_CGROUPS}/{controllers}"
        else:
            continue
        parts = name.strip("/").split("/")
        for depth in range(len(parts), -1, -1):
            yield "/".join([base, *parts[:depth]])


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _named(path: str, wanted: str) -> int | None:
    """A number that stands behind its name in a file of such lines."""
    for line in _text(path).splitlines():
        name, _, count = line.partition(" ")
        if name == wanted and count.isdigit():
            return int(count)
    return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
