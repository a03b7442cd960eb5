"""The datasets themselves: where their files are, what they become, and what stays on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fitstream.datasets.fetch import fetch
from fitstream.datasets.formats import Cifar, Uint8, cifar_blocks, idx_array
from fitstream.errors import PlanError, SourceError

__all__ = ["Arrays", "cifar10", "cifar100", "digits", "fashion_mnist", "mnist"]

#: `(x_train, y_train), (x_test, y_test)`
Arrays: TypeAlias = tuple[tuple[Uint8, Uint8], tuple[Uint8, Uint8]]

_CIFAR10 = Cifar(
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    (10,),
)
_CIFAR100 = Cifar("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin", (20, 100))
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_MD5 = {
    _CIFAR10.archive: "md5:c32a1d4ab5d03f1284b67883e8d87530",
    _CIFAR100.archive: "md5:03b5dce01913d631647c71ecec9e9cb8",
}
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_MD5 = (
    "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "md5:9fb629c4189551a2d022fa330f9573f3",
    "md5:ec29112dd5afa0611ce80d1b7f02629c",
)
_FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_FASHION_MD5 = (
    "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "md5:25c81989df183df01b3e8a0aad5dffbe",
    "md5:bef4ecab320f06d8554ea6380940ec79",
    "md5:bb300cfdad3c16e7a12a480ee83cd310",
)
#: The first four fifths of scikit-learn's digits; other people wrote the rest.
_DIGITS_TRAIN = 1437

_NAMES = ("x_train", "y_train", "x_test", "y_test")
#: Where a program converts, with its process id; and after how long it must have been killed there, on any machine.
_CONVERTING, _LEFT_S = ".converting-", 86_400


def cifar10(folder: str | os.PathLike[str], *, download: bool = True) -> Arrays:
    """CIFAR-10: 60,000 small photos of 10 classes (Krizhevsky, 2009).

    Args:
        folder: Where `cifar-10-binary.tar.gz`, or its extracted folder `cifar-10-batches-bin`, is or will be, and where
            `cifar10/x_train.npy` and the like are made.
        download: Whether the archive (170 MB) may be downloaded if it isn't there.
    Returns:
        `(x_train, y_train), (x_test, y_test)`, mapped and read-only: uint8 `(50000, 32, 32, 3)`, uint8 `(50000, 1)`,
        and 10,000 of each for the test.
    Raises:
        PlanError: If it must be downloaded and may not, or pooch is missing.
        SourceError: If a file can't be read, or isn't what it should be.
    """
    return _cifar(_CIFAR10, folder, "cifar10", download)


def cifar100(folder: str | os.PathLike[str], *, label_mode: str = "fine", download: bool = True) -> Arrays:
    """CIFAR-100: the same with 100 classes ("fine"), or 20 ("coarse"); as `cifar10` otherwise.

    Raises:
        PlanError: As `cifar10`, or if `label_mode` is neither.
        SourceError: As `cifar10`.
    """
    if label_mode not in ("fine", "coarse"):
        raise PlanError(f'label_mode={label_mode!r} must be "fine" (100 classes) or "coarse" (20).')
    (x_train, y_train), (x_test, y_test) = _cifar(_CIFAR100, folder, "cifar100", download)
    column = slice(1, 2) if label_mode == "fine" else slice(0, 1)
    return (x_train, y_train[:, column]), (x_test, y_test[:, column])


def mnist(folder: str | os.PathLike[str], *, download: bool = True) -> Arrays:
    """MNIST: 70,000 handwritten digits (LeCun, Cortes and Burges).

    Args:
        folder: Where `mnist/train-images-idx3-ubyte.gz` and the three others are or will be (compressed or not; also
            directly in the folder), and where `mnist/x_train.npy` and the like are made.
        download: Whether the four files (12 MB) may be downloaded if they aren't there.
    Returns:
        `(x_train, y_train), (x_test, y_test)`, mapped and read-only: uint8 `(60000, 28, 28)`, uint8 `(60000,)`, and
        10,000 of each for the test.
    Raises:
        PlanError: If they must be downloaded and may not, or pooch is missing.
        SourceError: If a file can't be read, or isn't what it should be.
    """
    return _idx(folder, "mnist", _MNIST_URL, _MNIST_MD5, download)


def fashion_mnist(folder: str | os.PathLike[str], *, download: bool = True) -> Arrays:
    """Fashion-MNIST: the same of clothes (Xiao, Rasul and Vollgraf, 2017), 31 MB; as `mnist` otherwise.

    Its files are looked for in `fashion_mnist/` alone, since they are named as MNIST's.
    """
    return _idx(folder, "fashion_mnist", _FASHION_URL, _FASHION_MD5, download)


def digits() -> Arrays:
    """1,797 handwritten digits that come with scikit-learn: no download.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: uint8 `(1437, 8, 8)` of 0 to 16, uint8 `(1437,)`, and the last 360 for
        the test. In memory: it is 0.1 MB.
    Raises:
        PlanError: If scikit-learn isn't installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise PlanError(
            'digits() needs scikit-learn, which is not installed. Use: pip install "fitstream[datasets]"'
        ) from error
    x, y = load_digits(return_X_y=True)
    x, y = x.astype(np.uint8).reshape(-1, 8, 8), y.astype(np.uint8)
    return (x[:_DIGITS_TRAIN], y[:_DIGITS_TRAIN]), (x[_DIGITS_TRAIN:], y[_DIGITS_TRAIN:])


def _cifar(kind: Cifar, folder: str | os.PathLike[str], name: str, download: bool) -> Arrays:
    root = Path(folder).expanduser()

    def convert(made: Path) -> None:
        homes = (root, root / name)
        places = [home / one for home in homes for one in (kind.archive, kind.folder)]
        place = next((one for one in places if one.exists()), None)
        if place is None:
            _may_download(download, kind.archive, root)
            place = fetch(_CIFAR_URL + kind.archive, _CIFAR_MD5[kind.archive], root)
        for part, names in (("train", kind.train), ("test", (kind.test,))):
            _write(made, part, cifar_blocks(kind, place, names))

    return _mapped(root / name, convert)


def _idx(folder: str | os.PathLike[str], name: str, url: str, checksums: tuple[str, ...], download: bool) -> Arrays:
    root = Path(folder).expanduser()
    homes = [root / name] if name == "fashion_mnist" else [root / name, root]

    def find(file: str, checksum: str) -> Path:
        for home in homes:
            for one in (home / f"{file}.gz", home / file):
                if one.exists():
                    return one
        _may_download(download, f"{file}.gz", homes[0])
        return fetch(f"{url}{file}.gz", checksum, homes[0])

    def convert(made: Path) -> None:
        found = [find(*each) for each in zip(_IDX, checksums, strict=True)]
        for part, (images, labels) in (("train", found[:2]), ("test", found[2:])):
            x, y = idx_array(images, 3), idx_array(labels, 1)
            if len(x) != len(y):
                raise SourceError(f"it has {len(y):,} labels for {len(x):,} pictures.", file=str(labels))
            if x.shape[1:] != (28, 28) or y.max() >= 10:
                raise SourceError(f"its pictures are {x.shape[1:]}, or a label is {y.max()}.", file=str(images))
            _write(made, part, iter([(x, y)]))

    return _mapped(root / name, convert)


def _may_download(download: bool, file: str, folder: Path) -> None:
    if not download:
        raise PlanError(f"{file} is not in {folder}, and download=False. Put it there, or allow the download.")


def _mapped(folder: Path, convert: Callable[[Path], None]) -> Arrays:
    """The four arrays, converted first if they aren't there."""
    files = [folder / f"{name}.npy" for name in _NAMES]
    for left in folder.glob(f"{_CONVERTING}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_S:
                shutil.rmtree(left, ignore_errors=True)
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        # Converted beside it and moved in the end: a program that is killed leaves nothing that looks whole.
        made = folder / f"{_CONVERTING}{os.getpid()}"
        made.mkdir(exist_ok=True)
        try:
            convert(made)
            for file in files:
                os.replace(made / file.name, file)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    arrays = []
    for file in files:
        try:
            arrays.append(np.load(file, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise SourceError(f"it can't be mapped: {error}. Delete it; it is made again.", file=str(file)) from error
    return (arrays[0], arrays[1]), (arrays[2], arrays[3])


def _write(made: Path, part: str, blocks: Iterator[tuple[Uint8, Uint8]]) -> None:
    """Write one part's pictures and labels as `.npy`, a block at a time; the header is written when all are counted."""
    shapes: list[tuple[int, ...]] = [(), ()]
    count = 0
    paths = [made / f"{axis}_{part}.npy" for axis in "xy"]
    bodies = [path.with_suffix(".body") for path in paths]
    with bodies[0].open("wb") as x_file, bodies[1].open("wb") as y_file:
        for x, y in blocks:
            count += len(x)
            for number, (array, file) in enumerate(((x, x_file), (y, y_file))):
                shapes[number] = array.shape[1:]
                file.write(np.ascontiguousarray(array).data)
    for path, body, shape in zip(paths, bodies, shapes, strict=True):
        target = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *shape))
        target[...] = np.memmap(body, np.uint8, "r", shape=(count, *shape))
        target.flush()
        body.unlink()
