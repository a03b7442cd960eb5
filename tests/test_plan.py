"""The memory arithmetic: what is planned fits, what is refused says what would fit."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fitstream as fs
from fitstream.budget import Needs
from fitstream.spec import ArraySpec, Layout, parse_bytes


def needs(budget: int, row_bytes: int, rows: int, scratch: int = 0, hand: int = 0, index: int = 0) -> Needs:
    return Needs(
        layout=Layout([ArraySpec((row_bytes,), np.dtype(np.uint8))], rows),
        budget_bytes=budget,
        memory=budget,
        scratch_bytes=scratch,
        large_wanted_bytes=100 * scratch,
        hand_bytes=hand,
        waiting_bytes=0,
        hands_on=False,
        index_bytes=index,
        steps=None,
        whole=False,
    )


@given(
    budget=st.integers(1, 10**9),
    row=st.integers(1, 10**6),
    rows=st.integers(1, 256),
    scratch=st.integers(0, 10**8),
    hand=st.integers(0, 10**6),
    lanes=st.integers(0, 16),
    processes=st.integers(0, 4),
    worker=st.integers(0, 10**8),
    result=st.integers(0, 10**6),
    fixed=st.booleans(),
)
def test_a_budget_is_never_exceeded_and_a_refusal_names_settings_that_fit(
    budget: int,
    row: int,
    rows: int,
    scratch: int,
    hand: int,
    lanes: int,
    processes: int,
    worker: int,
    result: int,
    fixed: bool,
) -> None:
    processes = min(processes, lanes)
    want = replace(needs(budget, row, rows, scratch, hand), worker_bytes=worker, result_bytes=result)
    try:
        fitted = want.fit(lanes, processes, fixed=fixed)
    except fs.PlanError as error:
        message = str(error)
        memory = re.search(r'memory >= "([^"]+)"', message)
        assert memory is not None
        refused_lanes = lanes if fixed else min(lanes, max(1, processes))
        replace(want, budget_bytes=parse_bytes(memory[1])).fit(refused_lanes, processes, fixed=True)
        if batch := re.search(r"batch size <= (\d+)", message):
            smaller = needs(budget, row, int(batch[1]), scratch, hand).layout
            replace(want, layout=smaller).fit(refused_lanes, processes, fixed=True)
        if workers := re.search(r"workers <= (\d+)", message):
            want.fit(int(workers[1]), processes, fixed=True)
        if fewer := re.search(r"processes <= (\d+)", message):
            want.fit(refused_lanes, int(fewer[1]), fixed=True)
        if "processes=0" in message:
            want.fit(refused_lanes, 0, fixed=True)
        return
    used = fitted.slot_count * want.layout.slot_bytes + max(1, fitted.lane_count) * (fitted.lane_bytes + hand)
    workers_use = processes * worker + 2 * lanes * result if processes and fitted.lane_count == lanes else 0
    assert used + workers_use + max(1, processes) * fitted.large_bytes <= budget
    assert fitted.slot_count >= 2
    assert max(fitted.lane_bytes, fitted.large_bytes) >= scratch
    assert fitted.lane_count == lanes or (not fixed and fitted.lane_count < lanes)


def test_a_budget_too_small_for_two_batches_is_refused_with_numbers() -> None:
    dataset = fs.from_arrays(np.zeros((100, 1024), np.uint8)).batch(50)
    with pytest.raises(fs.PlanError) as caught:
        dataset.plan(memory="60 kB")
    message = str(caught.value)
    assert "needs 102 kB but memory='60 kB'" in message
    assert "2 slots x 51.2 kB (batch of 50 x 1.02 kB)" in message
    assert "batch size <= 29" in message
    dataset.plan(memory="103 kB")
    fs.from_arrays(np.zeros((100, 1024), np.uint8)).batch(29).plan(memory="60 kB")


def test_plan_starts_nothing_and_reads_one_sample() -> None:
    read = []

    class Source:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            return np.zeros(3)

    before = set(threading.enumerate())
    fs.from_sequence(Source()).shuffle(0).batch(10).plan(memory="1 MB")
    assert len(read) == 1
    assert set(threading.enumerate()) <= before


def test_auto_lanes_are_cut_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fitstream.planning.available_cores", lambda: 64)
    samples = np.zeros((100, 1000), np.uint8)
    plan = fs.from_arrays(samples).map(lambda v: v).batch(10).plan(memory="50 kB")
    assert 0 < plan.lane_count < 64
    assert "cut to" in plan.lane_reason
    assert plan.projected_bytes <= 50_000
    with pytest.raises(fs.PlanError, match="workers <= "):
        fs.from_arrays(samples).map(lambda v: v).batch(10).plan(memory="50 kB", workers=64)


@pytest.mark.parametrize("workers", [-1, 1.5, "two", True, None, 1000])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: Any) -> None:
    with pytest.raises(fs.PlanError, match="workers="):
        fs.from_arrays(np.zeros(10)).batch(2).plan(workers=workers)


def test_a_plan_without_a_batch_size_is_refused() -> None:
    with pytest.raises(fs.PlanError, match=r"Call \.batch"):
        fs.from_arrays(np.zeros(10)).plan()


def test_print_explains_and_adds_up() -> None:
    plan = (
        fs.from_arrays((np.zeros((100, 8), np.float32), np.zeros(100, np.int64))).shuffle(1).batch(32).plan("1 MB", 2)
    )
    text = str(plan)
    for told in ("100 samples a pass in 4 batches", "float32(8)", "int64()", "ring", "slots", "projected", "workers=2"):
        assert told in text
    assert repr(plan).startswith("Plan(4 batches of 32, ")
    parts = plan.slot_count * plan.layout.slot_bytes + plan.index_bytes
    assert plan.projected_bytes == parts


def test_the_automatic_budget_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = fs.from_arrays(np.zeros(10)).batch(2)
    monkeypatch.setattr("fitstream.planning.available_memory_bytes", lambda: 4 * 10**9)
    assert dataset.plan().budget_bytes == 10**9
    monkeypatch.setattr("fitstream.planning.available_memory_bytes", lambda: 10**12)
    assert dataset.plan().budget_bytes == 2 * 2**30
