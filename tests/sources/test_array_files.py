"""Array files: mapped where they lie, whatever their order, dtype and place in a zip file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.memory import HAS_SHARED_MEMORY, is_mapped
from fitstream.sources.array_files import with_files_mapped

COUNT = 50


def numbers(dtype: str = "<f4") -> np.ndarray:
    return np.arange(COUNT * 3).reshape(COUNT, 3).astype(dtype)


def batches(dataset: fs.Dataset, **lanes: Any) -> list[Any]:
    with dataset.batch(16).loader(memory="128 MB", **{"workers": 2, **lanes}) as loader:
        return [np.array(batch) for batch in loader]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "?", "<c8"])
def test_a_npy_file_is_mapped(tmp_path: Path, dtype: str, order: str, version: tuple[int, int]) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asarray(numbers(dtype), order=order), version)
    mapped = with_files_mapped(tmp_path / "x.npy")
    assert is_mapped(mapped)
    assert np.array_equal(mapped, numbers(dtype))
    assert np.array_equal(np.concatenate(batches(fs.from_arrays(str(tmp_path / "x.npy")))), numbers(dtype))


def test_files_and_arrays_mix_in_one_tree(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", numbers())
    dataset = fs.from_arrays({"x": tmp_path / "x.npy", "rest": (np.arange(COUNT), str(tmp_path / "x.npy"))})
    sample = dataset[7]
    assert np.array_equal(sample["x"], numbers()[7])
    assert sample["rest"][0] == 7


def test_the_arrays_of_a_npz_file_are_mapped_where_they_lie(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=numbers(), label=np.arange(COUNT))
    tree = with_files_mapped(tmp_path / "x.npz")
    assert (list(tree), [is_mapped(array) for array in tree.values()]) == (["image", "label"], [True, True])
    sample = fs.from_arrays(tmp_path / "x.npz")[9]
    assert np.array_equal(sample["image"], numbers()[9])
    assert sample["label"] == 9


def test_a_compressed_npz_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=numbers())
    with pytest.raises(fs.SourceError, match=r"compressed.*Save with np\.savez"):
        fs.from_arrays(tmp_path / "x.npz")


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_worker_processes_map_the_file_themselves(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "x.npy", numbers())
    np.savez(tmp_path / "x.npz", x=numbers())
    dataset = fs.from_arrays(tmp_path / name).map(lambda x: x["x"] if isinstance(x, dict) else x)
    assert np.array_equal(np.concatenate(batches(dataset, processes=1)), numbers())


@pytest.mark.parametrize(("shape", "told"), [((0, 3), "no rows"), ((), "single number")])
def test_files_without_rows_are_refused(tmp_path: Path, shape: tuple[int, ...], told: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape))
    with pytest.raises(fs.SourceError, match=told):
        fs.from_arrays(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("name", "told"), [("x.h5", "Use from_hdf5"), ("x.mat", "Use from_hdf5"), ("x.txt", "Load it"), ("x", "Load it")]
)
def test_other_files_are_refused_with_what_to_do(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(fs.SourceError, match=told):
        fs.from_arrays((tmp_path / name, np.zeros(3)))


def test_one_array_of_a_npz_file_has_a_name_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=numbers(), y_train=np.arange(COUNT), x_test=numbers()[:9], y_test=np.arange(9))
    with pytest.raises(fs.SourceError, match=r"mnist\.npz: .*array\['x_test'\]: 9.*name each: \"data\.npz/x\""):
        fs.from_arrays(path)
    train = fs.from_arrays((f"{path}/x_train", f"{path}/y_train.npy"))
    assert np.array_equal(train[9][0], numbers()[9])
    assert train[9][1] == 9
    assert is_mapped(with_files_mapped(f"{path}/x_test"))
    with pytest.raises(fs.SourceError, match=r"holds no array 'x'\. There are 'x_train', 'y_train'"):
        fs.from_arrays(f"{path}/x")


def test_a_sparse_matrix_is_told_to_be_none() -> None:
    sparse = pytest.importorskip("scipy.sparse").eye(5).tocsr()
    with pytest.raises(fs.SourceError, match=r"is a csr_\w+, and no array\. Make it dense: \.toarray\(\)"):
        fs.from_arrays((sparse, np.arange(5)))


@pytest.mark.parametrize(
    ("array", "told"),
    [(np.float32(3), "a single number"), (np.array(["a"]), "dtype <U1"), (np.zeros((0, 3)), "no rows")],
)
def test_a_file_without_rows_of_numbers_is_named(tmp_path: Path, array: Any, told: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(fs.SourceError, match=rf"x\.npy: .*{told}"):
        fs.from_arrays(tmp_path / "x.npy")


def test_what_holds_arrays_by_name_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=numbers())
    with np.load(tmp_path / "x.npz") as opened, pytest.raises(fs.SourceError, match="NpzFile, which holds arrays by"):
        fs.from_arrays(opened)
    with pytest.raises(fs.SourceError, match="a tuple of paths"):
        fs.from_arrays(["x.npy", "y.npy"])


def test_nan_in_a_file_is_told_with_the_file(tmp_path: Path) -> None:
    x = numbers()
    x[7, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", numbers())
    with pytest.raises(fs.SampleError, match=r"Sample 7 \(.*x\.npy\) failed in read: its array holds nan at \[2\]"):
        batches(fs.from_arrays(tmp_path / "x.npy"))
    with pytest.raises(fs.SampleError, match=r"its array\[1\] of .*x\.npy holds nan at \[2\]"):
        batches(fs.from_arrays((tmp_path / "y.npy", tmp_path / "x.npy")).map(lambda x, y: x + y))
