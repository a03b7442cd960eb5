"""The look at what tests leave: each kind of thing is found, and named, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fitstream as fs
import leaks
from fitstream.memory import HAS_SHARED_MEMORY, Block

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")


@pytest.fixture
def before() -> leaks.Snapshot:
    return leaks.take()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    program = "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # only then the system tells its command
        yield process
        process.kill()


def test_nothing_is_found_where_nothing_is_left(before: leaks.Snapshot) -> None:
    with fs.from_arrays(np.arange(64)).batch(8).loader(memory="16 MB", workers=2, processes=0) as loader:
        assert len([batch.sum() for batch in loader]) == 8
    assert leaks.left_for_good(before) == []


def test_a_loader_that_is_not_closed_is_found(before: leaks.Snapshot) -> None:
    loader = fs.from_arrays(np.arange(64)).batch(8).loader(memory="16 MB", workers=2, processes=0)
    next(iter(loader))
    assert [line.split("-")[0] for line in leaks.left(before, leaks.take())] == ["thread fitstream"] * 2
    loader.close()
    assert leaks.left_for_good(before) == []


def test_a_thread_of_a_test_is_found(before: leaks.Snapshot) -> None:
    end = threading.Event()

    def wait() -> None:
        end.wait()

    thread = threading.Thread(target=wait, name="waits")
    thread.start()
    assert leaks.left(before, leaks.take()) == ["thread waits"]
    end.set()
    thread.join()


@LINUX
def test_a_process_is_found_by_its_command(before: leaks.Snapshot, child: subprocess.Popen[bytes]) -> None:
    found = [line for line in leaks.left(before, leaks.take()) if line.startswith("process")]
    assert len(found) == 1
    assert found[0].startswith(f"process {child.pid}: ")
    assert found[0].endswith("input()")


@LINUX
def test_a_process_that_nobody_waited_for_is_found(before: leaks.Snapshot, child: subprocess.Popen[bytes]) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert f"process {child.pid}: has ended, and nobody waited for it" in leaks.left(before, leaks.take())


@LINUX
def test_a_descriptor_is_found_by_what_it_leads_to(before: leaks.Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.touch()
    with path.open("rb"):
        assert leaks.left(before, leaks.take()) == [f"1 x descriptor of {path}"]


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="no memfd here")
def test_shared_memory_that_is_mapped_is_found_without_its_descriptor(before: leaks.Snapshot) -> None:
    block = Block.make(1 << 20, "this test")
    block.close()
    assert any("1,048,576 bytes of shared memory, mapped" in line for line in leaks.left(before, leaks.take()))


def test_a_temporary_file_is_found(before: leaks.Snapshot) -> None:
    with tempfile.NamedTemporaryFile() as file:
        assert f"temporary file {file.name}" in leaks.left(before, leaks.take())


def test_garbage_is_collected_before_anything_counts_as_left(before: leaks.Snapshot) -> None:
    loader = fs.from_arrays(np.arange(64)).batch(8).loader(memory="16 MB", workers=2, processes=0)
    next(iter(loader))
    cycle: list[object] = [loader]
    cycle.append(cycle)
    del loader, cycle
    assert leaks.left_for_good(before) == []
