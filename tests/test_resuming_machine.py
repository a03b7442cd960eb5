"""Any order of taking, saving, loading, moving and killing gives the batches of a list.

The model is the list of all batches of the first passes, and a place in it. `make soak` runs many more examples, with
worker processes that are killed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import fitstream as fs
from fitstream.events import WorkerStarted

SOAK = settings().max_examples > 100
PASSES = 8


def noised(dataset: fs.Dataset) -> fs.Dataset:
    # Local, so that it travels by value and no worker imports this module.
    return dataset.map(lambda x, rng: x + rng.random())


def generated() -> Iterator[Any]:
    for i in range(17):
        yield np.float64(i)


KINDS: dict[str, Any] = {
    "shuffled": lambda: noised(fs.from_arrays(np.arange(23.0)).shuffle(1)).batch(4),
    "wrapped": lambda: fs.from_arrays(np.arange(23.0)).shuffle(1).batch(4, "wrap"),
    "generated": lambda: noised(fs.from_generator(generated, length=17)).batch(4),
}


@functools.cache
def expected(kind: str) -> list[list[list[float]]]:
    with KINDS[kind]().loader(memory="1 MB", workers=0) as loader:
        return [[batch.tolist() for batch in loader] for _ in range(PASSES)]


class Pids:
    """An observer that remembers the worker processes that were started."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def on_event(self, event: Any) -> None:
        if isinstance(event, WorkerStarted):
            self.pids.append(event.pid)


class Resuming(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(list(KINDS)), workers=st.sampled_from([0, 1, 2]))
    def begin(self, kind: str, workers: int) -> None:
        self.kind, self.model = kind, expected(kind)
        self.place, self.loaded = (0, 0), False
        self.saved: list[tuple[Any, tuple[int, int]]] = []
        self.batches: Any = None
        self.open(workers, 0)

    def open(self, workers: int, processes: int) -> None:
        self.watch = Pids()
        self.workers, self.processes = workers, processes
        memory = "300 MB" if processes else "1 MB"
        self.loader = KINDS[self.kind]().loader(
            memory=memory, workers=workers, processes=processes, observers=[self.watch]
        )

    @property
    def early(self) -> bool:
        return self.place[0] < PASSES - 1

    @precondition(lambda self: self.early)
    @rule()
    def iterate(self) -> None:
        pass_index, step = self.place
        if step and not self.loaded:
            self.place = (pass_index + 1, 0)
        self.batches = iter(self.loader)

    @precondition(lambda self: self.batches is not None)
    @rule(count=st.integers(1, 6))
    def take(self, count: int) -> None:
        for _ in range(count):
            batch = next(self.batches, None)
            if batch is None:
                assert self.place[1] == 0
                self.batches = None
                return
            pass_index, step = self.place
            assert batch.tolist() == self.model[pass_index][step]
            over = step + 1 == len(self.model[pass_index])
            self.place, self.loaded = ((pass_index + 1, 0) if over else (pass_index, step + 1)), False
            if over:
                assert next(self.batches, None) is None
                self.batches = None
                return

    @rule()
    def save(self) -> None:
        state = json.loads(json.dumps(self.loader.state_dict()))
        assert (state["epoch"], state["step"]) == self.place
        self.saved.append((state, self.place))

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def load(self, data: Any) -> None:
        state, place = data.draw(st.sampled_from(self.saved))
        if self.batches is not None:
            with pytest.raises(fs.StateError):
                self.loader.load_state_dict(state)
            self.batches = None
        self.loader.load_state_dict(state)
        self.place, self.loaded = place, True

    @rule(workers=st.sampled_from([0, 1, 2, 4]), processes=st.sampled_from([0, 0, 1] if SOAK else [0]))
    def move(self, workers: int, processes: int) -> None:
        state = self.loader.state_dict()
        self.batches = None
        self.loader.close()
        self.open(max(workers, processes), processes)
        self.loader.load_state_dict(state)
        self.loaded = True

    @rule(epoch=st.integers(0, PASSES - 2))
    def set_epoch(self, epoch: int) -> None:
        self.batches = None
        self.loader.set_epoch(epoch)
        self.place, self.loaded = (epoch, 0), False

    @precondition(lambda self: self.processes)
    @rule()
    def kill(self) -> None:
        # The newest is the only one that may live; an older id may be another process's by now.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.watch.pids[-1], signal.SIGKILL)

    def teardown(self) -> None:
        if hasattr(self, "loader"):
            self.batches = None
            self.loader.close()


Resuming.TestCase.settings = settings(
    max_examples=300 if SOAK else 25,
    stateful_step_count=40 if SOAK else 25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestResuming = Resuming.TestCase
if SOAK:
    TestResuming = pytest.mark.timeout(1800)(TestResuming)
