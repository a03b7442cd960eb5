"""Functions in worker processes, as people write them; and what is refused when the loader is made."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loops import ROOM, run

import fitstream as fs
from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")

#: No guard; the file `sign` says how often the main module ran.
PROGRAM = """
import functools, os, sys
import numpy as np
import fitstream as fs

with open(sys.argv[1] + "/sign", "a") as file:
    file.write("ran\\n")

OFFSET = 5
TABLE = np.arange(500_000)

def helper(x):
    return int(TABLE[x]) + OFFSET

def mapped(x):
    return helper(x), np.int64(os.getpid())

class Augment:
    factor = 2
    def __call__(self, x): return helper(x) * self.factor, np.int64(os.getpid())
    def method(self, x): return self(x)[0] + 1, np.int64(os.getpid())

def partly(a, x): return helper(x) * a, np.int64(os.getpid())

functions = [mapped, lambda x: mapped(x), Augment(), Augment().method, functools.partial(partly, 3)]
for function in functions[:int(sys.argv[2])]:
    loader = fs.from_arrays(np.arange(20)).map(function).batch(5).loader("400 MB", workers=1, processes=1)
    values, pids = zip(*[(v.tolist(), p.tolist()) for v, p in loader])
    print(sum(values, []), os.getpid() in sum(pids, []))
    loader.close()
"""
EXPECTED = [f"{[make(x + 5) for x in range(20)]} False"
            for make in (int, int, lambda v: 2 * v, lambda v: 2 * v + 1, lambda v: 3 * v)]  # fmt: skip


@pytest.mark.parametrize("way", ["file", "-c", "stdin", "-m", "exec"])
def test_what_the_main_module_defines_works_without_a_guard_and_runs_it_once(way: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    notebook = "import sys; from pathlib import Path; exec(Path('program.py').read_text(), {'__name__': '__main__'})"
    command = {"file": ["program.py"], "-c": ["-c", PROGRAM], "stdin": ["-"], "-m": ["-m", "program"],
               "exec": ["-c", notebook]}[way]  # fmt: skip
    count = 5 if way == "file" else 2
    done = subprocess.run(
        [sys.executable, "-W", "error", *command, str(tmp_path), str(count)],
        input=PROGRAM if way == "stdin" else "", capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == EXPECTED[:count]
    assert (tmp_path / "sign").read_text() == "ran\n"


def test_a_module_beside_the_script_is_imported_by_the_workers(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def twice(x): return x * 2\n")
    (tmp_path / "main.py").write_text(
        "import numpy as np, fitstream as fs, beside\n"
        "dataset = fs.from_arrays(np.arange(9)).map(beside.twice).batch(3)\n"
        "with dataset.loader('300 MB', workers=2, processes=2) as loader:\n"
        "    print(np.concatenate(list(loader)).tolist())\n"
    )
    done = subprocess.run([sys.executable, str(tmp_path / "main.py")], capture_output=True, text=True, check=False)
    assert done.stdout == f"{list(range(0, 18, 2))}\n", done.stderr


def test_a_closure_over_a_big_array_shares_it() -> None:
    table = np.random.default_rng(0).random((1000, 1000))
    dataset = fs.from_arrays(np.arange(1000)).map(lambda i: table[i, :3]).batch(50)
    with dataset.loader(memory=ROOM, workers=2, processes=2) as loader:
        assert np.array_equal(np.concatenate([batch.copy() for batch in loader]), table[:, :3])
        assert loader.plan.process_bytes > table.nbytes


class Locked:
    """A callable that can't be sent: `self.guard.lock` is at fault."""

    def __init__(self) -> None:
        self.guard = {"lock": threading.Lock()}

    def __call__(self, x: Any) -> Any:
        with self.guard["lock"]:
            return x


class Letters:
    def __init__(self) -> None:
        self.file = threading.Lock()

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return np.int64(index)


def unsendable() -> dict[str, tuple[fs.Dataset, list[str]]]:
    lock, rows = threading.Lock(), fs.from_arrays(np.arange(20))
    return {
        "closure": (rows.map(lambda x: (lock, x)[1]), ["lock", "closure variable"]),
        "attribute": (rows.map(Locked()), ["self.guard", "lock"]),
        "partial": (rows.map(functools.partial(lambda a, x: x, lock)), ["argument", "partial"]),
        "source": (fs.from_sequence(Letters()), ["self.file", "Letters", "source"]),
    }


@pytest.mark.parametrize("what", ["closure", "attribute", "partial", "source"])
def test_what_cannot_be_sent_is_refused_by_loader_with_its_name(what: str) -> None:
    dataset, names = unsendable()[what]
    with pytest.raises(fs.PlanError) as caught:
        dataset.batch(5).loader(memory=ROOM, workers=2, processes=2)
    assert [name for name in names if name not in str(caught.value)] == []
    assert "processes=0" in str(caught.value)


@pytest.mark.parametrize("what", ["closure", "source"])
def test_what_cannot_be_sent_runs_in_threads_if_processes_is_none(what: str) -> None:
    dataset, _ = unsendable()[what]
    with dataset.batch(5).loader(memory=ROOM, workers=2) as loader:
        assert np.concatenate([batch.copy() for batch in loader]).tolist() == list(range(20))


def test_a_module_that_workers_cannot_import_is_refused_by_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    made = types.ModuleType("made_up_here")
    exec("def same(x): return x", made.__dict__)
    monkeypatch.setitem(sys.modules, "made_up_here", made)
    dataset = fs.from_arrays(np.arange(20)).map(made.same).batch(5)
    with pytest.raises(fs.PlanError, match="made_up_here"):
        dataset.loader(memory=ROOM, workers=2, processes=2)
    with dataset.loader(memory=ROOM, workers=2) as loader:
        assert np.concatenate([batch.copy() for batch in loader]).tolist() == list(range(20))


def test_a_module_that_fails_in_workers_is_refused_by_loader_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(
        "import os\nif os.environ['MAIN'] != str(os.getpid()): raise RuntimeError('only in main')\n"
        "def same(x): return x\n"
    )
    out = run(
        """
        os.environ["MAIN"] = str(os.getpid())
        sys.path.insert(0, sys.argv[1])
        import picky
        try:
            fs.from_arrays(np.arange(20)).map(picky.same).batch(5).loader("300 MB", workers=2, processes=2)
        except fs.PlanError as error:
            print("only in main" in str(error), "picky.py" in str(error), children(), threading.active_count())
        """,
        str(tmp_path),
    )
    assert out == "True True [] 1\n"


def test_a_generator_of_objects_is_refused_for_processes_and_runs_in_threads() -> None:
    dataset = fs.from_generator(lambda: iter([{1, 2}] * 20)).map(len).batch(5)
    with pytest.raises(fs.PlanError, match="set"):
        dataset.loader(memory=ROOM, workers=2, processes=2)
    with dataset.loader(memory=ROOM, workers=2) as loader:
        assert np.concatenate([batch.copy() for batch in loader]).tolist() == [2] * 20
        assert "set" in loader.stats().reason


def test_a_later_sample_of_another_type_is_mapped_here() -> None:
    def odd() -> Any:
        yield from ([i] for i in range(30))
        yield {1, 2}

    with fs.from_generator(odd).map(len).batch(8).loader(memory=ROOM, workers=2, processes=2) as loader:
        assert np.concatenate([batch.copy() for batch in loader]).tolist() == [1] * 30 + [2]


def test_functions_print_where_the_program_prints() -> None:
    out = run(
        """
        def loud(x):
            if x == 3: print("from a worker", flush=True)
            return x
        with fs.from_arrays(np.arange(9)).map(loud).batch(3).loader("300 MB", workers=1, processes=1) as loader:
            list(loader)
        """
    )
    assert out == "from a worker\n"


def test_workers_see_the_path_that_the_program_made(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(textwrap.dedent("def same(x): return x"))
    sys.path.insert(0, str(tmp_path))
    try:
        import late  # type: ignore[import-not-found]

        with fs.from_arrays(np.arange(9)).map(late.same).batch(3).loader(ROOM, workers=1, processes=1) as loader:
            assert len(list(loader)) == 3
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("late")
