"""Where files of ready datasets may be, folders that are not as they should be, and programs that start together."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.datasets import converted, ready

Array = np.ndarray[Any, Any]


def arrays(train: int = 5, test: int = 3) -> list[tuple[str, Array, Array]]:
    return [
        (part, np.full((count, 28, 28), count, np.uint8), np.arange(count, dtype=np.uint8))
        for part, count in (("train", train), ("t10k", test))
    ]


def idx_files(folder: Path, *, dot: bool = False, train: int = 5) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, x, y in arrays(train):
        for kind, values in (("images-idx3", x), ("labels-idx1", y)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            name = f"{part}-{kind.replace('-idx', '.idx') if dot else kind}-ubyte"
            (folder / f"{name}.gz").write_bytes(gzip.compress(head + values.tobytes()))


def npz(path: Path, **others: Array) -> None:
    (_, x, y), (_, x_test, y_test) = arrays()
    np.savez_compressed(path, **{"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test} | others)


@pytest.mark.parametrize("home", ["mnist", ".", "MNIST/raw"])
@pytest.mark.parametrize("dot", [True, False])
def test_mnist_where_torchvision_and_others_put_it(tmp_path: Path, home: str, dot: bool) -> None:
    idx_files(tmp_path / home, dot=dot)
    (x, y), _ = fs.datasets.mnist(tmp_path, download=False)
    assert (x.shape, y.tolist()) == ((5, 28, 28), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("home", ["fashion_mnist", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_where_keras_and_torchvision_put_it(tmp_path: Path, home: str) -> None:
    idx_files(tmp_path / home, train=7)
    idx_files(tmp_path / "MNIST/raw", train=6)
    assert len(fs.datasets.fashion_mnist(tmp_path, download=False)[0][0]) == 7
    assert len(fs.datasets.mnist(tmp_path, download=False)[0][0]) == 6


def test_fashion_in_the_folder_itself_is_told_where_it_belongs(tmp_path: Path) -> None:
    idx_files(tmp_path)
    with pytest.raises(fs.PlanError, match="may be MNIST's: move it there"):
        fs.datasets.fashion_mnist(tmp_path, download=False)


def test_mnist_in_the_form_of_keras(tmp_path: Path) -> None:
    npz(tmp_path / "mnist.npz")
    (x, y), (x_test, _) = fs.datasets.mnist(tmp_path, download=False)
    assert isinstance(x, np.memmap)
    assert (x[0, 0, 0], y.tolist(), len(x_test)) == (5, [0, 1, 2, 3, 4], 3)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"x_train": np.array([None])}, "allow_pickle"),
        ({"x_train": np.zeros((5, 28, 28))}, "x_train is float64"),
        ({"y_train": np.zeros((5, 1), np.uint8)}, "uint8 of 1 axes"),
        ({"y_train": np.zeros(4, np.uint8)}, "4 labels for 5 pictures"),
        ({"y_test": np.full(3, 10, np.uint8)}, "a label is 10"),
    ],
)
def test_a_bad_archive_of_numpy_is_named(tmp_path: Path, others: dict[str, Array], told: str) -> None:
    npz(tmp_path / "mnist.npz", **others)
    with pytest.raises(fs.SourceError, match=told) as caught:
        fs.datasets.mnist(tmp_path)
    assert "mnist.npz" in str(caught.value)


def test_what_is_no_archive_of_numpy_is_named(tmp_path: Path) -> None:
    (tmp_path / "mnist.npz").write_bytes(b"PK\3\4junk")
    with pytest.raises(fs.SourceError, match="can't be read"):
        fs.datasets.mnist(tmp_path)


def test_cifar_in_the_folder_that_was_extracted(tmp_path: Path) -> None:
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(bytes(2 * (2 + 3072)))
    assert fs.datasets.cifar100(tmp_path, download=False)[0][0].shape == (2, 32, 32, 3)


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py"])
def test_the_python_version_is_named_where_the_binary_one_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(
        fs.PlanError, match=rf"binary.tar.gz is not in .*{name} is the python version: it holds pickles"
    ):
        fs.datasets.cifar10(tmp_path, download=False)


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (None, "", b"data", 3, tmp_path / "file", "~nobody-of-this-name/data"):
        with pytest.raises(fs.PlanError, match="folder="):
            fs.datasets.mnist(folder, download=False)  # type: ignore[arg-type]
    with pytest.raises(fs.PlanError, match="no folder"):
        fs.datasets.mnist(tmp_path / "none", download=False)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    idx_files(tmp_path / "data")
    assert len(fs.datasets.mnist("~/data", download=False)[0][0]) == 5
    assert (tmp_path / "data" / "mnist" / "x_train.npy").exists()


def test_a_folder_that_cannot_be_written_to_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:  # as root, which tests may run as, any folder can be written to
        raise PermissionError(13, "Permission denied", str(tmp_path / "mnist"))

    idx_files(tmp_path)
    monkeypatch.setattr(converted.tempfile, "mkdtemp", refuse)
    with pytest.raises(fs.SourceError, match=r"Permission denied.*name one that you may write to"):
        fs.datasets.mnist(tmp_path)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((5, 784), np.uint8), r"\(5, 784\)"),
        (np.zeros((5, 28, 28)), "float64"),
        (arrays()[0][1][:4], "5 labels"),
    ],
)
def test_arrays_of_somebody_else_are_not_taken_for_ours(tmp_path: Path, array: Array, told: str) -> None:
    idx_files(tmp_path)
    fs.datasets.mnist(tmp_path)
    np.save(tmp_path / "mnist" / "x_train.npy", array)
    with pytest.raises(fs.SourceError, match=told):
        fs.datasets.mnist(tmp_path)


def test_threads_that_start_together_convert_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idx_files(tmp_path)
    made: list[Path] = []

    def counted(folder: Path, *rest: Any) -> None:
        made.append(folder)
        converted.write(folder, *rest)

    monkeypatch.setattr(ready, "write", counted)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(fs.datasets.mnist(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(made) == 2  # one a part
    assert len(os.listdir(tmp_path / "mnist")) == 4


KILLED = """
import os, signal, sys
import fitstream as fs
from fitstream.datasets import ready

ready.write = lambda folder, *rest: (folder / "half.body").touch() or os.kill(os.getpid(), signal.SIGKILL)
fs.datasets.mnist(sys.argv[1])
"""


def test_what_a_killed_program_left_is_thrown_away(tmp_path: Path) -> None:
    idx_files(tmp_path)
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    assert len(list((tmp_path / "mnist").rglob("half.body"))) == 1
    assert len(fs.datasets.mnist(tmp_path)[0][0]) == 5
    assert sorted(os.listdir(tmp_path / "mnist")) == ["x_test.npy", "x_train.npy", "y_test.npy", "y_train.npy"]


def test_threads_that_start_together_all_fail_where_nothing_can_be_made(tmp_path: Path) -> None:
    idx_files(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no labels")
    found: list[BaseException] = []

    def attempt() -> None:
        try:
            fs.datasets.mnist(tmp_path)
        except fs.SourceError as error:
            found.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert {str(error) for error in found if "no IDX file" not in str(error)} == set()
    assert not (tmp_path / "mnist").exists()


def test_a_folder_that_another_one_removes_before_it_is_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idx_files(tmp_path)
    opened = os.open

    def removed_once(path: Any, *rest: Any) -> int:
        if path == tmp_path / "mnist":
            monkeypatch.setattr(os, "open", opened)
            path.rmdir()
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", removed_once)
    assert len(fs.datasets.mnist(tmp_path)[0][0]) == 5
    assert os.open is opened


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    idx_files(tmp_path)
    (tmp_path / "mnist").symlink_to(tmp_path / "not there")
    with pytest.raises(fs.SourceError, match="can't be made"):
        fs.datasets.mnist(tmp_path)
