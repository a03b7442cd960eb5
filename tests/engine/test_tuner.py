"""The tuner's rules, by a clock and lanes that do as told; and its decision on real ones."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from loops import Recorder, told

import fitstream as fs
from fitstream.engine import tuner as module
from fitstream.engine.tokens import Run
from fitstream.engine.tuner import Tuner
from fitstream.events import LanesChanged
from fitstream.memory import HAS_SHARED_MEMORY
from fitstream.plan import Plan

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")


class FakePool:
    """Worker processes that start at once, or not at all."""

    error: BaseException | None = None
    gate: threading.Event | None = None
    worker_bytes = 30_000_000
    shared_bytes = 1000
    checking = False
    differs = False
    lost_count = 0

    def __init__(self, plan: Plan, lane_counts: list[int], emit: Any, **_: Any) -> None:
        if FakePool.gate is not None:
            FakePool.gate.wait(120)
        if FakePool.error is not None:
            raise FakePool.error
        self.lane_counts = lane_counts
        self.closed = self.attached = False

    def attach(self, board: Any, on_crash: Any) -> None:
        self.attached = True

    def close(self, **_: Any) -> None:
        self.closed = True


class FakeCrew:
    here = None

    def __init__(self, lane_count: int) -> None:
        self.lane_count = self._told = lane_count
        self.pool: FakePool | None = None
        self.wall_ns = self.threads_ns = self.ran_ns = self.fault_count = 0
        self.moves: list[str] = []

    @property
    def thread_use(self) -> tuple[int, int, int]:
        return self.threads_ns, self.ran_ns, self.fault_count

    def set_lanes(self, count: int) -> None:
        self.lane_count = count
        if count not in (0, self._told):  # no lane works while workers start
            self._told = count
            self.moves.append(f"lanes {count}")

    def move_to(self, pool: FakePool, count: int) -> None:
        self.pool, self.lane_count = pool, count
        self.moves.append("processes")

    def move_back(self) -> None:
        self.pool = None
        self.moves.append("threads")


class Bench:
    """A tuner, and what it measures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lane_count: int = 4, **changes: Any) -> None:
        dataset = fs.from_arrays(np.zeros((64, 8))).map(lambda x: x).batch(8)
        plan = dataset.plan(memory="2 GB", workers=lane_count)
        assert plan.auto_processes
        plan = replace(plan, **{"auto_lanes": True, **changes})
        self.now_s = 100.0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now_s))
        monkeypatch.setattr(module, "Pool", FakePool)
        monkeypatch.setattr(FakePool, "error", None)
        self.board: Any = SimpleNamespace(plan=plan)
        self.crew: Any = FakeCrew(lane_count)
        self.events: list[Any] = []
        self.tuner = Tuner(self.board, self.crew, self.events.append, lambda error: None)
        self.run = Run(0, 0, None, False)
        self.tuner.delivered(self.run, self.now_s)

    def window(
        self, *, waited: float = 0.0, busy: float = 0.75, blocked: float = 0.0, faults: int = 0, batch_s: float = 0.1
    ) -> None:
        """As many batches as one judgement takes: shares of the consumer's time, of a lane's time and of its work.

        `faults` are page faults in a millisecond of work.
        """
        for _ in range(max(4, round(0.3 / batch_s))):
            self.now_s += batch_s
            work_ns = int(batch_s * busy * self.crew.lane_count * 1e9)
            self.crew.wall_ns += work_ns
            if self.crew.pool is None:
                self.crew.threads_ns += work_ns
                self.crew.ran_ns += int(work_ns * (1 - blocked))
                self.crew.fault_count += faults * work_ns // 10**6
            self.tuner.delivered(self.run, self.now_s - waited * batch_s)

    def start_processes(self) -> None:
        """Suspicion, and workers that are ready."""
        for _ in range(20):
            self.window(waited=0.3, blocked=0.6)
            if self.tuner._starter is not None:
                self.tuner._starter.join()
                return
        raise AssertionError("no worker processes were started")

    def reasons(self) -> list[str]:
        return [event.reason for event in self.events]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_lanes_that_never_block_stay_threads(bench: Bench) -> None:
    for _ in range(30):
        bench.window(waited=0.3, busy=1.0, blocked=0.05)
    assert bench.tuner._starter is None
    assert bench.crew.moves == []


def test_lanes_that_spend_their_time_on_page_faults_are_tried_in_processes(bench: Bench) -> None:
    for _ in range(3):
        bench.window(faults=700)
    assert bench.tuner._starter is not None
    bench.tuner._starter.join()
    bench.window(faults=700)
    assert bench.crew.moves == ["processes"]
    assert "page faults" in bench.reasons()[0]


def test_one_window_of_blocked_lanes_starts_nothing(bench: Bench) -> None:
    for _ in range(5):
        bench.window(blocked=0.6)
        bench.window(blocked=0.0)
    assert bench.tuner._starter is None


def test_blocked_lanes_move_and_stay_where_batches_come_faster(bench: Bench) -> None:
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    assert bench.crew.moves == ["processes"]
    assert isinstance(bench.crew.pool, FakePool)
    assert bench.crew.pool.attached
    assert sum(bench.crew.pool.lane_counts) == 4
    for _ in range(10):
        bench.window(waited=0.1, batch_s=0.05)
    assert "threads" not in bench.crew.moves
    assert "2.00 times" in bench.reasons()[1]
    assert [event.process_count for event in bench.events[:2]] == [4, 4]


@pytest.mark.parametrize("batch_s", [0.1, 0.12, 0.097])
def test_lanes_move_back_where_processes_bring_nothing_and_are_not_tried_again(bench: Bench, batch_s: float) -> None:
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    for _ in range(10):
        bench.window(waited=0.3, batch_s=batch_s)
    assert bench.crew.moves[:2] == ["processes", "threads"]
    assert bench.events[1].process_count == 0
    started = bench.tuner._starter
    for _ in range(20):
        bench.window(waited=0.3, blocked=0.9)
    assert bench.tuner._starter is started
    assert "processes" not in bench.crew.moves[2:]


def test_lanes_stay_in_processes_where_some_died_since_a_thread_would_end_the_program(bench: Bench) -> None:
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    bench.crew.pool.lost_count = 1
    for _ in range(10):
        bench.window(waited=0.3)
    assert "threads" not in bench.crew.moves
    assert "died" in bench.reasons()[1]


@pytest.mark.parametrize("error", [fs.PlanError("map(f): closure variable 'lock'"), OSError("File too large")])
def test_what_cannot_be_had_leaves_threads_and_says_why(bench: Bench, error: Exception) -> None:
    FakePool.error = error
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    assert bench.crew.moves == []
    (event,) = bench.events
    assert (event.process_count, event.lane_count) == (0, 4)
    assert str(error) in event.reason
    assert bench.tuner.decision == event


def test_a_pool_that_cannot_be_given_the_ring_is_closed_and_threads_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def fails(*_: Any) -> None:
        raise fs.PlanError("no shared memory")

    monkeypatch.setattr(FakePool, "attach", fails)
    monkeypatch.setattr(FakePool, "close", lambda pool, **_: closed.append(pool))
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    assert bench.crew.moves == []
    assert len(closed) == 1
    assert "no shared memory" in bench.reasons()[0]


def test_a_budget_without_room_for_what_was_measured_leaves_threads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePool, "worker_bytes", 600_000_000)
    before = bench.board.plan
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    assert bench.crew.moves == []
    assert "of 2 GB" in bench.reasons()[0]
    assert bench.board.plan is before


def test_a_move_puts_the_measured_cost_into_the_plan(bench: Bench) -> None:
    bench.start_processes()
    bench.window(waited=0.3, blocked=0.6)
    plan = bench.board.plan
    assert plan.needs.worker_bytes == FakePool.worker_bytes
    assert plan.projected_bytes <= plan.budget_bytes


def test_idle_lanes_are_taken_away_one_by_one_down_to_one(bench: Bench) -> None:
    for _ in range(40):
        bench.window(busy=0.1)
    assert bench.crew.moves == ["lanes 3", "lanes 2", "lanes 1"]
    assert [event.lane_count for event in bench.events] == [3, 2, 1]


def test_a_lane_stays_where_the_others_would_be_busy(bench: Bench) -> None:
    for _ in range(40):
        bench.window(busy=0.6)
    assert bench.crew.moves == []


def test_a_step_down_that_starves_the_consumer_is_taken_back_and_not_tried_again(bench: Bench) -> None:
    while not bench.crew.moves:
        bench.window(busy=0.1)
    bench.window(waited=0.2, busy=0.95)
    assert bench.crew.moves == ["lanes 3", "lanes 4"]
    for _ in range(40):
        bench.window(busy=0.1)
    assert bench.crew.moves == ["lanes 3", "lanes 4"]


def test_lanes_never_become_more_than_planned(bench: Bench) -> None:
    for _ in range(10):
        bench.window(waited=0.9, busy=1.0)
    assert bench.crew.moves == []


def test_lanes_that_the_user_counted_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, auto_lanes=False)
    for _ in range(30):
        bench.window(busy=0.1)
    assert bench.crew.moves == []


def test_nothing_is_decided_after_close_and_a_pool_that_comes_late_is_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(FakePool, "close", lambda pool, **_: closed.append(pool))
    gate = threading.Event()
    monkeypatch.setattr(FakePool, "gate", gate)
    while bench.tuner._starter is None:
        bench.window(waited=0.3, blocked=0.6)
    closing = threading.Thread(target=bench.tuner.close)
    closing.start()
    while not bench.tuner._closed:
        closing.join(0.001)
    gate.set()
    closing.join()
    for _ in range(10):
        bench.window(busy=0.1)
    assert bench.events == []
    assert len(closed) == 1


def test_pauses_between_streams_are_not_counted(bench: Bench) -> None:
    for _ in range(40):
        bench.window(waited=0.3, busy=1.0)
        bench.now_s += 100
        bench.run = Run(0, 0, None, False)
        bench.tuner.delivered(bench.run, bench.now_s)
    assert bench.crew.moves == []


def test_functions_that_hold_the_interpreter_lock_are_tried_in_processes_and_bytes_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WINDOW_S", 0.1)

    def slowly(x: Any) -> Any:
        end_s = time.perf_counter() + 0.004
        while time.perf_counter() < end_s:
            pass
        return x * 2

    recorder = Recorder()
    dataset = fs.from_arrays(np.arange(64)).shuffle(1).map(slowly).batch(8)
    with dataset.loader(memory="600 MB", workers=2, observers=[recorder]) as loader:
        epochs = []
        deadline = time.monotonic() + 300
        while not recorder.of(LanesChanged) and time.monotonic() < deadline:
            loader.set_epoch(0)
            epochs.append([told(batch) for batch in loader])
        loader.set_epoch(0)
        epochs.append([told(batch) for batch in loader])
        stats = loader.stats()
    first = recorder.of(LanesChanged)[0]
    assert "blocked" in first.reason
    assert first.process_count == 2
    assert stats.reason == recorder.of(LanesChanged)[-1].reason
    assert all(epoch == epochs[0] for epoch in epochs)


def test_a_lock_in_a_function_leaves_threads_and_tells_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW_S", 0.1)
    lock = threading.Lock()

    def slowly(x: Any) -> Any:
        with lock:
            time.sleep(0.003)  # as a file or a library that lets one in at a time
        return x

    recorder = Recorder()
    dataset = fs.from_arrays(np.arange(64)).map(slowly).batch(8)
    with dataset.loader(memory="600 MB", workers=2, observers=[recorder]) as loader:
        deadline = time.monotonic() + 300
        while not recorder.of(LanesChanged) and time.monotonic() < deadline:
            list(loader)
        stats = loader.stats()
    assert stats.process_count == 0
    assert "lock" in stats.reason
