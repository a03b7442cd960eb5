"""Arrays that are kept in the user's cache folder: what was found by reading a long file once.

One file a purpose and path; it says which file, size and time it was made from, and anything else makes it worthless:

    magic | array | array | ... | JSON: what it was made from, and name, dtype, length, place and checksum of each array
          | length of the JSON | checksum of the JSON

Nothing in it is trusted: what isn't exactly as it was written is as good as missing, and is made anew. It is numbers
and JSON, and never unpickled. Arrays are written piece by piece, so that they are never in memory as a whole, and a
file has a name only once it is whole: a program that is killed leaves nothing.

What wasn't read for half a year is removed when something new is kept.

The folder is `FITSTREAM_CACHE`, or the one that the system has for this, and never the one that the data lies in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, final

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "cache_folder", "file_identity", "keep", "kept"]

_MAGIC = b"fitstream kept 1".ljust(64, b"\n")
_TAIL = struct.Struct("<QQ")
_MOST_JSON_BYTES = 1 << 24
_READ_BYTES = 1 << 20
#: Half a year.
_UNUSED_S = 180 * 86_400
_SUFFIX = ".kept"


@final
class Column(NamedTuple):
    """An array to be written.

    Attributes:
        name: What it is found by.
        dtype: Of all pieces.
        pieces: Arrays with that dtype and any shapes, whose numbers follow each other.
        is_checked: Whether it is read as a whole and compared with its checksum before it is used.
    """

    name: str
    dtype: npt.DTypeLike
    pieces: Iterable[npt.NDArray[Any]]
    is_checked: bool = True


def cache_folder() -> str:
    """The user's folder for what can be made anew."""
    named = os.environ.get("FITSTREAM_CACHE")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "fitstream")


def file_identity(path: str) -> dict[str, Any]:
    """What tells one content of a file from another: path, bytes, time.

    Raises:
        OSError: If there is no such file.
    """
    state = os.stat(path)
    return {"path": os.path.realpath(path), "bytes": state.st_size, "time_ns": state.st_mtime_ns}


def _place(purpose: str, origin: Mapping[str, Any]) -> str:
    """The file for a purpose: a new content of the same data file takes the old one's place."""
    names = [purpose, *([each["path"] for each in origin["files"]]), origin["options"]]
    key = hashlib.blake2b(json.dumps(names).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return os.path.join(cache_folder(), f"{purpose}-{key}{_SUFFIX}")


def kept(purpose: str, origin: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]] | None:
    """Find what was kept.

    Args:
        purpose: What it is, such as "lines".
        origin: "files": the identities of the files that it was made from; "options": what else it depends on, as JSON.
    Returns:
        The arrays, each with one axis, mapped from the file; None if there is none, or it isn't as it was written.
    """
    try:
        with open(_place(purpose, origin), "rb") as file:
            return _read(file, origin)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        # A damaged file is as good as none: whatever can be wrong with it, it is made anew.
        return None


def _read(file: BinaryIO, origin: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]] | None:
    if file.read(len(_MAGIC)) != _MAGIC:
        return None
    end = file.seek(-_TAIL.size, os.SEEK_END)
    length, checksum = _TAIL.unpack(file.read(_TAIL.size))
    if not 0 < length <= min(_MOST_JSON_BYTES, end - len(_MAGIC)):
        return None
    file.seek(end - length)
    told = file.read(length)
    if zlib.crc32(told) != checksum:
        return None
    content = json.loads(told)
    if content["origin"] != json.loads(json.dumps(origin)):
        return None
    for name, (_, _, start, count_bytes, found) in content["arrays"].items():
        if not len(_MAGIC) <= start <= start + count_bytes <= end - length:
            return None
        if found is not None and _checksum(file, start, count_bytes) != found:
            raise ValueError(f"{name} is damaged")
    whole = np.memmap(file, np.uint8, "r")
    return {
        name: np.asarray(whole[start : start + count_bytes].view(np.dtype(dtype)))[:count]
        for name, (dtype, count, start, count_bytes, _) in content["arrays"].items()
    }


def _checksum(file: BinaryIO, start: int, count_bytes: int) -> int:
    file.seek(start)
    found = 0
    while count_bytes:
        block = file.read(min(_READ_BYTES, count_bytes))
        if not block:
            break
        found = zlib.crc32(block, found)
        count_bytes -= len(block)
    return found


def keep(purpose: str, origin: Mapping[str, Any], columns: Iterable[Column]) -> None:
    """Write arrays, in the place of what was kept before for the same files.

    Args:
        purpose: As in `kept`.
        origin: As in `kept`.
        columns: Taken one after another, each piece by piece.
    Raises:
        OSError: If the folder can't be written to, or is full. What was there stays.
    """
    place = _place(purpose, origin)
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
    _remove_unused(os.path.dirname(place))
    with _new_file(place) as file:
        file.write(_MAGIC)
        arrays: dict[str, Any] = {}
        for column in columns:
            start, checksum, count = file.tell(), 0, 0
            for piece in column.pieces:
                data = np.ascontiguousarray(piece, column.dtype).reshape(-1).view(np.uint8).data
                file.write(data)
                checksum = zlib.crc32(data, checksum) if column.is_checked else 0
                count += piece.size
            dtype = np.dtype(column.dtype)
            found = checksum if column.is_checked else None
            arrays[column.name] = dtype.str, count, start, count * dtype.itemsize, found
            file.write(bytes(-file.tell() % 64))
        told = json.dumps({"origin": origin, "arrays": arrays}).encode()
        file.write(told + _TAIL.pack(len(told), zlib.crc32(told)))


def _remove_unused(folder: str) -> None:
    """Remove what nobody has read for long, since its data may be gone, or elsewhere."""
    for name in os.listdir(folder):
        file = os.path.join(folder, name)
        with contextlib.suppress(OSError):  # another program may do the same
            state = os.stat(file)
            if name.endswith(_SUFFIX) and time.time() - max(state.st_atime, state.st_mtime) > _UNUSED_S:
                os.unlink(file)


@contextlib.contextmanager
def _new_file(place: str) -> Iterator[BinaryIO]:
    """A file that takes its place when all of it is written, and leaves nothing if that never happens."""
    folder = os.path.dirname(place)
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):  # not Linux, or a file system without nameless files
        with _named_file(place) as file:
            yield file
        return
    with open(descriptor, "wb") as file:
        yield file
        file.flush()
        # A name is given by a link, which replaces nothing, and moved from there. It is no other thread's or program's,
        # also where several have one process number, as in containers; and it is swept up as any other.
        name = f"{place.removesuffix(_SUFFIX)}.{os.urandom(8).hex()}{_SUFFIX}"
        there = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.link(str(descriptor), name, src_dir_fd=there, follow_symlinks=True)
            os.replace(name, place)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        finally:
            os.close(there)


@contextlib.contextmanager
def _named_file(place: str) -> Iterator[BinaryIO]:
    descriptor, name = tempfile.mkstemp(".part", f"{os.path.basename(place)}.", os.path.dirname(place))
    try:
        with open(descriptor, "wb") as file:
            yield file
        os.replace(name, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
