"""The four `.npy` files that a dataset becomes: made once by one program, checked, and mapped.

Programs that start together wait for the first of them by a lock on the folder itself, which ends with its process and
leaves no file. Arrays are made in a folder beside their place and moved in the end, so that a program that is killed
leaves nothing that looks whole; what it leaves is thrown away by the next one that has the lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fitstream.datasets.formats import Uint8
from fitstream.errors import SourceError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Arrays", "mapped", "write"]

#: `(x_train, y_train), (x_test, y_test)`
Arrays: TypeAlias = tuple[tuple[Uint8, Uint8], tuple[Uint8, Uint8]]

_HAS_LOCKS = fcntl is not None
_NAMES = ("x_train", "y_train", "x_test", "y_test")
_UNFINISHED = ".converting-"


def mapped(folder: Path, convert: Callable[[Path], None], picture: tuple[int, ...], label: tuple[int, ...]) -> Arrays:
    """The four arrays, converted first if they aren't there.

    Args:
        folder: Where they are or will be.
        convert: Writes all four into the folder that it is given.
        picture: Shape of a picture.
        label: Shape of a label.
    Raises:
        SourceError: If the folder can't be written to, or holds other arrays.
    """
    files = [folder / f"{name}.npy" for name in _NAMES]
    if not _are_there(files):
        try:
            with _alone(folder) as is_alone:
                if not _are_there(files):
                    _make(folder, files, convert, is_alone)
        except OSError as error:
            raise SourceError(
                f"the arrays can't be made: {error}. They are converted once, into this folder; name one that you may "
                "write to and that has room. The files that they are made from may be links in it.",
                file=str(folder),
            ) from error
    arrays = [_load(file, label if file.name[0] == "y" else picture) for file in files]
    for part in (0, 2):
        count, labels = len(arrays[part]), len(arrays[part + 1])
        if count != labels:
            raise SourceError(
                f"it has {labels:,} labels for {count:,} pictures. Delete the four arrays; they are made again.",
                file=str(files[part + 1]),
            )
    return (arrays[0], arrays[1]), (arrays[2], arrays[3])


def _are_there(files: list[Path]) -> bool:
    return all(file.exists() for file in files)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other program makes these arrays; whether that is certain: some file systems have no locks."""
    lock, is_alone = _locked(folder)
    try:
        yield is_alone
    finally:
        if is_alone:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is empty, since nothing could be made
        if lock >= 0:
            os.close(lock)


def _locked(folder: Path) -> tuple[int, bool]:
    """A descriptor of the folder, or -1, and whether it has the lock."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:  # again where whoever had the lock has failed, and has removed the folder
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        if not _HAS_LOCKS:
            return -1, False
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if folder.is_symlink():  # one that leads nowhere
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            return lock, False
        except BaseException:
            os.close(lock)
            raise
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock, True
        os.close(lock)


def _make(folder: Path, files: list[Path], convert: Callable[[Path], None], is_alone: bool) -> None:
    if is_alone:
        for old in folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(old, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    try:
        convert(made)
        for file in files:
            os.replace(made / file.name, file)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _load(file: Path, shape: tuple[int, ...]) -> Uint8:
    try:
        array: Uint8 = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"it can't be mapped: {error}. Delete it; it is made again.", file=str(file)) from error
    if array.dtype != np.uint8 or array.shape[1:] != shape or not len(array):
        raise SourceError(
            f"it is {array.dtype} {array.shape}, where uint8 {('n', *shape)} should be. Move it away; what belongs "
            "there is made again.".replace("'n'", "n"),
            file=str(file),
        )
    return array


def write(made: Path, part: str, blocks: Iterator[tuple[Uint8, Uint8]]) -> None:
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
