"""Datasets of HDF5 files by name: their trees, axes and links, and what lanes and workers read of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fitstream as fs
from fitstream.memory import HAS_SHARED_MEMORY
from fitstream.sources.stored import open_datasets

COUNT = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with numbers in blocks, without, and as MATLAB writes them: the axes reversed."""
    made = tmp_path / "data.h5"
    with h5py.File(made, "w") as file:
        file.create_dataset("train/x", data=numbers(), chunks=(7, 3), compression="gzip", shuffle=True)
        file["train/y"] = np.arange(COUNT)
        file["matlab"] = np.arange(COUNT * 6, dtype="f4").reshape(COUNT, 2, 3).T
        file["soft"] = h5py.SoftLink("/train/x")
        file["train/relative"] = h5py.SoftLink("./y")
        file["group"] = h5py.SoftLink("/train")
        file["short"] = np.zeros(3)
    return made


def numbers() -> np.ndarray:
    return np.arange(COUNT * 3, dtype="<f4").reshape(COUNT, 3)


def batches(dataset: fs.Dataset, **lanes: Any) -> list[Any]:
    with dataset.shuffle(0).batch(16).loader(memory="128 MB", **{"workers": 2, **lanes}) as loader:
        made = [batch if isinstance(batch, tuple) else (batch,) for batch in loader]
    return [np.concatenate(parts) for parts in zip(*made, strict=True)]


def test_one_name_gives_rows(path: Path) -> None:
    dataset = fs.from_hdf5(path, "train/x")
    assert len(dataset) == COUNT
    assert np.array_equal(dataset[3], numbers()[3])


def test_several_names_give_tuples_in_their_order(path: Path) -> None:
    dataset = fs.from_hdf5(str(path), "train/y", "/train/x")
    y, x = batches(dataset)
    assert np.array_equal(x, numbers()[y])


def test_a_dict_of_names_gives_dicts(path: Path) -> None:
    dataset = fs.from_hdf5(path, {"image": "train/x", "label": "train/y"})
    sample = dataset[5]
    assert (sorted(sample), int(sample["label"])) == (["image", "label"], 5)


@pytest.mark.parametrize(("name", "like"), [("soft", "train/x"), ("train/relative", "train/y"), ("group/x", "train/x")])
def test_links_inside_the_file_are_followed(path: Path, name: str, like: str) -> None:
    assert np.array_equal(fs.from_hdf5(path, name)[7], fs.from_hdf5(path, like)[7])


@pytest.mark.parametrize("map_too", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_matlab_axes_are_reversed(path: Path, workers: int, map_too: bool) -> None:
    dataset = fs.from_hdf5(path, {"x": "matlab"}, axes="matlab")
    wanted = np.arange(COUNT * 6, dtype="f4").reshape(COUNT, 2, 3)
    assert np.array_equal(dataset[3]["x"], wanted[3])
    if map_too:
        dataset = dataset.map(lambda sample: sample)
    with dataset.shuffle(1).batch(16).loader(memory="16 MB", workers=workers) as loader:
        found = np.concatenate([batch["x"] for batch in loader])
    assert np.array_equal(found[np.argsort(found[:, 0, 0])], wanted)
    assert len(fs.from_hdf5(path, "matlab")) == 3


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
@pytest.mark.parametrize("names", [("train/y", "train/x"), ("train/y", "soft")])
def test_worker_processes_open_the_file_themselves(path: Path, names: tuple[str, ...]) -> None:
    y, x = batches(fs.from_hdf5(path, *names), workers=2, processes=2)
    assert np.array_equal(np.sort(y), np.arange(COUNT))
    assert np.array_equal(x, numbers()[y])


def test_nothing_is_held_open_by_a_description(path: Path) -> None:
    dataset = fs.from_hdf5(path, "train/x")
    h5py.File(path, "r+").close()
    assert len(batches(dataset)[0]) == COUNT
    h5py.File(path, "r+").close()


def test_lanes_read_a_file_that_the_user_has_open(path: Path) -> None:
    with h5py.File(path, "r") as file:
        x, y = batches(fs.from_arrays((file["train/x"], file["train/y"])))
        (again,) = batches(fs.from_hdf5(path, "train/x"))
    assert np.array_equal(x, numbers()[y])
    assert np.array_equal(again, x)


def test_a_file_behind_a_user_block_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = np.arange(8.0)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116))
    assert fs.from_hdf5(path, "x")[3] == 3


def test_what_matlab_means_otherwise_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "odd.mat", "w") as file:
        file["empty"] = np.zeros(2, np.uint64)  # the lengths of its axes
        file["empty"].attrs["MATLAB_empty"] = np.uint8(1)
        file["word"] = np.array([[104], [105]], np.uint16)
        file["word"].attrs["MATLAB_class"] = np.bytes_("char")
        file.create_group("sparse/data").parent.attrs["MATLAB_sparse"] = np.uint64(9)
        file["flags"] = np.ones(4, np.uint8)
        file["flags"].attrs["MATLAB_class"] = np.bytes_("logical")
    for name, why in (("empty", "is an empty array"), ("word", "is text of MATLAB"), ("sparse", r"full\(sparse\)")):
        with pytest.raises(fs.SourceError, match=why):
            fs.from_hdf5(tmp_path / "odd.mat", name)
    assert len(fs.from_hdf5(tmp_path / "odd.mat", "flags")) == 4


def test_axes_may_differ_from_name_to_name(tmp_path: Path) -> None:
    pictures, labels = np.arange(10 * 3 * 4 * 5).reshape(10, 3, 4, 5), np.arange(10.0)[None]
    with h5py.File(tmp_path / "m.mat", "w", userblock_size=512) as file:
        file["images"], file["labels"] = pictures, labels  # in MATLAB (5, 4, 3, 10) and (10, 1)
    ds = fs.from_hdf5(tmp_path / "m.mat", "images", "labels", axes=["stored", "matlab"])
    for options in ({"workers": 0}, {"workers": 1, "processes": 1}):
        with ds.shuffle(0).batch(4).loader(memory="128 MB", **options) as loader:
            for x, y in loader:
                assert y.shape[1:] == (1,)
                assert np.array_equal(x, pictures[y[:, 0].astype(int)])
    with pytest.raises(fs.PlanError, match="for each of 2 names"):
        fs.from_hdf5(tmp_path / "m.mat", "images", "labels", axes=["matlab"])


def test_lengths_that_differ_are_refused(path: Path) -> None:
    with pytest.raises(fs.SourceError, match=r"data\.h5: .*dataset 'train/x': 40, dataset 'short': 3"):
        fs.from_hdf5(path, "train/x", "short")


@pytest.mark.parametrize("names", [(), ("",), ("/",), (3,), (("x",), 4), ({},)])
def test_without_a_name_those_that_are_there_are_told(path: Path, names: tuple[Any, ...]) -> None:
    with pytest.raises(fs.PlanError, match=r"names of datasets.*'matlab'.*'train/x', 'train/y'"):
        fs.from_hdf5(path, *names)


def test_axes_are_stored_or_matlab(path: Path) -> None:
    with pytest.raises(fs.PlanError, match=r'"stored".*"matlab"'):
        fs.from_hdf5(path, "train/x", axes="reversed")  # type: ignore[arg-type]


def test_a_file_that_changed_is_noticed(path: Path) -> None:
    dataset = fs.from_hdf5(path, "train/x")
    with h5py.File(path, "r+") as file:
        del file["train/x"]
        file["train/x"] = np.zeros((COUNT, 4), "f4")
    with pytest.raises(fs.SourceError, match=r"was float32\[40, 3\] when it was given, and is now float32\[40, 4\]"):
        dataset[0]


def test_other_files_are_read_where_they_are_allowed(path: Path, tmp_path: Path) -> None:
    main = tmp_path / "main.h5"
    (tmp_path / "raw.bin").write_bytes(np.arange(COUNT, dtype="<f8").tobytes())
    layout = h5py.VirtualLayout((COUNT, 3), "<f4")
    layout[:] = h5py.VirtualSource(str(path), "train/x", (COUNT, 3))
    with h5py.File(main, "w") as file:
        file["link"] = h5py.ExternalLink(str(path), "/train/x")
        file.create_dataset("outside", (COUNT,), "<f8", external=[(str(tmp_path / "raw.bin"), 0, 8 * COUNT)])
        file.create_virtual_dataset("virtual", layout)
    for name, wanted in (("link", numbers()), ("outside", np.arange(COUNT)), ("virtual", numbers())):
        with pytest.raises(fs.SourceError, match="allow_outside=True"):
            fs.from_hdf5(main, name)
        (found,) = batches(fs.from_hdf5(main, name, allow_outside=True))
        assert np.array_equal(np.sort(found, axis=0), wanted)


def test_the_blocks_that_are_unpacked_are_in_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", (1000, 4096), "u1", chunks=(1000, 4096), compression="gzip")
        file["plain"] = np.zeros((1000, 4096), np.uint8)
    plain, packed = (fs.from_hdf5(path, name).batch(2).plan(memory="64 MB", workers=1) for name in ("plain", "packed"))
    assert packed.projected_bytes - plain.projected_bytes == 2 * 1000 * 4096
    with pytest.raises(fs.PlanError, match=r"The plan needs 8"):
        fs.from_hdf5(path, "packed").batch(2).plan(memory="4 MB", workers=1)


def test_a_plugin_that_the_user_imported_is_used(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=numbers(), chunks=(7, 3), **hdf5plugin.Zstd())
    (found,) = batches(fs.from_hdf5(path, "x"), processes=1)
    assert np.array_equal(np.sort(found, axis=0), numbers())
    program = f"import fitstream as fs; fs.from_hdf5({str(path)!r}, 'x')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "filter 32015" in done.stderr


def test_the_description_is_small_and_holds_no_numbers(path: Path) -> None:
    made = open_datasets(str(path), ("train/x",), "stored", allow_outside=False)
    assert (made.shape, made.dtype, made._array) == ((COUNT, 3), np.dtype("<f4"), None)
