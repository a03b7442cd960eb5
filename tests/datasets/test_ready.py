"""Ready datasets, from small files in the formats of their publishers; and downloads from a server in this test."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.datasets import fetch as fetching
from fitstream.datasets import ready

Uint8 = np.ndarray[Any, Any]


def cifar_file(x: Uint8, *labels: Uint8) -> bytes:
    """Labels, then a plane for each colour."""
    return np.concatenate([*(one[:, None] for one in labels), x.transpose(0, 3, 1, 2).reshape(len(x), -1)], 1).tobytes()


def pictures(count: int, seed: int) -> Uint8:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def cifar10_files() -> dict[str, bytes]:
    files = {f"data_batch_{i}.bin": cifar_file(pictures(3, i), np.full(3, i, np.uint8)) for i in range(1, 6)}
    files["test_batch.bin"] = cifar_file(pictures(2, 9), np.array([9, 0], np.uint8))
    return {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}


def idx(values: Uint8) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def idx_files(folder: Path, pack: Callable[[bytes], bytes] = gzip.compress, suffix: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 5), ("t10k", 3)):
        x = np.arange(count * 784, dtype=np.uint32).astype(np.uint8).reshape(count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(x)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.arange(count, dtype=np.uint8))))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, *_: Any) -> Path:
        raise AssertionError(f"it would download {url}")

    monkeypatch.setattr(ready, "fetch", refuse)


def test_cifar10_from_its_archive_is_mapped_in_the_shapes_that_keras_has(tmp_path: Path) -> None:
    archive(tmp_path / "cifar-10-binary.tar.gz", cifar10_files())
    (x_train, y_train), (x_test, y_test) = fs.datasets.cifar10(tmp_path)
    np.testing.assert_array_equal(x_train, np.concatenate([pictures(3, i) for i in range(1, 6)]))
    np.testing.assert_array_equal(y_train[:, 0], np.repeat(np.arange(1, 6), 3))
    np.testing.assert_array_equal(x_test, pictures(2, 9))
    assert y_test.tolist() == [[9], [0]]
    assert all(isinstance(one, np.memmap) and not one.flags.writeable for one in (x_train, y_train, x_test, y_test))


def test_converted_once_the_archive_is_not_needed_again(tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar-10-binary.tar.gz", cifar10_files())
    first = fs.datasets.cifar10(tmp_path)[0][0].tobytes()
    path.unlink()
    assert fs.datasets.cifar10(str(tmp_path))[0][0].tobytes() == first
    assert sorted(file.name for file in (tmp_path / "cifar10").iterdir()) == [
        "x_test.npy",
        "x_train.npy",
        "y_test.npy",
        "y_train.npy",
    ]


def test_cifar10_from_its_extracted_folder(tmp_path: Path) -> None:
    for name, data in cifar10_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert fs.datasets.cifar10(tmp_path)[0][0].shape == (15, 32, 32, 3)


def test_more_pictures_than_are_converted_at_a_time(tmp_path: Path) -> None:
    files = cifar10_files()
    files["cifar-10-batches-bin/data_batch_2.bin"] = cifar_file(pictures(2500, 2), np.full(2500, 3, np.uint8))
    archive(tmp_path / "cifar-10-binary.tar.gz", files)
    (x_train, _), _ = fs.datasets.cifar10(tmp_path)
    assert x_train.shape == (2512, 32, 32, 3)
    np.testing.assert_array_equal(x_train[3:2503], pictures(2500, 2))


def test_cifar100_has_fine_and_coarse_labels(tmp_path: Path) -> None:
    coarse, fine = np.array([19, 4], np.uint8), np.array([99, 7], np.uint8)
    data = cifar_file(pictures(2, 1), coarse, fine)
    archive(tmp_path / "cifar-100-binary.tar.gz", {f"cifar-100-binary/{one}.bin": data for one in ("train", "test")})
    assert fs.datasets.cifar100(tmp_path)[0][1].tolist() == [[99], [7]]
    (x, y), _ = fs.datasets.cifar100(tmp_path, label_mode="coarse")
    assert y.tolist() == [[19], [4]]
    np.testing.assert_array_equal(x, pictures(2, 1))
    with pytest.raises(fs.PlanError, match="label_mode='all'"):
        fs.datasets.cifar100(tmp_path, label_mode="all")


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_from_files_that_are_there(tmp_path: Path, name: str, pack: Any, suffix: str) -> None:
    idx_files(tmp_path / name, pack, suffix)
    (x_train, y_train), (x_test, y_test) = getattr(fs.datasets, name)(tmp_path)
    assert x_train.shape == (5, 28, 28)
    assert x_train[1, 0, :3].tolist() == [16, 17, 18]
    assert y_train.tolist() == [0, 1, 2, 3, 4]
    assert (x_test.shape, y_test.shape) == ((3, 28, 28), (3,))


def test_files_of_mnist_in_the_folder_itself_are_not_taken_for_fashion(tmp_path: Path) -> None:
    idx_files(tmp_path)
    assert len(fs.datasets.mnist(tmp_path)[0][0]) == 5
    with pytest.raises(fs.PlanError, match="download=False"):
        fs.datasets.fashion_mnist(tmp_path, download=False)


def test_without_files_and_download_it_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(fs.PlanError, match=r"cifar-10-binary.tar.gz is not in .*download=False"):
        fs.datasets.cifar10(tmp_path, download=False)
    assert list(tmp_path.iterdir()) == []


BAD_CIFAR = {
    "a size that is no whole number of samples": (b"\0" * 3072, "no whole number of samples"),
    "a label out of range": (cifar_file(pictures(2, 1), np.array([3, 10], np.uint8)), "sample 1 has label 10"),
    "nothing": (b"", "its 0 bytes"),
}


@pytest.mark.parametrize(("data", "told"), BAD_CIFAR.values(), ids=BAD_CIFAR)
def test_a_bad_file_of_cifar_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    files = {**cifar10_files(), "cifar-10-batches-bin/data_batch_4.bin": data}
    archive(tmp_path / "cifar-10-binary.tar.gz", files)
    with pytest.raises(fs.SourceError, match=told) as caught:
        fs.datasets.cifar10(tmp_path)
    assert "data_batch_4.bin" in str(caught.value)
    assert not (tmp_path / "cifar10").exists()  # and nothing that looks whole is left


def test_the_python_version_with_its_pickles_is_refused(tmp_path: Path) -> None:
    archive(tmp_path / "cifar-10-binary.tar.gz", {"cifar-10-batches-py/data_batch_1": b"\x80\x02."})
    with pytest.raises(fs.SourceError, match=r"binary version .* pickles"):
        fs.datasets.cifar10(tmp_path)


def test_an_archive_that_is_cut_off_or_links_elsewhere(tmp_path: Path) -> None:
    path = archive(tmp_path / "cifar-10-binary.tar.gz", cifar10_files())
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(fs.SourceError, match=r"no whole tar.gz"):
        fs.datasets.cifar10(tmp_path)
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(fs.SourceError):
        fs.datasets.cifar10(tmp_path)


BAD_IDX = {
    "another magic": (b"\0\0\x0d\x03" + b"\0" * 12, "begins with 00000d03"),
    "too few axes": (idx(np.zeros((2, 3), np.uint8)), "no IDX file of uint8 with 3 axes"),
    "an end within": (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "declares 1,568 values, but it has only 1,567"),
    "something behind": (idx(np.zeros((2, 28, 28), np.uint8)) + b"x", "it has more"),
    "an impossible size": (b"\0\0\x08\x03" + b"\xff" * 12, "its header declares"),
    "another size of pictures": (idx(np.zeros((5, 9, 9), np.uint8)), r"\(9, 9\)"),
    "fewer pictures than labels": (idx(np.zeros((2, 28, 28), np.uint8)), "5 labels for 2 pictures"),
    "no gzip": (b"\x1f\x8bnot", "can't be read"),
}


@pytest.mark.parametrize(("data", "told"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_bad_file_of_mnist_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    idx_files(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data))
    with pytest.raises(fs.SourceError, match=told) as caught:
        fs.datasets.mnist(tmp_path)
    assert "train-" in str(caught.value)


def test_a_damaged_array_of_ours_is_named(tmp_path: Path) -> None:
    idx_files(tmp_path)
    fs.datasets.mnist(tmp_path)
    (tmp_path / "mnist" / "y_test.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(fs.SourceError, match="Delete it"):
        fs.datasets.mnist(tmp_path)


def test_digits_need_no_download() -> None:
    pytest.importorskip("sklearn")
    (x_train, y_train), (x_test, y_test) = fs.datasets.digits()
    assert (x_train.shape, x_test.shape) == ((1437, 8, 8), (360, 8, 8))
    assert x_train.dtype == y_train.dtype == np.uint8
    assert x_train.max() == 16
    assert set(y_test) == set(range(10))


def test_mapped_arrays_go_to_worker_processes_as_files(tmp_path: Path) -> None:
    archive(tmp_path / "cifar-10-binary.tar.gz", cifar10_files())
    (x, y), _ = fs.datasets.cifar10(tmp_path)
    with fs.from_arrays((x, y)).batch(4).loader(memory="256 MB", workers=2, processes=1) as loader:
        np.testing.assert_array_equal(np.concatenate([one for one, _ in loader]), x)


# Downloads.


class Server(BaseHTTPRequestHandler):
    """Serves `data`, knows ranges if `ranges`, cuts each answer off after `most` bytes, and compresses if `packs`."""

    data = b""
    ranges = True
    most: int | None = None
    packs = False
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        cls = type(self)
        asked = self.headers.get("Range")
        cls.asked.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and cls.ranges else 0
        if first >= len(cls.data) > 0:
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked and cls.ranges else 200)
        data = cls.data
        if cls.packs and "gzip" in self.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first : None if cls.most is None else first + cls.most])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[Server], str]]:
    pytest.importorskip("pooch")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    kind = type("One", (Server,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield kind, f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def md5(data: bytes) -> str:
    return "md5:" + hashlib.md5(data).hexdigest()


def test_a_file_is_downloaded_once_and_compared(server: Any, tmp_path: Path) -> None:
    kind, url = server
    kind.data = b"0123456789" * 50_000
    for _ in range(2):
        found = fetching.fetch(f"{url}/a.gz", md5(kind.data), tmp_path)
        assert found.read_bytes() == kind.data
    assert kind.asked == [None]
    assert [file.name for file in tmp_path.iterdir()] == ["a.gz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on_where_it_was(server: Any, tmp_path: Path, ranges: bool) -> None:
    kind, url = server
    kind.data, kind.most, kind.ranges = bytes(range(256)) * 4000, 300_000, ranges
    with pytest.raises(fs.SourceError, match="call it again"):
        fetching.fetch(f"{url}/a.gz", md5(kind.data), tmp_path)
    have = (tmp_path / "a.gz.part").stat().st_size
    assert 0 < have <= 300_000
    kind.most = None
    assert fetching.fetch(f"{url}/a.gz", md5(kind.data), tmp_path).read_bytes() == kind.data
    assert kind.asked == [None, f"bytes={have}-"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.gz"]


def test_a_server_that_compresses_on_the_way_is_asked_for_the_file_as_it_is(server: Any, tmp_path: Path) -> None:
    kind, url = server
    kind.data, kind.most, kind.packs = np.random.default_rng(0).bytes(600_000), 300_000, True
    with pytest.raises(fs.SourceError, match="call it again"):
        fetching.fetch(f"{url}/a.gz", md5(kind.data), tmp_path)
    kind.most = None
    assert fetching.fetch(f"{url}/a.gz", md5(kind.data), tmp_path).read_bytes() == kind.data


def test_threads_that_start_together_download_once(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, url = server
    kind.data = archive(tmp_path / "made.tar.gz", cifar10_files()).read_bytes()
    monkeypatch.setattr(ready, "fetch", fetching.fetch)
    monkeypatch.setattr(ready, "_CIFAR_URL", f"{url}/")
    monkeypatch.setitem(ready._CIFAR_MD5, "cifar-10-binary.tar.gz", md5(kind.data))
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(fs.datasets.cifar10(tmp_path / "data")[0][0])))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [15, 15, 15]
    assert len(kind.asked) == 1


def test_downloads_of_several_threads_come_one_after_another(server: Any, tmp_path: Path) -> None:
    # They share one progress line, and pooch's logger.
    kind, url = server
    kind.data = b"data"
    both, met, answer = threading.Barrier(2), [], kind.do_GET

    def meeting(self: Any) -> None:
        try:
            both.wait(0.5)
            met.append(self.path)
        except threading.BrokenBarrierError:
            pass
        answer(self)

    kind.do_GET = meeting
    threads = [
        threading.Thread(target=fetching.fetch, args=(f"{url}/{name}", md5(kind.data), tmp_path)) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_part_that_is_whole_is_not_fetched_again(server: Any, tmp_path: Path) -> None:
    kind, url = server
    kind.data = b"whole"
    (tmp_path / "a.gz.part").write_bytes(kind.data)
    assert fetching.fetch(f"{url}/a.gz", md5(kind.data), tmp_path).read_bytes() == kind.data


def test_what_is_not_what_was_published_is_refused_and_thrown_away(server: Any, tmp_path: Path) -> None:
    kind, url = server
    kind.data = b"something else"
    with pytest.raises(fs.SourceError, match="not what was published"):
        fetching.fetch(f"{url}/a.gz", md5(b"the data"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(fs.SourceError, match="put the file in"):
        fetching.fetch("http://127.0.0.1:9/a.gz", md5(b""), tmp_path)


def test_a_dataset_is_downloaded_on_first_use(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, url = server
    path = archive(tmp_path / "made.tar.gz", cifar10_files())
    kind.data = path.read_bytes()
    monkeypatch.setattr(ready, "fetch", fetching.fetch)
    monkeypatch.setattr(ready, "_CIFAR_URL", f"{url}/")
    monkeypatch.setitem(ready._CIFAR_MD5, "cifar-10-binary.tar.gz", md5(kind.data))
    (x_train, _), _ = fs.datasets.cifar10(tmp_path / "data")
    assert len(x_train) == 15
    assert len(kind.asked) == 1


def test_without_pooch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(fs.PlanError, match=r"fitstream\[datasets\]"):
        fetching.fetch("http://127.0.0.1:9/a.gz", md5(b""), tmp_path)
