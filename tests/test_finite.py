"""NaN and infinity in arrays: told with index and part in the first pass, unless they are meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fitstream as fs
from fitstream.finite import is_finite


def with_odd(value: float = np.nan, index: int = 70) -> tuple[np.ndarray, np.ndarray]:
    x = np.ones((100, 4, 2), np.float32)
    x[index, 3, 1] = value
    return x, np.arange(100)


def run(ds: fs.Dataset, **options: Any) -> list[Any]:
    with ds.loader(memory="128 MB", **options) as loader:
        return list(loader)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "processes": 0}, {"workers": 1, "processes": 1}])
def test_what_is_not_finite_is_told_with_index_part_and_place(value: float, options: dict[str, Any]) -> None:
    with pytest.raises(
        fs.SampleError, match=rf"array\[0\] holds {value} at \[3, 1\] \(1 of 8 numbers.*allow_nan=True"
    ) as e:
        run(fs.from_arrays(with_odd(value)).batch(16), **options)
    assert e.value.index == 70


def test_it_is_found_before_a_function_of_the_users_sees_it() -> None:
    with pytest.raises(fs.SampleError, match="holds nan") as caught:
        run(fs.from_arrays(with_odd()).map(lambda x, y: (np.nan_to_num(x), y)).batch(16), workers=0)
    assert caught.value.index == 70


def test_what_a_function_makes_of_it_is_its_own_affair() -> None:
    ds = fs.from_arrays(np.ones((8, 2))).map(lambda x: x * np.nan).batch(4)
    assert np.isnan(run(ds, workers=0)[0]).all()


def test_it_passes_where_it_is_meant() -> None:
    batches = run(fs.from_arrays(with_odd(), allow_nan=True).batch(50), workers=0)
    assert np.isnan(batches[1][0][20, 3, 1])


def test_it_can_be_skipped_as_any_bad_sample() -> None:
    with fs.from_arrays(with_odd()).batch(50).loader(memory="64 MB", on_bad_sample="skip") as loader:
        with pytest.warns(RuntimeWarning, match="holds nan"):
            assert [len(batch[0]) for batch in loader] == [50, 49]
        assert [bad.index for bad in loader.stats().bad_samples] == [70]


def test_only_the_first_pass_looks() -> None:
    x, y = with_odd(1.0)
    with fs.from_arrays((x, y)).batch(50).loader(memory="64 MB", workers=0) as loader:
        list(loader)
        x[70, 3, 1] = np.nan
        assert np.isnan(list(loader)[1][0][20, 3, 1])


@pytest.mark.parametrize("policy", ["skip", "replace"])
@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1, "processes": 1}])
def test_what_was_left_out_in_the_first_pass_stays_out(policy: Any, options: dict[str, Any]) -> None:
    ds = fs.from_arrays(with_odd()).shuffle(1).batch(10)
    with ds.loader(memory="128 MB", on_bad_sample=policy, **options) as loader:
        with pytest.warns(RuntimeWarning, match="holds nan"):
            list(loader)
        for _ in range(2):
            for x, _ in loader:
                assert np.isfinite(x).all()


def test_passes_that_have_only_some_samples_all_look() -> None:
    x, y = np.ones((100, 4), np.float32), np.arange(100)
    x[7] = np.nan
    parts = fs.from_arrays((x, y))
    for ds in (
        parts.sample(20, seed=1).batch(10),
        parts.sample(20, replacement=False, seed=1).batch(10),
        parts.shuffle(4).batch(60, last="drop"),
    ):
        with ds.loader(memory="64 MB", workers=0) as loader, pytest.raises(fs.SampleError, match="holds nan"):
            assert all(7 not in index for _, index in loader)  # not in the first pass
            while True:
                list(loader)


def test_it_is_found_in_hdf5_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["x"] = with_odd()[0]
    with pytest.raises(fs.SampleError, match=r"d\.h5\) failed in read: its dataset 'x' holds nan at \[3, 1\]"):
        run(fs.from_hdf5(tmp_path / "d.h5", "x").batch(16), workers=0)
    assert len(run(fs.from_hdf5(tmp_path / "d.h5", "x", allow_nan=True).batch(16), workers=0)) == 7


def test_large_numbers_are_finite() -> None:
    assert is_finite(np.full(1000, 3e38, np.float32))
    assert is_finite(np.full(1000, 60000, np.float16))
    assert is_finite(np.array([2**63], np.uint64))
    assert not is_finite(np.array([1, complex(0, np.nan)]))
    assert not is_finite(np.array([np.inf, -np.inf]))


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
@pytest.mark.parametrize("process_count", [0, 1])
def test_the_file_that_holds_it_is_named(kind: str, process_count: int, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    x, _ = with_odd()
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["x"] = x
    else:
        np.save(path, x) if kind == "npy" else np.savez(path, x=x)
    ds = fs.from_hdf5(path, "x") if kind == "h5" else fs.from_arrays(path)
    with pytest.raises(fs.SampleError, match="holds nan") as caught:
        run(ds.batch(16), workers=1, processes=process_count)
    assert caught.value.path == str(path)
