"""Shared memory that is owned by descriptors and by no name."""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loops import run

from fitstream import memory
from fitstream.errors import PlanError
from fitstream.memory import HAS_SHARED_MEMORY, Block, block_of, shared_copy

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")


def descriptor_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped_count() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:fitstream")


def test_a_block_is_zeroed_reserved_in_full_and_sealed() -> None:
    block = Block.make(100_000, "A test")
    assert block.bytes.shape == (100_000,)
    assert not block.bytes.any()
    assert os.fstat(block.fd).st_blocks * 512 >= 100_000
    seals = fcntl.fcntl(block.fd, fcntl.F_GET_SEALS)
    assert seals & fcntl.F_SEAL_SHRINK
    assert seals & fcntl.F_SEAL_GROW
    with pytest.raises(PermissionError):
        os.ftruncate(block.fd, 10)


def test_a_block_has_no_name_and_is_not_inherited() -> None:
    names = set(os.listdir("/dev/shm"))
    block = Block.make(4096, "A test")
    assert [name for name in set(os.listdir("/dev/shm")) - names if "fitstream" in name] == []
    assert not os.get_inheritable(block.fd)


def test_what_one_mapping_writes_another_reads() -> None:
    block = Block.make(4096, "A test")
    other = Block(os.dup(block.fd))
    block.bytes[7] = 42
    assert other.bytes[7] == 42
    other.bytes[8] = 43
    assert block.bytes[8] == 43


def test_what_a_private_mapping_writes_is_its_own() -> None:
    block = Block.make(4096, "A test")
    block.bytes[:] = 1
    other = Block(os.dup(block.fd), private=True)
    other.bytes[7] = 42
    assert block.bytes[7] == 1
    assert other.bytes[8] == 1


def test_close_closes_the_descriptor_and_keeps_the_memory() -> None:
    block = Block.make(4096, "A test")
    fd = block.fd
    block.bytes[0] = 9
    block.close()
    block.close()
    assert block.fd == -1
    assert block.bytes[0] == 9
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_block_that_is_dropped_leaves_no_descriptor_and_no_mapping() -> None:
    gc.collect()
    descriptors, maps = descriptor_count(), mapped_count()
    for _ in range(20):
        block = Block.make(100_000, "A test")
        view = block.bytes[10:20]
        del block
        view[0] = 1
        del view
    assert (descriptor_count(), mapped_count()) == (descriptors, maps)


def test_more_than_is_free_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 50_000)
    descriptors = descriptor_count()
    with pytest.raises(PlanError, match=r"A test needs 100 kB of shared memory, but only 50 kB"):
        Block.make(100_000, "A test")
    assert descriptor_count() == descriptors


def test_memory_that_the_system_refuses_is_a_plan_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: int) -> None:
        raise OSError(28, "No space left on device")

    descriptors = descriptor_count()
    monkeypatch.setattr(os, "posix_fallocate", refuses)
    with pytest.raises(PlanError, match="A test"):
        Block.make(100_000, "A test")
    assert descriptor_count() == descriptors


def test_a_limit_on_the_size_of_files_is_told_as_that() -> None:
    out = run(
        """
        import resource
        from fitstream.memory import Block
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            Block.make(2 << 20, "A test")
        except fs.PlanError as error:
            print("A test" in str(error), "ulimit -f" in str(error))
        """
    )
    assert out == "True True\n"


def test_a_shared_copy_is_equal_read_only_and_known() -> None:
    array = np.random.default_rng(0).random((1000, 20))
    shared = shared_copy(array)
    assert np.array_equal(shared, array)
    assert shared.dtype == array.dtype
    assert not shared.flags.writeable
    found = block_of(shared)
    assert found is not None
    block, first = found
    assert block.bytes[first : first + array.nbytes].tobytes() == array.tobytes()


@pytest.mark.parametrize("cut", [np.s_[10:], np.s_[::-1], np.s_[5:900:7, 3], np.s_[:, 4:8]])
def test_views_of_a_shared_copy_are_found_with_their_first_byte(cut: object) -> None:
    shared = shared_copy(np.arange(20_000.0).reshape(1000, 20))
    view = shared[cut]
    found = block_of(view)
    assert found is not None
    block, first = found
    assert block.bytes[first : first + 8].view(np.float64)[0] == view.flat[0]


def test_copies_and_other_arrays_are_not_taken_for_shared_ones() -> None:
    shared = shared_copy(np.arange(20_000.0))
    assert block_of(shared.copy()) is None
    assert block_of(shared + 1) is None
    assert block_of(np.zeros(5)) is None


def test_small_arrays_and_systems_without_memfd_keep_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = np.arange(10), np.arange(100_000)
    assert shared_copy(small) is small
    monkeypatch.setattr(memory, "HAS_SHARED_MEMORY", False)
    assert shared_copy(large) is large


def test_a_shared_copy_ends_with_its_last_view_and_is_forgotten() -> None:
    gc.collect()
    before = len(memory._SHARED), descriptor_count(), mapped_count()
    shared = shared_copy(np.arange(100_000))
    view = shared[5:10]
    del shared
    assert block_of(view) is not None
    assert view.tolist() == [5, 6, 7, 8, 9]
    del view
    assert (len(memory._SHARED), descriptor_count(), mapped_count()) == before


def test_memory_lives_on_in_another_process_that_maps_it() -> None:
    block = Block.make(4096, "A test")
    block.bytes[0] = 5
    code = "import sys; from fitstream.memory import Block; b = Block(int(sys.argv[1])); input(); print(b.bytes[0])"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(block.fd)],
        pass_fds=[block.fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    del block
    out, _ = child.communicate("\n", timeout=300)
    assert out == "5\n"
