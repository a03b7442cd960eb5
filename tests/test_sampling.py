"""The order of a pass: a keyed permutation, computed and not stored."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitstream.sampling import Order, Permutation, Shard, Shuffle, Split, Take, sample_rng


@pytest.mark.parametrize("first", range(0, 2001, 250))
def test_every_count_up_to_2000_gives_each_index_exactly_once(first: int) -> None:
    for count in range(first, first + 250):
        order = Permutation(count, ("shuffle", 0, 0))(np.arange(count))
        assert sorted(order.tolist()) == list(range(count))


@given(count=st.integers(1, 10**12), seed=st.integers(0, 2**63), at=st.data())
def test_large_counts_stay_in_range_and_give_no_index_twice(count: int, seed: int, at: st.DataObject) -> None:
    start = at.draw(st.integers(0, max(0, count - 200)))
    positions = np.arange(start, min(count, start + 200))
    order = Permutation(count, ("shuffle", seed, 0))(positions)
    assert order.min() >= 0
    assert order.max() < count
    assert len(np.unique(order)) == len(positions)


@pytest.mark.parametrize("count", [65_536, 65_537, 262_145, 1_000_000])
def test_larger_counts_give_each_index_exactly_once(count: int) -> None:
    order = Permutation(count, ("shuffle", 7, 3))(np.arange(count))
    assert np.array_equal(np.sort(order), np.arange(count))


def test_a_batch_of_positions_can_be_computed_anywhere_without_the_rest() -> None:
    permutation = Permutation(10_000, ("shuffle", 1, 0))
    whole = permutation(np.arange(10_000))
    assert np.array_equal(permutation(np.arange(5_000, 5_064)), whole[5_000:5_064])


def test_a_batch_out_of_a_trillion_takes_no_memory_to_speak_of() -> None:
    positions = np.arange(999_999_999_000, 999_999_999_064)
    tracemalloc.start()
    Permutation(10**12, ("shuffle", 0, 0))(positions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_positions_look_independent_of_indices() -> None:
    count = 100_000
    order = Permutation(count, ("shuffle", 0, 0))(np.arange(count))
    assert abs(np.corrcoef(order, np.arange(count))[0, 1]) < 0.02
    steps = np.diff(order)
    assert abs(np.corrcoef(steps[:-1], steps[1:])[0, 1] + 0.5) < 0.02  # as for independent draws


def test_every_order_of_three_comes_about_equally_often() -> None:
    seen = [tuple(Permutation(3, ("shuffle", seed, 0))(np.arange(3)).tolist()) for seed in range(3000)]
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 400


def test_equal_keys_give_equal_orders_and_others_do_not() -> None:
    positions = np.arange(1000)
    first = Permutation(1000, ("shuffle", 3, 1))(positions)
    assert np.array_equal(first, Permutation(1000, ("shuffle", 3, 1))(positions))
    assert not np.array_equal(first, Permutation(1000, ("shuffle", 3, 2))(positions))
    assert not np.array_equal(first, Permutation(1000, ("shuffle", 4, 1))(positions))


def test_the_order_is_the_same_on_every_machine_and_release() -> None:
    assert Permutation(10, ("shuffle", 0, 0))(np.arange(10)).tolist() == [8, 6, 4, 0, 2, 3, 5, 1, 9, 7]


def test_positions_outside_the_range_are_refused() -> None:
    with pytest.raises(IndexError):
        Permutation(5, ("x",))([5])


@given(count=st.integers(2, 500), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_the_two_sides_of_a_split_are_all_samples_without_overlap(count: int, share: float, seed: int) -> None:
    first = min(count - 1, max(1, round(count * share)))
    one = Order(count, [Split(0, first, seed), Shuffle(1)])
    other = Order(count, [Split(first, count - first, seed), Shuffle(2)])
    both = [*one.indices(4, np.arange(one.count)), *other.indices(0, np.arange(other.count))]
    assert sorted(map(int, both)) == list(range(count))


@given(count=st.integers(1, 300), ranks=st.integers(1, 9), shuffled=st.booleans())
def test_the_shards_of_samples_are_all_samples_without_overlap(count: int, ranks: int, shuffled: bool) -> None:
    before = [Shuffle(5)] if shuffled else []
    seen: list[int] = []
    for rank in range(ranks):
        order = Order(count, [*before, Shard(rank, ranks)])
        seen += order.indices(2, np.arange(order.count)).tolist()
    assert sorted(seen) == list(range(count))


def test_take_comes_before_shuffle_and_limits_what_is_seen() -> None:
    order = Order(100, [Take(10), Shuffle(0)])
    assert sorted(order.indices(0, np.arange(10)).tolist()) == list(range(10))


def test_random_streams_differ_by_each_of_their_keys_and_repeat() -> None:
    draws = {
        sample_rng(*key).random()
        for key in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0, 1)]
    }
    assert len(draws) == 6
    assert sample_rng(0, 0, 0, 0).random() in draws


def test_the_draws_are_the_same_on_every_machine_and_release() -> None:
    assert sample_rng(1, 2, 3, 4).integers(0, 1000, 5).tolist() == [763, 289, 109, 404, 89]
