"""The files of one checkpoint: written, brought to the disk, removed, and read with checks.

Reading executes nothing: JSON, and arrays with `allow_pickle=False` out of an archive that isn't compressed, so that a
small file can't fill the memory. Whatever isn't as it was written is a `Broken`, whether the disk or somebody did it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, final

import numpy as np

from fitstream.errors import StateError

__all__ = ["Broken", "Stored", "read_checkpoint", "remove_checkpoint", "sync_folder", "write_checkpoint"]

_FORMAT, _VERSION = "fitstream checkpoint", 1
_ARRAYS, _CONTENT, _SUMS = "arrays.npz", "checkpoint.json", "B2SUMS"
_BLOCK_BYTES = 1 << 20
#: What some systems need so that they write bytes as they are.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

# hashlib and zipfile take long to load, and only who writes or reads checkpoints needs them.


@final
class Stored(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: Its folder.
        content: What is in its JSON file.
        arrays: By name.
    """

    path: Path
    content: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Broken(Exception):
    """A checkpoint isn't what was written; why, without a full stop."""


def write_checkpoint(path: Path, content: dict[str, Any], arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Make a folder, write a checkpoint into it, and bring all of it to the disk.

    Args:
        path: A folder that isn't there.
        content: JSON data.
        arrays: Names and arrays; taken one by one, so that they needn't be in memory together.
    """
    os.mkdir(path)
    sums: dict[str, str] = {}
    with _writing(path / _ARRAYS, sums) as file:
        forms = _write_arrays(file, arrays)
    whole = {"format": _FORMAT, "version": _VERSION, **content, "arrays": forms}
    with _writing(path / _CONTENT, sums) as file:
        file.write(json.dumps(whole, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    with _writing(path / _SUMS, {}) as file:
        file.write("".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode())
    sync_folder(path)


@final
class _Hashed(io.RawIOBase):
    """A new file that is hashed while it is written. It can't seek, so that what was hashed is what is there."""

    def __init__(self, path: Path) -> None:
        import hashlib

        self.fd = os.open(path, _NEW, 0o666)
        self.digest = hashlib.blake2b()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = os.write(self.fd, data)
        self.digest.update(memoryview(data)[:count])
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self.fd)


@contextlib.contextmanager
def _writing(path: Path, sums: dict[str, str]) -> Iterator[BinaryIO]:
    """Open a file to write; at the end it is on the disk, and its checksum in `sums`."""
    raw = _Hashed(path)
    with io.BufferedWriter(raw, _BLOCK_BYTES) as file:
        yield file
        file.flush()
        os.fsync(raw.fd)
    sums[path.name] = raw.digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Bring to the disk which files a folder has, where the system and its file system can do that for folders."""
    if os.name == "nt":  # which opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # CIFS, some of FUSE
            raise
    finally:
        os.close(descriptor)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint, whole or in parts; somebody else's files stay, and the folder with them."""
    for name in (_SUMS, _CONTENT, _ARRAYS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path / name)
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _write_arrays(file: BinaryIO, arrays: Iterable[tuple[str, np.ndarray]]) -> dict[str, Any]:
    import zipfile

    forms = {}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays:
            forms[name] = {"dtype": array.dtype.name, "shape": list(array.shape)}
            # NumPy's format has no name for bfloat16 and its like, whose kind is "V".
            stored = array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, stored, allow_pickle=False)
    return forms


def read_checkpoint(path: Path) -> Stored:
    """Read a checkpoint.

    Raises:
        Broken: If it isn't as it was written.
        StateError: If a later version of fitstream wrote it.
        OSError: If it may not be read.
    """
    import hashlib
    import zipfile

    try:
        text = (path / _CONTENT).read_bytes()
        lines = (path / _SUMS).read_text("ascii").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        _check_sum(_CONTENT, hashlib.blake2b(text).hexdigest(), sums)
        content = _parse(text)
        with (path / _ARRAYS).open("rb") as file:
            _check_sum(_ARRAYS, hashlib.file_digest(file, hashlib.blake2b).hexdigest(), sums)
        return Stored(path, content, _read_arrays(path / _ARRAYS, content["arrays"]))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Broken(f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise Broken("the disk can't read it any more") from error
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, EOFError, zipfile.BadZipFile) as error:
        raise Broken(f"it isn't of the form of a checkpoint ({error!r:.200})") from error


def _parse(text: bytes) -> dict[str, Any]:
    content = json.loads(text.decode("utf-8", "surrogatepass"))
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise Broken(f"{_CONTENT} isn't one of fitstream's")
    if isinstance(content["version"], int) and content["version"] > _VERSION:
        raise StateError(
            f"there is a checkpoint of version {content['version']}, and this fitstream reads up to {_VERSION}. Use a "
            "newer fitstream, or another folder."
        )
    return content


def _check_sum(name: str, digest: str, sums: dict[str, str]) -> None:
    if sums.get(name) != digest:
        raise Broken(f"{name} isn't what was written (its checksum differs)")


def _read_arrays(path: Path, forms: dict[str, Any]) -> dict[str, np.ndarray]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise Broken(f"{_ARRAYS} is compressed, which fitstream's never are")
        arrays = {}
        for name, form in forms.items():
            with archive.open(f"{name}.npy") as member:
                try:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                except MemoryError:
                    raise Broken(f"{name} declares more numbers than memory holds") from None
            arrays[name] = array.view(np.dtype(form["dtype"])) if array.dtype.name != form["dtype"] else array
            if list(array.shape) != form["shape"]:
                raise Broken(f"{name} has shape {array.shape} and not {form['shape']}")
        return arrays
