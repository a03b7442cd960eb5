"""The files that the datasets are published in: MNIST's IDX, and CIFAR's binary version inside a tar archive.

Nothing is extracted to disk and nothing in a file is trusted: sizes are compared with headers before anything is
allocated, labels with the number of classes, and what comes after the end is refused.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError

__all__ = ["Cifar", "Uint8", "cifar_blocks", "idx_array", "npz_arrays"]

Uint8 = npt.NDArray[np.uint8]

_PIXELS = 32 * 32 * 3
#: Samples that are converted at a time: 3 MB of CIFAR.
_BLOCK = 1000
#: IDX: zero, zero, type (8 is uint8), number of axes; then the axes, all big-endian.
_UINT8_TYPE = 8
_MOST_BYTES = 2**31


@final
class Cifar(NamedTuple):
    """One of the two CIFAR datasets, in its binary version.

    Attributes:
        archive: Name of the tar archive.
        folder: Name of the folder in it.
        train: Names of the files of the training part, in their order.
        test: Name of the file of the test part.
        classes: Number of classes of each label that comes before a picture.
    """

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    classes: tuple[int, ...]


def cifar_blocks(kind: Cifar, place: Path, names: tuple[str, ...]) -> Iterator[tuple[Uint8, Uint8]]:
    """Read pictures and labels, some at a time.

    Args:
        kind: Which of the two.
        place: The tar archive, or the folder that its files were extracted to.
        names: Files to read, in their order.
    Yields:
        uint8 `(samples, 32, 32, 3)` and uint8 `(samples, labels)`.
    Raises:
        SourceError: If a file is missing, of another size than whole samples, or has a label out of range.
    """
    if place.is_dir():
        for name in names:
            path = place / name
            try:
                with path.open("rb") as file:
                    yield from _samples(kind, file, path.stat().st_size, str(path))
            except OSError as error:
                raise SourceError(f"it can't be read: {error.strerror or error}.", file=str(path)) from error
        return
    try:
        with tarfile.open(place, "r:gz") as archive:
            for name in names:
                yield from _member(kind, archive, place, f"{kind.folder}/{name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise SourceError(f"it is no whole tar.gz archive: {error}. Fetch it again.", file=str(place)) from error


def _member(kind: Cifar, archive: tarfile.TarFile, place: Path, name: str) -> Iterator[tuple[Uint8, Uint8]]:
    try:
        info = archive.getmember(name)
    except KeyError:
        raise SourceError(
            f"there is no {name} in it. It must be the binary version ({kind.archive}): the python version holds "
            "pickles, which are never loaded.",
            file=str(place),
        ) from None
    file = archive.extractfile(info) if info.isreg() else None
    if file is None:
        raise SourceError(f"{name} in it is no plain file.", file=str(place))
    yield from _samples(kind, file, info.size, f"{place}: {name}")


def _samples(kind: Cifar, file: IO[bytes], size: int, told: str) -> Iterator[tuple[Uint8, Uint8]]:
    labels = len(kind.classes)
    each = labels + _PIXELS
    if size == 0 or size % each:
        raise SourceError(
            f"its {size:,} bytes are no whole number of samples of {each:,} ({labels} labels and 32 x 32 x 3 pixels).",
            file=told,
        )
    for first in range(0, size // each, _BLOCK):
        count = min(_BLOCK, size // each - first)
        data = file.read(count * each)
        if len(data) != count * each:
            raise SourceError(f"it ends within sample {first + len(data) // each}.", file=told)
        rows = np.frombuffer(data, np.uint8).reshape(count, each)
        for place, classes in enumerate(kind.classes):
            wrong = np.flatnonzero(rows[:, place] >= classes)
            if len(wrong):
                label = rows[wrong[0], place]
                raise SourceError(f"sample {first + wrong[0]} has label {label}, of {classes} classes.", file=told)
        # Stored as a plane for each colour.
        yield rows[:, labels:].reshape(count, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, :labels]


def idx_array(path: Path, axes: int) -> Uint8:
    """Read an IDX file of uint8, compressed by gzip or not.

    Args:
        path: The file.
        axes: How many axes it must have.
    Raises:
        SourceError: If it is none, is cut off, or goes on behind its end.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _idx(file, axes, str(path))
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"it can't be read: {error}.", file=str(path)) from error


def _idx(file: Any, axes: int, told: str) -> Uint8:
    head = file.read(4 + 4 * axes)
    if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, _UINT8_TYPE, axes)):
        raise SourceError(f"it is no IDX file of uint8 with {axes} axes: it begins with {head[:4].hex()}.", file=told)
    shape = struct.unpack(f">{axes}I", head[4:])
    size = 1
    for length in shape:
        size *= length
    if not 0 < size <= _MOST_BYTES:
        raise SourceError(f"its header declares {' x '.join(map(str, shape))} values.", file=told)
    data = file.read(size + 1)
    if len(data) != size:
        more = "more" if len(data) > size else f"only {len(data):,}"
        raise SourceError(f"its header declares {size:,} values, but it has {more}.", file=told)
    return np.frombuffer(data, np.uint8).reshape(shape)


def npz_arrays(path: Path, axes: dict[str, int]) -> list[Uint8]:
    """Read arrays of uint8 from a NumPy archive.

    Args:
        path: The archive.
        axes: How many axes each array has, by its name.
    Raises:
        SourceError: If it is none, or an array is missing, of another dtype, has other axes or is empty.
    """
    arrays = []
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name, count in axes.items():
                found = archive[name]
                if found.dtype != np.uint8 or found.ndim != count or not found.size:
                    raise ValueError(f"{name} is {found.dtype} {found.shape}, where uint8 of {count} axes should be")
                arrays.append(found)
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise SourceError(f"it can't be read: {error}.", file=str(path)) from error
    return arrays
