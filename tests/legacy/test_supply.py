"""Batches of generators and Sequences: each once, in order, as they were made, whoever makes them."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitstream.errors import PlanError, SampleError, Stalled, WorkerDied
from fitstream.legacy.sequence import Sequence
from fitstream.legacy.supply import Supply

MODES = [
    pytest.param({"workers": 0}, id="calling thread"),
    pytest.param({"workers": 1}, id="one thread"),
    pytest.param({"workers": 3}, id="three threads"),
    pytest.param({"workers": 2, "use_multiprocessing": True}, id="two processes"),
]


class Counting(Sequence):
    """Batch i is i, times a factor that `on_epoch_end` changes, along with the length."""

    def __init__(self, length: int, *, longer: int = 0) -> None:
        self.length, self.longer, self.factor, self.ends = length, longer, 1, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 3), index * self.factor)

    def on_epoch_end(self) -> None:
        self.ends += 1
        self.factor *= 10
        self.length += self.longer


def numbers(supply: Supply, count: int | None = None) -> list[int]:
    """First number of each batch of a run, to its end or so many."""
    found: list[int] = []
    while count is None or len(found) < count:
        try:
            found.append(int(supply.take()[0, 0]))
        except StopIteration:
            break
    return found


def counting_up() -> Iterator[Any]:
    number = 0
    while True:
        yield np.full((1, 1), number)
        number += 1


@pytest.mark.parametrize("mode", MODES)
def test_a_sequence_comes_in_passes_laid_end_to_end(mode: dict[str, Any]) -> None:
    with Supply(Counting(3), **mode) as supply:
        supply.start(8)
        assert numbers(supply) == [0, 1, 2, 0, 10, 20, 0, 100]


@pytest.mark.parametrize("mode", MODES)
def test_its_length_is_read_anew_for_each_pass(mode: dict[str, Any]) -> None:
    with Supply(Counting(1, longer=1), **mode) as supply:
        supply.start(6)
        assert numbers(supply) == [0, 0, 10, 0, 100, 200]


@pytest.mark.parametrize("mode", MODES)
def test_shuffle_permutes_each_pass_by_the_seed(mode: dict[str, Any]) -> None:
    class Plain(Counting):
        def on_epoch_end(self) -> None:
            pass

    with Supply(Plain(20), shuffle=True, seed=3, **mode) as supply:
        supply.start(40)
        found = numbers(supply)
    with Supply(Plain(20), shuffle=True, seed=3, workers=0) as supply:
        supply.start(40)
        assert numbers(supply) == found
    assert sorted(found[:20]) == sorted(found[20:]) == list(range(20))
    assert found[:20] != found[20:]
    assert found[:20] != list(range(20))


@pytest.mark.parametrize("mode", MODES)
def test_on_epoch_end_waits_for_the_last_batch_to_be_taken(mode: dict[str, Any]) -> None:
    sequence = Counting(3)
    with Supply(sequence, **mode) as supply:
        supply.start(6)
        numbers(supply, 2)
        supply.finish_pass()
        assert sequence.ends == 0
        numbers(supply, 1)
        assert sequence.ends == 0
        supply.finish_pass()
        supply.finish_pass()
        assert sequence.ends == 1
        numbers(supply)
        supply.finish_pass()
        assert sequence.ends == 2


def test_a_pass_that_is_left_ends_without_on_epoch_end() -> None:
    sequence = Counting(3)
    with Supply(sequence, workers=2) as supply:
        supply.start(6)
        numbers(supply, 2)
        supply.start(3)
        assert numbers(supply) == [0, 1, 2]
        assert sequence.ends == 0


@pytest.mark.parametrize("mode", MODES)
def test_batches_come_as_they_were_made(mode: dict[str, Any]) -> None:
    class Mixed(Counting):
        def __getitem__(self, index: int) -> Any:
            return [np.ones((index + 1, 2), np.float16)], {"y": (np.arange(index + 1), 3.5)}, None

    with Supply(Mixed(2), **mode) as supply:
        supply.start(2)
        for rows in (1, 2):
            x, y, weight = supply.take()
            assert (type(x), x[0].shape, x[0].dtype) == (list, (rows, 2), np.float16)
            assert y["y"][0].tolist() == list(range(rows))
            assert y["y"][1] == 3.5
            assert weight is None


def test_what_has_no_form_in_bytes_is_handed_over_as_it_is() -> None:
    marker = object()

    def objects() -> Iterator[Any]:
        yield marker, np.array([{1}, None])

    with Supply(objects()) as supply:
        supply.start()
        assert supply.take()[0] is marker


def test_what_can_be_read_as_an_array_leaves_a_worker_as_one() -> None:
    class Masked(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.ma.masked_array([[index]], mask=[[False]])

    with Supply(Masked(1), workers=1, use_multiprocessing=True) as supply:
        supply.start(1)
        assert type(supply.take()) is np.ndarray


def test_what_has_no_form_in_bytes_is_an_error_from_a_worker() -> None:
    class Sets(Counting):
        def __getitem__(self, index: int) -> Any:
            return {1, 2}

    with Supply(Sets(1), workers=1, use_multiprocessing=True) as supply:
        supply.start(1)
        with pytest.raises(SampleError, match=r"Batch 0 failed in batch: .*is a set"):
            supply.take()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_generator_goes_on_from_run_to_run(workers: int) -> None:
    with Supply(counting_up(), workers=workers) as supply:
        supply.start(3)
        assert numbers(supply) == [0, 1, 2]
        supply.stop()
        supply.start(2)
        assert numbers(supply) == [3, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_is_never_asked_for_more_than_the_total(workers: int) -> None:
    asked = [0]

    def watched() -> Iterator[Any]:
        for batch in counting_up():
            asked[0] += 1
            yield batch

    with Supply(watched(), workers=workers, total=7) as supply:
        supply.start()
        assert len(numbers(supply)) == 7
        with pytest.raises(StopIteration):
            supply.take()
    assert asked == [7]


def test_a_generator_that_ends_is_known_to_have_ended() -> None:
    with Supply(iter([np.zeros((1, 1))] * 2)) as supply:
        supply.start()
        assert len(numbers(supply)) == 2
        assert supply.ended


def test_a_generator_that_gives_nothing_has_ended() -> None:
    with Supply(iter(())) as supply:
        supply.start()
        assert numbers(supply) == []
        assert supply.ended


def test_a_generator_may_fill_the_same_array_again() -> None:
    def reusing() -> Iterator[Any]:
        array = np.zeros((1, 1))
        for number in range(5):
            array[:] = number
            yield array

    with Supply(reusing()) as supply:
        supply.start()
        assert numbers(supply) == [0, 1, 2, 3, 4]


def test_a_generator_needs_no_iter_and_is_never_asked_for_one() -> None:
    class Bare:
        number = 0

        def __next__(self) -> Any:
            self.number += 1
            return np.full((1, 1), self.number)

    class Resetting(Bare):
        def __iter__(self) -> Any:
            self.number = 0
            return self

    for kind in (Bare, Resetting):
        generator = kind()
        for expected in ([1, 2], [3, 4]):
            with Supply(generator, total=2) as supply:
                supply.start()
                assert numbers(supply) == expected


def test_a_generator_may_be_given_to_two_at_once() -> None:
    taken: list[int] = []

    def other() -> None:
        with Supply(generator, total=1) as supply:
            supply.start()
            taken.extend(numbers(supply))

    def busy() -> Iterator[Any]:
        meanwhile.start()
        meanwhile.join(0.2)  # time enough to find that it runs
        yield np.full((1, 1), 1)
        yield np.full((1, 1), 2)

    meanwhile = threading.Thread(target=other)
    generator = busy()
    with Supply(generator, total=1) as supply:
        supply.start()
        assert numbers(supply) == [1]
    meanwhile.join()
    assert taken == [2]


def test_an_object_with_next_as_in_python_2_is_a_generator() -> None:
    class Old:
        number = 0

        def next(self) -> Any:
            self.number += 1
            return np.full((1, 1), self.number)

    with Supply(Old(), total=3) as supply:
        supply.start()
        assert numbers(supply) == [1, 2, 3]


@pytest.mark.parametrize("queue", [1, 2, 5])
def test_the_queue_bounds_what_a_generator_is_asked_for(queue: int) -> None:
    asked, enough = [0], threading.Event()
    most = max(2, queue)

    def watched() -> Iterator[Any]:
        for batch in counting_up():
            asked[0] += 1
            if asked[0] == most:
                enough.set()
            yield batch

    with Supply(watched(), max_queue_size=queue, total=100) as supply:
        supply.start()
        first = supply.take()
        assert enough.wait(120)
        # The lane now waits for a slot: nothing of the ring is free as long as the first batch is held.
        slots = supply.loader._pipeline.board.slots  # type: ignore[union-attr]
        assert len(slots) == most
        second = supply.take()
        assert asked[0] <= most
        del first, second


@pytest.mark.parametrize("mode", MODES)
def test_batches_larger_than_the_first_get_larger_slots(mode: dict[str, Any]) -> None:
    class Growing(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.full((1, 1 << (2 * index)), index)

    with Supply(Growing(11), memory="300 MB", max_queue_size=2, **mode) as supply:
        supply.start(11)
        assert numbers(supply) == list(range(11))
        stats = supply.loader.stats()
        assert stats.peak_bytes <= stats.projected_bytes <= stats.budget_bytes


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_beyond_the_budget_is_refused_with_the_numbers(mode: dict[str, Any]) -> None:
    class Large(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.zeros((1, 60_000_000), np.uint8)

    with Supply(Large(2), memory="110 MB", **mode) as supply:
        supply.start(2)
        with pytest.raises(SampleError, match=r"takes 60 MB, but memory= leaves .* max_queue_size"):
            supply.take()


def test_a_budget_without_room_for_batches_is_refused_with_one_that_suffices() -> None:
    with pytest.raises(PlanError, match=r'there is no room for batches in memory=1 kB\. Use memory >= "132 kB"'):
        Supply(Counting(2), memory=1000)


def test_the_budget_bounds_the_batches_in_flight() -> None:
    class Megabytes(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.zeros((1, 10_000_000), np.uint8)

    with Supply(Megabytes(8), memory="40 MB", workers=2) as supply:
        supply.start(8)
        for _ in range(8):
            supply.take()
        stats = supply.loader.stats()
        assert stats.peak_bytes <= stats.projected_bytes <= 40_000_000


def test_batches_are_made_in_worker_processes_alone() -> None:
    class Whose(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.array([[os.getpid()]])

    with Supply(Whose(12), workers=3, use_multiprocessing=True) as supply:
        supply.start(24)
        found = set(numbers(supply))
    assert os.getpid() not in found
    assert 1 <= len(found) <= 3


def test_random_numbers_in_workers_depend_on_seed_pass_and_place_alone() -> None:
    class Drawing(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.array([[np.random.randint(1 << 40)]]), random.random()  # noqa: NPY002

    def drawn(workers: int, seed: int) -> list[tuple[int, float]]:
        with Supply(Drawing(6), workers=workers, use_multiprocessing=True, seed=seed) as supply:
            supply.start(12)
            return [(int(x[0, 0]), y) for x, y in (supply.take() for _ in range(12))]

    one = drawn(1, 0)
    assert len(set(one)) == 12
    assert drawn(3, 0) == one
    assert not set(drawn(1, 1)) & set(one)


@pytest.mark.parametrize("mode", MODES)
def test_arrays_that_on_epoch_end_changes_in_place_are_used(mode: dict[str, Any]) -> None:
    class Held(Counting):
        def __init__(self) -> None:
            super().__init__(2)
            self.x = np.arange(20_000)

        def __getitem__(self, index: int) -> Any:
            return self.x[index : index + 1, None]

        def on_epoch_end(self) -> None:
            self.x += 100

    with Supply(Held(), **mode) as supply:
        supply.start(6)
        assert numbers(supply) == [0, 1, 100, 101, 200, 201]


def test_a_sequence_that_did_not_change_is_not_sent_again() -> None:
    class Still(Counting):
        def on_epoch_end(self) -> None:
            pass

    with Supply(Still(2), workers=1, use_multiprocessing=True) as supply:
        supply.start(6)
        pool = supply.loader._pipeline.crew.pool  # type: ignore[union-attr]
        before = pool._parcel  # type: ignore[union-attr]
        numbers(supply)
        assert pool._parcel is before  # type: ignore[union-attr]


def test_a_sequence_that_cannot_be_sent_is_made_in_threads_with_a_warning() -> None:
    class Locked(Counting):
        def __init__(self) -> None:
            super().__init__(2)
            self.lock = threading.Lock()

    with pytest.warns(UserWarning, match="made in threads: .*lock") as told:
        supply = Supply(Locked(), workers=2, use_multiprocessing=True)
    assert told[0].filename == __file__
    with supply:
        supply.start(4)
        assert numbers(supply) == [0, 1, 0, 10]


def test_a_sequence_that_cannot_be_sent_any_more_goes_on_in_threads() -> None:
    class Locking(Counting):
        lock: Any = None

        def on_epoch_end(self) -> None:
            super().on_epoch_end()
            self.lock = threading.Lock()

    with Supply(Locking(2), workers=1, use_multiprocessing=True) as supply:
        supply.start(6)
        assert numbers(supply, 2) == [0, 1]
        with pytest.warns(UserWarning, match="made in threads"):
            assert numbers(supply) == [0, 10, 0, 100]


def fail_at(number: int, how: Callable[[], Any]) -> Any:
    class Failing(Counting):
        def __getitem__(self, index: int) -> Any:
            return how() if index == number else super().__getitem__(index)

    return Failing(5)


def raise_value_error() -> Any:
    raise ValueError("no such picture")


@pytest.mark.parametrize("mode", MODES)
def test_what_a_sequence_raises_comes_at_its_turn(mode: dict[str, Any]) -> None:
    with Supply(fail_at(3, raise_value_error), **mode) as supply:
        supply.start(5)
        assert numbers(supply, 3) == [0, 1, 2]
        with pytest.raises(SampleError, match="Batch 3 failed in read: ValueError: no such picture") as caught:
            supply.take()
        assert caught.value.user_line is not None
        assert "raise_value_error" in caught.value.user_line


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_generator_raises_comes_at_its_turn(workers: int) -> None:
    def failing() -> Iterator[Any]:
        yield np.zeros((1, 1))
        raise KeyError("label")

    with Supply(failing(), workers=workers) as supply:
        supply.start()
        assert numbers(supply, 1) == [0]
        with pytest.raises(SampleError, match="Batch 1 failed in read: KeyError: 'label'"):
            supply.take()


def test_a_worker_that_is_killed_costs_no_batch() -> None:
    class Whose(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.array([[index], [os.getpid()]])

        def on_epoch_end(self) -> None:
            pass

    with Supply(Whose(40), workers=2, use_multiprocessing=True) as supply:
        supply.start(80)
        found: Counter[int] = Counter()
        for step in range(80):
            batch = supply.take()
            found[int(batch[0, 0])] += 1
            if step in (5, 50):
                os.kill(int(batch[1, 0]), signal.SIGKILL)
    assert found == Counter(dict.fromkeys(range(40), 2))


def test_workers_that_are_replaced_have_what_on_epoch_end_changed() -> None:
    class Killing(Counting):
        def __getitem__(self, index: int) -> Any:
            return np.array([[index * self.factor, os.getpid()]])

    with Supply(Killing(3), workers=1, use_multiprocessing=True) as supply:
        supply.start(9)
        found = []
        for _ in range(9):
            batch = supply.take()
            found.append(int(batch[0, 0]))
            if len(found) in (3, 4):
                os.kill(int(batch[0, 1]), signal.SIGKILL)
    assert found == [0, 1, 2, 0, 10, 20, 0, 100, 200]


def test_a_batch_that_ends_every_worker_is_an_error() -> None:
    sequence = fail_at(1, lambda: os._exit(3))
    with Supply(sequence, workers=1, use_multiprocessing=True) as supply:
        supply.start(5)
        assert numbers(supply, 1) == [0]
        with pytest.raises(WorkerDied, match=r"batch 1.*mend what makes it\.$"):
            supply.take()


def hang_for_ever() -> None:
    threading.Event().wait()


def test_a_batch_that_hangs_a_worker_is_an_error_within_the_deadline() -> None:
    sequence = fail_at(1, hang_for_ever)
    with Supply(sequence, workers=1, use_multiprocessing=True, sample_timeout_s=1.0) as supply:
        supply.start(5)
        assert numbers(supply, 1) == [0]
        with pytest.raises(Stalled, match="batch 1"):
            supply.take()


def test_a_generator_that_hangs_is_an_error_within_the_deadline() -> None:
    goes_on = threading.Event()

    def hanging() -> Iterator[Any]:
        yield np.zeros((1, 1))
        goes_on.wait(60)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that the thread is still there
        supply = Supply(hanging(), sample_timeout_s=0.5)
        supply.start()
        assert numbers(supply, 1) == [0]
        with pytest.raises(Stalled, match="a generator's next batch"):
            supply.take()
        goes_on.set()
        supply.close()


@pytest.mark.parametrize(
    ("data", "told"),
    [(3, "neither a generator nor a Sequence"), (np.zeros((2, 2)), "neither"), (Counting(0), "has 0 batches")],
)
def test_what_gives_no_batches_is_refused(data: Any, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        Supply(data)


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"max_queue_size": 1.5}, {"seed": -1}, {"memory": "much"}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        Supply(Counting(2), **wrong)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    counts=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    workers=st.integers(0, 3),
    shuffle=st.booleans(),
    queue=st.integers(0, 12),
)
def test_each_batch_comes_once_a_pass_whatever_the_settings(
    lengths: list[int], counts: list[int], workers: int, shuffle: bool, queue: int
) -> None:
    class Varying(Sequence):
        def __init__(self) -> None:
            self.ends = 0

        def __len__(self) -> int:
            return lengths[self.ends % len(lengths)]

        def __getitem__(self, index: int) -> Any:
            return np.full((1 + index % 3, 1), 100 * self.ends + index)

        def on_epoch_end(self) -> None:
            self.ends += 1

    sequence = Varying()
    with Supply(sequence, workers=workers, shuffle=shuffle, max_queue_size=queue) as supply:
        for count in counts:
            supply.start(count)
            left = numbers(supply)
            assert len(left) == count
            ends = sequence.ends
            while left:
                length = lengths[left[0] // 100 % len(lengths)]
                one, left = left[:length], left[length:]
                assert len({number // 100 for number in one}) == 1
                places = sorted(number % 100 for number in one)
                assert places == list(range(length)) if len(one) == length else len(set(places)) == len(one)
            supply.finish_pass()
            assert sequence.ends - ends in (0, 1)
