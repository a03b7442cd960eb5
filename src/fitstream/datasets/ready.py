"""The datasets themselves: where their files are, what they become, and what stays on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fitstream.datasets.converted import Arrays, mapped, write
from fitstream.datasets.fetch import fetch
from fitstream.datasets.formats import Cifar, cifar_blocks, idx_array, npz_arrays
from fitstream.errors import PlanError, SourceError

__all__ = ["Arrays", "cifar10", "cifar100", "digits", "fashion_mnist", "mnist"]

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
#: What the better-known version of CIFAR is called, packed and extracted: named in errors alone.
_PICKLED = {
    _CIFAR10.archive: ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    _CIFAR100.archive: ("cifar-100-python.tar.gz", "cifar-100-python"),
}
#: Where files of MNIST and Fashion-MNIST may be: as documented, and as Keras and torchvision put them.
_IDX_HOMES = {
    "mnist": ("mnist", "", "MNIST/raw"),
    "fashion_mnist": ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
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
        SourceError: If a file can't be read, or isn't what it should be, or the folder can't be written to.
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
            directly in the folder, in torchvision's `MNIST/raw`, or as Keras's `mnist.npz`), and where
            `mnist/x_train.npy` and the like are made.
        download: Whether the four files (12 MB) may be downloaded if they aren't there.
    Returns:
        `(x_train, y_train), (x_test, y_test)`, mapped and read-only: uint8 `(60000, 28, 28)`, uint8 `(60000,)`, and
        10,000 of each for the test.
    Raises:
        PlanError: If they must be downloaded and may not, or pooch is missing.
        SourceError: If a file can't be read, or isn't what it should be, or the folder can't be written to.
    """
    return _idx(folder, "mnist", _MNIST_URL, _MNIST_MD5, download)


def fashion_mnist(folder: str | os.PathLike[str], *, download: bool = True) -> Arrays:
    """Fashion-MNIST: the same of clothes (Xiao, Rasul and Vollgraf, 2017), 31 MB; as `mnist` otherwise.

    Its files are named as MNIST's, so that they are looked for in `fashion_mnist/` (and in Keras's `fashion-mnist/` and
    torchvision's `FashionMNIST/raw`), and never in the folder itself.
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
    root = _root(folder, download)

    def convert(made: Path) -> None:
        homes = (root, root / name)
        places = [home / one for home in homes for one in (kind.archive, kind.folder)]
        if (root / kind.test).is_file():  # the folder itself is the one that was extracted
            places = [root]
        place = next((one for one in places if one.exists()), None)
        if place is None:
            pickled = [home / one for home in homes for one in _PICKLED[kind.archive] if (home / one).exists()]
            told = f" {pickled[0]} is the python version: it holds pickles, which are never loaded." if pickled else ""
            _may_download(download, kind.archive, root, told)
            place = fetch(_CIFAR_URL + kind.archive, _CIFAR_MD5[kind.archive], root)
        for part, names in (("train", kind.train), ("test", (kind.test,))):
            write(made, part, cifar_blocks(kind, place, names))

    return mapped(root / name, convert, (32, 32, 3), (len(kind.classes),))


def _idx(folder: str | os.PathLike[str], name: str, url: str, checksums: tuple[str, ...], download: bool) -> Arrays:
    root = _root(folder, download)
    homes = [root / one for one in _IDX_HOMES[name]]

    def find(file: str, checksum: str) -> Path:
        names = [one + end for one in (file, file.replace("-idx", ".idx")) for end in (".gz", "")]
        found = next((home / one for home in homes for one in names if (home / one).is_file()), None)
        if found is None:
            beside = any((root / one).is_file() for one in names)
            told = f" One of that name is in {root} itself, but may be MNIST's: move it there." if beside else ""
            _may_download(download, f"{file}.gz", homes[0], told)
            found = fetch(f"{url}{file}.gz", checksum, homes[0])
        return found

    def convert(made: Path) -> None:
        packed = next((home / f"{name}.npz" for home in homes if (home / f"{name}.npz").is_file()), None)
        if packed is not None:  # Keras's own form of MNIST
            files = [packed] * 4
            arrays = npz_arrays(packed, {"x_train": 3, "y_train": 1, "x_test": 3, "y_test": 1})
        else:
            files = [find(*each) for each in zip(_IDX, checksums, strict=True)]
            arrays = [idx_array(file, axes) for file, axes in zip(files, (3, 1, 3, 1), strict=True)]
        for part, first in (("train", 0), ("test", 2)):
            x, y = arrays[first : first + 2]
            if len(x) != len(y):
                raise SourceError(f"it has {len(y):,} labels for {len(x):,} pictures.", file=str(files[first + 1]))
            if x.shape[1:] != (28, 28) or y.max() >= 10:
                raise SourceError(f"its pictures are {x.shape[1:]}, or a label is {y.max()}.", file=str(files[first]))
            write(made, part, iter([(x, y)]))

    return mapped(root / name, convert, (28, 28), ())


def _root(folder: str | os.PathLike[str], download: bool) -> Path:
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder):
        raise PlanError(f"folder={folder!r} must be the path of a folder.")
    try:
        root = Path(folder).expanduser()
    except RuntimeError as error:
        raise PlanError(f"folder={str(folder)!r}: there is no such home. Write the whole path.") from error
    if root.exists() and not root.is_dir():
        raise PlanError(f"folder={str(folder)!r} is a file. Name the folder that it is in.")
    if not download and not root.exists():
        raise PlanError(f"there is no folder {root}, and download=False. Name another one, or allow the download.")
    return root


def _may_download(download: bool, file: str, folder: Path, told: str = "") -> None:
    if not download:
        raise PlanError(f"{file} is not in {folder}, and download=False. Put it there, or allow the download.{told}")
