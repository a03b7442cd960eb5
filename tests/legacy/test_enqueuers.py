from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fitstream import FitstreamError, PlanError
from fitstream.legacy import GeneratorEnqueuer, OrderedEnqueuer, Sequence


class Numbers(Sequence):
    """Batches (place, passes so far), of passes that get shorter."""

    def __init__(self, length: int = 5, shorter: int = 0) -> None:
        self.length = length
        self.shorter = shorter
        self.passes = 0
        self.threads: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return [np.full(3, index), np.full(3, self.passes)]

    def on_epoch_end(self) -> None:
        self.passes += 1
        self.length -= self.shorter
        self.threads.append(threading.get_ident())


class Faulty(Sequence):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise LookupError("batch two is not here")
        return np.full(3, index)


def counting(limit: int | None = None) -> Iterator[np.ndarray]:
    number = 0
    while limit is None or number < limit:
        yield np.full(3, number)
        number += 1


def places(batches: Iterator[Any], count: int) -> list[int]:
    return [int(np.ravel(next(batches))[0]) for _ in range(count)]


@pytest.fixture
def started() -> Iterator[Callable[..., Iterator[Any]]]:
    """Start an enqueuer and get its batches; it is stopped after the test."""
    running = []

    def start(enqueuer: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        running.append(enqueuer)
        enqueuer.start(*args, **kwargs)
        return enqueuer.get()

    yield start
    for enqueuer in running:
        enqueuer.stop()


GENERATOR_FORMS = {
    "Keras 1.2": lambda g: GeneratorEnqueuer(g, pickle_safe=False),
    "Keras 1.2, processes": lambda g: GeneratorEnqueuer(g, pickle_safe=True),
    "positional": lambda g: GeneratorEnqueuer(g, True),
    "Keras 2.0": lambda g: GeneratorEnqueuer(g, False, 0.05, 7),
    "Keras 2.0, by name": lambda g: GeneratorEnqueuer(
        generator=g, use_multiprocessing=False, wait_time=0.05, random_seed=1
    ),
    "Keras 2.1": lambda g: GeneratorEnqueuer(generator=g, use_multiprocessing=True, wait_time=0.05, seed=1),
    "Keras 2.3": lambda g: GeneratorEnqueuer(sequence=g, use_multiprocessing=False, wait_time=None, random_seed=None),
    "tf.keras": lambda g: GeneratorEnqueuer(g, False, 3),
}

ORDERED_FORMS = {
    "positional": lambda s: OrderedEnqueuer(s, True, False),
    "Keras 2.0.5": lambda s: OrderedEnqueuer(s, pickle_safe=False),
    "Keras 2.0.6": lambda s: OrderedEnqueuer(s, use_multiprocessing=False, scheduling="sequential"),
    "Keras 2.0.6, positional": lambda s: OrderedEnqueuer(s, False, "sequential"),
    "Keras 2.3": lambda s: OrderedEnqueuer(sequence=s, use_multiprocessing=False, shuffle=False),
}

STARTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "bare": ((), {}),
    "positional": ((3, 10), {}),
    "Keras 1 positional": ((1, 10, 0.05), {}),
    "Keras 1": ((), {"nb_worker": 2, "max_q_size": 4, "wait_time": 0.05}),
    "Keras 2.0.0": ((), {"workers": 2, "max_q_size": 4, "wait_time": 0.05}),
    "Keras 2": ((), {"workers": 3, "max_queue_size": 10}),
    "no lane": ((0,), {}),
}


@pytest.mark.parametrize("form", GENERATOR_FORMS)
def test_every_form_of_a_generators_enqueuer_gives_its_batches_in_order(form: str, started: Any) -> None:
    assert places(started(GENERATOR_FORMS[form](counting()), 3, 10), 20) == list(range(20))


@pytest.mark.parametrize("form", ORDERED_FORMS)
def test_every_form_of_a_sequences_enqueuer_gives_its_batches_in_order(form: str, started: Any) -> None:
    assert places(started(ORDERED_FORMS[form](Numbers()), 2, 4), 10) == [*range(5), *range(5)]


@pytest.mark.parametrize("way", STARTS)
def test_every_way_to_start_is_understood(way: str, started: Any) -> None:
    args, kwargs = STARTS[way]
    assert places(started(OrderedEnqueuer(Numbers()), *args, **kwargs), 5) == [0, 1, 2, 3, 4]
    assert places(started(GeneratorEnqueuer(counting()), *args, **kwargs), 5) == [0, 1, 2, 3, 4]


def test_keras_1_names_of_a_start_count() -> None:
    enqueuer = OrderedEnqueuer(Numbers())
    enqueuer.start(nb_worker=0, max_q_size=2)
    assert enqueuer.workers == 0
    enqueuer.stop()


def test_a_batch_is_what_the_program_made(started: Any) -> None:
    assert isinstance(next(started(OrderedEnqueuer(Numbers()), 2)), list)
    pair = ({"a": np.zeros(3), "b": np.ones(3)}, np.ones(3))
    batch = next(started(GeneratorEnqueuer(iter([pair]))))
    assert isinstance(batch, tuple)
    assert sorted(batch[0]) == ["a", "b"]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_on_epoch_end_comes_between_passes_in_the_thread_that_takes(workers: int, started: Any) -> None:
    numbers = Numbers(4)
    batches = started(OrderedEnqueuer(numbers), workers, 10)
    seen = [next(batches) for _ in range(12)]
    assert [int(passes[0]) for _, passes in seen] == [0] * 4 + [1] * 4 + [2] * 4
    assert set(numbers.threads) == {threading.get_ident()}


def test_what_on_epoch_end_changed_reaches_worker_processes(started: Any) -> None:
    batches = started(OrderedEnqueuer(Numbers(4), use_multiprocessing=True), 2, 10)
    assert [int(next(batches)[1][0]) for _ in range(8)] == [0] * 4 + [1] * 4


def test_the_length_is_read_anew_for_each_pass(started: Any) -> None:
    batches = started(OrderedEnqueuer(Numbers(4, shorter=1)))
    assert places(batches, 9) == [0, 1, 2, 3, 0, 1, 2, 0, 1]


def test_the_end_of_a_pass_can_be_waited_for(started: Any) -> None:
    numbers = Numbers(4, shorter=1)
    enqueuer = OrderedEnqueuer(numbers)
    batches = started(enqueuer)
    places(batches, 3)
    enqueuer.join_end_of_epoch()
    assert len(numbers) == 4
    places(batches, 1)
    enqueuer.join_end_of_epoch()
    enqueuer.join_end_of_epoch()
    assert len(numbers) == 3
    assert places(batches, 4) == [0, 1, 2, 0]


@pytest.mark.parametrize("shuffled", [{"shuffle": True}, {"scheduling": "shuffle"}, {"shuffle": "shuffle"}])
def test_shuffle_gives_each_pass_an_order_of_its_own_with_each_batch_once(
    shuffled: dict[str, Any], started: Any
) -> None:
    batches = started(OrderedEnqueuer(Numbers(20), **shuffled), 2)
    first, second = places(batches, 20), places(batches, 20)
    assert sorted(first) == sorted(second) == list(range(20))
    assert list(range(20)) != first != second


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_generator_that_ends_ends_the_batches(workers: int, started: Any) -> None:
    enqueuer = GeneratorEnqueuer(counting(7))
    assert places(iter(list(started(enqueuer, workers))), 7) == list(range(7))
    assert not enqueuer.is_running()


def test_a_generator_needs_no_lock_and_is_run_by_one_thread(started: Any) -> None:
    threads = set()

    def watched() -> Iterator[np.ndarray]:
        for batch in counting():
            threads.add(threading.get_ident())
            yield batch

    assert places(started(GeneratorEnqueuer(watched()), 4, 10), 50) == list(range(50))
    assert len(threads) == 1


def test_a_generator_is_never_copied_into_processes(started: Any) -> None:
    calls = []

    def watched() -> Iterator[np.ndarray]:
        for batch in counting():
            calls.append(int(batch[0]))
            yield batch

    places(started(GeneratorEnqueuer(watched(), use_multiprocessing=True), 3, 4), 6)
    assert calls[:6] == [0, 1, 2, 3, 4, 5]


def test_batches_that_are_none_are_left_out(started: Any) -> None:
    batches = started(GeneratorEnqueuer(iter([np.zeros(1), None, np.ones(1)])), 0)
    assert [batch.tolist() for batch in batches] == [[0.0], [1.0]]


@pytest.mark.parametrize("enqueuer", [OrderedEnqueuer(Faulty()), OrderedEnqueuer(Faulty(), use_multiprocessing=True)])
def test_a_sequences_error_comes_at_its_turn_in_its_own_type(enqueuer: OrderedEnqueuer, started: Any) -> None:
    batches = started(enqueuer, 2, 4)
    assert places(batches, 2) == [0, 1]
    with pytest.raises(LookupError, match="batch two is not here"):
        next(batches)
    assert not enqueuer.is_running()


def test_a_generators_error_comes_at_its_turn_in_its_own_type(started: Any) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros(3)
        raise ZeroDivisionError("no third")

    enqueuer = GeneratorEnqueuer(broken())
    batches = started(enqueuer, 2)
    next(batches)
    with pytest.raises(ZeroDivisionError, match="no third"):
        next(batches)
    assert not enqueuer.is_running()


def test_it_runs_from_start_to_stop_and_can_be_stopped_again() -> None:
    enqueuer = OrderedEnqueuer(Numbers())
    assert not enqueuer.is_running()
    enqueuer.stop()
    enqueuer.start()
    assert enqueuer.is_running()
    batches = enqueuer.get()
    next(batches)
    enqueuer.stop(timeout=1)
    enqueuer.stop()
    assert not enqueuer.is_running()
    assert list(batches) == []


def test_stop_by_another_thread_ends_the_batches() -> None:
    never = threading.Event()

    def waiting() -> Iterator[np.ndarray]:
        yield np.zeros(3)
        while enqueuer.is_running():
            never.wait(0.001)
        yield np.ones(3)

    enqueuer = GeneratorEnqueuer(waiting())
    enqueuer.start()
    batches, first, seen = enqueuer.get(), threading.Event(), []

    def consume() -> None:
        for batch in batches:
            seen.append(batch)
            first.set()

    thread = threading.Thread(target=consume)
    thread.start()
    assert first.wait(timeout=60)
    enqueuer.stop()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert len(seen) == 1


def test_a_batch_that_was_made_while_another_thread_stopped_it_does_not_come() -> None:
    enqueuer = OrderedEnqueuer(Numbers())
    enqueuer.start()
    ready, supply = enqueuer.queue, enqueuer._supply
    assert ready is not None
    assert supply is not None
    take = supply.take

    def stopped_meanwhile() -> Any:
        batch = take()
        enqueuer.stop()
        return batch

    supply.take = stopped_meanwhile  # type: ignore[method-assign]
    with pytest.raises(queue.Empty):
        ready.get()


def test_batches_stay_valid_after_stop() -> None:
    enqueuer = OrderedEnqueuer(Numbers())
    enqueuer.start(2)
    kept = [batch for batch, _ in zip(enqueuer.get(), range(4), strict=False)]
    enqueuer.stop()
    assert places(iter(kept), 4) == [0, 1, 2, 3]


def test_another_start_begins_a_sequence_again(started: Any) -> None:
    enqueuer = OrderedEnqueuer(Numbers())
    assert places(started(enqueuer), 3) == [0, 1, 2]
    enqueuer.stop()
    assert places(started(enqueuer), 3) == [0, 1, 2]


def test_a_second_start_is_refused(started: Any) -> None:
    enqueuer = OrderedEnqueuer(Numbers())
    started(enqueuer)
    with pytest.raises(PlanError, match="stop"):
        enqueuer.start()


def test_batches_before_start_are_refused() -> None:
    with pytest.raises(PlanError, match="start"):
        next(iter(OrderedEnqueuer(Numbers()).get()))


def test_the_wrong_kind_of_data_is_refused_with_the_other_class() -> None:
    with pytest.raises(PlanError, match="GeneratorEnqueuer"):
        OrderedEnqueuer(counting())
    with pytest.raises(PlanError, match="list"):
        GeneratorEnqueuer([1, 2])
    with pytest.raises(FitstreamError, match="NoneType"):
        GeneratorEnqueuer()


def test_what_only_has_the_methods_is_a_sequence(started: Any) -> None:
    class Plain:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return np.full(2, index)

    class PyDatasetLike:
        num_batches = 3

        def __getitem__(self, index: int) -> Any:
            return np.full(2, index)

    assert places(started(OrderedEnqueuer(Plain())), 4) == [0, 1, 2, 0]
    assert places(started(OrderedEnqueuer(PyDatasetLike())), 4) == [0, 1, 2, 0]


def test_an_object_with_next_alone_is_a_generator(started: Any) -> None:
    class Old:
        def __init__(self) -> None:
            self.number = -1

        def next(self) -> np.ndarray:
            self.number += 1
            return np.full(2, self.number)

    assert places(started(GeneratorEnqueuer(Old())), 4) == [0, 1, 2, 3]


def test_the_loop_that_keras_1_programs_wrote_gets_each_batch_once() -> None:
    enqueuer = GeneratorEnqueuer(counting(6), pickle_safe=True)
    enqueuer.start(max_q_size=3, nb_worker=2)
    seen = []
    while enqueuer.is_running():
        if not enqueuer.queue.empty():
            seen.append(int(enqueuer.queue.get()[0]))
    assert seen == [0, 1, 2, 3, 4, 5]
    assert enqueuer.queue is None


def test_several_threads_may_fetch_each_batch_goes_to_one_of_them() -> None:
    enqueuer = GeneratorEnqueuer(counting(200))
    enqueuer.start(2, 10)
    ready, seen = enqueuer.queue, []
    assert ready is not None

    def fetch() -> None:
        while True:
            try:
                seen.append(int(ready.get()[0]))
            except queue.Empty:
                return

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(seen) == list(range(200))


def test_the_names_load_no_framework() -> None:
    code = (
        "import sys; from fitstream.legacy import Sequence, GeneratorEnqueuer, OrderedEnqueuer;"
        "print([name for name in ('keras', 'tensorflow', 'torch', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
