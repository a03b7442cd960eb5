"""How training and validation share one budget."""

from __future__ import annotations

import re

import numpy as np
import pytest

recorder = pytest.importorskip("recorder")

import fitstream as fs  # noqa: E402
from fitstream.adapters.keras_inputs import Running, open_both  # noqa: E402
from fitstream.engine.pool import Pool  # noqa: E402
from fitstream.machine import why_no_processes  # noqa: E402


def rows(count: int, width: int) -> fs.Dataset:
    return fs.from_arrays(np.zeros((count, width), np.float32))


@pytest.mark.parametrize("memory", [300_000, "1 MB", "50 MB"])
@pytest.mark.parametrize("sizes", [(10, 10), (10, 1), (1, 10)])
def test_both_plans_together_fit_the_budget(memory: int | str, sizes: tuple[int, int]) -> None:
    datasets = [rows(100, 1000).batch(size) for size in sizes]
    train, other = open_both(*datasets, Running(memory, 2))
    budget = datasets[0].plan(memory).budget_bytes
    assert train.plan.projected_bytes + other.plan.projected_bytes <= budget
    assert train.plan.budget_bytes == budget - other.plan.projected_bytes


def test_validation_gets_at_most_a_quarter_where_that_is_enough() -> None:
    train, other = open_both(rows(100, 1000).batch(10), rows(100, 1000).batch(10), Running("1 MB", 2))
    assert other.plan.projected_bytes <= 250_000
    assert train.plan.slot_count > other.plan.slot_count


def test_a_budget_for_only_one_of_the_two_is_refused_with_one_that_suffices() -> None:
    datasets = [rows(100, 1000).batch(10), rows(100, 1000).batch(10)]
    with pytest.raises(fs.PlanError, match=r'together don\'t fit.*memory="(?P<enough>[^"]+)"') as caught:
        open_both(*datasets, Running(100_000, 2))
    enough = str(caught.value).split('memory="')[1].split('"')[0]
    open_both(*datasets, Running(enough, 2))


def test_a_loader_keeps_its_budget_and_the_dataset_gets_what_is_given() -> None:
    with rows(100, 1000).batch(10).loader(memory="2 MB") as loader:
        train, other = open_both(loader, rows(100, 1000).batch(10), Running("1 MB", 2))
        assert train is loader
        assert other.plan.budget_bytes == 1_000_000
        train, other = open_both(rows(100, 1000).batch(10), loader, Running("1 MB", 2))
        assert other is loader
        assert train.plan.budget_bytes == 1_000_000


@pytest.mark.skipif(why_no_processes() is not None, reason="needs worker processes")
def test_workers_that_cost_more_than_their_share_are_refused_with_a_budget_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Pool, "worker_bytes", 60_000_000)  # as where a function loads much
    datasets = rows(100, 1000).batch(10), rows(100, 1000).batch(10)
    with pytest.raises(fs.PlanError, match="each start 1 worker processes of their own") as caught:
        open_both(*datasets, Running("130 MB", 1, 1))
    enough = re.search(r'memory="([^"]+)"', str(caught.value).partition("Use ")[2])
    assert enough is not None
    for loader in open_both(*datasets, Running(enough[1], 1, 1)):
        loader.close()
