"""Which rows make which batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitstream.batching import BatchOrder
from fitstream.errors import PlanError
from fitstream.sampling import Order, Shard, Shuffle


def passes(order: BatchOrder, count: int) -> list[list[np.ndarray]]:
    return [[order.rows(e, k).indices for k in range(order.steps)] for e in range(count)]


@given(count=st.integers(1, 200), size=st.integers(1, 70), seed=st.integers(0, 9))
def test_keep_gives_each_sample_once_a_pass(count: int, size: int, seed: int) -> None:
    order = BatchOrder(Order(count, [Shuffle(seed)]), size, "keep")
    for batches in passes(order, 3):
        assert sorted(np.concatenate(batches).tolist()) == list(range(count))
        assert [len(batch) for batch in batches[:-1]] == [size] * (order.steps - 1)


@given(count=st.integers(1, 200), size=st.integers(1, 70))
def test_drop_leaves_out_less_than_a_batch(count: int, size: int) -> None:
    if count < size:
        with pytest.raises(PlanError, match="batch size <= "):
            BatchOrder(Order(count), size, "drop")
        return
    order = BatchOrder(Order(count, [Shuffle(0)]), size, "drop")
    (batches,) = passes(order, 1)
    assert {len(batch) for batch in batches} == {size}
    assert count - len(np.unique(np.concatenate(batches))) == count % size


@given(count=st.integers(1, 200), size=st.integers(1, 70))
def test_pad_tells_how_many_rows_are_real(count: int, size: int) -> None:
    order = BatchOrder(Order(count), size, "pad")
    rows = [order.rows(0, k) for k in range(order.steps)]
    assert {one.count for one in rows} == {size}
    assert sum(len(one.indices) for one in rows) == count


@given(count=st.integers(1, 120), size=st.integers(1, 300), epochs=st.integers(1, 5))
def test_wrap_is_the_passes_laid_end_to_end_each_exact(count: int, size: int, epochs: int) -> None:
    order = BatchOrder(Order(count, [Shuffle(1)]), size, "wrap")
    assert order.steps == -(-count // size)
    stream = np.concatenate([batch for epoch in passes(order, epochs) for batch in epoch])
    assert len(stream) == epochs * order.steps * size
    plain = Order(count, [Shuffle(1)])
    for number in range(len(stream) // count):
        one = stream[number * count : (number + 1) * count]
        assert np.array_equal(one, plain.indices(number, np.arange(count)))


@given(
    count=st.integers(1, 200),
    share=st.integers(1, 8),
    ranks=st.integers(1, 6),
    last=st.sampled_from(["keep", "drop", "pad", "wrap"]),
)
def test_the_ranks_parts_joined_are_the_global_batch(count: int, share: int, ranks: int, last: str) -> None:
    size = share * ranks
    try:
        whole = BatchOrder(Order(count, [Shuffle(2)]), size, last)
        parts = [BatchOrder(Order(count, [Shuffle(2)]), size, last, Shard(rank, ranks)) for rank in range(ranks)]
    except PlanError:
        assert last == "drop" or count % size < ranks
        return
    for step in range(whole.steps):
        joined = np.concatenate([part.rows(1, step).indices for part in parts])
        assert np.array_equal(joined, whole.rows(1, step).indices)
        assert all(part.rows(1, step).count <= part.capacity for part in parts)
    assert {part.steps for part in parts} == {whole.steps}


def test_a_batch_that_ranks_cannot_share_evenly_is_refused_with_sizes_that_can() -> None:
    with pytest.raises(PlanError, match="batch size of 8 or 12"):
        BatchOrder(Order(100), 10, "drop", Shard(0, 4))


def test_a_last_batch_smaller_than_the_ranks_is_refused() -> None:
    with pytest.raises(PlanError, match='last="drop"'):
        BatchOrder(Order(17), 8, "keep", Shard(0, 4))
