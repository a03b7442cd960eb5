"""Samples of differing length: padded to the longest of their batch, and joined by length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fitstream as fs
from fitstream.batching import BatchOrder
from fitstream.sampling import Order, Shard, Shuffle

KINDS: list[dict[str, Any]] = [{"workers": 0}, {"workers": 3, "processes": 0}, {"workers": 2, "processes": 2}]


class Sentences:
    """Sample i is `(tokens, label)`: as many times i + 1 as the i-th length says."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Any:
        return np.full((self.lengths[index], 2), index + 1, np.int32), np.int64(index)


def epoch(dataset: fs.Dataset, **kind: Any) -> list[Any]:
    with dataset.loader(memory="200 MB", **kind) as loader:
        return [tuple(part.copy() for part in batch) for batch in loader]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_batch_is_as_long_as_its_longest_sample(kind: dict[str, Any]) -> None:
    batches = epoch(fs.from_sequence(Sentences([3, 1, 2, 5, 4])).batch(2, pad=[0], max_length=7), **kind)
    assert [x.shape for x, _ in batches] == [(2, 3, 2), (2, 5, 2), (1, 4, 2)]
    assert batches[0][0][..., 0].tolist() == [[1, 1, 1], [2, 0, 0]]
    assert batches[1][0][..., 1].tolist() == [[3, 3, 0, 0, 0], [4, 4, 4, 4, 4]]
    assert [y.tolist() for _, y in batches] == [[0, 1], [2, 3], [4]]


def test_batches_are_contiguous_and_aligned() -> None:
    for x, _ in epoch(fs.from_sequence(Sentences([3, 1, 2, 5, 4])).batch(2, pad=True, max_length=9)):
        assert x.flags.c_contiguous
    with fs.from_sequence(Sentences([3, 1])).batch(2, pad=True, max_length=9).loader(workers=0) as loader:
        assert all(part.ctypes.data % 64 == 0 for batch in loader for part in batch)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_mask_tells_numbers_from_padding(kind: dict[str, Any]) -> None:
    batches = epoch(fs.from_sequence(Sentences([3, 1, 2])).batch(2, pad=True, max_length=7, mask=True), **kind)
    assert [mask.tolist() for _, _, mask in batches] == [[[1, 1, 1], [1, 0, 0]], [[1, 1]]]


def test_rows_that_pad_a_last_batch_are_masked_whole() -> None:
    batches = epoch(fs.from_sequence(Sentences([3, 1, 2])).batch(2, last="pad", pad=True, max_length=7, mask=True))
    assert batches[1][2].tolist() == [[1, 1], [0, 0]]
    assert batches[1][0].shape == (2, 2, 2)
    assert not batches[1][0][1].any()


def test_parts_are_named_by_key() -> None:
    samples = [{"tokens": np.arange(n), "scores": np.ones(4)} for n in (1, 3)]
    with fs.from_sequence(samples).batch(2, pad=["tokens"], max_length=5).loader(workers=0) as loader:
        (batch,) = loader
    assert batch["tokens"].shape == (2, 3)
    assert batch["scores"].shape == (2, 4)


def test_a_key_names_a_part_at_any_depth() -> None:
    data = [({"words": np.ones(n), "count": np.ones(1)}, n) for n in (2, 3)]
    (inputs, _), *_ = list(fs.from_sequence(data).batch(2, pad=["words"], max_length=5).loader(memory="1 MB"))
    assert (inputs["words"].shape, inputs["count"].shape) == ((2, 3), (2, 1))
    assert (
        repr(fs.from_sequence(data).batch(2, pad="words", max_length=5).plan().batch_spec[0]["count"].shape[1]) == "1"
    )


def test_the_first_sample_may_be_empty_and_the_whole_batch_too() -> None:
    assert [x.shape for x, _ in epoch(fs.from_sequence(Sentences([0, 2])).batch(2, pad=[0], max_length=3))] == [
        (2, 2, 2)
    ]
    assert [x.shape for x, _ in epoch(fs.from_sequence(Sentences([0, 0])).batch(2, pad=[0], max_length=3))] == [
        (2, 1, 2)
    ]


def test_an_empty_list_takes_the_dtype_of_the_others() -> None:
    for samples, rows in (([[1, 2], []], [[1, 2], [0, 0]]), ([[[1, 2]], []], [[[1, 2]], [[0, 0]]])):
        with fs.from_sequence(samples).batch(2, pad=True, max_length=4).loader(workers=0) as loader:
            (batch,) = loader
        assert batch.tolist() == rows
        assert batch.dtype == np.int64
    with pytest.raises(fs.PlanError, match="empty list, which has no dtype"):
        fs.from_sequence([[], [1]]).batch(2, pad=True, max_length=4).plan()


def test_a_generator_s_samples_are_padded() -> None:
    def samples() -> Any:
        yield from ([1] * n for n in (2, 1, 4))

    with fs.from_generator(samples).batch(2, pad=True, max_length=4).loader() as loader:
        assert [batch.tolist() for batch in loader] == [[[1, 1], [1, 0]], [[1, 1, 1, 1]]]


def test_what_is_kept_is_copied_with_its_own_length() -> None:
    lengths = [1 + i % 5 for i in range(40)]
    with fs.from_sequence(Sentences(lengths)).batch(2, pad=[0], max_length=5).loader(workers=1) as loader:
        kept = list(loader)
    assert [x.shape[1] for x, _ in kept] == [max(lengths[i : i + 2]) for i in range(0, 40, 2)]
    assert all((x[row, : lengths[int(y[row])]] == y[row] + 1).all() for x, y in kept for row in range(2))


def test_a_skipped_sample_takes_its_length_along() -> None:
    class Bad(Sentences):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise ValueError("unreadable")
            return super().__getitem__(index)

    dataset = fs.from_sequence(Bad([1, 9, 3, 2])).batch(4, pad=[0], max_length=9, mask=True)
    with dataset.loader(on_bad_sample="skip", workers=2) as loader, pytest.warns(RuntimeWarning, match="left out"):
        x, y, mask = next(iter(loader))
    assert x.shape == (3, 3, 2)
    assert y.tolist() == [0, 2, 3]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]


def test_looking_at_a_batch_gives_what_a_loader_gives() -> None:
    dataset = fs.from_sequence(Sentences([3, 1, 2, 5])).batch(2, pad=[0], max_length=7, mask=True)
    for place, batch in enumerate(epoch(dataset)):
        for one, other in zip(dataset[place], batch, strict=True):
            assert np.array_equal(one, other)


def test_the_spec_leaves_the_length_open() -> None:
    spec = fs.from_sequence(Sentences([3, 1, 2])).batch(2, pad=[0], max_length=7, mask=True).spec
    assert [leaf.shape for leaf in spec] == [(None, None, 2), (None,), (None, None)]


def test_a_sample_that_is_too_long_is_an_error_with_the_numbers() -> None:
    with pytest.raises(fs.SampleError, match=r"Sample 1 .* has length 9, but .* room for 4. Use max_length=9"):
        epoch(fs.from_sequence(Sentences([1, 9])).batch(2, pad=[0], max_length=4), workers=0)


def test_the_first_sample_may_not_be_longer_than_max_length_either() -> None:
    with pytest.raises(fs.SampleError, match=r"Sample 0 .* has length 9, but .* room for 4. Use max_length=9"):
        epoch(fs.from_sequence(Sentences([9, 1])).batch(2, pad=[0], max_length=4), workers=0)


def test_an_array_of_another_length_than_bucket_by_tells_is_padded_beside() -> None:
    samples = [(np.ones(n), np.ones(7)) for n in (2, 3)]
    with fs.from_sequence(samples).batch(2, pad=True, bucket_by=lambda x, _: len(x)).loader(workers=0) as loader:
        assert [[part.shape for part in batch] for batch in loader] == [[(2, 3), (2, 7)]]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_sample_that_can_not_be_made_is_left_out_of_its_bucket(kind: dict[str, Any]) -> None:
    class Bad(Sentences):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise ValueError("unreadable")
            return super().__getitem__(index)

    dataset = fs.from_sequence(Bad([1, 9, 3, 2])).batch(2, pad=[0], bucket_by=lambda x, _: len(x))
    with dataset.loader(on_bad_sample="skip", **kind) as loader, pytest.warns(RuntimeWarning, match="left out"):
        assert [y.tolist() for _, y in loader] == [[0], [3, 2]]
    with dataset.loader(**kind) as loader, pytest.raises(fs.SampleError, match=r"Sample 1 .*unreadable"):
        list(loader)


def test_memory_is_planned_for_the_longest() -> None:
    dataset = fs.from_sequence(Sentences([1, 1])).batch(2, pad=[0], max_length=1_000_000)
    assert dataset.plan().projected_bytes >= 2 * 2 * 1_000_000 * 8
    with pytest.raises(fs.PlanError, match="memory >="):
        dataset.plan(memory="10 MB")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pad": True}, "needs max_length="),
        ({"max_length": 3}, "Give pad=True"),
        ({"bucket_by": len}, "Give pad=True"),
        ({"pad": True, "max_length": 0}, "max_length=0"),
        ({"pad": True, "bucket_by": [1.5]}, "one whole number a sample"),
        ({"pad": True, "bucket_by": [1, -2]}, "has the length -2"),
        ({"pad": 0, "max_length": 3}, r"pad=0\) must be True, or the parts"),
        ({"pad": True, "bucket_by": len, "last": "wrap"}, "can't join two"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(fs.PlanError, match=told):
        fs.from_sequence(Sentences([1, 2])).batch(2, **wrong)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pad": ["words"], "max_length": 3}, r"names the part \['words'\], but samples have \[0\], \[1\]"),
        ({"pad": [1], "max_length": 3}, "at least one axis"),
        ({"pad": True, "bucket_by": [1, 2, 3]}, "has 3 lengths for 2 samples"),
    ],
)
def test_settings_that_do_not_fit_the_samples_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(fs.PlanError, match=told):
        fs.from_sequence(Sentences([1, 2])).batch(2, **wrong).plan()


def test_bucket_by_needs_random_access() -> None:
    with pytest.raises(fs.PlanError, match=r"any order"):
        fs.from_generator(lambda: iter([1])).batch(2, pad=True, bucket_by=len)


def test_a_length_that_is_none_is_an_error_of_its_sample() -> None:
    dataset = fs.from_sequence(Sentences([1, 2])).batch(2, pad=[0], bucket_by=lambda tokens, label: None)
    with pytest.raises(fs.SampleError, match=r"Sample 0 failed in bucket_by: .*returned None"):
        dataset.plan()


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=300),
    size=st.integers(1, 9),
    last=st.sampled_from(["keep", "drop", "pad"]),
    seed=st.none() | st.integers(0, 5),
    pass_index=st.integers(0, 3),
)
def test_bucketed_batches_hold_each_sample_once(
    lengths: list[int], size: int, last: Any, seed: int | None, pass_index: int
) -> None:
    if last == "drop" and len(lengths) < size:
        return
    selections = [] if seed is None else [Shuffle(seed)]
    order = BatchOrder(Order(len(lengths), selections), size, last, None, np.array(lengths))
    plain = BatchOrder(Order(len(lengths), selections), size, last)
    rows = [order.rows(pass_index, step) for step in range(order.steps)]
    assert [(len(one.indices), one.count) for one in rows] == [plain.row_counts(step) for step in range(plain.steps)]
    found = np.concatenate([one.indices for one in rows])
    assert len(set(found.tolist())) == len(found)
    all_plain = np.concatenate([plain.rows(pass_index, step).indices for step in range(plain.steps)])
    assert set(found.tolist()) == set(all_plain.tolist())


def test_the_rest_that_is_dropped_is_not_always_the_longest_samples() -> None:
    lengths = np.arange(10)
    order = BatchOrder(Order(10, [Shuffle(0)]), 3, "drop", None, lengths)
    plain = BatchOrder(Order(10, [Shuffle(0)]), 3, "drop")
    for pass_index in range(4):
        found, expected = (
            sorted(int(i) for step in range(3) for i in one.rows(pass_index, step).indices) for one in (order, plain)
        )
        assert found == expected


@pytest.mark.parametrize("replacement", [True, False])
def test_samples_that_only_a_later_pass_draws_have_their_lengths_too(replacement: bool) -> None:
    drawn = fs.from_sequence(Sentences(range(1, 41))).sample(8, replacement, seed=2)
    dataset = drawn.batch(4, pad=[0], bucket_by=lambda tokens, label: len(tokens))
    with dataset.loader(memory="64 MB", workers=0) as loader:
        for _ in range(10):
            labels = np.concatenate([np.sort(label) for _, label in loader])
            low, high = sorted((labels[:4].tolist(), labels[4:].tolist()))
            assert max(low) <= min(high)


def test_both_sides_of_a_split_and_the_whole_have_the_lengths_of_their_own_samples() -> None:
    whole = (
        fs.from_sequence(Sentences(range(1, 41))).shuffle(1).batch(4, pad=[0], bucket_by=lambda tokens, _: len(tokens))
    )
    for dataset in (*whole.split_off(0.25, seed=3), whole):
        for tokens, label in epoch(dataset, workers=0):
            assert tokens.shape[1] == max(label) + 1
        buckets = dataset.plan().order.buckets
        assert buckets is not None
        used = np.concatenate([label for _, label in epoch(dataset, workers=0)])
        assert (buckets.lengths[used] == used + 1).all()


def test_bucketed_batches_waste_less_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.05, 20_000)

    def wasted(order: BatchOrder) -> float:
        batches = [lengths[order.rows(0, step).indices] for step in range(order.steps)]
        return sum(int(one.max()) * len(one) - int(one.sum()) for one in batches) / int(lengths.sum())

    plain = BatchOrder(Order(len(lengths), [Shuffle(0)]), 32, "keep")
    bucketed = BatchOrder(Order(len(lengths), [Shuffle(0)]), 32, "keep", None, lengths)
    assert wasted(bucketed) < wasted(plain) / 3


def test_shards_of_bucketed_batches_join_to_them() -> None:
    lengths = np.arange(40) % 7
    whole = BatchOrder(Order(40, [Shuffle(1)]), 8, "keep", None, lengths)
    parts = [BatchOrder(Order(40, [Shuffle(1)]), 8, "keep", Shard(rank, 2), lengths) for rank in range(2)]
    for step in range(5):
        joined = np.concatenate([part.rows(0, step).indices for part in parts])
        assert np.array_equal(joined, whole.rows(0, step).indices)


@pytest.mark.parametrize("given", ["function", "array"])
def test_bucketed_epochs_are_the_same_whoever_makes_them(given: str) -> None:
    lengths = [1 + (i * 7) % 23 for i in range(150)]
    by: Any = (lambda tokens, label: len(tokens)) if given == "function" else lengths
    dataset = fs.from_sequence(Sentences(lengths)).shuffle(2).batch(4, pad=[0], bucket_by=by)
    first, *others = (epoch(dataset, **kind) for kind in KINDS)
    assert sorted(int(label) for _, y in first for label in y) == list(range(150))
    for other in others:
        assert [tuple(part.tobytes() for part in batch) for batch in other] == [
            tuple(part.tobytes() for part in batch) for batch in first
        ]


def test_a_bucketed_pass_goes_on_from_a_state() -> None:
    lengths = [1 + (i * 7) % 23 for i in range(50)]
    dataset = fs.from_sequence(Sentences(lengths)).shuffle(2).batch(4, pad=[0], bucket_by=lengths)
    whole = [y.tolist() for _, y in epoch(dataset)]
    with dataset.loader(workers=1) as loader:
        iterator = iter(loader)
        for _ in range(5):
            next(iterator)
        state = json.loads(json.dumps(loader.state_dict()))
    with dataset.loader(workers=0) as loader:
        loader.load_state_dict(state)
        assert [y.tolist() for _, y in loader] == whole[5:]


def test_a_state_tells_other_lengths() -> None:
    samples = fs.from_sequence(Sentences([1, 2, 3, 4]))
    with samples.batch(2, pad=[0], bucket_by=[1, 2, 3, 4]).loader(workers=0) as loader:
        state = loader.state_dict()
    with (
        samples.batch(2, pad=[0], bucket_by=[4, 3, 2, 1]).loader(workers=0) as loader,
        pytest.raises(fs.StateError, match="bucket_by"),
    ):
        loader.load_state_dict(state)


def test_the_pools_that_are_kept_are_few_and_counted() -> None:
    buckets = BatchOrder(Order(100_000, [Shuffle(0)]), 10, "keep", None, np.arange(100_000)).buckets
    assert buckets is not None
    for step in range(0, 10_000, 50):
        buckets.rows(0, step)
    held = sum(part.nbytes for pool in buckets._pools.values() for part in pool)
    assert 0 < held <= buckets.index_bytes - buckets.lengths.nbytes
