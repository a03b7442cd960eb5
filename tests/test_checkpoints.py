"""The folder of checkpoints: whole or not there, whatever fails and whenever the process dies."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream import checkpoint_files, checkpoints
from fitstream.checkpoints import CheckpointFolder

#: What changes files; failing or dying at each of them must leave whole checkpoints.
CHANGES = ("open", "mkdir", "write", "fsync", "rename", "unlink", "rmdir", "close", "ftruncate")


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(3, 4)), "b": rng.integers(0, 9, 5, np.uint8), "c": np.float32(seed).reshape(())}


def write(folder: CheckpointFolder, step: int, **settings: Any) -> Path:
    return folder.write(step, {"epoch": step // 10, "note": f"ä{step}"}, arrays(step).items(), **settings)


def read(folder: CheckpointFolder, **settings: Any) -> int:
    """The step of the newest checkpoint, after a comparison of all that is in it."""
    found = folder.newest(**settings)
    assert found is not None
    step = found.content["step"]
    assert found.content["note"] == f"ä{step}"
    assert found.content["epoch"] == step // 10
    for name, array in arrays(step).items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()
    return step


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.name != ".lock")


def open_folder(path: Path, keep: int = 2) -> CheckpointFolder:
    return CheckpointFolder(fs.Checkpoint(path, keep=keep))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CheckpointFolder]:
    with open_folder(tmp_path / "run") as folder:
        yield folder


def test_a_new_folder_has_no_checkpoint(folder: CheckpointFolder) -> None:
    assert folder.newest() is None


def test_the_newest_is_read_as_it_was_written(folder: CheckpointFolder) -> None:
    for step in (5, 7, 12):
        assert write(folder, step).name == f"step-{step:09d}"
        assert read(folder) == step


def test_the_newest_ones_are_kept_and_no_others(folder: CheckpointFolder) -> None:
    for step in range(1, 6):
        write(folder, step)
    assert names(folder.path) == ["step-000000004", "step-000000005"]


def test_steps_are_ordered_as_numbers(folder: CheckpointFolder) -> None:
    for step in (999_999_999, 1_000_000_000):
        write(folder, step)
    assert read(folder) == 1_000_000_000


def test_the_outcome_is_kept_beside_the_last_steps_until_training_goes_on(folder: CheckpointFolder) -> None:
    for step in (1, 2, 3):
        write(folder, step)
    write(folder, 3, final=True)
    assert names(folder.path) == ["final-000000003", "step-000000002", "step-000000003"]
    found = folder.newest()
    assert found is not None
    assert found.content["final"] is True
    assert read(folder, finals=False) == 3
    write(folder, 4)
    assert names(folder.path) == ["step-000000003", "step-000000004"]


def test_dtypes_that_numpy_has_no_name_for_come_back(folder: CheckpointFolder) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    given = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3)
    folder.write(1, {}, [("x", given)])
    found = folder.newest()
    assert found is not None
    assert found.arrays["x"].dtype == given.dtype
    assert found.arrays["x"].tobytes() == given.tobytes()


def test_objects_are_not_written(folder: CheckpointFolder) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        folder.write(1, {}, [("x", np.array([print]))])
    assert names(folder.path) == []


def test_numbers_keep_all_their_digits(folder: CheckpointFolder) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, float("inf"), -0.0]
    folder.write(1, {"values": values}, [])
    found = folder.newest()
    assert found is not None
    assert list(map(repr, found.content["values"])) == list(map(repr, values))


def test_the_checksums_are_those_of_b2sum(folder: CheckpointFolder) -> None:
    path = write(folder, 1)
    done = subprocess.run(["b2sum", "--check", "B2SUMS"], cwd=path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["arrays.npz: OK", "checkpoint.json: OK"]


# Damage.


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["arrays.npz", "checkpoint.json", "B2SUMS"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_broken_checkpoint_is_passed_over_with_a_warning_that_says_why(
    folder: CheckpointFolder, file: str, damage: Any
) -> None:
    write(folder, 1)
    path = write(folder, 2)
    damage(path / file)
    with pytest.warns(UserWarning, match=r"step-000000002 is broken: .*The checkpoint before it is used"):
        assert read(folder) == 1
    assert write(folder, 2).name == "step-000000002.1"
    assert names(folder.path) == ["step-000000001", "step-000000002.1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(folder) == 2


def test_any_bit_of_the_content_that_changes_is_noticed(folder: CheckpointFolder) -> None:
    write(folder, 1)
    path = write(folder, 2) / "checkpoint.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match=r"checkpoint\.json isn't what was written"):
            assert read(folder) == 1


OURS = {"format": "fitstream checkpoint", "version": 1}


def seal(path: Path, content: Any) -> None:
    """Write a checkpoint.json whose checksum is right."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (path / "checkpoint.json").write_bytes(text)
    sums = subprocess.run(["b2sum", "arrays.npz", "checkpoint.json"], cwd=path, capture_output=True, check=True)
    (path / "B2SUMS").write_bytes(sums.stdout)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"epoch": 3}, r"checkpoint\.json isn't one of fitstream's"),
        ([1, 2], r"checkpoint\.json isn't one of fitstream's"),
        (b"\xff{", "isn't of the form"),
        (b"[" * 100_000, "isn't of the form"),
        (OURS, "isn't of the form"),
        ({**OURS, "arrays": {"z": {}}}, "isn't of the form"),
        ({**OURS, "arrays": {"a": {"dtype": "O", "shape": [3, 4]}}}, "isn't of the form"),
        ({**OURS, "arrays": {"a": {"dtype": "float64", "shape": [4]}}}, "a has shape"),
    ],
)
def test_what_is_not_ours_is_broken_even_if_its_checksums_are_right(
    folder: CheckpointFolder, content: Any, reason: str
) -> None:
    write(folder, 1)
    seal(write(folder, 2), content)
    with pytest.warns(UserWarning, match=reason):
        assert read(folder) == 1


@pytest.mark.parametrize("kind", ["pickled", "compressed"])
def test_pickled_and_compressed_arrays_are_not_opened(folder: CheckpointFolder, kind: str) -> None:
    write(folder, 1)
    path = write(folder, 2)
    content = json.loads((path / "checkpoint.json").read_bytes())
    with zipfile.ZipFile(path / "arrays.npz", "w", zipfile.ZIP_DEFLATED if kind == "compressed" else 0) as archive:
        for name, array in arrays(2).items():
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array if kind == "compressed" else np.array([os.getcwd]), allow_pickle=True)
    seal(path, content)
    with pytest.warns(UserWarning, match="compressed" if kind == "compressed" else "Object arrays"):
        assert read(folder) == 1


def test_broken_checkpoints_alone_are_an_error_and_no_new_start(folder: CheckpointFolder) -> None:
    flip(write(folder, 1) / "arrays.npz")
    flip(write(folder, 2) / "checkpoint.json")
    with pytest.warns(UserWarning, match="is broken"):
        with pytest.raises(fs.StateError, match=r"no checkpoint in .* is whole: step-000000002: .*; step-000000001: "):
            folder.newest()


def test_a_checkpoint_of_a_later_version_is_an_error(folder: CheckpointFolder) -> None:
    write(folder, 1)
    seal(write(folder, 2), {"format": "fitstream checkpoint", "version": 7})
    with pytest.raises(fs.StateError, match="of version 7"):
        folder.newest()


def test_files_of_others_stay(folder: CheckpointFolder) -> None:
    (write(folder, 1) / "notes.txt").write_text("mine")
    (folder.path / "mine").mkdir()
    for step in (2, 3, 4):
        write(folder, step)
    left = [path.relative_to(folder.path) for path in folder.path.rglob("notes.txt")]
    assert [path.name for path in left] == ["notes.txt"]
    assert (folder.path / "mine").is_dir()
    assert read(folder) == 4


# Two runs.


def test_a_second_run_is_refused_with_the_process_that_holds_the_folder(folder: CheckpointFolder) -> None:
    with pytest.raises(fs.PlanError, match=f"process {os.getpid()} writes its checkpoints into"):
        open_folder(folder.path)
    program = f"from fitstream.checkpoints import *; CheckpointFolder(Checkpoint({str(folder.path)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"PlanError: process {os.getpid()} writes" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_holds_no_folder(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from fitstream.checkpoints import *\n"
        f"folder = CheckpointFolder(Checkpoint({str(tmp_path)!r}))\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        CheckpointFolder(fs.Checkpoint(tmp_path)).close()  # while the forked process lives


def test_the_folder_is_free_after_its_process_was_killed(tmp_path: Path) -> None:
    opens = f"from fitstream.checkpoints import *; folder = CheckpointFolder(Checkpoint({str(tmp_path)!r}))"
    program = f"import os, signal; {opens}; os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_folder(tmp_path) as folder:
        assert folder.newest() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": ""}, "path of a folder"),
        ({"path": 3}, "path of a folder"),
        ({"path": "x", "every_steps": 0}, "every_steps=0"),
        ({"path": "x", "every_steps": 1.5}, r"every_steps=1\.5"),
        ({"path": "x", "keep": None}, "keep=None"),
        ({"path": "x", "keep": True}, "keep=True"),
        ({"path": "x", "every_s": -1}, "every_s=-1"),
        ({"path": "x", "every_s": float("nan")}, "every_s=nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.PlanError, match=message):
        fs.Checkpoint(**settings)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(fs.PlanError, match=r"checkpoints can't be kept in .*run: File exists"):
        open_folder(tmp_path / "run")


# Failures.


class Died(BaseException):
    """Stands for the death of the process: from here on, nothing more happens to files."""


class Failing:
    """The module `os`, whose n-th call that changes files fails, or is the process's last one."""

    def __init__(self, number: int, dies: bool) -> None:
        self.number = number
        self.dies = dies
        self.count = 0
        self.dead = False
        self.descriptors: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in CHANGES:
            return function

        def call(*arguments: Any, **settings: Any) -> Any:
            if self.dead:
                raise Died
            self.count += 1
            if self.count != self.number:
                result = function(*arguments, **settings)
                if name == "open":
                    self.descriptors.add(result)
                elif name == "close":
                    self.descriptors.remove(arguments[0])
                return result
            if self.dies:
                self.dead = True
                if name == "write":  # half of it reached the disk
                    function(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Died
            raise OSError(errno.ENOSPC, "No space left on device")

        return call


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("dies", [False, True], ids=["fails", "dies"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whichever_call_is_the_last_the_newest_checkpoint_is_whole_and_the_next_write_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool, keep: int
) -> None:
    number, outcomes = 0, set()
    while True:
        number += 1
        path = tmp_path / str(number)
        with open_folder(path, keep) as folder:
            for step in (1, 2):
                write(folder, step)
        failing = Failing(number, dies)
        with monkeypatch.context() as patched:
            for module in (checkpoints, checkpoint_files):
                patched.setattr(module, "os", failing)
            try:
                with open_folder(path, keep) as folder:
                    write(folder, 3)
            except (fs.StateError, fs.PlanError) as error:
                outcome = type(error).__name__ if "No space left on device" in str(error) else str(error)
            except (Died, OSError) as error:  # OSError: closing the lock at the very end
                outcome = type(error).__name__
            else:
                outcome = "done"
        for descriptor in failing.descriptors:  # as the end of a process does
            os.close(descriptor)
        outcomes.add(outcome)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing visible may be broken
            with open_folder(path, keep) as folder:
                there = read(folder)
                assert there in (2, 3)
                if outcome == "done":
                    assert there == 3
                write(folder, 4)
                assert read(folder) == 4
                assert len(names(path)) == keep
                assert not any(name.startswith(".") for name in names(path))
        if failing.count < number:
            break
    assert number > 25
    assert outcomes == ({"Died", "done"} if dies else {"StateError", "PlanError", "OSError", "done"})


PROGRAM = """
import os, sys
import numpy as np
from fitstream import checkpoint_files, checkpoints
sys.path.insert(0, {tests!r})
import test_checkpoints as t

class Dying(t.Failing):
    def __getattr__(self, name):
        function = getattr(os, name)
        if name not in t.CHANGES:
            return function
        def call(*arguments, **settings):
            self.count += 1
            if self.count == self.number:
                os._exit(9)
            return function(*arguments, **settings)
        return call

for number in range(1, 200):
    pid = os.fork()
    if pid == 0:
        checkpoints.os = checkpoint_files.os = Dying(number, True)
        with t.open_folder(t.Path({path!r})) as folder:
            t.write(folder, 10 + number)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with t.open_folder(t.Path({path!r})) as folder:
        step = t.read(folder)
        print(status, step - 10 - number)
    if status == 0:
        break
"""


def test_a_process_that_dies_at_any_call_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        write(folder, 10)
    program = PROGRAM.format(tests=str(Path(__file__).parent), path=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) > 25
    assert lines[-1] == (0, 0)
    assert all(status == 9 and step <= 0 for status, step in lines[:-1])


def test_a_file_system_without_locks_is_told_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(checkpoints.fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match="has no locks"):
        folder = CheckpointFolder(fs.Checkpoint(tmp_path))
    folder.close()
