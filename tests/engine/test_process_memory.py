"""Memory of worker processes: shared once, inside the plan, or refused with a setting that works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loops import ROOM, Recorder, run, script, told

import fitstream as fs
from fitstream.events import MemoryExceeded
from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")

MEASURE = """
    import re
    def held():
        text = "".join(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in [os.getpid(), *children()])
        return sum(1024 * int(size) for size in re.findall(r"^Pss_(?:Anon|Shmem): +([0-9]+)", text, re.M))
"""


def test_arrays_in_memory_are_shared_once() -> None:
    out = run(
        MEASURE
        + """
    x = np.ones((1000, 100_000), np.uint8)
    before = held()
    with fs.from_arrays(x).shuffle(1).batch(10).loader("400 MB", workers=2, processes=2) as loader:
        for batch in loader: del batch
        print(held() - before, loader.stats().peak_bytes, loader.plan.projected_bytes)
        """
    )
    grown, peak, projected = map(int, out.split())
    assert 100e6 < grown < 100e6 + 110e6  # one copy, two interpreters and the ring; not a copy each
    assert 100e6 < peak <= projected <= 400e6


def test_a_memmap_costs_no_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((1000, 100_000), np.uint8))
    out = run(
        MEASURE
        + """
    x = np.load(sys.argv[1], mmap_mode="r")
    before = held()
    with fs.from_arrays(x).shuffle(1).batch(10).loader("150 MB", workers=2, processes=2) as loader:
        count = sum(len(batch) for batch in loader)
        print(count, held() - before, loader.stats().peak_bytes, loader.plan.projected_bytes)
        """,
        str(tmp_path / "rows.npy"),
    )
    count, grown, peak, projected = map(int, out.split())
    assert count == 1000
    assert grown < 100e6
    assert peak <= projected <= 150e6


def photos(folder: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(60):
        side = 900 if number % 20 == 7 else 160
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{number}.jpg", quality=70)
    return folder


@pytest.mark.parametrize(
    ("kind", "processes"), [("pictures", 2), ("arrays", 2), ("a map", 1), ("a map", 2), ("a generator", 2)]
)
def test_what_was_measured_is_within_the_plan(kind: str, processes: int, tmp_path: Path) -> None:
    x = np.arange(400_000.0).reshape(2000, 200)
    datasets: dict[str, Any] = {
        "pictures": lambda: fs.from_folder(photos(tmp_path), image_size=(96, 96), label_mode=None),
        "arrays": lambda: fs.from_arrays(x).shuffle(0),
        "a map": lambda: fs.from_arrays(x).map(lambda row, rng: np.sort(row + rng.random(200))),
        "a generator": lambda: fs.from_generator(lambda: iter(x)).map(lambda row: row * 2),
    }
    recorder = Recorder()
    dataset = datasets[kind]().batch(32)
    with dataset.loader(memory="200 MB", workers=2, processes=processes, observers=[recorder]) as loader:
        for _ in range(3):
            for batch in loader:
                del batch
        stats = loader.stats()
    assert stats.process_count == processes
    assert 10e6 < stats.peak_bytes <= stats.projected_bytes <= stats.budget_bytes == 200e6
    assert recorder.of(MemoryExceeded) == []


def test_a_function_that_keeps_much_memory_is_told_once() -> None:
    def greedy(x: Any) -> Any:
        if not hasattr(sys, "_kept"):
            sys._kept = []  # type: ignore[attr-defined]
        if len(sys._kept) < 20:  # type: ignore[attr-defined]
            sys._kept.append(np.ones(10_000_000, np.uint8))  # type: ignore[attr-defined]
        return x

    recorder = Recorder()
    dataset = fs.from_arrays(np.arange(4000)).map(greedy).batch(8)
    with dataset.loader(memory="150 MB", workers=1, processes=1, observers=[recorder]) as loader:
        with warnings.catch_warnings(record=True, action="always") as warned:
            for _ in range(50):
                list(loader)
                if loader.stats().peak_bytes > 150e6:
                    break
            list(loader)
        stats = loader.stats()
    (warning,) = warned
    assert re.search(
        "more memory than planned: .* where .* were planned and memory= allows 150 MB", str(warning.message)
    )
    (event,) = recorder.of(MemoryExceeded)
    assert event.measured_bytes > event.projected_bytes
    assert stats.peak_bytes > stats.projected_bytes


@pytest.mark.parametrize("memory", ["20 MB", "70 MB"])
def test_a_budget_too_small_for_processes_is_refused_with_settings_that_work(memory: str) -> None:
    dataset = fs.from_arrays(np.zeros((400, 1000))).map(lambda x: x).batch(16)
    with pytest.raises(fs.PlanError, match="worker processes") as caught:
        dataset.loader(memory=memory, workers=4, processes=4)
    text = str(caught.value)
    assert memory in text
    suggested = re.search(r'memory >= "([^"]+)"', text)
    assert suggested is not None
    settings: list[dict[str, Any]] = [{"memory": suggested[1], "processes": 4}]
    if fewer := re.search(r"processes <= (\d+)", text):
        settings.append({"memory": memory, "processes": int(fewer[1])})
    if "processes=0" in text:
        settings.append({"memory": memory, "processes": 0})
    assert len(settings) > 1
    for each in settings:
        with dataset.loader(workers=4, **each) as loader:
            assert sum(len(batch) for batch in loader) == 400


def test_a_budget_too_small_for_processes_means_threads_where_nobody_asked_for_them() -> None:
    dataset = fs.from_arrays(np.zeros((400, 1000))).map(lambda x: x).batch(16)
    with dataset.loader(memory="20 MB", workers=2) as loader:
        assert sum(len(batch) for batch in loader) == 400
        stats = loader.stats()
    assert stats.process_count == 0
    assert "no room for worker processes" in stats.reason


def test_a_parcel_larger_than_estimated_is_refused_with_settings_that_work() -> None:
    held = [np.ones(100_000) for _ in range(60)]
    dataset = fs.from_sequence(held).batch(4)
    with pytest.raises(fs.PlanError, match="worker processes") as caught:
        dataset.loader(memory="90 MB", workers=2, processes=2)
    suggested = re.search(r'memory >= "([^"]+)"', str(caught.value))
    assert suggested is not None
    with dataset.loader(memory=suggested[1], workers=2, processes=2) as loader:
        assert sum(len(batch) for batch in loader) == 60


@pytest.mark.parametrize("processes", ["0", "None"])
def test_a_limit_on_file_sizes_changes_nothing_for_threads(processes: str) -> None:
    out = run(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        dataset = fs.from_arrays(np.zeros((400, 100_000), np.uint8)).map(lambda v: v).batch(40)
        with dataset.loader("900 MB", workers=2, processes={processes}) as loader:
            print(sum(len(batch) for batch in loader))
        """
    )
    assert out == "400\n"


def test_a_limit_on_file_sizes_is_told_by_loader_where_processes_were_asked_for() -> None:
    out = run(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            fs.from_arrays(np.zeros((400, 100_000), np.uint8)).batch(40).loader("900 MB", workers=2, processes=2)
        except fs.PlanError as error:
            print("ulimit -f" in str(error), children())
        """
    )
    assert out == "True []\n"


@pytest.mark.parametrize("options", ["size=64m", "ro"])
def test_a_small_or_unwritable_dev_shm_changes_nothing(options: str) -> None:
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    enter = [str(unshare), "-m", "sh", "-c", f'{mount} -t tmpfs -o {options} none /dev/shm && exec "$@"', "sh"]
    if (
        unshare is None
        or mount is None
        or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a mount of one's own isn't permitted here")
    program = script(
        """
        x = np.arange(1_600 * 25_000, dtype=np.float32).reshape(1_600, 25_000)
        with fs.from_arrays(x).map(lambda v: v).batch(200).loader("600 MB", workers=2, processes=2) as loader:
            print(loader.plan.slot_count * loader.plan.layout.slot_bytes > 64 << 20, end=" ")
            print(sum(len(batch) for batch in loader), all((b[:, 0] % 25_000 == 0).all() for b in loader))
        """
    )
    done = subprocess.run([*enter, sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "True 1600 True\n", done.stderr


def test_the_plan_tells_what_processes_cost() -> None:
    plan = fs.from_arrays(np.zeros((400, 1000))).map(lambda x: x).batch(16).plan(ROOM, workers=2, processes=2)
    assert plan.process_count == 2
    assert 40e6 < plan.process_bytes < 100e6
    assert "processes" in str(plan)


def test_an_array_in_memory_is_read_the_same_where_it_is_shared() -> None:
    odd = np.asfortranarray(np.random.default_rng(0).random((300, 40)))[::-1, ::2]
    dataset = fs.from_arrays((odd, np.arange(300))).shuffle(1).batch(32)
    with dataset.loader(ROOM, workers=2, processes=2) as loader, dataset.loader(ROOM, workers=0) as plain:
        assert [told(batch) for batch in loader] == [told(batch) for batch in plain]
