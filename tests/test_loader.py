"""Epochs, determinism, leases, errors: what a loop over a loader may rely on."""

from __future__ import annotations

import collections
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fitstream as fs
from fitstream.events import BatchDelivered, LanesStarted, LanesStopped, PassEnded, PassStarted, RingExtended

WORKERS = [0, 1, 2, 4]


def arrays(count: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3), np.arange(count)


def lanes_alive(told: Any = lambda thread: thread.name) -> list[Any]:
    return [told(thread) for thread in threading.enumerate() if thread.name.startswith("fitstream")]


def digest(dataset: fs.Dataset, workers: int, epochs: int = 2) -> list[list[bytes]]:
    with dataset.loader(memory="20 MB", workers=workers) as loader:
        return [[b"".join(np.asarray(part).tobytes() for part in batch) for batch in loader] for _ in range(epochs)]


def noisy(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return x + rng.random(3).astype(np.float32), y


@pytest.mark.parametrize("last", ["keep", "drop", "pad", "wrap"])
@pytest.mark.parametrize("random", [False, True])
def test_epochs_are_byte_identical_for_every_number_of_workers(last: Any, random: bool) -> None:
    dataset = fs.from_arrays(arrays(333)).shuffle(5)
    dataset = (dataset.map(noisy) if random else dataset).batch(32, last)
    expected = digest(dataset, 0)
    assert expected[0] != expected[1]
    for workers in WORKERS[1:]:
        assert digest(dataset, workers) == expected


def test_epochs_are_the_same_again_in_a_new_process() -> None:
    program = (
        "import hashlib, numpy as np, fitstream as fs\n"
        "x = np.arange(300, dtype=np.float32)\n"
        "ds = fs.from_arrays(x).shuffle(9).map(lambda v, rng: v + rng.random()).batch(32)\n"
        "loader = ds.loader(memory='5 MB', workers=2)\n"
        "print(hashlib.sha256(b''.join(b.tobytes() for _ in range(2) for b in loader)).hexdigest())\n"
    )
    seen = {
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(seen) == 1


def test_seeds_give_different_epochs() -> None:
    data = arrays(100)
    assert digest(fs.from_arrays(data).shuffle(1).batch(10), 0) != digest(fs.from_arrays(data).shuffle(2).batch(10), 0)


def test_without_shuffle_epochs_keep_the_source_order() -> None:
    dataset = fs.from_arrays(np.arange(100)).batch(7)
    with dataset.loader(memory="1 MB", workers=2) as loader:
        for _ in range(2):
            assert np.concatenate(list(loader)).tolist() == list(range(100))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 150),
    size=st.integers(1, 40),
    workers=st.sampled_from(WORKERS),
    mapped=st.booleans(),
    stops=st.lists(st.integers(0, 5), max_size=4),
)
def test_each_sample_comes_once_an_epoch_also_after_loops_left_early(
    count: int, size: int, workers: int, mapped: bool, stops: list[int]
) -> None:
    dataset = fs.from_arrays(np.arange(count)).shuffle(3)
    dataset = (dataset.map(lambda value: value) if mapped else dataset).batch(size)
    with dataset.loader(memory="2 MB", workers=workers) as loader:
        for stop in stops:
            for number, _ in enumerate(loader):
                if number == stop:
                    break
        for _ in range(2):
            assert sorted(np.concatenate(list(loader)).tolist()) == list(range(count))


def test_no_array_of_a_kept_epoch_is_ever_overwritten() -> None:
    dataset = fs.from_arrays(arrays()).shuffle(1).batch(10)
    with dataset.loader(memory="1 MB", workers=3) as loader:
        kept = [batch for _ in range(3) for batch in loader]
        assert loader.stats().copy_count > 0
    for epoch in range(3):
        labels = np.concatenate([y for _, y in kept[epoch * 100 : epoch * 100 + 100]])
        assert sorted(labels.tolist()) == list(range(1000))
    assert all((x[:, 0] == 3 * y).all() for x, y in kept)


@pytest.mark.parametrize("keep", [lambda x: x[1:], lambda x: x.T, lambda x: x.reshape(-1)[::2], memoryview])
def test_a_derived_array_keeps_its_batch_alone(keep: Any) -> None:
    dataset = fs.from_arrays(arrays()).batch(10)
    with dataset.loader(memory="1 MB", workers=2) as loader:
        derived, copies = [], []
        for x, _ in loader:
            derived.append(keep(x))
            copies.append(np.array(derived[-1]))
            del x
        assert all(np.array_equal(np.asarray(d), c) for d, c in zip(derived, copies, strict=True))


def test_a_loop_that_keeps_nothing_uses_the_ring_alone() -> None:
    dataset = fs.from_arrays(arrays()).batch(10)
    with dataset.loader(memory="1 MB", workers=2) as loader:
        for _ in range(3):
            for _batch in loader:
                pass
        assert loader.stats().copy_count == 0


def test_two_slots_are_enough_for_a_plain_loop() -> None:
    dataset = fs.from_arrays(arrays()).batch(100)
    slot = dataset.plan(memory="1 MB").layout.slot_bytes
    with dataset.loader(memory=2 * slot, workers=2) as loader:
        assert loader.plan.slot_count == 2
        assert sum(len(y) for _, y in loader) == 1000
        assert loader.stats().copy_count == 0
        assert len(list(loader)) == 10


def test_batches_stay_valid_after_close() -> None:
    with fs.from_arrays(np.arange(100)).batch(10).loader(memory="1 MB") as loader:
        first = next(iter(loader))
    gc.collect()
    assert first.tolist() == list(range(10))


def test_every_leaf_starts_at_a_multiple_of_64_bytes() -> None:
    data = {"a": np.zeros((50, 3), np.uint8), "b": (np.zeros(50), np.zeros((50, 5), np.float32))}
    with fs.from_arrays(data).batch(7).loader(memory="1 MB") as loader:
        for batch in loader:
            for leaf in (batch["a"], *batch["b"]):
                assert leaf.ctypes.data % 64 == 0


def test_a_new_iteration_starts_the_next_epoch_and_ends_the_older_one() -> None:
    with fs.from_arrays(np.arange(100)).shuffle(0).batch(10).loader(memory="1 MB", workers=2) as loader:
        older = iter(loader)
        next(older)
        assert loader.epoch == 0
        newer = iter(loader)
        next(newer)
        assert loader.epoch == 1
        with pytest.raises(fs.LoaderClosed, match="newer iteration"):
            next(older)


def test_set_epoch_chooses_the_order() -> None:
    dataset = fs.from_arrays(np.arange(100)).shuffle(0).batch(10)
    with dataset.loader(memory="1 MB") as one, dataset.loader(memory="1 MB") as other:
        epochs = [np.concatenate(list(one)).tolist() for _ in range(3)]
        other.set_epoch(2)
        assert np.concatenate(list(other)).tolist() == epochs[2]
        assert other.epoch == 3
        with pytest.raises(fs.PlanError):
            other.set_epoch(-1)


def test_a_stream_lays_passes_end_to_end() -> None:
    with fs.from_arrays(np.arange(25)).shuffle(1).batch(10).loader(memory="1 MB", workers=2) as loader:
        stream = loader.stream(first_pass=0, first_step=1, steps=7)
        places = []
        labels = []
        for _ in range(7):
            delivered = stream.take()
            places.append((delivered.pass_index, delivered.step, delivered.last_of_pass))
            labels.append(delivered.batch.tolist())
        assert [place[:2] for place in places] == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
        assert [place[2] for place in places] == [False, True, False, False, True, False, False]
        assert sorted(labels[2] + labels[3] + labels[4]) == list(range(25))
        with pytest.raises(StopIteration):
            stream.take()
        assert loader.epoch == 2


def test_closing_a_stream_wakes_a_take_that_waits_in_another_thread() -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(value: Any) -> Any:
        if value > 0:
            entered.set()
            release.wait(120)
        return value

    with fs.from_arrays(np.arange(20)).map(slow).batch(10).loader(memory="1 MB", workers=1) as loader:
        stream = loader.stream(steps=2)
        raised: list[BaseException] = []

        def consume() -> None:
            try:
                stream.take()
            except fs.FitstreamError as error:
                raised.append(error)

        consumer = threading.Thread(target=consume)
        consumer.start()
        entered.wait(120)
        stream.close()
        consumer.join(120)
        release.set()
        assert [type(error) for error in raised] == [fs.LoaderClosed]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_transform_that_raises_is_told_with_sample_stage_and_line(workers: int) -> None:
    def picky(x: Any, y: Any) -> Any:
        if y in (57, 91):
            raise ValueError("I don't like it")
        return x, y

    with fs.from_arrays(arrays(100)).map(picky).batch(40).loader(memory="2 MB", workers=workers) as loader:
        seen = 0
        batches = iter(loader)
        with pytest.raises(fs.SampleError, match="I don't like it") as caught:
            while True:
                seen += len(next(batches)[1])
        assert seen == 40
        error = caught.value
        assert error.index == 57
        assert error.stage is not None
        assert "picky" in error.stage
        assert error.user_line is not None
        assert __file__ in error.user_line
        assert isinstance(error.__cause__, ValueError)
        assert lanes_alive() == []


@pytest.mark.parametrize("workers", WORKERS)
def test_samples_of_another_shape_or_dtype_are_refused_by_index(workers: int) -> None:
    for other, told in [
        (np.zeros(4, np.float32), "shape"),
        (np.zeros(3), "dtype"),
        ((1, 2), "tuple"),
        (np.array(list("abc")), "dtype"),
    ]:
        samples = [np.zeros(3, np.float32)] * 30 + [other]
        with fs.from_sequence(samples).batch(8).loader(memory="1 MB", workers=workers) as loader:
            with pytest.raises(fs.SampleError, match=told) as caught:
                list(loader)
            assert caught.value.index == 30


def test_the_loader_can_be_used_again_after_an_error() -> None:
    broken = [True]

    def fails_once(value: Any) -> Any:
        if broken[0] and value == 50:
            raise RuntimeError("once")
        return value

    with fs.from_arrays(np.arange(100)).map(fails_once).batch(10).loader(memory="1 MB", workers=2) as loader:
        with pytest.raises(fs.SampleError):
            list(loader)
        broken[0] = False
        assert np.concatenate(list(loader)).tolist() == list(range(100))


@pytest.mark.parametrize("workers", WORKERS)
def test_an_exception_in_the_loop_leaves_no_thread(workers: int) -> None:
    def train() -> None:
        with fs.from_arrays(arrays()).batch(10).loader(memory="1 MB", workers=workers) as loader:
            for number, _ in enumerate(loader):
                if number == 3:
                    raise KeyError("training failed")

    with pytest.raises(KeyError):
        train()
    assert lanes_alive() == []


def test_a_loader_that_is_dropped_ends_its_lanes() -> None:
    loader = fs.from_arrays(arrays()).batch(10).loader(memory="1 MB", workers=2)
    next(iter(loader))
    assert len(lanes_alive()) == 2
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None
    assert lanes_alive() == []


def test_lanes_live_across_epochs() -> None:
    with fs.from_arrays(arrays()).batch(10).loader(memory="1 MB", workers=2) as loader:
        list(loader)
        before = lanes_alive(lambda thread: thread.ident)
        list(loader)
        assert lanes_alive(lambda thread: thread.ident) == before


def test_a_closed_loader_says_so() -> None:
    loader = fs.from_arrays(arrays()).batch(10).loader(memory="1 MB")
    iterator = iter(loader)
    loader.close()
    loader.close()
    with pytest.raises(fs.LoaderClosed):
        next(iterator)
    with pytest.raises(fs.LoaderClosed, match="Make a new one"):
        iter(loader)


def test_a_function_that_exits_the_thread_is_reported_and_nothing_hangs() -> None:
    def leaves(value: Any) -> Any:
        if value == 15:
            raise SystemExit(3)
        return value

    with fs.from_arrays(np.arange(30)).map(leaves).batch(10).loader(memory="1 MB", workers=2) as loader:
        with pytest.raises(fs.FitstreamError, match="SystemExit"):
            list(loader)


def test_ctrl_c_in_the_loop_ends_everything_at_once() -> None:
    program = (
        "import os, signal, threading, time, numpy as np, fitstream as fs\n"
        "def slow(v):\n"
        "    if v >= 20:\n"
        "        threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start() if v == 20 else None\n"
        "        time.sleep(0.3)\n"
        "    return v\n"
        "loader = fs.from_arrays(np.arange(4000)).map(slow).batch(10).loader(memory='1 MB', workers=WORKERS)\n"
        "try:\n"
        "    for batch in loader: pass\n"
        "except KeyboardInterrupt:\n"
        "    assert not [t for t in threading.enumerate() if t.name.startswith('fitstream')]\n"
        "    print('stopped')\n"
    )
    for workers in (0, 2):
        done = subprocess.run(
            [sys.executable, "-c", program.replace("WORKERS", str(workers))],
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        assert done.stdout == "stopped\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_its_batches_and_is_told_to_make_its_own_loader() -> None:
    program = (
        "import os, sys, numpy as np, fitstream as fs\n"
        "loader = fs.from_arrays(np.arange(400)).batch(10).loader(memory='1 kB', workers=1)\n"
        "batches = iter(loader)\n"
        "held = next(batches)\n"
        "read, write = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.read(read, 1)\n"
        "    print(held.tolist(), flush=True)\n"
        "    try:\n"
        "        for _ in range(30): next(batches)\n"
        "    except fs.FitstreamError as error:\n"
        "        print(error, flush=True)\n"
        "    os._exit(0)\n"
        "del held\n"
        "for batch in batches: pass\n"
        "os.write(write, b'x')\n"
        "os.waitpid(child, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.splitlines()[0] == str(list(range(10)))
    assert "a forked process must make a loader of its own" in done.stdout.lower()


def test_events_tell_what_happens() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def on_event(self, event: Any) -> None:
            self.events.append(event)

    recorder = Recorder()
    with fs.from_arrays(np.arange(50)).batch(20).loader(memory="1 MB", workers=1, observers=[recorder]) as loader:
        kept = list(loader)
        kept += list(loader)
    kinds = [type(event) for event in recorder.events]
    assert kinds[0] is LanesStarted
    assert kinds[-1] is LanesStopped
    assert kinds.count(BatchDelivered) == 6
    assert kinds.count(PassStarted) == 2
    assert [e.sample_count for e in recorder.events if isinstance(e, PassEnded)] == [50, 50]
    assert RingExtended in kinds
    with pytest.raises(fs.PlanError, match="on_event"):
        fs.from_arrays(np.arange(5)).batch(2).loader(observers=[print])  # type: ignore[list-item]
    for wrong in (recorder, None):
        with pytest.raises(fs.PlanError, match=r"observers=.* must be a list: observers=\[\.\.\.\]"):
            fs.from_arrays(np.arange(5)).batch(2).loader(observers=wrong)  # type: ignore[arg-type]


def test_stats_count_what_was_delivered() -> None:
    with fs.from_arrays(arrays(105)).batch(10).loader(memory="1 MB", workers=2) as loader:
        list(loader)
        stats = loader.stats()
    assert (stats.batch_count, stats.sample_count) == (11, 105)
    assert 0 < stats.peak_bytes <= stats.projected_bytes <= stats.budget_bytes
    assert 0 <= stats.waited_share <= 1
    assert stats.samples_per_s > 0


# Generators.


def counting(count: int) -> Iterator[tuple[np.ndarray, int]]:
    for i in range(count):
        yield np.full(3, i, np.float32), i


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("last", ["keep", "drop", "pad"])
@pytest.mark.parametrize("length", [None, 100])
def test_a_generator_is_run_once_a_pass_in_order(workers: int, mapped: bool, last: Any, length: int | None) -> None:
    calls = []

    def make() -> Iterator[Any]:
        calls.append(threading.current_thread().name)
        return counting(100)

    dataset = fs.from_generator(make, length)
    dataset = (dataset.map(lambda x, y: (x * 2, y)) if mapped else dataset).batch(16, last)
    expected = list(range(100)) + [0] * 12 if last == "pad" else list(range(96 if last == "drop" else 100))
    with dataset.loader(memory="2 MB", workers=workers) as loader:
        for epoch in range(3):
            batches = [(x.copy(), y.copy()) for x, y in loader]
            assert np.concatenate([y for _, y in batches]).tolist() == expected
            factor = 2 if mapped else 1
            assert all((x[:, 0] == factor * y).all() for x, y in batches)
            assert loader.epoch == epoch + 1
    assert len(calls) == 3


def test_the_sample_that_plan_reads_is_delivered() -> None:
    dataset = fs.from_generator(lambda: iter(range(10))).batch(4)
    dataset.plan()
    dataset.plan()
    with dataset.loader(memory="1 MB") as loader:
        assert np.concatenate(list(loader)).tolist() == list(range(10))


@pytest.mark.parametrize("workers", WORKERS)
def test_a_generator_that_raises_delivers_what_came_before(workers: int) -> None:
    def breaks() -> Iterator[int]:
        yield from range(25)
        raise OSError("disk gone")

    with fs.from_generator(breaks).map(lambda v: v).batch(10).loader(memory="1 MB", workers=workers) as loader:
        seen: list[int] = []
        with pytest.raises(fs.SampleError, match="disk gone") as caught:
            for batch in loader:
                seen += batch.tolist()
    assert seen == list(range(20))
    assert caught.value.index == 25
    assert caught.value.stage == "read"


def test_a_generator_that_yields_nothing_is_refused_by_plan() -> None:
    with pytest.raises(fs.SourceError, match="yielded nothing"):
        fs.from_generator(lambda: iter(())).batch(4).plan()


def test_a_generator_that_yields_nothing_in_a_later_pass_is_an_error() -> None:
    once = iter(range(10))
    with fs.from_generator(lambda: (yield from once)).batch(4).loader(memory="1 MB", workers=1) as loader:
        list(loader)
        with pytest.raises(fs.SourceError, match="pass 1 yielded nothing"):
            list(loader)


def test_a_generator_shorter_than_its_length_is_an_error() -> None:
    with fs.from_generator(lambda: iter(range(10)), length=12).batch(4).loader(memory="1 MB", workers=1) as loader:
        with pytest.raises(fs.SourceError, match="ended after 10"):
            list(loader)


def test_an_endless_generator_with_a_length_ends_its_pass_there() -> None:
    def endless() -> Iterator[int]:
        value = 0
        while True:
            yield value
            value += 1

    with fs.from_generator(endless, length=9).batch(4).loader(memory="1 MB", workers=1) as loader:
        assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_a_running_generator_is_refused_where_a_function_is_needed() -> None:
    with pytest.raises(fs.PlanError, match="pass fn, not fn"):
        fs.from_generator(counting(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", WORKERS)
def test_finished_batches_keep_their_sizes(workers: int) -> None:
    def make() -> Iterator[Any]:
        for size in (4, 4, 1, 3):
            yield {"x": np.ones((size, 2)), "y": np.arange(size)}

    with fs.from_batches(make).loader(memory="1 MB", workers=workers) as loader:
        for _ in range(2):
            assert [len(batch["x"]) for batch in loader] == [4, 4, 1, 3]


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_of_a_sequence_are_fetched_each_once_in_shuffled_order(workers: int) -> None:
    class Sequence:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> Any:
            return np.full((5, 2), index), np.full(5, index)

    dataset = fs.from_batches(Sequence()).shuffle(3).map(lambda x, y: (x + 1, y))
    with dataset.loader(memory="1 MB", workers=workers) as loader:
        epochs = [[int(y[0]) for _, y in loader] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7))
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_planned_is_an_error_that_names_the_setting() -> None:
    sizes = [2, 3]
    with fs.from_batches([np.zeros((size, 2)) for size in sizes]).loader(memory="1 MB", workers=1) as loader:
        with pytest.raises(fs.SampleError, match="batch_size=3"):
            list(loader)
    with fs.from_batches([np.zeros((size, 2)) for size in sizes], batch_size=3).loader(memory="1 MB") as loader:
        assert [len(batch) for batch in loader] == sizes


def test_a_one_shot_generator_feeds_one_pass_of_one_loader() -> None:
    dataset = fs.from_batches(np.full((2, 2), i) for i in range(5))
    with dataset.loader(memory="1 MB", workers=1) as loader:
        assert [int(batch[0, 0]) for batch in loader] == [0, 1, 2, 3, 4]
        with pytest.raises(fs.SourceError, match="only once"):
            list(loader)
    with pytest.raises(fs.SourceError, match="only once"):
        dataset.loader(memory="1 MB", workers=1)


# What a review found, so that it stays mended.


def test_a_generator_that_failed_leaves_the_lanes_idle_until_its_batch_is_asked_for() -> None:
    def breaks() -> Iterator[int]:
        yield from range(5)
        raise OSError("gone")

    with fs.from_generator(breaks).batch(10).loader(memory="1 MB", workers=1) as loader:
        stream = loader.stream()
        with pytest.raises(fs.SampleError, match="gone"):
            stream.take()
        board = loader.stream()._pipeline.board
        taker = loader.stream()
        with pytest.raises(fs.SampleError):
            taker.take()
        assert board.next_number <= loader.plan.slot_count + 1


def test_two_streams_of_a_loader_without_lanes_never_run_it_at_once() -> None:
    inside, most = [0], [0]
    entered, go = threading.Event(), threading.Event()

    def watched(value: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        if value == 5:
            entered.set()
            go.wait(120)
        inside[0] -= 1
        return value

    with fs.from_arrays(np.arange(100)).map(watched).batch(10).loader(memory="1 MB", workers=0) as loader:
        older = loader.stream()
        raised: list[BaseException] = []

        def consume() -> None:
            try:
                older.take()
            except fs.FitstreamError as error:
                raised.append(error)

        consumer = threading.Thread(target=consume)
        consumer.start()
        entered.wait(120)
        newer = loader.stream(first_pass=0)
        threading.Timer(0.05, go.set).start()
        assert [newer.take().batch[0] for _ in range(3)] == [0, 10, 20]
        consumer.join(120)
    assert most[0] == 1
    assert [type(error) for error in raised] == [fs.LoaderClosed]


def test_a_batch_that_is_kept_keeps_no_other_slot() -> None:
    loader = fs.from_arrays(np.zeros((64, 1000))).batch(8).loader(memory="1 MB", workers=1)
    batches = iter(loader)
    kept = [next(batches), next(batches)]
    assert not any(np.shares_memory(kept[0], other) for other in kept[1:])
    slots = [weakref.ref(slot.buffer) for slot in loader.stream()._pipeline.board.slots]
    del batches
    loader.close()
    assert sum(slot() is not None for slot in slots) == len(kept)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sequential", [False, True])
def test_an_error_that_is_kept_keeps_no_memory_of_batches(workers: int, sequential: bool) -> None:
    def broken(value: Any) -> Any:
        if value[0] == 20:
            raise ValueError("no")
        return value

    rows = np.repeat(np.arange(64.0)[:, None], 100, axis=1)
    dataset = fs.from_generator(lambda: iter(rows)) if sequential else fs.from_arrays(rows)
    gc.collect()
    gc.disable()
    try:
        loader = dataset.map(broken).batch(8).loader(memory="1 MB", workers=workers)
        slots = [weakref.ref(slot.buffer) for slot in loader.stream()._pipeline.board.slots]
        with pytest.raises(fs.SampleError) as caught:
            for batch in loader:
                del batch
        assert caught.value.index == 20
        assert not any(slot() is not None for slot in slots)
    finally:
        gc.enable()


def test_a_consumer_that_keeps_a_window_of_batches_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fitstream.engine import pipeline

    naps: list[float] = []
    monkeypatch.setattr(pipeline.time, "sleep", naps.append)
    clock = iter(range(10**9))
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: next(clock) * pipeline._GRACE_S)
    with fs.from_arrays(np.arange(4000)).batch(10).loader(memory="1 MB", workers=2) as loader:
        window: collections.deque[Any] = collections.deque(maxlen=loader.plan.slot_count + 3)
        for batch in loader:
            window.append(batch)
        assert loader.stats().copy_count > 3
    assert len(naps) <= 2  # the grace of one wait, by a clock that makes it two looks long


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_dropped_rests_of_passes_lose_no_batch_to_a_consumer_that_keeps_all(workers: int) -> None:
    with fs.from_generator(lambda: iter(range(10))).batch(4, "drop").loader(memory="1 MB", workers=workers) as loader:
        stream = loader.stream(steps=60)
        kept = [stream.take().batch for _ in range(60)]
    assert [batch.tolist() for batch in kept] == [[0, 1, 2, 3], [4, 5, 6, 7]] * 30


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_generator_may_yield_the_same_array_again(workers: int, mapped: bool) -> None:
    def reuses() -> Iterator[np.ndarray]:
        buffer = np.zeros(2)
        for i in range(40):
            buffer[:] = i
            yield buffer

    dataset = fs.from_generator(reuses)
    dataset = (dataset.map(lambda v: v) if mapped else dataset).batch(16)
    with dataset.loader(memory="1 MB", workers=workers) as loader:
        assert np.concatenate([batch[:, 0].copy() for batch in loader]).tolist() == list(range(40))


@pytest.mark.parametrize("workers", [0, 2])
def test_functions_that_work_in_place_change_nothing_but_their_own(workers: int) -> None:
    def add(value: np.ndarray) -> np.ndarray:
        value += 1
        return value

    held = [np.zeros(2) for _ in range(10)]
    for dataset in (fs.from_sequence(held), fs.from_generator(lambda: iter(held))):
        mapped = dataset.map(add).batch(4)
        mapped.plan()
        with mapped.loader(memory="1 MB", workers=workers) as loader:
            for _ in range(2):
                assert all((batch == 1).all() for batch in loader)
        assert all((value == 0).all() for value in held)


def test_closing_in_mid_take_is_told_as_that() -> None:
    for _ in range(200):
        loader = fs.from_arrays(np.arange(400)).batch(2).loader(memory="1 MB", workers=1)
        stream = loader.stream()
        closer = threading.Thread(target=loader.close)
        stream.take()
        closer.start()
        with pytest.raises(fs.LoaderClosed):
            while True:
                stream.take()
        closer.join()


def test_an_observer_that_fails_leaves_no_lane() -> None:
    class Fails:
        def on_event(self, event: Any) -> None:
            raise RuntimeError("observer")

    loader = fs.from_arrays(np.arange(10)).batch(2).loader(memory="1 MB", workers=2, observers=[Fails()])
    with pytest.raises(RuntimeError, match="observer"):
        iter(loader)
    assert lanes_alive() == []


def test_an_epoch_that_was_wished_for_is_not_lost_to_the_loop_in_progress() -> None:
    with fs.from_arrays(np.arange(30)).shuffle(0).batch(10).loader(memory="1 MB") as loader:
        for _ in loader:
            loader.set_epoch(7)
        next(iter(loader))
        assert loader.epoch == 7


def test_a_pass_of_known_length_that_drops_its_rest_ends_with_its_last_batch() -> None:
    pulled = []

    def counted() -> Iterator[int]:
        for i in range(10):
            pulled.append(i)
            yield i

    with fs.from_generator(counted, length=10).batch(4, "drop").loader(memory="1 MB", workers=0) as loader:
        stream = loader.stream(steps=4)
        assert [stream.take().last_of_pass for _ in range(4)] == [False, True, False, True]
        assert stream.position == (2, 0)
    assert pulled == [*range(8)] * 2


def test_batches_of_a_sequence_may_be_shuffled_though_the_last_is_smaller() -> None:
    batches = [np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((1, 2))]
    for seed in range(10):
        with fs.from_batches(batches).shuffle(seed).loader(memory="1 MB") as loader:
            assert sorted(len(batch) for batch in loader) == [1, 4, 4]


def test_an_error_before_the_first_sample_names_it() -> None:
    def breaks() -> Iterator[int]:
        raise OSError("disk")
        yield 1

    with pytest.raises(fs.SampleError, match="disk") as caught:
        fs.from_generator(breaks).batch(2).plan()
    assert (caught.value.index, caught.value.stage) == (0, "read")


def test_raw_samples_of_a_generator_are_counted_and_bounded() -> None:
    def large() -> Iterator[np.ndarray]:
        for _ in range(40):
            yield np.zeros(3_000_000, np.uint8)

    plan = fs.from_generator(large).batch(16).plan(memory="200 MB", workers=2)
    assert plan.chunk_rows == 1
    assert plan.queue_bytes == 3_000_000
    mapped = fs.from_generator(large).map(lambda value: value[:10]).batch(16).plan("200 MB", workers=2, processes=0)
    assert mapped.queue_bytes == 4 * 3_000_000
