"""What a test left behind: processes, threads, descriptors, shared memory and temporary files.

`take` is a snapshot that costs a few hundred microseconds; `left` compares two. Only when something seems left is
garbage collected, and what is ending waited for, so that a test that leaves nothing pays nothing else.

Frameworks open things for good when they are imported or first used: threads, sockets, event descriptors, devices,
caches. So things are compared by what they are. Threads count if they are ours or run a test's function; processes
unless they are multiprocessing's servers; descriptors by the kind that `/proc` names, and those that any library may
open for itself (sockets, events, pipes) only as long as no framework is loaded. Shared memory is that of `memfd`s with
our name, and entries of `/dev/shm` with our name or process number.

Linux only; elsewhere threads and temporary files are all that is looked at.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

__all__ = ["Snapshot", "left", "left_for_good", "take"]

_PATIENCE_S = 30.0
_TESTS = Path(__file__).parent
_FRAMEWORKS = ("tensorflow", "torch", "jax", "matplotlib")
_SERVERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")
#: Opened once by whatever needs them, for as long as the program lives.
_FOR_GOOD = ("/dev/", "/proc/", "/sys/", sys.prefix, sys.base_prefix)
_CACHES = ("matplotlib-", "torchinductor_")
_NUMBERED = re.compile(r"^(socket|pipe):\[\d+\]$")
_ANYONES = ("socket", "pipe", "anon_inode:[eventfd]", "anon_inode:[eventpoll]")


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is now.

    Attributes:
        threads: By their identity, ours and those of tests.
        children: Processes started from here that were not waited for.
        descriptors: How many there are of what they lead to.
        shared_kb: Pages of shared memory that are mapped.
        named: Entries of `/dev/shm`.
        files: Entries of the temporary folder.
    """

    threads: dict[int, str]
    children: frozenset[int]
    descriptors: Counter[str]
    shared_kb: int
    named: frozenset[str]
    files: frozenset[str]


def take() -> Snapshot:
    """Look around."""
    files = frozenset(name for name in os.listdir(tempfile.gettempdir()) if not name.startswith(_CACHES))
    threads = {id(thread): thread.name for thread in threading.enumerate() if _is_ours(thread)}
    if not sys.platform.startswith("linux"):
        return Snapshot(threads, frozenset(), Counter(), 0, frozenset(), files)
    named = frozenset(os.listdir("/dev/shm"))
    return Snapshot(threads, _children(), _descriptors(), _shared_kb(), named, files)


def left(before: Snapshot, after: Snapshot) -> list[str]:
    """What is there now and was not before, one line each."""
    threads = [name for key, name in after.threads.items() if key not in before.threads]
    found = [f"thread {name}" for name in threads]
    for pid in sorted(after.children - before.children):
        command = _command(pid)
        if not any(server in command for server in _SERVERS):
            told = command.replace(b"\0", b" ").decode(errors="replace").strip()
            found.append(f"process {pid}: {told[:200] or 'has ended, and nobody waited for it'}")
    found += [f"{count} x descriptor of {target}" for target, count in (after.descriptors - before.descriptors).items()]
    own = [name for name in after.named - before.named if "fitstream" in name or str(os.getpid()) in name]
    found += [f"shared memory /dev/shm/{name}" for name in sorted(own)]
    # Pages tell that something is mapped at next to no cost; what it is takes long to read in a large process.
    if after.shared_kb > before.shared_kb and (mapped := _mapped_bytes()):
        found.append(f"{mapped:,} bytes of shared memory, mapped; {after.shared_kb - before.shared_kb:,} kB more")
    found += [f"temporary file {Path(tempfile.gettempdir(), name)}" for name in sorted(after.files - before.files)]
    return found


def left_for_good(before: Snapshot) -> list[str]:
    """What is left when garbage has been collected, and what ends by itself has had its time to."""
    if not (found := left(before, take())):
        return []
    # A loader that only a failed test's frames, or a cycle, still hold ends with its collection.
    gc.collect()
    end_s = time.monotonic() + _PATIENCE_S
    while (found := left(before, take())) and time.monotonic() < end_s:
        for thread in threading.enumerate():
            if id(thread) not in before.threads and _is_ours(thread):
                thread.join(timeout=0.05)
        time.sleep(0.01)
    return found


def _is_ours(thread: threading.Thread) -> bool:
    if thread.name.startswith("fitstream"):
        return True
    module = sys.modules.get(getattr(getattr(thread, "_target", None), "__module__", None) or "")
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(_TESTS)


def _children() -> frozenset[int]:
    pids: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", "rb") as children:
                pids.update(map(int, children.read().split()))
        except FileNotFoundError:
            continue
    return frozenset(pids)


def _command(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


def _descriptors() -> Counter[str]:
    counts: Counter[str] = Counter()
    crowded = any(name in sys.modules for name in _FRAMEWORKS)
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = _NUMBERED.sub(r"\1", os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
        if not target.startswith(_FOR_GOOD) and not (crowded and target in _ANYONES):
            counts[target] += 1
    return counts


def _shared_kb() -> int:
    with open("/proc/self/status", "rb") as status:
        told = status.read()
    start = told.find(b"RssShmem:")
    return int(told[start + 9 : told.index(b"kB", start)]) if start >= 0 else 0


def _mapped_bytes() -> int:
    mapped = 0
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        for line in maps:
            if "memfd:fitstream" in line:
                first, last = line.split(" ", 1)[0].split("-")
                mapped += int(last, 16) - int(first, 16)
    return mapped
