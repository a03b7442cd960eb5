"""The description: operations, their order, what can be asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fitstream as fs
from fitstream.spec import ArraySpec


def test_each_operation_gives_a_new_dataset_and_leaves_the_old_one() -> None:
    whole = fs.from_arrays(np.arange(100))
    assert len(whole.take(10)) == 10
    assert len(whole.batch(30)) == 4
    assert len(whole) == 100


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (lambda ds: ds.shuffle(0).take(5), r"\.take\(5\)\.shuffle"),
        (lambda ds: ds.batch(5).take(5), r"\.take\(5\)\.shuffle"),
        (lambda ds: ds.shuffle(0).split(0.5), r"\.split\(0\.5\)\.shuffle"),
        (lambda ds: ds.batch(5).shuffle(1), r"\.shuffle\(1\)\.batch"),
        (lambda ds: ds.batch(5).map(abs), r"\.map\(fn\)\.batch"),
        (lambda ds: ds.batch(5).batch(5), "batches already"),
        (lambda ds: ds.shuffle(0).shuffle(1), "shuffled already"),
        (lambda ds: ds.shard(0, 2).shard(0, 2), "sharded already"),
        (lambda ds: ds.batch(0), "batch size=0"),
        (lambda ds: ds.batch(4, "half"), "last='half'"),
        (lambda ds: ds.shard(2, 2), "below the count"),
        (lambda ds: ds.shuffle(-1), "seed=-1"),
        (lambda ds: ds.take(0), "count=0"),
        (lambda ds: ds.split(1.0), "between 0 and 1"),
        (lambda ds: ds.map(5), "needs a function"),
    ],
)
def test_operations_that_make_no_sense_are_refused_with_the_right_form(wrong: Any, right: str) -> None:
    with pytest.raises(fs.PlanError, match=right):
        wrong(fs.from_arrays(np.arange(10)))


@pytest.mark.parametrize("name", ["shuffle", "take", "split", "shard", "wrap"])
def test_what_needs_random_access_is_refused_for_generators(name: str) -> None:
    dataset = fs.from_generator(lambda: iter(range(9)), length=9)
    calls = {
        "shuffle": lambda: dataset.shuffle(0),
        "take": lambda: dataset.take(3),
        "split": lambda: dataset.split(0.5),
        "shard": lambda: dataset.shard(0, 2),
        "wrap": lambda: dataset.batch(3, "wrap"),
    }
    with pytest.raises(fs.PlanError, match="generator"):
        calls[name]()


def test_samples_and_batches_can_be_read_by_index() -> None:
    dataset = fs.from_arrays((np.arange(10) * 10, np.arange(10)))
    assert dataset[3] == (30, 3)
    assert dataset[-1] == (90, 9)
    with pytest.raises(IndexError, match="out of range"):
        dataset[10]
    x, y = dataset.shuffle(2).batch(4)[1]
    with dataset.shuffle(2).batch(4).loader(memory="1 MB", workers=0) as loader:
        batches = [(a.copy(), b.copy()) for a, b in loader]
    assert np.array_equal(x, batches[1][0])
    assert np.array_equal(y, batches[1][1])
    assert len(dataset.batch(4)[-1][0]) == 2


def test_a_padded_batch_comes_with_its_mask() -> None:
    dataset = fs.from_arrays((np.ones((10, 2)), np.ones(10))).batch(4, "pad", mask=True)
    _, _, mask = dataset[-1]
    assert mask.tolist() == [1, 1, 0, 0]
    with dataset.loader(memory="1 MB", workers=2) as loader:
        for x, y, mask in loader:
            assert np.array_equal(x[:, 0], mask)
            assert np.array_equal(y, mask)


@pytest.mark.parametrize("kind", [{"last": "pad"}, {"last": "pad", "mask": True}], ids=str)
def test_a_ranks_part_of_the_last_batch_may_be_padding_alone(kind: Any) -> None:
    parts = [fs.from_arrays(np.arange(1, 10)).batch(8, **kind).shard(rank, 4)[1] for rank in range(4)]
    values = [part[0] if isinstance(part, tuple) else part for part in parts]
    assert np.concatenate(values).tolist() == [9, 0, 0, 0, 0, 0, 0, 0]


def test_spec_tells_shapes_of_samples_and_batches() -> None:
    data = {"a": np.zeros((10, 3), np.float32), "b": np.zeros(10, np.int32)}
    dataset = fs.from_arrays(data)
    assert dataset.spec == {"a": ArraySpec((3,), np.dtype("f4")), "b": ArraySpec((), np.dtype("i4"))}
    assert dataset.batch(5).spec["a"].shape == (5, 3)
    assert dataset.batch(4).spec["a"].shape == (None, 3)
    assert dataset.batch(4, "drop").spec["b"].shape == (4,)


def test_one_part_tuples_stay_tuples() -> None:
    with fs.from_arrays((np.arange(4),)).batch(2).loader(memory="1 MB") as loader:
        assert [type(batch) for batch in loader] == [tuple, tuple]


def test_the_two_sides_of_a_split_share_no_sample() -> None:
    train, validation = fs.from_arrays(np.arange(100)).split(0.8, seed=4)
    one = [int(train[i]) for i in range(len(train))]
    other = [int(validation[i]) for i in range(len(validation))]
    assert len(one) == 80
    assert sorted(one + other) == list(range(100))


def test_split_off_puts_the_split_before_shuffle_and_batch() -> None:
    dataset = fs.from_arrays(np.arange(50)).shuffle(1).map(lambda v: v).batch(8, "drop")
    train, validation = dataset.split_off(0.2)
    with train.loader(memory="1 MB") as one, validation.loader(memory="1 MB") as other:
        first = np.concatenate([batch.copy() for batch in one])
        again = np.concatenate([batch.copy() for batch in one])
        held = np.concatenate([batch.copy() for batch in other])
        held_again = np.concatenate([batch.copy() for batch in other])
    assert len(first) == 40
    assert len(held) == 10
    assert not set(first) & set(held)
    assert first.tolist() != again.tolist()
    assert held.tolist() == held_again.tolist()


def test_random_access_over_ranks_joins_to_the_global_batch() -> None:
    dataset = fs.from_arrays(np.arange(64)).shuffle(1).batch(16)
    with dataset.loader(memory="1 MB") as loader:
        expected = [batch.tolist() for batch in loader]
    joined: list[list[int]] = [[] for _ in expected]
    for rank in range(4):
        with dataset.shard(rank, 4).loader(memory="1 MB", workers=rank) as loader:
            for number, batch in enumerate(loader):
                assert len(batch) == 4
                joined[number] += batch.tolist()
    assert joined == expected


def test_a_generator_of_unknown_length_has_no_len_but_is_true() -> None:
    dataset = fs.from_generator(lambda: iter(range(3)))
    with pytest.raises(TypeError, match="length="):
        len(dataset)
    assert dataset
    assert len(fs.from_generator(lambda: iter(range(3)), length=3).batch(2)) == 2


def test_class_weights_make_classes_count_alike() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [3] * 4)
    weights = fs.from_arrays((np.zeros(12), labels)).class_weights()
    assert weights == {0: 12 / 18, 1: 2.0, 3: 1.0}
    with pytest.raises(fs.PlanError, match="class_weights"):
        fs.from_arrays(np.zeros(12)).class_weights()


def test_labels_stand_behind_several_inputs_too() -> None:
    x = np.zeros((4, 2))
    assert fs.from_arrays(({"a": x, "b": x}, np.array([0, 0, 0, 1]))).class_weights() == {0: 2 / 3, 1: 2}
    assert fs.from_arrays(((x, x), np.array([0, 0, 0, 1]))).class_weights() == {0: 2 / 3, 1: 2}


@pytest.mark.parametrize("fraction", [np.float32(0.5), np.float64(0.5)], ids=repr)
def test_a_share_may_be_a_numpy_number(fraction: Any) -> None:
    assert len(fs.from_arrays(np.arange(8)).split(fraction)[0]) == 4


def test_repr_reads_as_the_chain_it_is() -> None:
    def augment(v: Any) -> Any:
        return v

    dataset = fs.from_arrays(np.zeros((10, 2), np.float32)).shuffle(3).map(augment).batch(4, "drop")
    assert repr(dataset).startswith("Dataset(10 rows of arrays (float32[10, 2]) > shuffle(3) > map(")
    assert repr(dataset).endswith("augment) > batch(4, drop))")


class OnADevice:
    """An array that NumPy may not have, as a tensor on a GPU is."""

    shape = (3,)

    def __array__(self, *args: Any, **settings: Any) -> Any:
        raise TypeError("it lies on a device")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: fs.from_arrays((np.zeros(3), np.zeros(4))), "one length"),
        (lambda: fs.from_arrays(np.zeros(0)), "no rows"),
        (lambda: fs.from_arrays(np.array(["a", "b"])), "dtype"),
        (lambda: fs.from_arrays(5), "single number"),
        (lambda: fs.from_arrays([[1], [1, 2]]), "ragged"),
        (lambda: fs.from_arrays(OnADevice()), r"OnADevice that NumPy can't read: it lies on a device\. Convert it"),
        (lambda: fs.from_arrays(()), "no array"),
        (lambda: fs.from_sequence([]), "empty"),
        (lambda: fs.from_sequence(iter([1])), "__len__"),
        (lambda: fs.from_sequence({"train": [1], "test": [2]}), r"by name \('train', 'test'\), not by place"),
        (lambda: fs.from_sequence(pd.DataFrame({"x": [1.0]})), r"from_arrays\(\(frame"),
        (lambda: fs.from_batches(5), "not a generator function"),
        (lambda: fs.from_generator(lambda: iter([]), length=0), "length=0"),
    ],
)
def test_sources_that_cannot_be_read_are_refused_at_once(make: Any, told: str) -> None:
    with pytest.raises(fs.SourceError, match=told):
        make()


def test_a_list_in_the_place_of_a_tuple_is_told() -> None:
    pairs = fs.from_arrays(np.zeros((6, 4))).map(lambda x: [x, 0])
    with pytest.raises(fs.PlanError, match=r"it is ragged.* A list is read as one array; return a tuple for several"):
        pairs.batch(2).plan()


def test_samples_that_are_no_numbers_are_refused_by_plan() -> None:
    with pytest.raises(fs.PlanError, match="must be numbers"):
        fs.from_sequence(["a", "b"]).batch(2).plan()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "u1"])
def test_arrays_of_any_layout_are_gathered_right(order: Any, dtype: str) -> None:
    array = np.asarray(np.arange(60).reshape(20, 3), dtype=dtype, order=order)
    with fs.from_arrays(array[::2]).shuffle(1).batch(3).loader(memory="1 MB") as loader:
        rows = np.concatenate([batch.copy() for batch in loader])
    assert sorted(rows[:, 0].tolist()) == list(range(0, 60, 6))


def test_memory_mapped_arrays_are_read_without_loading_them(tmp_path: Any) -> None:
    path = tmp_path / "array.npy"
    np.save(path, np.arange(3000, dtype=np.float32).reshape(1000, 3))
    mapped = np.load(path, mmap_mode="r")
    with fs.from_arrays(mapped).shuffle(1).batch(64).loader(memory="1 MB") as loader:
        rows = np.concatenate([batch.copy() for batch in loader])
    assert np.array_equal(np.sort(rows[:, 0]), np.arange(0, 3000, 3))


def test_a_map_may_change_its_arrays_without_changing_the_source() -> None:
    array = np.zeros((10, 2))

    def change(row: np.ndarray) -> np.ndarray:
        row += 1
        return row

    with fs.from_arrays(array).map(change).batch(5).loader(memory="1 MB", workers=2) as loader:
        for _ in range(2):
            assert all((batch == 1).all() for batch in loader)
    assert (array == 0).all()


def test_a_generator_function_without_yield_is_told_apart() -> None:
    with pytest.raises(fs.SourceError, match="is its yield missing"):
        fs.from_generator(lambda: None).batch(2).plan()  # type: ignore[arg-type,return-value]


def test_an_error_in_a_library_is_not_said_to_be_in_the_users_line(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(fs.SampleError, match="Restore the file, or leave it out") as caught:
        fs.from_table([["a.png", 0]], root=tmp_path).batch(1).plan()
    assert caught.value.user_line is None


@pytest.mark.parametrize("size", [0, 99_999, True, (8, True), (8,), "big", 64.5, (1, 2, 3)])
def test_sizes_that_no_picture_can_have_are_refused(size: Any, tmp_path: Any) -> None:
    with pytest.raises(fs.PlanError, match="image_size="):
        fs.from_table([["a.png", 0]], root=tmp_path, image_size=size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fs.from_folder(None),  # type: ignore[arg-type]
        lambda: fs.from_table([["a.png", 0]], root=3),  # type: ignore[call-overload]
        lambda: fs.from_hdf5(None, "x"),  # type: ignore[arg-type]
        lambda: fs.from_folder(".", extensions=5),  # type: ignore[arg-type]
        lambda: fs.from_text(__file__, str, observers=5),  # type: ignore[arg-type]
        lambda: fs.from_windows("abcabc", 2, alphabet=5),  # type: ignore[arg-type]
        lambda: fs.from_windows("abcabc", 2, alphabet={"a", "b", "c"}),  # type: ignore[arg-type]
        lambda: fs.from_batches(lambda: iter([np.zeros((2, 1))]), batch_size=True),
        lambda: fs.from_arrays(np.arange(4)).sample(2**61),
        lambda: fs.from_arrays(np.arange(4)).batch(2).loader(memory="1 MB").set_epoch(2**63),
    ],
)
def test_arguments_of_another_type_or_beyond_all_bounds_are_refused(make: Any) -> None:
    with pytest.raises(fs.PlanError):
        make()


@pytest.mark.parametrize("most", [0, True, 1e6, "50 Mpx"])
def test_limits_on_pixels_that_are_no_numbers_are_refused(most: Any, tmp_path: Any) -> None:
    with pytest.raises(fs.PlanError, match=r"max_pixels=.* must be a whole number from 1 on"):
        fs.from_table([["a.png", 0]], root=tmp_path, max_pixels=most)


def test_sizes_may_be_numpy_numbers_or_lists(tmp_path: Any) -> None:
    for size in (np.int64(8), [8, 8], (np.int32(8), 8)):
        assert "decode(8x8" in repr(fs.from_table([["a.png", 0]], root=tmp_path, image_size=size))


def test_a_mask_is_not_put_in_the_place_of_a_part_with_its_name() -> None:
    with pytest.raises(fs.PlanError, match="Rename it"):
        fs.from_arrays({"x": np.zeros(5), "mask": np.ones(5)}).batch(2, "pad", mask=True).plan()


@pytest.mark.parametrize("length", ["5", 2.5, True, 0, -1])
def test_lengths_that_are_no_whole_numbers_are_refused(length: Any) -> None:
    with pytest.raises(fs.SourceError, match="length="):
        fs.from_generator(lambda: iter(range(5)), length=length)


def test_arrays_that_would_be_loaded_whole_are_refused() -> None:
    class OnDisk:
        shape, dtype, chunks = (5, 2), np.dtype("f4"), (1, 2)

        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            raise AssertionError("loaded whole")

    with pytest.raises(fs.SourceError, match="in chunks"):
        fs.from_arrays((OnDisk(), np.zeros(5)))
    with pytest.raises(fs.SourceError, match="list of arrays"):
        fs.from_arrays([np.zeros(5), np.zeros(5)])


def test_the_only_batch_of_ranks_that_share_it_unevenly_has_no_constant_size() -> None:
    dataset = fs.from_arrays(np.arange(7)).batch(8).shard(0, 2)
    assert dataset.spec.shape == (None,)


def test_formats_that_are_not_allowed_are_refused_by_their_first_bytes(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png", "GIF")
    ds = fs.from_folder(tmp_path, label_mode=None, formats=["png", "JPEG"])
    assert ds[0].shape == (4, 4, 3)
    with pytest.raises(fs.SampleError, match=r"it is a GIF picture, where formats=\('PNG', 'JPEG'\) are allowed"):
        ds[1]


@pytest.mark.parametrize("formats", [[], "HEIC", ["PNG", 5], 5])
def test_formats_that_there_are_not_are_refused(formats: Any, tmp_path: Path) -> None:
    with pytest.raises(fs.PlanError, match="must name some of JPEG, PNG, WebP, GIF, BMP, TIFF"):
        fs.from_folder(tmp_path, formats=formats)
