"""Functions over finished batches: what they see, what is delivered, and that it is the same however it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.transforms.images import CutMix, MixUp, RandomFlip


def images(count: int = 20) -> fs.Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return fs.from_arrays((pixels, np.eye(5, dtype=np.float32)[np.arange(count) % 5]))


def numbers(count: int = 10) -> fs.Dataset:
    return fs.from_arrays((np.arange(float(count)), np.arange(count)))


def epochs(ds: fs.Dataset, count: int = 2, **settings: Any) -> list[list[bytes]]:
    """The bytes of each batch of some epochs."""
    with ds.loader(memory="256 MB", **settings) as loader:
        return [[b"".join(leaf.tobytes() for leaf in batch) for batch in loader] for _ in range(count)]


@pytest.mark.parametrize("settings", [{"workers": 2}, {"workers": 2, "processes": 1}, {"workers": 2, "processes": 2}])
def test_batches_are_the_same_in_threads_processes_and_the_calling_thread(settings: dict[str, Any]) -> None:
    ds = images().map(RandomFlip()).shuffle(3).batch(8).map_batch(MixUp()).map_batch(CutMix())
    expected = epochs(ds, workers=0)
    assert expected[0] != expected[1]
    assert epochs(ds, **settings) == expected


def test_a_batch_that_is_asked_for_alone_is_the_one_of_the_loader() -> None:
    ds = images().batch(8).map_batch(MixUp())
    alone = [b"".join(leaf.tobytes() for leaf in ds[i]) for i in range(len(ds))]
    assert epochs(ds, 1) == [alone]


def test_resuming_in_mid_epoch_gives_the_same_batches() -> None:
    ds = images().shuffle(1).batch(4).map_batch(MixUp())
    with ds.loader(memory="64 MB") as loader:
        batches = iter(loader)
        next(batches)
        next(batches)
        state = loader.state_dict()
        rest = [x.tobytes() for x, _ in batches]
    with ds.loader(memory="64 MB") as loader:
        loader.load_state_dict(state)
        assert [x.tobytes() for x, _ in loader] == rest


def test_another_function_over_batches_is_another_dataset() -> None:
    with images().batch(4).map_batch(MixUp(0.2)).loader(memory="64 MB") as loader:
        state = loader.state_dict()
    with images().batch(4).map_batch(MixUp(0.3)).loader(memory="64 MB") as loader:
        with pytest.raises(fs.StateError, match=r"map_batch\(MixUp\)"):
            loader.load_state_dict(state)


def test_a_function_changes_in_place_or_returns_its_batch() -> None:
    def in_place(x: Any, y: Any) -> None:
        x += 1

    def returned(x: Any, y: Any) -> Any:
        return x + 1, y

    (one,), (other,) = (epochs(numbers().batch(4).map_batch(fn), 1) for fn in (in_place, returned))
    assert one == other
    with numbers().batch(10).map_batch(returned).loader(memory="1 MB") as loader:
        np.testing.assert_array_equal(next(iter(loader))[0], np.arange(1.0, 11))


def test_parts_may_change_places() -> None:
    ds = fs.from_arrays((np.arange(4.0), np.arange(4.0) + 10))
    with ds.batch(4).map_batch(lambda x, y: (y, x[::-1])).loader(memory="1 MB") as loader:
        x, y = next(iter(loader))
    np.testing.assert_array_equal(x, [10, 11, 12, 13])
    np.testing.assert_array_equal(y, [3, 2, 1, 0])


def test_padding_and_mask_are_not_shown() -> None:
    seen = []

    def look(x: Any, y: Any) -> None:
        seen.append(len(x))
        x += 5

    with numbers().batch(4, last="pad", mask=True).map_batch(look).loader(memory="1 MB") as loader:
        x, _, mask = list(loader)[-1]
    assert seen == [4, 4, 2]
    np.testing.assert_array_equal(x, [13, 14, 0, 0])
    np.testing.assert_array_equal(mask, [1, 1, 0, 0])


def test_a_rank_sees_its_part_wherever_shard_is_written() -> None:
    counts = []

    def look(x: Any, y: Any) -> None:
        counts.append(len(x))

    for ds in (numbers(8).batch(4).map_batch(look).shard(1, 2), numbers(8).batch(4).shard(1, 2).map_batch(look)):
        with ds.loader(memory="1 MB") as loader:
            assert [x.tolist() for x, _ in loader] == [[2, 3], [6, 7]]
    assert counts == [2] * 4


def test_batches_that_come_finished_are_mapped_too() -> None:
    ds = fs.from_batches(lambda: iter([np.zeros((3, 2)), np.zeros((2, 2))])).map_batch(lambda x: x + 1)
    with ds.loader(memory="1 MB") as loader:
        assert [batch.tolist() for batch in loader] == [[[1, 1]] * 3, [[1, 1]] * 2]


def test_samples_that_are_dicts_and_generators() -> None:
    def raise_x(batch: Any) -> None:
        batch["x"][:] += 1

    ds = fs.from_generator(lambda: ({"x": np.float32(i)} for i in range(5))).batch(2).map_batch(raise_x)
    with ds.loader(memory="64 MB") as loader:
        assert [batch["x"].tolist() for batch in loader] == [[1, 2], [3, 4], [5]]


def test_skipped_samples_are_not_seen() -> None:
    def half(x: Any, y: Any) -> Any:
        if y % 2:
            raise ValueError("odd")
        return x, y

    seen: list[int] = []
    ds = numbers(8).map(half).batch(4).map_batch(lambda x, y: seen.extend(y.tolist()))
    with ds.loader(memory="1 MB", on_bad_sample="skip", max_bad_fraction=1) as loader:
        with pytest.warns(RuntimeWarning):
            list(loader)
    assert seen == [0, 2, 4, 6]


def test_a_failure_names_the_batch_and_the_line_and_moves_no_state() -> None:
    def fails(x: Any, y: Any) -> None:
        if y[0] == 4:
            raise KeyError("four")

    with numbers().batch(4).map_batch(fails).loader(memory="1 MB") as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(fs.SampleError, match=r"Batch 1 failed in map_batch\(.*fails\): KeyError") as caught:
            next(batches)
        assert caught.value.user_line is not None
        assert loader.state_dict()["step"] == 1


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (lambda x, y: (x[:1], y), r"returned float64 \(1,\) as array\[0\].*float64 \(4,\)"),
        (lambda x, y: (x, y * 0.5), "returned float64"),
        (lambda x, y: x, "tuple of 2"),
    ],
)
def test_what_is_no_such_batch_is_refused(fn: Any, told: str) -> None:
    with numbers().batch(4).map_batch(fn).loader(memory="1 MB") as loader:
        with pytest.raises(fs.SampleError, match=told):
            next(iter(loader))


def test_it_comes_after_batch_and_takes_a_function() -> None:
    with pytest.raises(fs.PlanError, match="must come after batch"):
        numbers().map_batch(print)
    with pytest.raises(fs.PlanError, match="needs a function"):
        numbers().batch(2).map_batch(3)  # type: ignore[arg-type]
    assert "map_batch(MixUp)" in repr(numbers().batch(2).map_batch(MixUp()))


def test_a_consumer_that_keeps_all_batches_gets_them_all_mixed() -> None:
    ds = images(40).batch(2).map_batch(MixUp())
    expected = epochs(ds, 1)[0]
    with ds.loader(memory="64 MB", workers=2) as loader:
        kept = list(loader)
        assert loader.stats().copy_count > 0
    assert [b"".join(leaf.tobytes() for leaf in batch) for batch in kept] == expected
