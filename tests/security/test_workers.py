"""What worker processes are given reaches nobody else, and what they take has a limit."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.engine import ceiling, process
from fitstream.events import WorkerLost, WorkerStarted
from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")

#: In the code of a function that is sent, and nowhere else in memory files.
MARK = "a captured password: "


class Started:
    def __init__(self) -> None:
        self.pids: list[int] = []
        self.lost: list[Any] = []

    def on_event(self, event: Any) -> None:
        if isinstance(event, WorkerStarted):
            self.pids.append(event.pid)
        elif isinstance(event, WorkerLost):
            self.lost.append(event)


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
def loader(started: Started) -> Iterator[fs.Loader]:
    """A loader with two worker processes at work, which were sent a secret."""
    secret = MARK + str(os.getpid())
    dataset = fs.from_arrays(np.arange(64.0)).map(lambda x: x + len(secret) * 0)
    with dataset.batch(4).loader(memory="200 MB", workers=2, processes=2, observers=[started]) as opened:
        next(iter(opened))
        yield opened


def links(pid: int | str = "self") -> dict[int, str]:
    """Open descriptors, and what they lead to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


def holds_secret(fd: int) -> bool:
    try:
        return (MARK + str(os.getpid())).encode() in os.pread(fd, 1 << 20, 0)
    except OSError:
        return False


def parcels() -> list[int]:
    """Inodes of the memory that holds the secret."""
    return [os.fstat(fd).st_ino for fd, link in links().items() if "memfd" in link and holds_secret(fd)]


def test_functions_travel_through_memory_without_a_name(started: Started) -> None:
    folders = [Path(tempfile.gettempdir()), Path("/dev/shm")]
    before = [set(folder.iterdir()) if folder.is_dir() else set() for folder in folders]
    held = links()
    secret = MARK + str(os.getpid())
    dataset = fs.from_arrays(np.arange(64.0)).map(lambda x: x + len(secret) * 0)
    with dataset.batch(4).loader(memory="200 MB", workers=1, processes=1, observers=[started]) as loader:
        next(iter(loader))
        assert len(parcels()) == 1
        new = {fd: link for fd, link in links().items() if held.get(fd) != link}
        kinds = {link.split(":")[0].removesuffix("fitstream").strip("/") for link in new.values()}
        assert kinds <= {"memfd", "socket", "anon_inode"}, new
        assert [fd for fd in new if os.get_inheritable(fd)] == []
        after = [set(folder.iterdir()) if folder.is_dir() else set() for folder in folders]
        ours = [path for folder, old in zip(after, before, strict=True) for path in folder - old if is_ours(path)]
        assert ours == []
    assert parcels() == []


def is_ours(path: Path) -> bool:
    """Whether a new file may be fitstream's: others use these folders too."""
    if "fitstream" in path.name or "memfd" in path.name:
        return True
    try:
        return path.is_file() and MARK.encode() in path.read_bytes()[: 1 << 20]
    except OSError:
        return False


def test_the_command_line_and_the_environment_hold_nothing_of_it(loader: fs.Loader, started: Started) -> None:
    for pid in started.pids:
        for name in ("cmdline", "environ"):
            assert MARK.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_a_worker_has_one_socket_and_no_descriptor_of_anothers(loader: fs.Loader, started: Started) -> None:
    sockets = [[link for link in links(pid).values() if link.startswith("socket:")] for pid in started.pids]
    assert [len(each) for each in sockets] == [1, 1]
    assert sockets[0] != sockets[1]
    mine = set(links().values())
    assert [each for own in sockets for each in own if each in mine] == []


def test_a_program_that_the_user_starts_inherits_none_of_it(loader: fs.Loader) -> None:
    folder = "/proc/self/fd/"
    listed = f"[os.readlink({folder!r} + fd) for fd in os.listdir({folder!r}) if os.path.islink({folder!r} + fd)]"
    program = f"import os; print(*{listed})"
    ours = {link for link in links().values() if "memfd:fitstream" in link}
    assert ours
    done = subprocess.run([sys.executable, "-c", program], close_fds=False, capture_output=True, text=True, check=True)
    assert "memfd:fitstream" not in done.stdout


def test_a_forked_child_keeps_neither_the_functions_nor_the_sockets(loader: fs.Loader) -> None:
    inodes = parcels()
    assert len(inodes) == 1
    sockets = {link for link in links().values() if link.startswith("socket:")}
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: fork beside threads
        child = os.fork()
    if child == 0:
        kept = {fd: link for fd, link in links().items() if fd not in (reading, writing)}
        secret = [fd for fd in kept if os.fstat(fd).st_ino in inodes]
        os.write(writing, f"{secret} {sorted(sockets & set(kept.values()))}".encode())
        os._exit(0)
    os.close(writing)
    told = os.read(reading, 4096).decode()
    os.close(reading)
    os.waitpid(child, 0)
    assert told == "[] []"


def takes_all(x: Any) -> Any:
    if x >= 40:
        kept = []
        while True:  # never touched, so that it costs addresses alone
            kept.append(np.empty(1 << 30, np.uint8))
    return x


def test_a_function_that_allocates_without_end_is_a_sample_error(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "room_bytes", lambda: 3 << 30)
    dataset = fs.from_arrays(np.arange(64.0)).map(takes_all).batch(8)
    with dataset.loader(memory="128 MB", workers=1, processes=1, observers=[started]) as loader:
        batches = iter(loader)
        assert [next(batches)[0] for _ in range(5)] == [0, 8, 16, 24, 32]
        with pytest.raises(fs.SampleError, match=r"MemoryError.* A worker process may take 3\.\d+ GB") as caught:
            next(batches)
    assert (caught.value.index, caught.value.stage, started.lost) == (40, "map(takes_all)", [])
    assert "in takes_all" in str(caught.value.user_line)
    assert "MemoryError" in "".join(traceback.format_exception(caught.value))


def test_a_worker_may_take_what_is_free_and_always_a_gibibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "available_memory_bytes", lambda: 10 << 30)
    assert ceiling.room_bytes() == 10 << 30
    monkeypatch.setattr(ceiling, "available_memory_bytes", lambda: 0)
    assert ceiling.room_bytes() == 1 << 30


def limit_of(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "Max data size" in line)
    return int(line.split()[3])


def test_what_is_shared_does_not_count(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "room_bytes", lambda: 1 << 30)
    table = np.ones(200_000_000, np.uint8)
    dataset = fs.from_arrays(np.arange(64.0)).map(lambda x: x + table[0])
    with dataset.batch(8).loader(memory="600 MB", workers=1, processes=1, observers=[started]) as loader:
        assert sum(len(batch) for batch in loader) == 64
        assert limit_of(started.pids[0]) > (1 << 30) + table.nbytes
