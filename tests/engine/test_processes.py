"""Lanes in worker processes: the same batches, the same leases, wherever they are filled."""

from __future__ import annotations

import collections
import gc
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import KINDS, SPLITS, arrays, write_files
from loops import ROOM, Mover, Recorder, counting, epochs, told, until

import fitstream as fs
from fitstream.events import LanesStarted, LanesStopped, RingExtended, WorkerStarted
from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("data"))


# Bytes.


@pytest.mark.parametrize(
    ("kind", "split"),
    [("a map with rng", split) for split in SPLITS] + [(kind, (3, 2)) for kind in KINDS if kind != "a map with rng"],
)
def test_epochs_are_byte_identical_for_every_split(kind: str, split: tuple[int, int], root: Path) -> None:
    expected = epochs(KINDS[kind](root), 0, 0)
    assert epochs(KINDS[kind](root), *split) == expected
    assert sum(len(epoch) for epoch in expected) > 2


@pytest.mark.parametrize("kind", ["a map with rng", "pictures", "a generator, mapped"])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_epochs_are_byte_identical_for_every_number_of_threads(kind: str, workers: int, root: Path) -> None:
    assert epochs(KINDS[kind](root), workers, 0) == epochs(KINDS[kind](root), 0, 0)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 120),
    size=st.integers(1, 40),
    split=st.sampled_from(SPLITS),
    last=st.sampled_from(["keep", "pad", "wrap"]),
    stops=st.lists(st.integers(0, 5), max_size=4),
)
def test_each_sample_comes_once_an_epoch_also_after_loops_left_early(
    count: int, size: int, split: tuple[int, int], last: Any, stops: list[int]
) -> None:
    dataset = fs.from_arrays(np.arange(1, count + 1)).shuffle(3).map(lambda value: value * 2).batch(size, last)
    with dataset.loader(memory=ROOM, workers=0) as plain:
        with dataset.loader(memory=ROOM, workers=split[0], processes=split[1]) as loader:
            for stop in stops:
                for number, _ in enumerate(loader):
                    if number == stop:
                        break
            for _ in range(2):
                batches = iter(loader)
                plain.set_epoch(loader.epoch)
                assert [told(batch) for batch in batches] == [told(batch) for batch in plain]


@pytest.mark.parametrize(("kind", "seed"), [("pictures, noised", 0), ("a generator, noised", 1), ("wrap", 2)])
def test_epochs_are_byte_identical_while_lanes_change_and_move(kind: str, seed: int, root: Path) -> None:
    dataset, rng = KINDS[kind](root), random.Random(seed)
    expected = epochs(dataset, 0, 0, count=4)
    with dataset.loader(memory="900 MB", workers=3) as loader:
        mover = Mover(loader, 2)
        loader.set_epoch(0)
        seen: list[list[bytes]] = []
        for _ in range(4):
            seen.append([])
            for batch in loader:
                if rng.random() < 0.2:
                    mover.turn(rng)
                seen[-1].append(told(batch))
        stats = loader.stats()
    assert seen == expected
    assert stats.peak_bytes > 0


@pytest.mark.parametrize("back", [False, True])
def test_no_lane_outlives_a_loader_whose_lanes_moved(back: bool) -> None:
    with fs.from_arrays(np.arange(400)).map(lambda x: x).batch(8).loader(memory="900 MB", workers=3) as loader:
        mover = Mover(loader, 2)
        loader.set_epoch(0)
        for number, _ in enumerate(loader):
            if number == 5:
                mover.to_processes()
            if number == 30 and back:
                mover.to_threads()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fitstream")]


def test_a_lane_that_is_told_to_stop_while_another_is_idle_ends() -> None:
    for _ in range(30):
        gate, inside, who = threading.Event(), threading.Event(), []

        def last_waits(x: Any, gate: Any = gate, inside: Any = inside, who: Any = who) -> Any:
            if x == 39 and not gate.is_set():
                who.append(threading.current_thread())
                inside.set()
                gate.wait(120)
            return x

        with fs.from_arrays(np.arange(40)).map(last_waits).batch(8).loader(memory="9 MB", workers=2) as loader:
            batches = iter(loader)
            kept = [next(batches) for _ in range(4)]
            assert inside.wait(120)
            pipeline = loader._pipeline
            assert pipeline is not None
            stopped = pipeline.crew._lanes[-1].thread
            pipeline.crew.set_lanes(1)
            # The idle lane may take what was meant to wake the busy one.
            until(lambda board=pipeline.board: not board.work_queue._chunks, 0.2)
            gate.set()
            kept += list(batches)
            # Ten seconds and a warning, which is an error here, if the lane waits for a token that never comes.
        if stopped is who[0]:
            return


def test_a_larger_sample_of_a_generator_is_no_error_because_lanes_moved() -> None:
    def growing() -> Iterator[np.ndarray]:
        for i in range(200):
            yield np.full(100 if i < 100 else 20_000, i)

    with fs.from_generator(growing).map(lambda x: x[:3]).batch(8).loader(memory="900 MB", workers=2) as loader:
        mover = Mover(loader, 2)
        loader.set_epoch(0)
        batches = iter(loader)
        seen = next(batches)[:, 0].tolist()
        mover.to_processes()
        for batch in batches:
            seen += batch[:, 0].tolist()
    assert seen[-8:] == list(range(192, 200))


def test_what_a_function_keeps_of_a_generators_samples_stays() -> None:
    class Kept:
        def __init__(self) -> None:
            self.samples: list[tuple[int, np.ndarray]] = []

        def __call__(self, x: np.ndarray) -> Any:
            self.samples.append((int(x[0]), x))
            return np.int64(sum(number != sample[0] for number, sample in self.samples))

    dataset = fs.from_generator(lambda: iter(np.arange(200).repeat(9).reshape(-1, 9))).map(Kept()).batch(8)
    with dataset.loader(memory=ROOM, workers=1, processes=1) as loader:
        assert max(int(batch.max()) for batch in loader) == 0


# Where lanes are.


def test_lanes_are_in_processes_and_not_here() -> None:
    dataset = fs.from_arrays(np.zeros(64, np.int64)).map(lambda x: np.int64(os.getpid())).batch(4)
    recorder = Recorder()
    with dataset.loader(memory=ROOM, workers=2, processes=2, observers=[recorder]) as loader:
        pids = set(np.concatenate([batch.copy() for _ in range(5) for batch in loader]).tolist())
        stats = loader.stats()
    started = recorder.of(WorkerStarted)
    assert os.getpid() not in pids
    assert pids <= {event.pid for event in started}
    assert [event.lane_count for event in started] == [1, 1]
    assert all(5e6 < event.reserved_bytes < 1e8 for event in started)
    assert (stats.lane_count, stats.process_count) == (2, 2)
    assert "2 worker processes" in stats.reason
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(LanesStarted) > kinds.index(WorkerStarted)
    assert kinds[-1] is LanesStopped


def test_workers_0_works_in_the_calling_thread_whatever_processes_says() -> None:
    seen = []

    def note(x: Any) -> Any:
        seen.append(threading.get_ident())
        return x

    with fs.from_arrays(np.arange(8)).map(note).batch(4).loader(memory="5 MB", workers=0, processes=2) as loader:
        assert np.concatenate(list(loader)).tolist() == list(range(8))
    assert set(seen) == {threading.get_ident()}


def test_a_generator_runs_once_a_pass_in_this_process() -> None:
    calls = []

    def make() -> Iterator[Any]:
        calls.append(os.getpid())
        return counting(50)

    with fs.from_generator(make).map(lambda x, y: (x, y)).batch(8).loader(ROOM, workers=2, processes=2) as loader:
        for _ in range(3):
            assert np.concatenate([y.copy() for _, y in loader]).tolist() == list(range(50))
    assert calls == [os.getpid()] * 3


# Leases.


def test_no_array_of_a_kept_epoch_is_ever_overwritten() -> None:
    dataset = fs.from_arrays(arrays(1000)).map(lambda x, y: (x, y)).shuffle(1).batch(10)
    recorder = Recorder()
    with dataset.loader(memory=ROOM, workers=2, processes=2, observers=[recorder]) as loader:
        kept = [batch for _ in range(2) for batch in loader]
        copies = loader.stats().copy_count
        slots = loader.plan.slot_count
    gc.collect()
    assert copies == len(kept) - slots
    assert len(recorder.of(RingExtended)) == 1
    assert all((x[:, 0] == 3 * y).all() for x, y in kept)
    for epoch in (kept[:100], kept[100:]):
        assert sorted(np.concatenate([y for _, y in epoch]).tolist()) == list(range(1000))


def test_a_window_of_batches_beyond_the_ring_is_never_overwritten() -> None:
    with fs.from_arrays(np.arange(4000)).map(lambda x: x).batch(10).loader(ROOM, workers=2, processes=1) as loader:
        window: collections.deque[Any] = collections.deque(maxlen=loader.plan.slot_count + 3)
        for number, batch in enumerate(loader):
            window.append((number, batch))
            assert all(int(old[0]) == 10 * place for place, old in window)
        assert loader.stats().copy_count > 3


def test_two_slots_are_enough_for_a_plain_loop() -> None:
    # Slots so large that what a worker costs less than was planned leaves no room for many more.
    dataset = fs.from_arrays(np.arange(12)).map(lambda x: np.full(10_000_000, x, np.uint8)).batch(1)
    needed = dataset.plan(memory=ROOM, workers=2, processes=2).process_bytes
    for memory_mb in range(needed // 10**6 + 2, needed // 10**6 + 60, 2):
        try:
            loader = dataset.loader(memory=f"{memory_mb} MB", workers=2, processes=2)
        except fs.PlanError:
            continue
        break
    with loader:
        assert loader.plan.slot_count < 5
        for _ in range(3):
            assert sum(len(batch) for batch in loader) == 12
        assert loader.stats().copy_count == 0


def test_batches_stay_valid_after_close() -> None:
    with fs.from_arrays(np.arange(100)).map(lambda x: x).batch(10).loader(ROOM, workers=2, processes=2) as loader:
        batches = iter(loader)
        kept = [next(batches) for _ in range(3)]
    del batches, loader
    gc.collect()
    assert np.concatenate(kept).tolist() == list(range(30))
    kept[0][...] = 0  # and are the consumer's to write to


def test_leaves_start_at_multiples_of_64_bytes() -> None:
    data = {"a": np.zeros((50, 3), np.uint8), "b": (np.zeros(50), np.zeros((50, 5), np.float32))}
    with fs.from_arrays(data).batch(7).loader(ROOM, workers=1, processes=1) as loader:
        for batch in loader:
            assert all(leaf.ctypes.data % 64 == 0 for leaf in (batch["a"], *batch["b"]))
