"""Draws, balanced draws, stratified splits, and shuffling by chunk."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fitstream as fs
from fitstream.sampling import Draw, Order, Shuffle, Take
from fitstream.strata import chunks_of, divided, strata_of

LABELS = np.repeat([0, 1, 2], [700, 250, 50])


def labelled(labels: np.ndarray = LABELS) -> fs.Dataset:
    return fs.from_arrays((np.arange(len(labels)), labels))


def seen(ds: fs.Dataset, epochs: int = 1, **options: Any) -> list[list[int]]:
    """The first part of every sample, batch by batch, of all epochs."""
    with ds.loader(memory="128 MB", **options) as loader:
        return [batch[0].tolist() for _ in range(epochs) for batch in loader]


# Draws.


def test_draws_with_replacement_give_as_many_samples_as_asked_also_more_than_there_are() -> None:
    ds = labelled(LABELS[:10]).sample(100, seed=1)
    order = ds._order()
    drawn = order.indices(0, np.arange(100))
    assert len(ds) == 100
    assert set(drawn.tolist()) == set(range(10))


def test_draws_with_replacement_are_even() -> None:
    drawn = Order(10, [Draw(100_000, 3, True)]).indices(0, np.arange(100_000))
    counts = np.bincount(drawn, minlength=10)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.9  # chi squared of 9 degrees of freedom, 1 in 1,000


@pytest.mark.parametrize("replacement", [True, False])
def test_each_pass_draws_anew_and_the_same_pass_the_same(replacement: bool) -> None:
    order = Order(1000, [Draw(200, 0, replacement)])
    first, second = (order.indices(number, np.arange(200)) for number in (0, 1))
    assert np.array_equal(first, Order(1000, [Draw(200, 0, replacement)]).indices(0, np.arange(200)))
    assert not np.array_equal(first, second)
    assert len(np.unique(first)) == 200 or replacement


def test_draws_are_computed_alone_and_take_no_memory() -> None:
    order = Order(10**12, [Draw(10**12, 0, True)])
    assert order.index_bytes == 0
    at = np.arange(10**11, 10**11 + 64)
    assert order.indices(5, at)[10:20].tolist() == order.indices(5, at[10:20]).tolist()


def test_draws_are_the_same_on_every_machine_and_release() -> None:
    assert Order(100, [Draw(8, 0, True)]).indices(0, np.arange(8)).tolist() == GOLDEN_DRAWS


GOLDEN_DRAWS = [72, 10, 3, 75, 97, 21, 69, 43]


def test_more_draws_than_samples_without_replacement_are_refused_with_numbers() -> None:
    with pytest.raises(fs.PlanError, match=r"sample\(1001, replacement=False\).*there are 1,000.*count <= 1000"):
        labelled().sample(1001, replacement=False)


# Balance.


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), count=st.integers(1, 200), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_balanced_draws_have_classes_equally_often_to_one(sizes: list[int], count: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)) * 7, sizes)
    drawn = Order(len(labels), [Draw(count, seed, True, strata_of(labels))]).indices(2, np.arange(count))
    counts = np.array([(labels[drawn] == 7 * group).sum() for group in range(len(sizes))])
    assert counts.max() - counts.min() <= 1


def test_balanced_draws_without_replacement_repeat_none() -> None:
    ds = labelled().sample(150, replacement=False, balance=True)
    drawn = ds._order().indices(1, np.arange(150))
    assert len(np.unique(drawn)) == 150
    assert np.bincount(LABELS[drawn]).tolist() == [50, 50, 50]


def test_balanced_draws_without_replacement_are_bound_by_the_smallest_class() -> None:
    with pytest.raises(fs.PlanError, match=r"smallest of 3 classes has 50, so that 150 are balanced"):
        labelled().sample(151, replacement=False, balance=True)


def test_balanced_draws_of_a_part_draw_from_that_part_alone() -> None:
    train, _ = labelled().split(0.8, stratify=True)
    there = set(train._order().indices(0, np.arange(len(train))).tolist())
    drawn = train.sample(500, balance=True)._order().indices(0, np.arange(500))
    assert set(drawn.tolist()) <= there
    assert np.ptp(np.bincount(LABELS[drawn])) <= 1


def test_balancing_without_labels_is_refused() -> None:
    with pytest.raises(fs.PlanError, match=r"sample\(balance=True\) needs one whole number a sample as label"):
        fs.from_arrays(np.zeros((10, 2))).sample(5, balance=True)


# Stratified splits.


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=9), share=st.floats(0.05, 0.95), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_stratified_split_keeps_shares_and_loses_none(sizes: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    one, other = (side.values for side in divided(strata_of(labels), share, seed))
    assert sorted([*one.tolist(), *other.tolist()]) == list(range(len(labels)))
    for group, size in enumerate(sizes):
        here = (labels[one] == group).sum()
        if size > 1:
            assert 1 <= here <= size - 1
            assert abs(here - size * share) <= 1


def test_whole_numbers_stored_as_floats_are_classes(tmp_path: Path) -> None:
    """As MATLAB stores labels: a column of doubles."""
    labels = np.repeat([1.0, 2.0], [15, 5])
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["x"], file["y"] = np.arange(20.0), labels[np.newaxis]
    stored = fs.from_hdf5(tmp_path / "x.mat", "x", "y", axes=["stored", "matlab"])
    for ds in (stored, fs.from_arrays((np.arange(20), labels))):
        assert ds.class_weights() == {1: 20 / 30, 2: 2.0}
        first, second = ds.split(0.8, stratify=True)
        assert sum(int(np.squeeze(first[i][1])) == 2 for i in range(len(first))) == 4
        assert len(second) == 4
    with pytest.raises(fs.PlanError, match=r"are float64\[3\]"):
        fs.from_arrays((np.arange(3), np.array([1.0, 2.5, 3]))).class_weights()


def test_one_hot_rows_are_classes() -> None:
    rows = fs.from_arrays((np.arange(1000), np.eye(3, dtype=np.float32)[LABELS]))
    train, rest = rows.split(0.8, stratify=True)
    assert sorted(np.bincount(LABELS[list(chain(*seen(rest.batch(50))))])) == [10, 50, 140]
    drawn = list(chain(*seen(rows.sample(300, balance=True).batch(50))))
    assert np.bincount(LABELS[drawn]).tolist() == [100, 100, 100]
    assert rows.class_weights() == labelled().class_weights()
    assert len(train) == 800


@pytest.mark.parametrize("row", [[0.5, 0.5, 0], [0, 0, 0], [1, 1, -1], [2, -1, 0]])
def test_rows_that_are_not_one_hot_are_no_classes(row: list[float]) -> None:
    rows = np.eye(3)[LABELS]
    rows[-1] = row
    with pytest.raises(fs.PlanError, match="or a one-hot row"):
        fs.from_arrays((np.arange(1000), rows)).split(0.5, stratify=True)


def test_a_stratified_split_has_the_size_that_the_fraction_says() -> None:
    one, other = labelled().split(0.8, seed=3, stratify=True)
    assert (len(one), len(other)) == (800, 200)
    assert np.bincount([int(one[i][1]) for i in range(800)]).tolist() == [560, 200, 40]


def test_a_stratified_split_is_mixed_so_that_its_start_is_like_the_whole() -> None:
    one, _ = labelled().split(0.8, stratify=True)
    first = [int(one[i][1]) for i in range(100)]
    assert 50 <= first.count(0) <= 90


def test_splitting_draws_is_refused() -> None:
    with pytest.raises(fs.PlanError, match=r"split\(\) must come before sample\(\)"):
        labelled().sample(100).split(0.5)


def test_validation_is_split_off_before_the_draws() -> None:
    train, validation = labelled().sample(300, balance=True).shuffle(0).batch(50).split_off(0.1)
    kept = set(validation._order().indices(0, np.arange(100)).tolist())
    drawn = train._order().indices(0, np.arange(300))
    assert len(kept) == 100
    assert not kept & set(drawn.tolist())
    assert np.ptp(np.bincount(LABELS[drawn])) <= 1


# Running them.


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 3, "processes": 0}, {"workers": 2, "processes": 1}])
def test_draws_are_the_same_with_any_lanes_and_after_resuming(options: dict[str, Any]) -> None:
    ds = labelled().sample(90, balance=True, seed=5).shuffle(1).batch(16)
    expected = [ds._order().indices(e, np.arange(90)).tolist() for e in range(2)]
    batches = seen(ds, 2, **options)
    assert [[*chain(*batches[:6])], [*chain(*batches[6:])]] == expected
    with ds.loader(memory="128 MB", **options) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with ds.loader(memory="128 MB", **options) as loader:
        loader.load_state_dict(state)
        assert [batch[0].tolist() for batch in loader] == batches[1:6]


def test_a_sample_that_comes_twice_is_transformed_differently_and_repeatably() -> None:
    def noise(x: Any, rng: np.random.Generator) -> Any:
        return x, rng.random()

    ds = fs.from_arrays(np.arange(3)).map(noise).sample(64).batch(16)
    with ds.loader(memory="128 MB", workers=2, processes=0) as loader:
        draws = np.concatenate([np.stack(batch, 1) for batch in loader])
    with ds.loader(memory="128 MB", workers=0) as loader:
        again = np.concatenate([np.stack(batch, 1) for batch in loader])
    assert len(np.unique(draws[:, 1])) == 64
    assert np.array_equal(draws, again)
    assert np.array_equal(ds[1][1], again[16:32, 1])


def test_a_state_of_other_draws_is_refused() -> None:
    ds = labelled()
    with ds.sample(90, seed=1).batch(16).loader(memory="128 MB", workers=0) as loader:
        next(iter(loader))
        state = loader.state_dict()
    for other in (ds.sample(90, seed=2), ds.sample(90, replacement=False, seed=1), ds.sample(90, seed=1, balance=True)):
        with other.batch(16).loader(memory="128 MB", workers=0) as loader:
            with pytest.raises(fs.StateError, match="sample"):
                loader.load_state_dict(state)


def test_positions_by_class_are_counted_in_the_plan() -> None:
    big = labelled(np.arange(100_000) % 7)
    plain, balanced = big.batch(8).plan(workers=1), big.sample(100, balance=True).batch(8).plan(workers=1)
    assert balanced.index_bytes - plain.index_bytes == 400_000 + 8 * 8


# Shuffling by chunk.


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=25), window=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_shuffle_by_chunk_gives_each_sample_once_and_stays_within_its_window(
    sizes: list[int], window: int, seed: int
) -> None:
    edges = np.concatenate([[0], np.cumsum(sizes)])
    order = Order(int(edges[-1]), [Shuffle(seed, chunks_of(edges, None, window))])
    found = order.indices(3, np.arange(order.count))
    assert sorted(found.tolist()) == list(range(order.count))
    blocks = np.searchsorted(edges, found, "right") - 1
    first_seen = list(dict.fromkeys(blocks.tolist()))
    for block in first_seen:
        where = np.flatnonzero(blocks == block)
        between = len(np.unique(blocks[where[0] : where[-1] + 1]))
        assert between <= window


def test_a_shuffle_by_chunk_computes_any_part_alone() -> None:
    chunks = chunks_of(np.arange(0, 1001, 10), None, 4)
    whole = Order(1000, [Shuffle(0, chunks)]).indices(1, np.arange(1000))
    assert np.array_equal(Order(1000, [Shuffle(0, chunks)]).indices(1, np.arange(333, 397)), whole[333:397])


@given(share=st.floats(0.1, 0.9), seed=st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_a_shuffle_by_chunk_after_a_split_gives_that_side_block_by_block(share: float, seed: int) -> None:
    edges = np.arange(0, 501, 25)
    side = Order(500, [Take(400)]).indices(0, np.random.default_rng(seed).permutation(400)[: int(400 * share)])
    chunks = chunks_of(edges, side, 2)
    order = Order(len(side), [Shuffle(seed, chunks)])
    found = side[order.indices(0, np.arange(len(side)))]
    assert sorted(found.tolist()) == sorted(side.tolist())
    blocks = found // 25
    for block in np.unique(blocks):
        where = np.flatnonzero(blocks == block)
        assert len(np.unique(blocks[where[0] : where[-1] + 1])) <= 2


def test_a_shuffle_by_chunk_of_a_source_without_blocks_is_refused() -> None:
    with pytest.raises(fs.PlanError, match="for sources that are read in blocks"):
        labelled().shuffle(0, within="chunks")


def test_numbers_that_are_no_classes_are_told_where_a_side_would_be_empty() -> None:
    rows = fs.from_arrays((np.zeros(40), np.arange(40)))
    with pytest.raises(fs.PlanError, match=r"one side empty: 40 samples have 40 labels. Labels are the second array"):
        rows.split(0.5, stratify=True)
