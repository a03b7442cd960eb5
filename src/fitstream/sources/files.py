"""Samples that are whole files, named by a folder or a table and read one by one.

The paths of a million samples as Python strings would cost over 100 bytes each before any data. So they are kept as
one block of bytes and an array of offsets, relative to a root that is kept once. Paths are bytes throughout, as the
system has them: names that are not valid text work like any other. Both, and the labels, lie in memory that worker
processes map, so that all processes together hold them once.

A file is read into the lane's scratch by one `open`, `fstat` and `readv`. The buffer has one byte to spare: a file that
fills it has grown since `fstat`, and one that leaves more has shrunk; both are errors, since half a picture may decode.
Files are opened without blocking, so that a named pipe is refused instead of waited for.

Where a root was given for protection, the table's folders were checked when it was read; here a file that is itself a
symbolic link is resolved, and refused if it leads outside. Then the system is asked where the file that was opened
lies, so that a folder which became a link since the table was read leads nowhere either.

A file whose times of content and of status both lie after the moment at which the source was made has been written
since. (Content alone can be set to any time; status alone changes with a name or a permission.) The system stamps
files with a clock that may lag behind `time.time_ns` by some milliseconds, and never leads: so what was written before
is never taken for changed, and what is written within that lag may be missed.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.memory import shared_copy
from fitstream.redaction import redacted
from fitstream.scratch import Arena
from fitstream.sources.base import Reader, Source
from fitstream.sources.labels import LabelMode

__all__ = ["PICTURE_SUFFIXES", "FileReader", "FileSource", "PackedPaths", "PathPacker", "encode_path", "is_inside"]

#: What is taken for a picture where the user doesn't say.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
# What a system lacks of these it doesn't need: a pipe without a writer blocks only where O_NONBLOCK exists.
_OPEN = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_REASONS = {
    errno.ENOENT: "the file does not exist; restore it, or leave its row out",
    errno.ENOTDIR: "the file does not exist: a part of its path is a file, not a folder",
    errno.EACCES: "permission to read the file is denied",
    errno.ELOOP: "its symbolic links lead in a circle",
}


def encode_path(path: str) -> bytes:
    """Text of a path as the bytes that the system uses; as `os.fsencode`, but quick enough for millions.

    Raises:
        UnicodeEncodeError: If no file can have that name.
    """
    return path.encode(_ENCODING, _ERRORS)


def is_inside(path: bytes, folder: bytes) -> bool:
    """Whether a resolved path is `folder` or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


@final
class PackedPaths:
    """Paths of all samples: 4 bytes each beyond their own length (8 from 4 GiB on).

    Args:
        root: Folder that relative paths start at; joined when a path is read.
        blob: All paths, one after the other, uint8 `(bytes,)`.
        offsets: `(count + 1,)`, where each one starts in `blob`, and where the last one ends.
    """

    __slots__ = ("_arrays", "_blob", "_offsets", "_prefix", "root")

    def __init__(self, root: bytes, blob: npt.NDArray[np.uint8], offsets: npt.NDArray[Any]) -> None:
        self.root = root
        self._prefix = os.path.join(root, b"")
        self._arrays = blob, offsets
        # Numbers and pieces of a memoryview come in half the time of an array's.
        self._blob, self._offsets = blob.data, offsets.data

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedPaths, (self.root, *self._arrays)

    @staticmethod
    def of(root: str, paths: Iterable[str]) -> PackedPaths:
        """Pack a list of paths."""
        packer = PathPacker()
        packer.extend([encode_path(path) for path in paths])
        return packer.packed(encode_path(root))

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def arrays(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        """All paths without the root, and where each one starts."""
        return self._arrays

    def encoded(self, index: int) -> bytes:
        """The path of one sample, root included, as bytes."""
        if not 0 <= index < len(self._offsets) - 1:
            raise IndexError(f"path {index} of {len(self)}")
        path = bytes(self._blob[self._offsets[index] : self._offsets[index + 1]])
        if os.name == "posix" and path[:1] != b"/":
            return self._prefix + path  # as os.path.join does, in a tenth of the time
        return os.path.join(self.root, path)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.encoded(index))

    @property
    def nbytes(self) -> int:
        """Bytes of the block and its offsets."""
        return len(self.root) + sum(array.nbytes for array in self._arrays)


@final
class PathPacker:
    """Collects paths for `PackedPaths` piece by piece, so that they are never all held as objects."""

    def __init__(self) -> None:
        self._blob = io.BytesIO()
        self._lengths: list[npt.NDArray[np.uint32]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, paths: Sequence[bytes]) -> None:
        """Add encoded paths."""
        self._blob.write(b"".join(paths))
        self._lengths.append(np.fromiter(map(len, paths), np.uint32, len(paths)))
        self._count += len(paths)

    def packed(self, root: bytes) -> PackedPaths:
        """All that was added, under `root`; the packer is empty afterwards."""
        blob = np.frombuffer(self._blob.getvalue(), np.uint8)
        offsets = np.zeros(self._count + 1, np.uint32 if len(blob) < 2**32 else np.uint64)
        place = 0
        for lengths in self._lengths:
            ends = np.cumsum(lengths, dtype=offsets.dtype)
            offsets[place + 1 : place + 1 + len(lengths)] = ends + offsets[place]
            place += len(lengths)
        self._blob, self._lengths, self._count = io.BytesIO(), [], 0
        shared = shared_copy(blob)
        del blob  # The block is held twice for a moment; the offsets come after it.
        return PackedPaths(root, shared, shared_copy(offsets))


@final
class FileSource(Source):
    """Files, and their labels if they have some.

    Args:
        paths: One a sample.
        labels: `(count,)` int64 class indices, or with `label_kind="raw"` numbers of any dtype, `(count,)` or
            `(count, columns)`. None for samples without labels.
        class_names: In label order, or None.
        origin: Where the list came from, for people: "folder '/data/photos'".
        label_kind: How a label is handed out: "int" and "raw" as it is, "binary" as float32 `(1,)`, "categorical" as
            one-hot float32 `(class_count,)`, which is made when it is read and not kept.
        class_count: Length of a one-hot label.
        inside: Resolved folder that no symbolic link may leave, or None.
    """

    def __init__(
        self,
        paths: PackedPaths,
        labels: npt.NDArray[Any] | None,
        class_names: list[str] | None,
        origin: str,
        label_kind: LabelMode = "int",
        class_count: int = 0,
        inside: bytes | None = None,
    ) -> None:
        if labels is not None:
            labels = shared_copy(labels)
            labels.flags.writeable = False
        self.class_names = class_names
        self._paths = paths
        self._labels = labels
        self._origin = origin
        self._label_kind = label_kind
        self._class_count = class_count
        self._inside = inside
        self._listed_ns = time.time_ns()

    def __len__(self) -> int:
        return len(self._paths)

    def open(self) -> FileReader:
        # fmt: off
        return FileReader(
            self._paths, self._labels, self._label_kind, self._class_count, self._inside, self._listed_ns)
        # fmt: on

    @property
    def index_bytes(self) -> int:
        return self._paths.nbytes + (0 if self._labels is None else self._labels.nbytes)

    def path(self, index: int) -> str:
        return self._paths[index]

    def fault(self, index: int) -> str | None:
        path = self._paths.encoded(index)
        try:
            path = _target(path, self._inside)
            _check_status(os.stat(path))
            if not os.access(path, os.R_OK):
                return f"{_REASONS[errno.EACCES]}."
        except OSError as error:
            return _reason(error, path)
        except SourceError as error:
            return str(error)
        return None

    def labels(self) -> npt.NDArray[Any] | None:
        """Class indices `(count,)` int64, or the numbers of `label_kind="raw"`; read-only."""
        return self._labels

    def fingerprint_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"files": self._paths.arrays}
        if self._labels is not None:
            parts["labels"] = (self._label_kind, self._class_count, self._labels)
        return parts | ({} if self.class_names is None else {"class names": self.class_names})

    def __repr__(self) -> str:
        classes = "" if self.class_names is None else f", {len(self.class_names):,} classes"
        return redacted(f"{self._origin}: {len(self):,} files{classes}")


@final
class FileReader(Reader):
    """Reads files for one lane; holds nothing open between samples."""

    def __init__(
        self,
        paths: PackedPaths,
        labels: npt.NDArray[Any] | None,
        label_kind: LabelMode,
        class_count: int,
        inside: bytes | None,
        listed_ns: int,
    ) -> None:
        self._paths = paths
        self._labels = labels
        self._label_kind = label_kind
        self._class_count = class_count
        self._inside = inside
        self._listed_ns = listed_ns

    def read(self, index: int, arena: Arena) -> memoryview | tuple[memoryview, Any]:
        """Read one file.

        Returns:
            The file's bytes, uint8 `(size,)`, in the arena; with labels a tuple of it and the label.
        Raises:
            SourceError: If it is missing, no regular file, empty, changing, unreadable or outside the root.
            TooLarge: If the arena cannot hold it.
        """
        try:
            descriptor = self._open(self._paths.encoded(index))
            try:
                status = os.fstat(descriptor)
                data = _contents(descriptor, status, arena)
            finally:
                os.close(descriptor)
        except OSError as error:
            # Not its cause: a system's error shows the path as it is, which may be a URL with a password.
            raise SourceError(_reason(error, self._paths.encoded(index))) from None
        if status.st_mtime_ns > self._listed_ns and status.st_ctime_ns > self._listed_ns:
            self.changed_count += 1
            self.changed_index = index if self.changed_index < 0 else self.changed_index
        return data if self._labels is None else (data, self._label(self._labels[index], arena))

    def _open(self, path: bytes) -> int:
        if self._inside is None:
            return os.open(path, _OPEN)
        try:
            descriptor = os.open(path, _OPEN | _NO_FOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            descriptor = os.open(_resolved(path, self._inside), _OPEN | _NO_FOLLOW)
        opened = _opened_path(descriptor, path)
        if not is_inside(opened, self._inside):
            os.close(descriptor)
            raise _outside("it leads", opened, self._inside)
        return descriptor

    def _label(self, label: Any, arena: Arena) -> Any:
        if self._label_kind == "categorical":
            row = arena.take(4 * self._class_count).view(np.float32)
            row.fill(0)
            row[label] = 1
            return row
        if self._label_kind == "binary":
            row = arena.take(4).view(np.float32)
            row[0] = label
            return row
        return label


def _target(path: bytes, inside: bytes | None) -> bytes:
    """What will be opened for a path.

    Raises:
        SourceError: If it is a link that leaves `inside`.
    """
    return path if inside is None or not os.path.islink(path) else _resolved(path, inside)


def _resolved(path: bytes, inside: bytes) -> bytes:
    target = os.path.realpath(path)
    if not is_inside(target, inside):
        raise _outside("it is a symbolic link", target, inside)
    return target


def _outside(how: str, target: bytes, inside: bytes) -> SourceError:
    return SourceError(
        f"{how} to {os.fsdecode(target)!r}, outside root {os.fsdecode(inside)!r}. "
        "Pass allow_outside=True if the table and the folder are trusted."
    )


def _reason(error: OSError, path: bytes) -> str:
    if error.errno == errno.ENOENT and b"://" in path:
        return "it is a URL, and only files are read; download it, and put the file's path in its place."
    return f"{_REASONS.get(error.errno or 0, f'the file cannot be read: {error.strerror}')}."


def _opened_path(descriptor: int, path: bytes) -> bytes:
    """Where the file that was opened lies; where the system doesn't tell, where its path leads now."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}".encode())
    except OSError:
        return os.path.realpath(path)


def _check_status(status: os.stat_result) -> None:
    """Refuse what is no file, or empty.

    Raises:
        SourceError: If it is.
    """
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"it is {'a folder' if stat.S_ISDIR(status.st_mode) else 'a device or pipe'}, not a file.")
    if status.st_size == 0:
        raise SourceError("the file is empty (0 bytes). Restore it, or leave it out.")


def _contents(descriptor: int, status: os.stat_result, arena: Arena) -> memoryview:
    _check_status(status)
    size = status.st_size
    buffer = arena.take(size + 1).data
    got = _read_into(descriptor, buffer)
    while got < size:
        more = _read_into(descriptor, buffer[got:])
        if more == 0:
            raise SourceError(f"the file shrank while it was read, from {size:,} to {got:,} bytes.")
        got += more
    if got > size:
        raise SourceError(f"the file grew while it was read, beyond {size:,} bytes.")
    return buffer[:size]


def _read_into(descriptor: int, buffer: memoryview) -> int:
    if hasattr(os, "readv"):
        return os.readv(descriptor, [buffer])
    data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)
