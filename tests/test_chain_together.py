"""Samples read many at a time, by `__getitems__`: what is called, and which row an error names."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.chain import Chain, Recipe
from fitstream.failures import RowError
from fitstream.filler import Filler
from fitstream.operations import Map
from fitstream.scratch import Allowance, Arena
from fitstream.sources.arrays import SequenceSource
from fitstream.spec import Structure, array_spec

INDICES = np.array([7, 2, 5])


class Together:
    """Ten samples `(float, int)`; counts what is asked of it."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.asked: list[list[int]] = []
        self.single: list[int] = []
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def sample(self, index: int) -> Any:
        if index in self.broken:
            raise KeyError(f"no sample {index}")
        return np.full(2, index, np.float32), index

    def __getitem__(self, index: int) -> Any:
        self.single.append(index)
        return self.sample(index)

    def __getitems__(self, indices: list[int]) -> Any:
        self.asked.append(indices)
        return [self.sample(index) for index in indices]


def fill(obj: Any, fn: Callable[..., Any] | None = None) -> list[np.ndarray]:
    """The leaves of a batch of `INDICES`, filled from row 1 on."""
    stages = () if fn is None else ((0, Map(fn, False)),)
    filler = Filler(
        Chain(Recipe(SequenceSource(obj), stages, 0), Arena(Allowance(0, 0, 0))),
        Structure((0, 0)),
        [array_spec(np.zeros(2, np.float32)), array_spec(np.int64(0))],
    )
    leaves = [np.zeros((4, 2), np.float32), np.zeros(4, np.int64)]
    filler.fill(leaves, 1, INDICES, np.zeros(3, np.int64))
    return leaves


@pytest.mark.parametrize("fn", [None, lambda x, y: (x, y)], ids=["no stage", "map"])
def test_the_samples_of_a_chunk_are_read_in_one_call(fn: Any) -> None:
    obj = Together()
    x, y = fill(obj, fn)
    assert (obj.asked, obj.single) == ([[7, 2, 5]], [])
    assert y.tolist() == [0, 7, 2, 5]
    assert x[:, 1].tolist() == [0, 7, 2, 5]


def test_a_map_may_change_what_was_read_together_without_changing_the_source() -> None:
    kept = np.zeros(2, np.float32)

    class Lender(Together):
        def sample(self, index: int) -> Any:
            return kept, index

    def change(x: np.ndarray, y: int) -> Any:
        x += 1
        return x, y

    x, _ = fill(Lender(), change)
    assert x[1:].tolist() == [[1, 1]] * 3
    assert kept.tolist() == [0, 0]


def test_a_sample_that_fails_is_found_by_reading_one_by_one() -> None:
    obj = Together(broken=(2,))
    with pytest.raises(RowError, match="no sample 2") as caught:
        fill(obj)
    assert (caught.value.row, caught.value.error.index, caught.value.error.stage) == (2, 2, "read")
    assert obj.single == [7, 2]


def test_of_a_bad_map_and_a_later_bad_sample_the_first_row_is_named() -> None:
    def fail(x: Any, y: int) -> Any:
        raise ValueError(f"bad map of {y}")

    with pytest.raises(RowError, match="bad map of 7") as caught:
        fill(Together(broken=(5,)), fail)
    assert caught.value.row == 1


class Failing(Together):
    def __getitems__(self, indices: list[int]) -> Any:
        raise OSError("connection lost")


def test_a_failure_that_no_single_sample_shows_is_said_to_be_one_of_getitems() -> None:
    with pytest.raises(RowError, match=r"3 samples together .*7, 2, 5.*OSError: connection lost.*none") as caught:
        fill(Failing())
    assert caught.value.row == 1
    assert "test_chain_together.py" in str(caught.value.error.user_line)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ([1, 2], "asked for 3 samples and returned 2"),
        ({"x": 1, "y": 2, "z": 3}, "returned a dict, not a list of 3 samples"),
        (None, "returned a NoneType"),
    ],
)
def test_anything_but_as_many_samples_is_an_error(returned: Any, told: str) -> None:
    class Wrong(Together):
        def __getitems__(self, indices: list[int]) -> Any:
            return returned

    with pytest.raises(RowError, match=told):
        fill(Wrong())


def test_an_error_of_samples_read_together_keeps_no_memory_of_the_batch() -> None:
    error = None
    for obj in (Failing(), Together(broken=(5,))):
        leaves = np.zeros((4, 2), np.float32)
        batch = weakref.ref(leaves)
        chain = Chain(Recipe(SequenceSource(obj), (), 0), Arena(Allowance(0, 0, 0)))
        filler = Filler(chain, Structure((0, 0)), [array_spec(np.zeros(2, np.float32)), array_spec(np.int64(0))])
        gc.disable()
        try:
            filler.fill([leaves, np.zeros(4, np.int64)], 1, INDICES, np.zeros(3, np.int64))
        except RowError as failed:
            error = failed.error
        finally:
            gc.enable()
        del leaves
        assert batch() is None
    assert error is not None


def test_the_first_sample_is_read_alone_for_the_plan_and_for_indexing() -> None:
    obj = Together()
    dataset = fs.from_sequence(obj)
    dataset.batch(2).plan(memory="1 MB")
    dataset[3]
    assert (obj.asked, obj.single) == ([], [0, 3])


def test_a_loader_reads_chunks_together() -> None:
    obj = Together()
    with fs.from_sequence(obj).batch(4).loader(memory="1 MB", workers=0) as loader:
        labels = [y.tolist() for _, y in loader]
    assert labels == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert sorted(index for indices in obj.asked for index in indices) == list(range(10))


def test_finished_batches_are_never_read_together() -> None:
    class Batches(Together):
        def sample(self, index: int) -> Any:
            return np.full((2, 3), index, np.float32)

    obj = Batches()
    with fs.from_batches(obj).loader(memory="1 MB", workers=0) as loader:
        assert len(list(loader)) == 10
    assert obj.asked == []
