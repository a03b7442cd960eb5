"""The pool at its edges: deaths at bad moments, sockets that are full, slots that come late."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from loops import ROOM, Recorder, until, worker_pids

import fitstream as fs
from fitstream.engine import watch
from fitstream.engine.bell import Bell
from fitstream.engine.dispatch import Dispatcher
from fitstream.engine.marks import Marks
from fitstream.engine.pool import Pool, split_lanes
from fitstream.engine.process import Process, told_exit
from fitstream.engine.ring import make_slot
from fitstream.engine.tokens import TokenQueue
from fitstream.engine.watch import Watch
from fitstream.events import WorkerLost
from fitstream.memory import HAS_SHARED_MEMORY, Block
from fitstream.policy import Policy
from fitstream.spec import ArraySpec, Layout

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")


def rows(count: int = 4000) -> fs.Dataset:
    return fs.from_arrays(np.arange(count)).map(lambda x: x).batch(8)


def ended(process: Process) -> None:
    """Kill a worker and wait until it is dead, not yet reaped."""
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize(("lanes", "processes", "split"), [(4, 2, [2, 2]), (3, 2, [2, 1]), (2, 2, [1, 1]), (5, 1, [5])])
def test_lanes_are_split_as_even_as_can_be(lanes: int, processes: int, split: list[int]) -> None:
    assert split_lanes(lanes, processes) == split


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_worker_that_dies_before_it_gets_slots_is_replaced(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    attach, calls = Process.attach, []

    def dying(process: Process, *args: Any, **named: Any) -> Any:
        calls.append(process.pid)
        if len(calls) == number:
            ended(process)
        return attach(process, *args, **named)

    monkeypatch.setattr(Process, "attach", dying)
    recorder = Recorder()
    with rows().loader(ROOM, workers=2, processes=2, observers=[recorder]) as loader:
        kept = list(loader)  # the ring is extended, and the third is for that slot
    assert np.concatenate(kept).tolist() == list(range(4000))
    assert len(recorder.of(WorkerLost)) == 1


def test_a_worker_that_dies_before_it_is_greeted_is_told_as_one_that_could_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    greet = Process.greet

    def dying(process: Process, *args: Any) -> None:
        ended(process)
        greet(process, *args)

    monkeypatch.setattr(Process, "greet", dying)
    with pytest.raises(fs.PlanError, match="SIGKILL"):
        rows().loader(ROOM, workers=2, processes=2)
    assert worker_pids() == []


def test_a_slot_that_comes_while_chunks_are_given_out_waits_until_workers_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freest, calls = Dispatcher._freest, []

    def extending(dispatcher: Dispatcher, *args: Any) -> Any:
        found = freest(dispatcher, *args)
        calls.append(found)
        if found is not None and len(calls) > 20:
            dispatcher.board.extend()  # what the consumer's thread may do at any moment, once
        return found

    monkeypatch.setattr(Dispatcher, "_freest", extending)
    with rows().loader(ROOM, workers=2, processes=2) as loader:
        for _ in range(2):
            assert np.concatenate([batch.copy() for batch in loader]).tolist() == list(range(4000))


def test_many_lanes_in_one_process_do_not_overflow_its_socket() -> None:
    dataset = fs.from_arrays(np.arange(20_000)).map(lambda x: x).batch(1000)
    with dataset.loader(memory="1 GB", workers=256, processes=1) as loader:
        assert np.concatenate([batch.copy() for batch in loader]).tolist() == list(range(20_000))


def test_no_shared_memory_beyond_the_budget_is_made_before_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = Block.make, [0]

    def noted(count_bytes: int, purpose: str) -> Block:
        made.append(count_bytes)
        return make(count_bytes, purpose)

    monkeypatch.setattr(Block, "make", staticmethod(noted))
    data = [np.full(1_000_000, i % 250, np.uint8) for i in range(200)]
    with pytest.raises(fs.PlanError, match="MB"):
        fs.from_sequence(data).batch(2).loader(memory="150 MB", workers=2, processes=2)
    assert max(made) < 150e6


def test_an_observer_that_fails_when_workers_start_leaves_none() -> None:
    class Fails:
        def on_event(self, event: Any) -> None:
            raise RuntimeError("observer")

    with pytest.raises(RuntimeError, match="observer"):
        rows().loader(ROOM, workers=2, processes=2, observers=[Fails()])
    assert worker_pids() == []


def test_closing_a_loader_with_functions_that_take_long_does_not_wait_for_them() -> None:
    dataset = fs.from_arrays(np.arange(64)).map(lambda x: x if x < 8 else time.sleep(3600) or x).batch(8)
    loader = dataset.loader(ROOM, workers=2, processes=2)
    next(iter(loader))
    loader.close()
    assert worker_pids() == []


def test_workers_that_could_not_open_the_source_leave_nothing() -> None:
    class Bad:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            return np.int64(index)

        def __setstate__(self, state: Any) -> None:
            raise RuntimeError("not here")

        def __getstate__(self) -> Any:
            return {"a": 1}

    with pytest.raises(fs.PlanError, match="not here"):
        fs.from_sequence(Bad()).batch(3).loader(ROOM, workers=2, processes=2)
    assert worker_pids() == []


@pytest.mark.parametrize(
    ("code", "text"), [(7, "exited with code 7"), (-9, "SIGKILL: out of memory"), (-11, "SIGSEGV"), (-99, "signal 99")]
)
def test_how_a_process_ended_is_told_in_words(code: int, text: str) -> None:
    assert text in told_exit(code)


def test_a_pool_serves_one_plan_and_ends_by_itself_when_it_is_retired() -> None:
    with rows().loader(memory="900 MB", workers=2) as loader:
        stream = loader.stream()
        pipeline = loader._pipeline
        assert pipeline is not None
        pool = Pool(pipeline.plan, [1, 1], lambda event: None)
        assert len(worker_pids()) == 2
        pool.attach(pipeline.board, pipeline._crashed)
        pipeline.crew.move_to(pool, sum(pool.lane_counts))
        stream.take()
        pipeline.crew.move_back()
        pool.thread.join(120)
        assert not pool.thread.is_alive()
        assert worker_pids() == []
        for _ in range(600):
            stream.take()


# Who hangs.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """A worker that is asked for its stack; nothing is sent to it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = Process.__new__(Process)
        process.pid, process.pidfd, process._stacks = child.pid, os.pidfd_open(child.pid), -1
        monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
        yield process
        os.close(process.pidfd)
        child.kill()


def test_a_stack_is_read_when_all_of_it_is_written(asked: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter([b"", *[b"one line"] * 5, *[b"one line and the other"] * 100])
    monkeypatch.setattr(os, "pread", lambda *_: next(texts))
    assert asked.stack(1) == "one line and the other"


def test_who_was_stopped_is_not_waited_for(asked: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    assert not asked.stopped
    os.kill(asked.pid, signal.SIGSTOP)
    assert until(lambda: asked.stopped)
    monkeypatch.setattr("fitstream.engine.process._STACK_S", 3600)
    assert asked.stack(1) == ""


def test_a_machine_that_stood_still_blames_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, ended = [100.0], []
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    process: Any = SimpleNamespace(
        state="working", overdue=None, heard_s=100.0, in_flight={1: None}, first_lane=0, lane_count=0, gone=False,
        kill=lambda: ended.append(now_s[0]),
    )  # fmt: skip
    watcher = Watch(Policy(sample_timeout_s=0.5), Marks.none())
    for step_s in (0.0, 0.6, 0.2, 0.2, 0.2):
        now_s[0] += step_s
        watcher.look([process])
    assert ended == pytest.approx([101.2])


@pytest.mark.parametrize("rung", [False, True])
def test_the_end_of_a_lease_runs_no_bytecode_in_which_ctrl_c_could_be_lost(rung: bool) -> None:
    queue, bell = TokenQueue(), Bell()
    if rung:
        queue.bell = bell
    slot = make_slot(Layout((ArraySpec((), np.dtype(np.int64)),), 1), 0, shared=False)
    putters = queue.putters(slot)
    traced: list[str] = []
    leaves = slot.hand_out(putters)
    before = sys.gettrace()
    sys.settrace(lambda frame, *_: traced.append(frame.f_code.co_name))
    try:
        leaves.clear()
    finally:
        sys.settrace(before)
    assert traced == []
    assert queue.get_nowait() is slot
    assert os.eventfd_read(bell.fd) == 1 if rung else not select.select([bell.fd], [], [], 0)[0]
