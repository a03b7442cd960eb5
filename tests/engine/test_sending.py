"""Functions and arrays on their way to worker processes: real ones, started as fitstream starts them."""

from __future__ import annotations

import collections
import functools
import gc
import io
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitstream import memory
from fitstream.engine import sending
from fitstream.engine.sending import Parcel, Unsendable, pack, unpack
from fitstream.errors import SourceError
from fitstream.sources.arrays import SequenceSource

pytestmark = pytest.mark.skipif(not memory.HAS_SHARED_MEMORY, reason="needs memfd")

BIG = 1 << 20
#: More than a parcel ever takes beside its arrays here.
LITTLE_BYTES = 1 << 14


def call_in_worker(parcel: Parcel, program: str) -> str:
    """Run `program` in a process of its own, with `tree` unpacked, and give what it prints."""
    head = "import os, sys; import numpy as np; from fitstream.engine.sending import unpack; tree = unpack(FDS)\n"
    code = head.replace("FDS", repr(parcel.fds)) + textwrap.dedent(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=parcel.fds,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def through(part: Any) -> Any:
    """A part as a worker would get it, in this process."""
    parcel = pack({"part": part})
    try:
        return unpack([os.dup(fd) for fd in parcel.fds])["part"]
    finally:
        parcel.close()


def descriptor_count() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def sizes_of(part: Any) -> tuple[int, int]:
    """Bytes of shared memory that a parcel takes, and bytes of them that went through pickle."""
    parcel = pack({"part": part})
    parcel.close()
    in_band = io.BytesIO()
    sending._picklers().plain(in_band, sending._Arrays()).dump({"part": part})
    return parcel.count_bytes, in_band.tell()


class Scale:
    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __call__(self, x: Any) -> Any:
        return x * self.factor

    def method(self, x: Any) -> Any:
        return x + self.factor


# Functions in real processes

SCRIPT = """
import functools, json, subprocess, sys
import numpy as np
from fitstream.engine.sending import pack

OFFSET = 1000
TABLE = np.arange(100_000)

class Augment:
    def __init__(self, factor): self.factor = factor
    def __call__(self, x): return helper(x) * self.factor
    def method(self, x): return x + self.factor

class Child(Augment):
    def __call__(self, x): return super().__call__(x) + 0.5

def helper(x): return x + OFFSET
def recursive(x): return x if x > 10 else recursive(x + x)
def indexed(x): return int(TABLE[x]) + json.loads("1")
def closing(y): return lambda x: x - y
def added(x, y=7, *, z=1): return x + y + z

functions = {
    "lambda": lambda x: x * 2, "closure": closing(3), "function": helper, "recursive": recursive, "global": indexed,
    "instance": Augment(3), "child": Child(2), "method": Augment(4).method, "partial": functools.partial(added, z=100),
    "module": json.dumps, "numpy": np.square,
}
parcel = pack(functions)
worker = (
    "import sys; from fitstream.engine.sending import unpack; tree = unpack([int(fd) for fd in sys.argv[1:]]);"
    "print([f'{name}={function(5)}' for name, function in tree.items()])"
)
command = [sys.executable, "-c", worker, *map(str, parcel.fds)]
for _ in range(2):
    print(subprocess.run(command, pass_fds=parcel.fds, check=True, capture_output=True, text=True).stdout.strip())
parcel.close()
"""


@pytest.mark.parametrize("how", ["script", "-c", "stdin"])
def test_what_main_defines_works_in_two_workers(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SCRIPT)
    arguments = {"script": [str(tmp_path / "program.py")], "-c": ["-c", SCRIPT], "stdin": ["-"]}[how]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=SCRIPT if how == "stdin" else "",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [
        "lambda=10", "closure=2", "function=1005", "recursive=20", "global=6", "instance=3015", "child=2010.5",
        "method=9", "partial=112", "module=5", "numpy=25",
    ]  # fmt: skip
    assert done.stdout.splitlines() == [str(expected)] * 2


def test_a_function_of_a_module_goes_by_its_name() -> None:
    assert through(textwrap.dedent) is textwrap.dedent


# Arrays

ARRANGEMENTS: dict[str, Callable[[], np.ndarray]] = {
    "plain": lambda: np.arange(30_000, dtype=np.float32).reshape(100, 300),
    "fortran": lambda: np.asfortranarray(np.arange(30_000.0).reshape(100, 300)),
    "permuted": lambda: np.arange(24_000).reshape(20, 30, 40).transpose(1, 2, 0),
    "reversed": lambda: np.arange(30_000)[::-1],
    "columns": lambda: np.arange(30_000).reshape(100, 300)[:, 3:200:2],
    "broadcast": lambda: np.broadcast_to(np.arange(1000), (1000, 1000)),
    "big-endian": lambda: np.arange(30_000, dtype=">i4"),
    "dates": lambda: np.arange(30_000).astype("M8[D]"),
    "text": lambda: np.full(9_000, "label"),
    "fields": lambda: np.zeros(9_000, [("x", "f4"), ("y", ">i8", (2,))]),
    "readonly": lambda: np.frombuffer(bytes(30_000), np.uint8),
    "record": lambda: np.rec.fromarrays([np.arange(9000), np.ones(9000)], names="a,b"),
    "small": lambda: np.arange(10)[::-1],
    "small readonly": lambda: np.broadcast_to(np.arange(10), (3, 10)),
    "empty": lambda: np.zeros((0, 5), np.int8),
    "zero-dimensional": lambda: np.array(5),
    "objects": lambda: np.array(["a", None, 3], object),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_arrays_of_every_arrangement_arrive_equal(name: str) -> None:
    array = ARRANGEMENTS[name]()
    got = through(array)
    assert type(got) is type(array)
    assert got.dtype == array.dtype
    assert got.flags.writeable == array.flags.writeable or name == "small readonly"
    np.testing.assert_array_equal(got, array)


def test_a_broadcast_array_takes_no_more_than_what_it_repeats() -> None:
    total, _ = sizes_of(np.broadcast_to(np.arange(1000), (10_000, 1000)))
    assert total < 1000 * 8 + LITTLE_BYTES


def test_big_arrays_never_lie_in_the_pickle_bytes() -> None:
    def closure(x: int) -> Any:
        return arrays[0][x]

    arrays = [np.zeros(BIG, np.uint8) + i for i in range(3)]
    columns = np.zeros((1024, 2048), np.uint8)[:, ::2]
    for part, count in [
        (closure, 3), (Scale(factor=arrays[0]), 1), (arrays, 3), ({"a": (columns,)}, 1), (Scale(a=arrays[1]).method, 1),
    ]:  # fmt: skip
        total, in_band_bytes = sizes_of(part)
        assert in_band_bytes < LITTLE_BYTES
        assert total >= count * BIG


def test_one_array_in_two_places_stays_one() -> None:
    array = np.zeros(BIG, np.uint8)
    assert sizes_of([array, {"again": array}, array.view(np.int32)])[0] < BIG + LITTLE_BYTES
    first, again, other = through([array, array, array.view(np.int32)])
    assert first is again
    assert np.shares_memory(first, other)


def test_arrays_of_a_parcel_are_aligned() -> None:
    got = through([np.zeros(5001, np.uint8), np.ones(5003, np.uint8), np.ones(4097, np.int8)])
    assert [array.ctypes.data % 64 for array in got] == [0, 0, 0]


def test_what_a_worker_writes_is_its_own() -> None:
    array = np.zeros(BIG, np.uint8)
    parcel = pack({"array": array})
    written = "tree['array'][:] += 1; print(tree['array'].sum())"
    assert [call_in_worker(parcel, written) for _ in range(2)] == [str(BIG)] * 2
    assert array.sum() == 0
    parcel.close()


def test_workers_share_the_memory_of_arrays() -> None:
    """A page becomes a process's own (anonymous) when it is written to, and not before."""
    parcel = pack({"array": np.ones(16 * BIG, np.uint8)})
    program = """
        import re, subprocess
        tree["array"].sum()
        def held():
            text = open("/proc/self/smaps_rollup").read()
            return sum(int(size) << 10 for size in re.findall(r"^Anonymous: +(\\d+)", text, re.M))
        before = held()
        tree["array"][::4096] += 1
        print(held() - before)
    """
    grown_bytes = int(call_in_worker(parcel, program))
    assert grown_bytes > 12 * BIG
    parcel.close()


def test_an_array_in_a_block_already_goes_as_its_descriptor() -> None:
    shared = memory.shared_copy(np.arange(BIG, dtype=np.int32).reshape(-1, 4))
    parts = {"all": shared, "rows": shared[10:20_000], "reversed": shared[::-1], "column": shared[:, 2]}
    parcel = pack(parts)
    assert parcel.count_bytes < LITTLE_BYTES
    assert len(parcel.fds) == 2
    got = unpack([os.dup(fd) for fd in parcel.fds])
    parcel.close()
    for name, expected in parts.items():
        np.testing.assert_array_equal(got[name], expected)
        assert not got[name].flags.writeable


def test_a_block_stays_open_as_long_as_its_parcel() -> None:
    shared = memory.shared_copy(np.arange(BIG))
    parcel = pack({"index": shared})
    del shared
    gc.collect()
    assert unpack([os.dup(fd) for fd in parcel.fds])["index"][-1] == BIG - 1
    parcel.close()


# Files


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows with a space"
    (np.arange(100_000, dtype=np.int32)).tofile(path)
    return path


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_rows_of_a_file_go_as_its_path(rows_file: Path, mode: Any) -> None:
    mapped = np.memmap(rows_file, np.int32, mode, offset=8, shape=(9000, 11))
    parts = {"all": mapped, "slice": mapped[100:], "odd": mapped[5::3, ::-2], "plain": np.asarray(mapped)[3:],
             "windows": np.lib.stride_tricks.sliding_window_view(mapped[:, 0], 50), "one": mapped[7, 3:4]}  # fmt: skip
    parcel = pack(parts)
    assert parcel.count_bytes < LITTLE_BYTES
    got = unpack(parcel.fds[:])
    parcel.fds.clear()
    for name, expected in parts.items():
        np.testing.assert_array_equal(got[name], expected)
        assert type(got[name]) is type(expected)
        with pytest.raises(ValueError, match="read-only"):
            got[name][...] = 0
    assert got["slice"].filename == str(rows_file)


def test_what_is_written_to_a_mapped_file_is_seen_by_workers(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "new", np.float64, "w+", shape=(1000, 10))
    parcel = pack({"rows": mapped[200:]})
    mapped[300] = 7
    assert call_in_worker(parcel, "print(tree['rows'][100].sum())") == "70.0"
    parcel.close()


def test_many_rows_of_one_file_are_mapped_once(rows_file: Path) -> None:
    rows = list(np.memmap(rows_file, np.int32, "r", shape=(2000, 50)))
    before = descriptor_count()
    got = through(rows)
    assert descriptor_count() <= before + 1
    np.testing.assert_array_equal(got, rows)


def test_a_private_mapping_is_copied_with_what_was_written_to_it(rows_file: Path) -> None:
    mapped = np.memmap(rows_file, np.int32, "c")
    mapped[5] = -1
    got = through(mapped[5:])
    assert got[0] == -1
    assert got[-1] == 99_999


def test_rows_of_a_file_that_was_replaced_are_copied(rows_file: Path) -> None:
    mapped = np.memmap(rows_file, np.int32, "r")
    rows_file.rename(rows_file.with_name("older"))
    rows_file.with_name("older").unlink()
    np.zeros(100_000, np.int32).tofile(rows_file)
    total, _ = sizes_of(mapped)
    assert total > mapped.nbytes
    np.testing.assert_array_equal(through(mapped), np.arange(100_000))


def test_another_file_is_not_taken_for_the_mapped_one(rows_file: Path) -> None:
    mapped = np.memmap(rows_file, np.int32, "r")
    rows_file.unlink()
    np.zeros(100_000, np.int32).tofile(f"{rows_file} (deleted)")  # as Linux names the one that is mapped
    np.testing.assert_array_equal(through(mapped), np.arange(100_000))


def test_a_file_that_moved_is_found_at_its_new_path(rows_file: Path) -> None:
    mapped = np.memmap(rows_file, np.int32, "r")
    rows_file.rename(rows_file.with_name("moved\nand renamed"))
    total, _ = sizes_of(mapped)
    assert total < LITTLE_BYTES
    np.testing.assert_array_equal(through(mapped), np.arange(100_000))


def test_a_worker_refuses_a_file_that_was_replaced_on_the_way(rows_file: Path) -> None:
    mapped = np.memmap(rows_file, np.int32, "r")
    parcel = pack({"rows": mapped})
    other = rows_file.with_name("other")
    np.zeros(100_000, np.int32).tofile(other)
    other.rename(rows_file)
    with pytest.raises(SourceError, match="replaced by another file"):
        unpack([os.dup(fd) for fd in parcel.fds])
    parcel.close()


# Descriptors


def test_a_parcel_leaves_no_descriptor_in_either_process() -> None:
    shared = memory.shared_copy(np.arange(BIG))
    before = descriptor_count()
    for _ in range(2):
        parcel = pack({"a": shared, "b": np.zeros(BIG)})
        got = unpack([os.dup(fd) for fd in parcel.fds])
        parcel.close()
        parcel.close()
        assert parcel.fds == []
        del got
    assert descriptor_count() == before


def test_unpacking_closes_what_it_was_given() -> None:
    parcel = pack({"a": memory.shared_copy(np.arange(BIG)), "b": np.zeros(BIG)})
    given = [os.dup(fd) for fd in parcel.fds]
    unpack(given)
    for fd in given:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    parcel.close()


def test_a_parcel_that_is_forgotten_closes_itself() -> None:
    before = descriptor_count()
    pack({"a": np.zeros(BIG)})
    assert descriptor_count() == before


def test_a_failure_leaves_no_descriptor() -> None:
    shared = memory.shared_copy(np.arange(BIG))
    before = descriptor_count()
    with pytest.raises(Unsendable):
        pack({"a": [shared, np.zeros(BIG), threading.Lock()]})
    assert descriptor_count() == before


# What can't be sent

LOCK = threading.Lock()


class Slots:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Chosen:
    """What pickle stores is not what the object holds."""

    def __init__(self) -> None:
        self.left_out = threading.Lock()
        self.kept = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": self.kept}


class Raising:
    def __getstate__(self) -> Any:
        raise RuntimeError("the archive is open")


class Archive:
    def __init__(self) -> None:
        self.handle = threading.Lock()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index


def closing() -> Callable[[Any], Any]:
    lock = threading.Lock()
    return lambda x: (x, lock)


def by_value(program: str, name: str) -> Any:
    """Something that no module defines, as in a script."""
    names: dict[str, Any] = {"threading": threading, "__name__": "__main__"}
    exec(textwrap.dedent(program), names)
    return names[name]


def using_global() -> Any:
    return by_value("LOCK = threading.Lock()\ndef flip(x):\n    return x, LOCK", "flip")


def class_of_main() -> Any:
    return by_value("class Augment:\n    lock = threading.Lock()\n    def __call__(self, x): return x", "Augment")()


def ringed() -> Scale:
    top = Scale()
    top.children = [Scale(parent=top), {"top": top}]
    top.lock = threading.Lock()
    return top


def nested(depth: int) -> list[Any]:
    part: list[Any] = []
    for _ in range(depth):
        part = [part]
    return part


UNSENDABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "attribute": (lambda: Scale(lock=LOCK), "attribute 'self.lock' of Scale is a _thread.lock, which"),
    "slot": (Slots, "attribute 'self.lock' of Slots is a _thread.lock, which"),
    "getstate": (Chosen, "attribute 'self.kept' of Chosen is a _thread.lock, which"),
    "raising": (
        Raising,
        "it is a test_sending.Raising, which can't be sent to a worker process (RuntimeError: the",
    ),
    "method": (lambda: Scale(lock=LOCK).method, "attribute 'self.lock' of Scale is"),
    "closure": (closing, "closure variable 'lock' of <lambda> is a _thread.lock"),
    "default": (
        lambda: by_value("def flip(x, lock=threading.Lock()): pass", "flip"),
        "default argument 'lock' of flip is",
    ),
    "keyword": (lambda: by_value("def flip(*, k=threading.Lock()): pass", "flip"), "default argument 'k' of flip is"),
    "global": (using_global, "global 'LOCK' of flip is a _thread.lock"),
    "class": (class_of_main, "class attribute 'lock' of Augment is a _thread.lock"),
    "partial": (lambda: functools.partial(print, 1, LOCK), "argument '1' of partial(print) is a _thread.lock"),
    "partial keyword": (lambda: functools.partial(print, end=LOCK), "argument 'end' of partial(print) is"),
    "list": (lambda: [*range(1000), LOCK, *range(1000)], "part '[1000]' is a _thread.lock"),
    "dict": (lambda: {"a": (1, {"b": LOCK})}, "part '['a'][1]['b']' is a _thread.lock"),
    "deque": (lambda: collections.deque([1, LOCK]), "part '[1]' is a _thread.lock"),
    "objects": (lambda: np.array([1, LOCK], object), "part '.flat[1]' is a _thread.lock"),
    "nested": (
        lambda: Scale(steps=[1, {"flip": Scale(fn=closing())}]),
        "closure variable 'lock' of <lambda> (attribute 'self.steps[1]['flip'].fn' of Scale) is a _thread.lock",
    ),
    "cycle": (ringed, "attribute 'self.lock' of Scale is a _thread.lock"),
    "source": (lambda: SequenceSource(Archive()), "attribute 'self.handle' of Archive is a _thread.lock"),
    "generator": (lambda: (i for i in ()), "it is a generator, which"),
    "deep": (lambda: nested(100_000), "it is nested too deeply"),
}


@pytest.mark.parametrize("name", UNSENDABLE)
def test_what_cannot_be_sent_is_named(name: str) -> None:
    make, told = UNSENDABLE[name]
    part = make()
    with pytest.raises(Unsendable) as caught:
        pack({"source": np.arange(10), "map(flip)": part})
    assert str(caught.value).startswith(f"map(flip): {told}")
    assert "processes=0" in str(caught.value)


def test_the_search_ends_soon_where_much_is_shared_and_ringed() -> None:
    """Each of 40 leads to all others, so there are more ways than could ever be tried."""
    all_of_them = [Scale(number=i) for i in range(40)]
    for each in all_of_them:
        each.others = all_of_them
    all_of_them[33].lock = LOCK
    trials = 0
    plain = sending._picklers().trial

    def counted(passed: dict[int, Any]) -> Any:
        nonlocal trials
        trials += 1
        return plain(passed)

    error = sending.explain({"map(f)": all_of_them[0]}, ValueError(), counted)
    assert ".lock' of Scale is a _thread.lock" in error
    assert trials < 500


def test_what_fails_is_not_mistaken_for_what_only_leads_back() -> None:
    before = Scale()
    before.me = Scale(back=before)
    before.lock = LOCK
    with pytest.raises(Unsendable, match=r"'self\.lock' of Scale"):
        pack({"map(f)": before})


def test_a_parcel_that_holds_the_same_is_kept() -> None:
    held = {"part": (np.arange(5_000), "text")}
    first = sending.pack(held)
    assert sending.pack(held, before=first) is first
    assert sending.pack({"part": (np.arange(5_000), "text")}, before=first) is first


@pytest.mark.parametrize("changed", [(np.arange(1, 5_001), "text"), (np.arange(5_000), "other"), (np.arange(5_000),)])
def test_a_parcel_that_holds_other_things_is_made_anew(changed: tuple[object, ...]) -> None:
    first = sending.pack({"part": (np.arange(5_000), "text")})
    second = sending.pack({"part": changed}, before=first)
    assert second is not first
    second.close()


def test_not_a_number_counts_as_the_same() -> None:
    held = {"part": np.full(5_000, np.nan)}
    first = sending.pack(held)
    assert sending.pack(held, before=first) is first


def test_an_array_that_changed_in_place_is_sent_again() -> None:
    array = np.zeros((300, 100))
    first = sending.pack({"part": array[:, ::2]})
    array[299, 98] = 1
    second = sending.pack({"part": array[:, ::2]}, before=first)
    assert second is not first
    second.close()
