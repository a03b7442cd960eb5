"""Going on from a state: the very next batch, whatever runs it, and nothing twice."""

from __future__ import annotations

import array
import gc
import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs

WORKERS = [0, 1, 2, 4]
#: Room for worker processes.
ROOM = "300 MB"


def told(batch: Any) -> bytes:
    parts = batch if isinstance(batch, tuple) else (batch,)
    return b"|".join(str((part.dtype, part.shape)).encode() + part.tobytes() for part in parts)


def noisy(x: Any, y: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    return x + rng.random(2), y


def tiny() -> fs.Dataset:
    return fs.from_arrays(np.arange(399)).shuffle(3).batch(2)


def epoch_of_200(last: Any = "keep") -> fs.Dataset:
    x = np.arange(1194.0).reshape(597, 2)
    return fs.from_arrays((x, np.arange(597, dtype=np.uint8))).shuffle(3).map(noisy).batch(3, last)


def loader_of(dataset: fs.Dataset, workers: int = 0, processes: int | None = 0) -> fs.Loader:
    return dataset.loader(memory=ROOM if processes else "2 MB", workers=workers, processes=processes)


def passes(dataset: fs.Dataset, count: int = 2) -> list[list[bytes]]:
    with loader_of(dataset) as loader:
        return [[told(batch) for batch in loader] for _ in range(count)]


def state_after(
    dataset: fs.Dataset, steps: int, workers: int = 0, state: Any = None, processes: int | None = 0
) -> tuple[list[bytes], Any]:
    """Take some batches, perhaps from a state on; what they were, and the state then."""
    with loader_of(dataset, workers, processes) as loader:
        if state is not None:
            loader.load_state_dict(state)
        taken = [told(batch) for batch in itertools.islice(loader, steps)]
        return taken, json.loads(json.dumps(loader.state_dict()))


def resumed(dataset: fs.Dataset, state: Any, workers: int = 0, processes: int | None = 0) -> list[bytes]:
    with loader_of(dataset, workers, processes) as loader:
        loader.load_state_dict(state)
        return [told(batch) for batch in loader]


@pytest.fixture(scope="module")
def expected() -> list[list[bytes]]:
    return passes(epoch_of_200())


def test_an_epoch_is_resumed_at_every_batch() -> None:
    dataset = tiny()
    expected = passes(dataset, 1)
    assert len(expected[0]) == 200
    pairs = itertools.cycle(itertools.product(WORKERS, WORKERS))
    with loader_of(dataset) as other:
        for step, (before, after) in zip(range(200), pairs, strict=False):
            # What is interrupted began a few batches before, which is what it costs to try every batch.
            start = other.state_at(0, max(0, step - 3))
            taken, state = state_after(dataset, min(step, 3), before, start)
            assert taken == expected[0][max(0, step - 3) : step]
            assert state == other.state_at(0, step)
            assert resumed(dataset, state, after) == expected[0][step:]


@pytest.mark.parametrize("before", WORKERS)
@pytest.mark.parametrize("after", WORKERS)
def test_every_pair_of_workers_goes_on(before: int, after: int, expected: list[list[bytes]]) -> None:
    dataset = epoch_of_200()
    for steps in (1, 100, 198):
        taken, state = state_after(dataset, steps, before)
        assert taken + resumed(dataset, state, after) == expected[0]


def test_ten_interruptions_in_one_epoch(expected: list[list[bytes]]) -> None:
    dataset, taken, state = epoch_of_200(), [], None
    for number in range(10):
        more, state = state_after(dataset, 19, WORKERS[number % 4], state)
        taken += more
    assert taken + resumed(dataset, state) == expected[0]


def test_processes_go_on_where_threads_stopped_and_back(expected: list[list[bytes]]) -> None:
    dataset = epoch_of_200()
    taken, state = state_after(dataset, 70, workers=2, processes=1)
    more, state = state_after(dataset, 70, 2, state)
    assert taken + more + resumed(dataset, state, workers=2, processes=2) == expected[0]


@pytest.mark.parametrize("last", ["keep", "drop", "pad", "wrap"])
def test_each_policy_for_the_last_batch_goes_on(last: Any) -> None:
    dataset = fs.from_arrays(np.arange(50.0)).shuffle(1).batch(8, last)
    first, second = passes(dataset)
    for step in range(len(first)):
        with loader_of(dataset, 2) as loader:
            loader.load_state_dict(state_after(dataset, step)[1])
            assert [told(batch) for batch in loader] == first[step:]
            assert [told(batch) for batch in loader] == second


class Batches:
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        return np.full((3 + (index == 0), 2), index)


def test_whole_batches_go_on() -> None:
    dataset = fs.from_batches(Batches()).shuffle(2)
    (first,) = passes(dataset, 1)
    taken, state = state_after(dataset, 4)
    assert taken + resumed(dataset, state, 2) == first


def test_a_state_goes_from_one_number_of_ranks_to_another() -> None:
    dataset = fs.from_arrays(np.arange(96)).shuffle(1).batch(12)
    with loader_of(dataset) as loader:
        expected = np.concatenate(list(loader)[3:]).tolist()
    _, state = state_after(dataset.shard(2, 3), 3)
    loaders = [loader_of(dataset.shard(rank, 4), 1) for rank in range(4)]
    for loader in loaders:
        loader.load_state_dict(state)
    together = [np.concatenate(batches) for batches in zip(*loaders, strict=True)]
    for loader in loaders:
        loader.close()
    assert np.concatenate(together).tolist() == expected


def test_resuming_reads_nothing_again() -> None:
    read: list[int] = []

    class Samples:
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return np.float32(index)

    dataset = fs.from_sequence(Samples()).batch(10)
    with loader_of(dataset) as loader:
        state = loader.state_at(0, 990)
        read.clear()
        loader.load_state_dict(state)
        assert [batch[0] for batch in loader] == list(range(9900, 10_000, 10))
    assert sorted(read) == list(range(9900, 10_000))


# The loader's own side.


def test_the_epoch_and_the_length_are_right_after_loading() -> None:
    dataset = fs.from_arrays(np.arange(50)).batch(8)
    with loader_of(dataset) as loader:
        loader.load_state_dict(loader.state_at(4, 5))
        assert (loader.epoch, len(loader), loader.resumed) == (4, 7, True)
        assert len(list(loader)) == 2
        assert (loader.epoch, len(list(loader)), loader.resumed) == (5, 7, False)
        assert loader.epoch == 6


def test_a_state_after_the_last_batch_is_the_start_of_the_next_epoch() -> None:
    with loader_of(fs.from_arrays(np.arange(20)).batch(8)) as loader:
        batches = iter(loader)
        for place in [(0, 0), (0, 1), (0, 2)]:
            state = loader.state_dict()
            assert (state["epoch"], state["step"]) == place
            next(batches)
        assert loader.state_dict() == loader.state_at(1, 0)
        assert next(batches, None) is None
        assert loader.state_dict() == loader.state_at(1, 0)
        iter(loader)
        assert loader.state_dict() == loader.state_at(1, 0)
        loader.set_epoch(7)
        assert loader.state_dict() == loader.state_at(7, 0)


def test_what_lanes_read_ahead_does_not_count() -> None:
    with loader_of(fs.from_arrays(np.arange(400)).batch(8), 4) as loader:
        next(iter(loader))
        assert loader.state_dict()["step"] == 1


def test_a_state_is_refused_under_an_open_iterator() -> None:
    with loader_of(fs.from_arrays(np.arange(20)).batch(8), 1) as loader:
        state = loader.state_dict()
        batches = iter(loader)
        first = next(batches).copy()
        with pytest.raises(fs.StateError, match="still open"):
            loader.load_state_dict(state)
        assert [len(batch) for batch in batches] == [8, 4]
        loader.load_state_dict(state)  # it has ended
        batches = iter(loader)
        assert (next(batches) == first).all()
        del batches
        gc.collect(0)
        loader.load_state_dict(state)  # it is gone
        stream = loader.stream()
        stream.take()
        with pytest.raises(fs.StateError):
            loader.load_state_dict(state)
        stream.close()
        loader.load_state_dict(state)
    with pytest.raises(fs.LoaderClosed):
        loader.load_state_dict(state)
    assert loader.state_dict() == state


@pytest.mark.parametrize("sequential", [False, True])
def test_a_state_that_is_loaded_at_the_last_batch_is_where_the_next_epoch_begins(sequential: bool) -> None:
    data = fs.from_generator(lambda: iter(range(40)), length=40) if sequential else fs.from_arrays(np.arange(40))
    dataset = data.batch(4)
    with loader_of(dataset) as loader:
        state = loader.state_at(0, 3)
        batches = iter(loader)
        for _ in range(10):
            last = next(batches)
        assert last[-1] == 39
        loader.load_state_dict(state)
        assert next(batches, None) is None
        assert loader.epoch == 0
        assert next(iter(loader))[0] == 12


def test_a_stream_goes_on_over_the_end_of_the_pass() -> None:
    with loader_of(fs.from_arrays(np.arange(20)).shuffle(1).batch(8)) as loader:
        loader.load_state_dict(loader.state_at(1, 2))
        stream = loader.stream(steps=3)
        places = [(got.pass_index, got.step) for got in (stream.take(), stream.take(), stream.take())]
    assert places == [(1, 2), (2, 0), (2, 1)]


def test_an_iterator_that_took_nothing_leaves_the_loaded_place() -> None:
    with loader_of(fs.from_arrays(np.arange(20)).batch(8)) as loader:
        loader.load_state_dict(loader.state_at(0, 1))
        iter(loader)
        assert len(list(loader)) == 2


def test_a_refused_state_changes_nothing() -> None:
    with loader_of(fs.from_arrays(np.arange(20)).batch(8)) as loader:
        other = fs.from_arrays(np.arange(20)).batch(4).loader(memory="1 MB").state_at(0, 2)
        next(iter(loader))
        with pytest.raises(fs.StateError):
            loader.load_state_dict(other)
        assert loader.state_dict() == loader.state_at(0, 1)


# Generators.


def counted(count: int = 50) -> Iterator[Any]:
    for i in range(count):
        yield np.full(2, i, np.float32), i


GENERATORS = {
    "a generator": lambda: fs.from_generator(counted).batch(4),
    "of known length": lambda: fs.from_generator(counted, length=50).batch(4),
    "mapped": lambda: fs.from_generator(counted).map(noisy).batch(4, "pad"),
    "drop": lambda: fs.from_generator(counted).batch(4, "drop"),
    "batches": lambda: fs.from_batches(lambda: (np.full((1 + i % 4, 2), i) for i in range(3, 20))),
    "one that runs once": lambda: fs.from_batches(iter([np.full((2, 2), i) for i in range(9)])),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_go_on_at_every_batch(kind: str) -> None:
    (expected,) = passes(GENERATORS[kind](), 1)
    pairs = itertools.cycle(itertools.product([0, 1, 2], [0, 1, 2]))
    for step, (before, after) in zip(range(len(expected)), pairs, strict=False):
        taken, state = state_after(GENERATORS[kind](), step, before)
        assert taken + resumed(GENERATORS[kind](), state, after) == expected


def test_a_pass_of_unknown_length_that_was_over_goes_on_with_nothing_and_then_the_next() -> None:
    dataset = fs.from_generator(lambda: counted(8)).batch(4)
    expected = passes(dataset, 2)
    for last_was_asked_for in (False, True):
        with loader_of(dataset, 1) as loader:
            batches = iter(loader)
            next(batches), next(batches)
            assert not last_was_asked_for or next(batches, None) is None
            state = loader.state_dict()
        with loader_of(dataset, 1) as loader:
            loader.load_state_dict(state)
            left = [[told(batch) for batch in loader] for _ in range(2 - last_was_asked_for)]
        assert left == ([expected[1]] if last_was_asked_for else [[], expected[1]])


def test_a_generator_goes_on_in_processes() -> None:
    dataset = GENERATORS["mapped"]()
    (expected,) = passes(dataset, 1)
    taken, state = state_after(dataset, 5, workers=2, processes=1)
    assert taken + resumed(dataset, state, workers=2, processes=1) == expected


def test_later_passes_of_a_generator_go_on_too() -> None:
    dataset = GENERATORS["mapped"]()
    expected = passes(dataset, 3)
    with loader_of(dataset) as loader:
        list(loader)
        batches = iter(loader)
        taken = [told(next(batches)) for _ in range(5)]
        state = loader.state_dict()
    with loader_of(dataset) as loader:
        loader.load_state_dict(state)
        assert taken + [told(batch) for batch in loader] == expected[1]
        assert [told(batch) for batch in loader] == expected[2]


def test_a_place_that_was_passed_has_its_digest() -> None:
    dataset = GENERATORS["mapped"]()
    with loader_of(dataset) as loader:
        batches = iter(loader)
        states = []
        for _ in range(6):
            next(batches)
            states.append(loader.state_dict())
        assert [loader.state_at(0, step) for step in range(1, 7)] == states
    with loader_of(dataset) as loader:
        loader.load_state_dict(states[2])
        assert loader.state_dict() == states[2]


def different() -> fs.Dataset:
    rng = np.random.default_rng()  # made outside, so that it is no part of the function

    def samples() -> Iterator[Any]:
        for _ in range(20):
            yield rng.random(3)

    return fs.from_generator(samples).batch(4)


@pytest.mark.filterwarnings("ignore:The loader's state is not complete")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_generator_that_gives_other_samples_is_noticed(workers: int) -> None:
    dataset = different()
    _, state = state_after(dataset, 3)
    with loader_of(dataset, workers) as loader:
        loader.load_state_dict(state)
        for _ in range(2):  # and again, if it is tried again
            with pytest.raises(fs.StateError, match="its first 12 samples were read again, and they differ"):
                next(iter(loader))


class Tensor:
    """As those of other libraries look to NumPy."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.full(3, self.value)


SAMPLES = {
    "tensor": Tensor,
    "tuple with a tensor": lambda v: (Tensor(v), 0.0),
    "dict of tensors": lambda v: {"a": Tensor(v)},
    "list of tensors": lambda v: [Tensor(0), Tensor(v)],
    "list": lambda v: [0.0, v],
    "nested list": lambda v: [[0.0], [v]],
    "array.array": lambda v: array.array("d", [v]),
    "float": float,
    "np.float32": np.float32,
    "array": lambda v: np.full(3, v),
    "text": str,
    "list of texts": lambda v: ["a", str(v)],
    "ragged list": lambda v: [[0.0], [v, v]],
}


@pytest.mark.parametrize("make", SAMPLES.values(), ids=SAMPLES)
def test_each_kind_of_sample_of_a_generator_is_compared_by_content(make: Any, tmp_path: Path) -> None:
    first = tmp_path / "first.txt"

    def samples() -> Iterator[Any]:
        start = float(first.read_text())
        yield from (make(start + i) for i in range(12))

    def number_of(*sample: Any) -> Any:
        return np.float32(1)

    dataset = fs.from_generator(samples).map(number_of).batch(4)
    first.write_text("0")
    _, state = state_after(dataset, 1)
    assert len(resumed(dataset, state)) == 2
    first.write_text("1000")
    with pytest.raises(fs.StateError, match="its first 4 samples were read again, and they differ"):
        resumed(dataset, state)


def test_a_generator_that_ends_before_the_place_is_an_error_with_the_numbers(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("1\n" * 50)

    def numbers() -> Iterator[Any]:
        with lines.open() as file:
            yield from map(float, file)

    with loader_of(fs.from_generator(numbers).batch(4)) as loader:
        list(loader)
        lines.write_text("1\n" * 30)
        loader.load_state_dict(loader.state_at(0, 10))
        with pytest.raises(fs.StateError, match="its first 40 samples are read again, but it ended after 30"):
            next(iter(loader))


def test_a_generator_that_runs_once_and_is_over_is_refused() -> None:
    with loader_of(GENERATORS["one that runs once"]()) as loader:
        list(loader)
        state = loader.state_dict()
    with loader_of(GENERATORS["one that runs once"]()) as loader:
        with pytest.raises(fs.StateError, match="its only pass is over"):
            loader.load_state_dict(state)


@pytest.mark.filterwarnings("ignore:The loader's state is not complete")
def test_replay_ends_when_the_loader_is_closed() -> None:
    reached, released = threading.Event(), threading.Event()

    def endless() -> Iterator[Any]:
        for i in itertools.count():
            if i > 1000:
                reached.set()
            yield np.float32(i)

    loader = loader_of(fs.from_generator(endless).batch(4), 1)
    loader.load_state_dict(loader.state_at(0, 10**12))

    def take() -> None:
        with pytest.raises(fs.LoaderClosed):
            next(iter(loader))
        released.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert reached.wait(120)
    loader.close()
    assert released.wait(120)
    thread.join()


class Counting:
    """An iterator with a state of its own."""

    started = 0

    def __init__(self, count: int, extra: Any = None) -> None:
        self.count, self.next, self.extra = count, 0, extra

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> Any:
        if self.next == self.count:
            raise StopIteration
        self.next += 1
        Counting.started += 1
        return np.full(2, self.next, np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next, "extra": self.extra}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next = state["next"]


class Loading:
    """An iterable with a state of its own, as loaders have them."""

    def __init__(self) -> None:
        self.place, self.resume = 0, 0

    def __iter__(self) -> Iterator[Any]:
        first, self.resume = self.resume, 0
        for i in range(first, 40):
            self.place = i + 1
            yield np.full(2, i, np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resume = state["place"]


class Whole(Counting):
    def __init__(self) -> None:
        super().__init__(13)

    def __next__(self) -> Any:
        return super().__next__().reshape(1, 2)


OWN = {
    "an iterator": lambda: fs.from_generator(lambda: Counting(40)).batch(3),
    "an iterable": lambda: fs.from_generator(Loading).batch(3),
    "one that runs once": lambda: fs.from_batches(Whole()),
}


@pytest.mark.filterwarnings("ignore:The loader's state is not complete")  # the count below changes
@pytest.mark.parametrize("kind", OWN)
def test_a_generator_with_a_state_of_its_own_is_not_read_again(kind: str) -> None:
    dataset = OWN[kind]
    (expected,) = passes(dataset(), 1)
    for step in (1, 5, len(expected) - 1):
        taken, state = state_after(dataset(), step, step % 3)
        assert state["generator"]["own"] is not None
        Counting.started = 0
        assert taken + resumed(dataset(), state, 1) == expected
        assert Counting.started <= 1 + 3 * (len(expected) - step)
        # What comes after it has the same states as if nothing had been interrupted.
        _, after = state_after(dataset(), 1, 0, state)
        assert after["generator"] == state_after(dataset(), step + 1)[1]["generator"]


@pytest.mark.parametrize(
    ("extra", "why"),
    [("x" * 2000, "more than a state has room for"), ({1, 2}, "can't be had as JSON"), ((1, 2), "that JSON changes")],
)
def test_a_state_of_its_own_that_does_not_fit_falls_back_to_reading_again(extra: Any, why: str) -> None:
    dataset = fs.from_generator(lambda: Counting(40, extra)).batch(3)
    (expected,) = passes(dataset, 1)
    with loader_of(dataset) as loader:
        taken = [told(batch) for batch in itertools.islice(loader, 4)]
        with pytest.warns(UserWarning, match=why):
            state = loader.state_dict()
    assert state["generator"]["own"] is None
    assert taken + resumed(dataset, state) == expected


@pytest.mark.filterwarnings("ignore:The loader's state is not complete")
def test_a_state_of_its_own_that_is_not_taken_back_is_an_error() -> None:
    class Forgetful(Counting):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise RuntimeError("no")

    dataset = fs.from_generator(lambda: Forgetful(40)).batch(3)
    _, state = state_after(dataset, 2)
    with loader_of(dataset) as loader:
        loader.load_state_dict(state)
        with pytest.raises(fs.StateError, match=r"failed to take its own state back.*RuntimeError: no"):
            next(iter(loader))


def test_a_counter_that_runs_with_it_does_not_hinder_resuming() -> None:
    calls: list[int] = []

    def counted_calls(x: Any) -> Any:
        calls.append(os.getpid())
        return x

    def dataset() -> fs.Dataset:
        return fs.from_arrays(np.arange(40)).map(counted_calls).batch(4)

    with loader_of(dataset()) as loader:
        taken = [told(batch) for batch in itertools.islice(loader, 4)]
        with pytest.warns(UserWarning, match="closure variable 'calls' changes while it runs"):
            state = loader.state_dict()
    assert len(taken + resumed(dataset(), state)) == 10
