"""How worker processes start, fail, die and end: nothing is lost, and nothing of ours remains."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loops import ROOM, Recorder, alive, counting, run, script, told, until, worker_pids

import fitstream as fs
from fitstream.events import WorkerLost, WorkerStarted
from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")


def rows(count: int = 400) -> fs.Dataset:
    return fs.from_arrays(np.arange(count)).shuffle(1).map(lambda x: x * 2).batch(8)


def new_names(before: set[str]) -> set[str]:
    """Shared memory with a name that stays; other programs may have some for a moment."""
    until(lambda: set(os.listdir("/dev/shm")) <= before, 2)
    return set(os.listdir("/dev/shm")) - before


# Their lives.


def test_workers_start_once_and_live_across_epochs_and_loops() -> None:
    recorder = Recorder()
    with rows().loader(ROOM, workers=2, processes=2, observers=[recorder]) as loader:
        before = sorted(worker_pids())
        for _ in range(3):
            list(loader)
        for number, _ in enumerate(loader):
            if number == 3:
                break
        list(loader)
        assert sorted(worker_pids()) == before
        assert sorted(event.pid for event in recorder.of(WorkerStarted)) == before
    assert not any(alive(pid) for pid in before)


def test_workers_import_no_framework_and_not_the_module_of_a_local_function() -> None:
    names = ["keras", "tensorflow", "torch", "jax", "pandas", "pytest", "cv2", "PIL", "matplotlib", "test_worker_lives"]
    dataset = fs.from_arrays(np.arange(20)).map(lambda x: np.array([name in sys.modules for name in names])).batch(5)
    with dataset.loader(memory=ROOM, workers=2, processes=2) as loader:
        flags = np.concatenate([batch.copy() for batch in loader]).any(axis=0)
    assert [name for name, there in zip(names, flags, strict=True) if there] == []


@pytest.mark.parametrize("how", ["close", "exception", "dropped", "sample"])
def test_an_end_leaves_no_process_thread_descriptor_or_name(how: str) -> None:
    def picky(x: Any) -> Any:
        if how == "sample" and x == 300:
            raise ValueError(x)
        return x

    gc.collect()
    names, descriptors = set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    for sequential in (False, True):
        source = fs.from_generator(lambda: iter(range(400))) if sequential else fs.from_arrays(np.arange(400))
        loader = source.map(picky).batch(8).loader(memory=ROOM, workers=2, processes=2)
        pids = worker_pids()
        assert len(pids) == 2
        if how == "close":
            list(loader)
            loader.close()
        elif how == "exception":
            with pytest.raises(KeyError), loader:
                next(iter(loader))
                raise KeyError
        elif how == "dropped":
            next(iter(loader))
        else:
            with pytest.raises(fs.SampleError):
                list(loader)
        del loader
        gc.collect()
        assert not any(alive(pid) for pid in pids)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fitstream")]
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert new_names(names) == set()


def test_close_gives_shared_memory_and_descriptors_back_without_a_collection() -> None:
    def left() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(os.listdir("/proc/self/fd")), maps.count("memfd:fitstream")

    gc.collect()
    gc.disable()
    try:
        before = left()
        for source in (fs.from_arrays(np.arange(400)), fs.from_generator(lambda: iter(range(400)))):
            with source.map(lambda x: x).batch(8).loader(memory=ROOM, workers=2, processes=2) as loader:
                for batch in loader:
                    del batch
            del loader
        assert left() == before
    finally:
        gc.enable()


ENDS = """
    loader = fs.from_arrays(np.arange(100_000)).map(lambda x: time.sleep(0.001) or x).batch(8).loader(
        "300 MB", workers=2, processes=2)
    batches = iter(loader)
    held = next(batches)
    def ready(): print(*children(), flush=True)
"""
WAYS = {
    "the program ends": "ready()",
    "sys.exit": "ready(); sys.exit(0)",
    "os._exit": "ready(); os._exit(0)",
    "Ctrl-C": """
    try:
        with loader:
            ready()
            while True: next(batches)
    except KeyboardInterrupt:
        for thread in threading.enumerate():
            if thread is not threading.current_thread(): thread.join(20)
        print(threading.active_count())""",
    "kill -9": """
    ready()
    while True: next(batches)""",
    "kill -9 of one that computes": """
    ready()
    while True: pass""",
}


@pytest.mark.parametrize("way", WAYS)
def test_workers_are_gone_soon_after_the_program(way: str, tmp_path: Path) -> None:
    names = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script(ENDS + "    " + WAYS[way])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if way == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    elif way.startswith("kill"):
        process.kill()
    out, err = process.communicate(timeout=300)
    assert until(lambda: not any(alive(pid) for pid in pids))
    assert err == ""
    assert out == ("1\n" if way == "Ctrl-C" else "")
    assert os.listdir(tmp_path) == []
    assert new_names(names) == set()


def test_ctrl_c_while_workers_start_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "slowly.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        "if os.getpid() != int(os.environ['MAIN']):\n    Path(os.environ['SIGN']).touch()\n    time.sleep(60)\n"
        "def same(x): return x\n"
    )
    out = run(
        """
        os.environ.update(MAIN=str(os.getpid()), SIGN=sys.argv[1] + "/sign")
        sys.path.insert(0, sys.argv[1])
        import slowly
        def interrupt():
            while not os.path.exists(os.environ["SIGN"]): time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            fs.from_arrays(np.arange(9)).map(slowly.same).batch(3).loader("300 MB", workers=2, processes=2)
        except KeyboardInterrupt:
            for each in threading.enumerate():
                if each.name.startswith("fitstream"): each.join(20)
            print(children(), [t.name for t in threading.enumerate() if t.name.startswith("fitstream")])
        """,
        str(tmp_path),
    )
    assert out == "[] []\n"


def test_a_close_while_workers_are_tried_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "slowly.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        "if os.getpid() != int(os.environ['MAIN']):\n    Path(os.environ['SIGN']).touch()\n    time.sleep(60)\n"
        "def busy(x):\n"
        "    end_s = time.perf_counter() + 0.004\n"
        "    while time.perf_counter() < end_s: pass\n"
        "    return x\n"
    )
    out = run(
        """
        import fitstream.engine.tuner
        fitstream.engine.tuner._WINDOW_S = 0.1
        os.environ.update(MAIN=str(os.getpid()), SIGN=sys.argv[1] + "/sign")
        sys.path.insert(0, sys.argv[1])
        import slowly
        with fs.from_arrays(np.arange(64)).map(slowly.busy).batch(8).loader("600 MB", workers=2) as loader:
            while not os.path.exists(os.environ["SIGN"]): list(loader)
        for each in threading.enumerate():
            if each.name.startswith("fitstream"): each.join(20)
        print(children(), [t.name for t in threading.enumerate() if t.name.startswith("fitstream")])
        """,
        str(tmp_path),
    )
    assert out == "[] []\n"


# Errors.


def failure(dataset: fs.Dataset, processes: int) -> tuple[list[bytes], BaseException]:
    seen: list[bytes] = []
    with dataset.loader(memory=ROOM, workers=2, processes=processes) as loader:
        with pytest.raises(fs.FitstreamError) as caught:
            seen.extend(told(batch) for batch in loader)
    return seen, caught.value


@pytest.mark.parametrize("sequential", [False, True])
def test_a_failure_is_told_at_its_turn_as_with_threads(sequential: bool) -> None:
    def picky(x: Any) -> Any:
        if x in (61, 57, 91):
            raise ValueError(f"I don't like {x}")
        return x

    source = fs.from_generator(lambda: iter(range(100))) if sequential else fs.from_arrays(np.arange(100))
    seen, error = failure(source.map(picky).batch(20), 2)
    expected, other = failure(source.map(picky).batch(20), 0)
    assert len(seen) == 2
    assert seen == expected
    assert isinstance(error, fs.SampleError)
    assert isinstance(other, fs.SampleError)
    assert str(error) == str(other)
    names = ("reason", "index", "path", "stage", "user_line")
    assert [getattr(error, name) for name in names] == [getattr(other, name) for name in names]
    assert error.index == 57
    assert __file__ in str(error.user_line)
    assert 'raise ValueError(f"I don\'t like {x}")' in str(error.__cause__)
    assert "in picky" in str(error.__cause__)


def test_a_picture_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(20):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "13.png").write_bytes(b"no picture")
    dataset = fs.from_folder(tmp_path, image_size=(8, 8), label_mode=None).batch(5)
    (seen, error), (expected, other) = failure(dataset, 2), failure(dataset, 0)
    assert isinstance(error, fs.SampleError)
    assert seen == expected
    assert str(error) == str(other)
    assert error.path == str(tmp_path / "13.png")


@pytest.mark.parametrize("text", ["ж" * 20_000, "x" * 200_000, "\U0001f600" * 9000, "\udc80" * 30_000])
def test_a_long_reason_is_told_as_a_failure_of_its_sample(text: str) -> None:
    def verbose(x: Any) -> Any:
        if x == 20:
            raise ValueError(f"at the start {text}")
        return x

    _, error = failure(fs.from_arrays(np.arange(64)).map(verbose).batch(8), 1)
    assert isinstance(error, fs.SampleError)
    assert error.index == 20
    assert "ValueError: at the start" in str(error)


def test_sys_exit_in_a_function_is_told_and_nothing_hangs() -> None:
    def leaves(x: Any) -> Any:
        if x == 15:
            sys.exit(3)
        return x

    _, error = failure(fs.from_arrays(np.arange(30)).map(leaves).batch(10), 2)
    assert "SystemExit" in str(error)


def test_the_loader_can_be_used_again_after_an_error(tmp_path: Path) -> None:
    def fails_once(x: Any) -> Any:
        if x == 50 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise RuntimeError("once")
        return x

    dataset = fs.from_arrays(np.arange(100)).map(fails_once).batch(10)
    with dataset.loader(memory=ROOM, workers=2, processes=2) as loader:
        with pytest.raises(fs.SampleError):
            list(loader)
        assert np.concatenate(list(loader)).tolist() == list(range(100))


# Deaths.


def end_by(how: str) -> None:
    if how == "os._exit":
        os._exit(7)
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    ctypes.string_at(0)


DEATHS = {"os._exit": 7, "SIGKILL": -signal.SIGKILL, "SIGSEGV": -signal.SIGSEGV}


@pytest.mark.parametrize(
    ("how", "sequential"), [("os._exit", False), ("SIGKILL", False), ("SIGSEGV", False), ("os._exit", True)]
)
def test_a_death_in_mid_epoch_loses_nothing(how: str, sequential: bool, tmp_path: Path) -> None:
    def dies_once(x: Any, y: Any) -> Any:
        if y == 77 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            end_by(how)
        return x + 1, y

    data = np.arange(600.0).reshape(200, 3), np.arange(200)
    source = fs.from_generator(lambda: counting(200)) if sequential else fs.from_arrays(data).shuffle(1)
    dataset, recorder = source.map(dies_once).batch(16), Recorder()
    with dataset.loader(memory=ROOM, workers=3, processes=2, observers=[recorder]) as loader:
        seen = [[told(batch) for batch in loader] for _ in range(2)]
    with dataset.loader(memory=ROOM, workers=0) as loader:
        assert [[told(batch) for batch in loader] for _ in range(2)] == seen
    (lost,) = recorder.of(WorkerLost)
    assert lost.pid in {event.pid for event in recorder.of(WorkerStarted)}
    assert lost.chunk_count > 0
    assert ("code 7" if how == "os._exit" else how) in lost.reason


@pytest.mark.parametrize("how", ["os._exit", "SIGSEGV"])
def test_a_sample_that_always_ends_its_worker_is_told(how: str) -> None:
    def dies(x: Any) -> Any:
        if x == 77:
            end_by(how)
        return x

    seen = 0
    recorder = Recorder()
    dataset = fs.from_arrays(np.arange(200)).map(dies).batch(8)
    with dataset.loader(memory=ROOM, workers=2, processes=2, observers=[recorder]) as loader:
        with pytest.raises(fs.WorkerDied) as caught:
            for batch in loader:
                seen += len(batch)
    assert seen <= 72
    assert caught.value.exit_code == DEATHS[how]
    assert caught.value.index == 77
    assert len(recorder.of(WorkerLost)) <= 5
    assert worker_pids() == []


def test_workers_killed_from_outside_are_replaced_also_while_they_start() -> None:
    expected = np.concatenate(list(rows(4000).loader("9 MB", workers=0)))
    with rows(4000).loader(memory=ROOM, workers=2, processes=2) as loader:
        batches = iter(loader)
        seen = [next(batches).copy()]
        old = set(worker_pids())
        os.kill(min(old), signal.SIGKILL)
        assert until(lambda: set(worker_pids()) - old)
        os.kill((set(worker_pids()) - old).pop(), signal.SIGKILL)
        seen += [batch.copy() for batch in batches]
    assert np.array_equal(np.concatenate(seen), expected)


def test_all_workers_killed_between_epochs_are_replaced() -> None:
    with rows().loader(memory=ROOM, workers=2, processes=2) as loader:
        first = [told(batch) for batch in loader]
        for pid in worker_pids():
            os.kill(pid, signal.SIGKILL)
        loader.set_epoch(0)
        assert [told(batch) for batch in loader] == first


# Forks.


@pytest.mark.parametrize(
    "way", ["os._exit(0)", "sys.exit(0)", "loader.close(); os._exit(0)", "del loader, batches, held"]
)
def test_a_forked_child_disturbs_nothing(way: str) -> None:
    out = run(
        f"""
        loader = fs.from_arrays(np.arange(4000)).map(lambda x: x).batch(8).loader("300 MB", workers=2, processes=2)
        batches = iter(loader)
        held = next(batches)
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: fork beside threads
        child = os.fork()
        if child == 0:
            mine = [os.open("/dev/null", os.O_RDONLY) for _ in range(30)]
            {way}
            for each in mine: os.fstat(each)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(8 + sum(len(batch) for batch in batches), held.tolist() == list(range(8)))
        loader.close()
        """
    )
    assert out == "4000 True\n"


def test_a_forked_child_that_goes_on_with_the_loop_is_told_at_once() -> None:
    out = run(
        """
        loader = fs.from_arrays(np.arange(400)).map(lambda x: x).batch(8).loader("300 MB", workers=2, processes=2)
        batches = iter(loader)
        held = next(batches)
        board = loader._pipeline.board  # a batch that came before its turn is out of the queue already
        while board.ready_queue.qsize() + len(board._done) < 3: time.sleep(0.01)
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 on: fork beside threads
        child = os.fork()
        if child == 0:
            try: next(batches)
            except fs.FitstreamError as error: os._exit(0 if "a loader of its own" in str(error) else 1)
            os._exit(2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 8 + sum(len(batch) for batch in batches))
        loader.close()
        """
    )
    assert out == "0 400\n"
