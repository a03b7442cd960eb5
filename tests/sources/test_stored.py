"""Arrays that stay on disk: HDF5, zarr and memory-mapped files."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import h5py
import numpy as np
import pytest

import fitstream as fs
from fitstream.errors import SourceError
from fitstream.sources import stored
from fitstream.sources.arrays import ArraySource
from fitstream.sources.read_ahead import ReadAhead

COUNT = 200
ORDERS = {
    "shuffled": np.random.default_rng(0).permutation(COUNT)[:16],
    "a run": np.arange(40, 56),
    "one": np.array([7]),
    "some twice": np.array([5, 9, 5, 0, 9]),
    "falling": np.arange(20, 4, -1),
}


def numbers(dtype: Any = "<f4") -> np.ndarray:
    return np.arange(COUNT * 3).reshape(COUNT, 3).astype(dtype)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """An HDF5 file open for reading: x, compressed in blocks; y, plain; strings; one scalar."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as made:
        made.create_dataset("deep/x", data=numbers(), chunks=(7, 3), compression="gzip")
        made["y"] = np.arange(COUNT) % 5
        made["text"] = ["a", "b"]
        made["both"] = np.zeros(4, [("a", "f4"), ("b", "i4")])
        made["scalar"] = 1.0
        made["nothing"] = h5py.Empty("f4")
        for dtype in (">f4", "u1", "?", "<f2", "<c8"):
            made[f"dtypes/{dtype}"] = numbers(dtype)
    with h5py.File(path, "r") as opened:
        yield opened


def gathered(source: ArraySource, indices: np.ndarray) -> list[np.ndarray]:
    reader = source.open()
    out = [np.empty((len(indices), *a.shape[1:]), a.dtype.newbyteorder("=")) for a in source.arrays]
    assert reader.gather(indices, out)
    reader.close()
    return out


def sent(source: Any) -> Any:
    """The source as a worker gets it."""
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(source, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_hdf5_are_gathered_in_any_order(file: Any, order: str) -> None:
    x, y = gathered(ArraySource((file["deep/x"], file["y"])), ORDERS[order])
    assert np.array_equal(x, numbers()[ORDERS[order]])
    assert np.array_equal(y, ORDERS[order] % 5)


@pytest.mark.parametrize("order", ["a run", "shuffled"])
@pytest.mark.parametrize("dtype", [">f4", "u1", "?", "<f2", "<c8"])
def test_hdf5_numbers_of_any_dtype_are_gathered(file: Any, dtype: str, order: str) -> None:
    (rows,) = gathered(ArraySource(file[f"dtypes/{dtype}"]), ORDERS[order])
    assert np.array_equal(rows, numbers(dtype)[ORDERS[order]])


def test_the_rows_of_a_chunk_are_fetched_in_one_call_each_once(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: asked.append(key) or read(self, key))
    gathered(ArraySource(file["deep/x"]), ORDERS["some twice"])
    assert [key.tolist() for key in asked] == [[0, 5, 9]]


def test_a_run_is_read_straight_into_its_place(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("read into an array of its own"))
    (rows,) = gathered(ArraySource(file["deep/x"]), ORDERS["a run"])
    assert np.array_equal(rows, numbers()[40:56])


def test_samples_for_a_map_are_fetched_in_one_call_too(file: Any) -> None:
    source = ArraySource({"x": file["deep/x"], "y": file["y"]})
    assert source.fetches_many
    samples = source.open().read_many(ORDERS["some twice"])
    assert [int(sample["y"]) for sample in samples] == [0, 4, 0, 0, 4]
    assert all(isinstance(sample["y"], np.ndarray) and sample["x"].shape == (3,) for sample in samples)
    samples[0]["x"][:] = -1
    assert samples[2]["x"].tolist() == numbers()[5].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_hdf5_beside_arrays_in_memory(file: Any, workers: int) -> None:
    dataset = fs.from_arrays((file["deep/x"], np.arange(COUNT)))
    for chain in (dataset, dataset.map(lambda x, i: (x * 2 - x, i))):
        with chain.shuffle(0).batch(32).loader(memory="1 MB", workers=workers) as loader:
            for x, i in loader:
                assert np.array_equal(x, numbers()[i])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("text", "dtype object"),
        ("both", "must hold numbers"),
        ("scalar", "single number"),
        ("nothing", "without data"),
    ],
)
def test_hdf5_that_holds_no_rows_of_numbers_is_refused(file: Any, name: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        ArraySource(file[name])


def test_a_closed_file_is_refused_with_the_advice_to_keep_it_open(file: Any) -> None:
    dataset = file["y"]
    source = ArraySource(dataset)
    file.close()
    with pytest.raises(SourceError, match="Keep the file open"):
        ArraySource(dataset)
    with pytest.raises(SourceError, match="was closed"):
        gathered(source, ORDERS["shuffled"])


def test_a_worker_opens_the_file_itself(file: Any) -> None:
    copy = sent(ArraySource((file["deep/x"], file["y"])))
    file.close()
    x, y = gathered(copy, ORDERS["shuffled"])
    assert np.array_equal(x, numbers()[ORDERS["shuffled"]])
    assert np.array_equal(y, ORDERS["shuffled"] % 5)


def test_a_worker_closes_what_it_opened(file: Any) -> None:
    path = file.filename
    copy = sent(ArraySource(file["y"]))
    file.close()
    gathered(copy, ORDERS["one"])
    h5py.File(path, "r+").close()  # refused while the file is open for reading


def test_sending_a_dataset_sends_none_of_its_numbers(file: Any) -> None:
    assert len(cloudpickle.dumps(ArraySource(file["deep/x"]), protocol=5)) < 2000


def test_a_file_that_is_open_for_writing_cannot_be_sent(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = numbers()
        source = ArraySource(file["x"])
        assert np.array_equal(gathered(source, ORDERS["a run"])[0], numbers()[40:56])
        with pytest.raises(SourceError, match=r'open for writing.*h5py.File\(.data.h5., "r"\), or use processes=0'):
            sent(source)


def test_a_file_in_memory_cannot_be_sent() -> None:
    with h5py.File("none.h5", "w", driver="core", backing_store=False) as file:
        file["x"] = numbers()
        with pytest.raises(SourceError, match=r"'core' driver.*processes=0"):
            sent(ArraySource(file["x"]))


def test_a_worker_notices_that_the_file_has_changed(file: Any) -> None:
    path = file.filename
    copy = sent(ArraySource(file["y"]))
    file.close()
    with h5py.File(path, "r+") as changed:
        del changed["y"]
        changed["y"] = np.zeros(3)
    with pytest.raises(SourceError, match=r"was int64\[200\] when it was given, and is now float64\[3\]"):
        copy.open()


def test_small_labels_are_read_whole_and_large_ones_never(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArraySource((file["deep/x"], file["y"]))
    assert source.labels().tolist() == [i % 5 for i in range(COUNT)]
    one_hot = ArraySource((file["y"], file["deep/x"])).labels()
    assert one_hot is not None
    assert one_hot.shape == (COUNT, 3)
    monkeypatch.setattr(stored, "_SMALL_BYTES", 1000)
    assert source.labels() is None


def test_class_weights_come_from_labels_on_disk(file: Any) -> None:
    assert fs.from_arrays((file["deep/x"], file["y"])).class_weights() == dict.fromkeys(range(5), 1.0)


@pytest.fixture(scope="module", autouse=True)
def _zarr_has_started() -> None:
    """At first use zarr starts a thread, which lives as long as the program and is nothing that a test leaves."""
    with contextlib.suppress(ImportError):
        import zarr

        zarr.zeros((1,))


@pytest.fixture
def zarr_array(tmp_path: Path) -> Any:
    zarr = pytest.importorskip("zarr", minversion="3")
    array = zarr.create_array(tmp_path / "x.zarr", shape=(COUNT, 3), chunks=(7, 3), dtype="f4")
    array[:] = numbers()
    return zarr.open_array(tmp_path / "x.zarr", mode="r")


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_zarr_are_gathered_in_any_order(zarr_array: Any, order: str) -> None:
    for source in (ArraySource(zarr_array), sent(ArraySource(zarr_array))):
        assert np.array_equal(gathered(source, ORDERS[order])[0], numbers()[ORDERS[order]])
        assert source.open().read(3, None).tolist() == [9, 10, 11]


@pytest.mark.parametrize("label_rows", [5, 7, 20, 30, 200])
def test_blocks_of_other_lengths_are_each_read_once_by_chunks(
    label_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as made:
        made.create_dataset("x", data=np.ones((COUNT, 50), np.float32), chunks=(20, 50), compression="gzip")
        made.create_dataset("y", data=np.arange(COUNT), chunks=(label_rows,), compression="gzip")
    read: list[int] = []
    real = stored.StoredRows._block

    def block(self: stored.StoredRows, number: int) -> np.ndarray:
        if self.row_shape == ():
            read.append(number)
        return real(self, number)

    monkeypatch.setattr(stored.StoredRows, "_block", block)
    ds = fs.from_hdf5(tmp_path / "x.h5", "x", "y").shuffle(1, within="chunks", window_blocks=5).batch(20)
    with ds.loader(memory="64 MB", workers=0) as loader:
        read.clear()
        assert sorted(np.concatenate([labels.copy() for _, labels in loader]).tolist()) == list(range(COUNT))
    # Two windows of five blocks: those of the labels that lie across two blocks may be read for each.
    assert len(read) <= 2 * -(-COUNT // label_rows)


def test_a_damaged_block_of_zarr_is_told_with_the_array(zarr_array: Any, tmp_path: Path) -> None:
    (tmp_path / "x.zarr" / "c" / "2" / "0").write_bytes(b"not what it was")
    with pytest.raises(fs.SampleError, match=r"Sample 14 \(.*x\.zarr\) failed in read: the zarr array can't be read"):
        list(fs.from_arrays(zarr_array).batch(7).loader(memory="64 MB", workers=0))


def test_a_zarr_group_or_folder_is_told_what_to_do(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    with pytest.raises(SourceError, match=r"zarr\.Group, which holds arrays by name"):
        fs.from_arrays(zarr.open_group(tmp_path / "x.zarr", mode="w"))
    with pytest.raises(SourceError, match=r"zarr\.open_array"):
        fs.from_arrays(tmp_path / "x.zarr")


@pytest.mark.parametrize("together_bytes", [1, 200, 1 << 20])
def test_rows_of_zarr_are_gathered_a_few_blocks_at_a_time(
    zarr_array: Any, together_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fitstream.sources.zarr._TOGETHER_BYTES", together_bytes)
    for indices in ORDERS.values():
        assert np.array_equal(gathered(ArraySource(zarr_array), indices)[0], numbers()[indices])


def test_what_zarr_unpacks_is_in_the_plan(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    array = zarr.create_array(tmp_path / "x.zarr", shape=(COUNT, 100_000), chunks=(50, 100_000), dtype="f4")
    block_bytes = 50 * 100_000 * 4
    ds = fs.from_arrays(array, allow_nan=True).batch(2)
    assert ds.plan(memory="200 MB", workers=2, processes=0).projected_bytes > 2 * 2 * block_bytes
    with pytest.raises(fs.PlanError, match="memory"):
        ds.plan(memory="30 MB", workers=1, processes=0)
    kept = ds.plan(memory="200 MB", workers=1, processes=0).projected_bytes
    windows = fs.from_arrays(array, allow_nan=True).shuffle(0, within="chunks", window_blocks=3).batch(2)
    assert windows.plan(memory="200 MB", workers=1, processes=0).projected_bytes >= kept + 3 * block_bytes


def test_a_zarr_array_in_memory_cannot_be_sent() -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    with pytest.raises(SourceError, match="zarr array in memory"):
        sent(ArraySource(zarr.array(numbers())))


def test_the_pages_of_mapped_rows_are_asked_for_only_after_a_slow_gather(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", numbers())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")[10:]
    ahead = ReadAhead.of(np.asarray(mapped))
    if ahead is None:
        pytest.skip("needs Linux")
    out = np.empty((16, 3), np.float32)
    indices = np.arange(16)[::-1] * 3
    monkeypatch.setattr(ahead, "_slow_s", 1000.0)
    ahead.take(mapped, indices, out)
    assert ahead.left == 0
    monkeypatch.setattr(ahead, "_slow_s", -1.0)
    monkeypatch.setattr(ahead, "_faults", -100)
    ahead.take(mapped, indices, out)
    assert ahead.left == ahead.LASTING
    for _ in range(ahead.LASTING):
        out[:] = 0
        ahead.take(mapped, indices, out)
        assert np.array_equal(out, mapped[indices])
    assert ahead.left == 0


def test_arrays_in_memory_have_no_pages_to_ask_for() -> None:
    assert ReadAhead.of(numbers()) is None
