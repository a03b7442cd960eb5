"""Closing while another thread waits, works or starts: a batch is whole or doesn't come, and no lane is left."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from loops import ROOM, until, worker_pids

import fitstream as fs
from fitstream.engine import pool as pools
from fitstream.engine.codecs import codec_threads
from fitstream.engine.pipeline import Pipeline
from fitstream.engine.ring import make_slot
from fitstream.memory import HAS_SHARED_MEMORY
from fitstream.spec import ArraySpec, Layout


def lanes() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fitstream")]


def outcome_of(take: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Take a batch in another thread: the thread, and a list that gets the batch, or what was raised."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(take().batch.tolist())
        except Exception as error:  # noqa: BLE001  compared below
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


class Late:
    """A queue of ready slots in which the news that all is closed comes after a slot that is filled at that moment."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._on_close = on_close
        self._came = threading.Event()
        self.get, self.get_nowait = self._queue.get, self._queue.get_nowait

    def put(self, slot: Any) -> None:
        if slot is None:
            self._on_close()
            self._came.wait(60)
        self._queue.put(slot)
        if slot is not None:
            self._came.set()


def test_a_batch_that_lanes_leave_because_of_a_close_does_not_come_with_rows_missing() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(value: Any) -> Any:
        if value == 5:
            entered.set()
            go_on.wait(60)
        return value + 1

    with fs.from_arrays(np.arange(20)).map(slow).batch(10).loader("1 MB", workers=1, processes=0) as loader:
        stream = loader.stream()
        board = stream._pipeline.board
        board.ready_queue = Late(go_on.set)  # type: ignore[assignment]
        thread, found = outcome_of(stream.take)
        assert entered.wait(60)
        loader.close()
        thread.join()
    assert [type(one) for one in found] == [fs.LoaderClosed]


def test_a_batch_that_the_calling_thread_is_at_is_left_before_all_is_let_go() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(value: Any) -> Any:
        if value == 5:
            entered.set()
            go_on.wait(60)
        return np.full(value % 3, value)

    dataset = fs.from_arrays(np.arange(1, 21)).map(slow).batch(10, pad=True, max_length=2)
    loader = dataset.loader("1 MB", workers=0)
    stream = loader.stream()
    board = stream._pipeline.board
    thread, found = outcome_of(stream.take)
    assert entered.wait(60)
    closer = threading.Thread(target=loader.close)
    closer.start()
    assert until(lambda: board.closed)
    closer.join(0.2)
    assert board.slots  # what is at work there has its memory
    go_on.set()
    thread.join()
    closer.join()
    assert [type(one) for one in found] == [fs.LoaderClosed]


def test_a_function_may_close_the_loader_that_calls_it() -> None:
    def closes(value: Any) -> Any:
        if value == 5:
            loader.close()
        return value

    loader = fs.from_arrays(np.arange(20)).map(closes).batch(10).loader("1 MB", workers=0)
    with pytest.raises(fs.LoaderClosed):
        next(iter(loader))


def test_a_slot_that_was_let_go_is_told_to_who_copies_it() -> None:
    slot = make_slot(Layout((ArraySpec((), np.dtype(np.int64)),), 1), 0, shared=False)
    slot.let_go()
    with pytest.raises(fs.LoaderClosed):
        slot.copy_out(lambda one: None)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_closing_in_mid_take_is_told_as_that_wherever_lanes_are(workers: int) -> None:
    for _ in range(50):
        loader = fs.from_arrays(np.arange(400)).map(lambda x: x + 1).batch(4).loader("1 MB", workers, processes=0)
        stream = loader.stream()
        first = stream.take().batch[0]
        closer = threading.Thread(target=loader.close)
        closer.start()
        number = 0
        with pytest.raises(fs.LoaderClosed):
            while True:
                number += 1
                assert stream.take().batch.tolist() == [(4 * number + i) % 400 + 1 for i in range(4)]
        closer.join()
        assert first == 1


def test_an_interrupt_at_the_begin_of_a_close_leaves_the_lanes_to_the_end_of_the_loader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close, calls = Pipeline.close, [0]

    def interrupted(pipeline: Pipeline, *, patient: bool = True) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise KeyboardInterrupt
        close(pipeline, patient=patient)

    monkeypatch.setattr(Pipeline, "close", interrupted)
    loader = fs.from_arrays(np.arange(20)).batch(10).loader("1 MB", workers=1, processes=0)
    next(iter(loader))
    with pytest.raises(KeyboardInterrupt):
        loader.close()
    assert lanes()
    del loader
    gc.collect()
    assert lanes() == []


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
def test_an_interrupt_right_after_workers_were_asked_for_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupts:
        def add(self, pool: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(pools, "_POOLS", Interrupts())
    with pytest.raises(KeyboardInterrupt):
        fs.from_arrays(np.arange(20)).batch(10).loader(ROOM, workers=1, processes=1)
    assert until(lambda: lanes() == [] and worker_pids() == [])


def test_a_loader_that_is_collected_while_another_one_opens_waits_for_nobody() -> None:
    with codec_threads._lock:
        assert codec_threads._lock.acquire(blocking=False)
        codec_threads._lock.release()
