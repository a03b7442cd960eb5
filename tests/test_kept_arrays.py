"""Arrays in the user's cache folder."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitstream.kept_arrays import Column, cache_folder, keep, kept

ORIGIN = {"files": [{"path": "x", "bytes": 3, "time_ns": 4}], "options": ["a"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FITSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def columns() -> Iterator[Column]:
    yield Column("a", np.uint64, (np.arange(start, start + 3) for start in (0, 3)))
    yield Column("b", "<f4", [np.ones((2, 2))], is_checked=False)
    yield Column("none", np.uint8, [])


def test_what_is_kept_is_found(cache: Path) -> None:
    keep("test", ORIGIN, columns())
    found = kept("test", ORIGIN)
    assert found is not None
    assert {name: each.tolist() for name, each in found.items()} == {"a": [0, 1, 2, 3, 4, 5], "b": [1] * 4, "none": []}
    assert all(each.ctypes.data % 64 == 0 for each in found.values() if each.size)
    assert len(os.listdir(cache)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"files": [{"path": "y", "bytes": 3, "time_ns": 4}], "options": ["a"]},
        {"files": [{"path": "x", "bytes": 4, "time_ns": 4}], "options": ["a"]},
        {"files": [{"path": "x", "bytes": 3, "time_ns": 5}], "options": ["a"]},
        {"files": [{"path": "x", "bytes": 3, "time_ns": 4}], "options": ["b"]},
    ],
)
def test_for_another_file_size_time_or_option_it_is_not(other: dict[str, Any]) -> None:
    keep("test", ORIGIN, columns())
    assert kept("test", other) is None


def test_every_damaged_byte_is_found_or_does_no_harm(cache: Path) -> None:
    keep("test", ORIGIN, columns())
    (file,) = cache.iterdir()
    data = file.read_bytes()
    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        found = kept("test", ORIGIN)
        if found is not None:
            assert found["a"].tolist() == [0, 1, 2, 3, 4, 5]
    for length in range(0, len(data), 7):
        file.write_bytes(data[:length])
        assert kept("test", ORIGIN) is None


@pytest.mark.parametrize(
    "array",
    [
        ["|O", 1, 64, 8, None],
        ["<u8", 1, 64, 1 << 40, None],
        ["<u8", 1, -64, 8, None],
        ["<u8", 1, 0, 8, None],
        ["<u8", 1, 64, -8, None],
        ["<u8", "1", 64, 8, None],
        ["nonsense", 1, 64, 8, None],
        [1, 2],
        None,
    ],
)
def test_a_table_that_was_made_up_is_as_good_as_none(cache: Path, array: Any) -> None:
    keep("test", ORIGIN, columns())
    (file,) = cache.iterdir()
    told = json.dumps({"origin": ORIGIN, "arrays": {"a": array}}).encode()
    file.write_bytes(file.read_bytes()[:128] + told + struct.pack("<QQ", len(told), zlib.crc32(told)))
    assert kept("test", ORIGIN) is None


def test_what_fails_on_the_way_leaves_the_old_file_and_nothing_else(cache: Path) -> None:
    keep("test", ORIGIN, columns())

    def failing() -> Iterator[np.ndarray]:
        yield np.zeros(3)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        keep("test", ORIGIN, [Column("a", np.uint64, failing())])
    assert len(os.listdir(cache)) == 1
    assert kept("test", ORIGIN) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="files without a name are Linux's")
def test_threads_that_keep_the_same_at_once_do_not_get_in_each_others_way(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, both = os.link, threading.Barrier(2)
    errors: list[Exception] = []

    def meeting(*args: Any, **options: Any) -> None:
        both.wait(60)
        link(*args, **options)
        both.wait(60)

    def attempt() -> None:
        try:
            keep("test", ORIGIN, columns())
        except Exception as error:  # noqa: BLE001  compared below
            both.abort()
            errors.append(error)

    monkeypatch.setattr(os, "link", meeting)
    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert kept("test", ORIGIN) is not None
    assert len(os.listdir(cache)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="files without a name are Linux's")
def test_a_program_that_is_killed_leaves_nothing(cache: Path) -> None:
    program = f"""
import os, signal, numpy as np
from fitstream.kept_arrays import Column, keep
def pieces():
    yield np.zeros(100_000)
    os.kill(os.getpid(), signal.SIGKILL)
keep("test", {ORIGIN!r}, [Column("a", np.uint64, pieces())])
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert os.listdir(cache) == []


def test_the_folder_is_the_systems_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FITSTREAM_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == str(tmp_path / "fitstream")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == os.path.expanduser("~/.cache/fitstream")


def test_what_was_not_read_for_half_a_year_is_removed_when_something_is_kept(cache: Path) -> None:
    for name, option in (("old", "a"), ("read", "b")):
        keep(name, {**ORIGIN, "options": option}, columns())
    (old,) = cache.glob("old-*.kept")
    (read,) = cache.glob("read-*.kept")
    other = cache / "something else"
    other.write_text("not ours")
    for file in (old, read, other):
        os.utime(file, (0, 0))
    os.utime(read, (time.time(), 0))
    keep("new", ORIGIN, columns())
    assert {file.name.partition("-")[0] for file in cache.iterdir()} == {"read", "new", "something else"}
