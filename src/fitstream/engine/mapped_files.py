"""Files behind mappings, so that a worker maps the file itself instead of being sent its rows."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError

__all__ = ["MappedFile", "file_behind"]


@final
@dataclass(frozen=True)
class MappedFile:
    """A mapping of a file; in the worker it becomes the worker's own."""

    address: int
    path: str
    identity: tuple[int, int]
    offset: int
    count_bytes: int

    def __reduce__(self) -> Any:
        return _open_file, (self.path, self.identity, self.offset, self.count_bytes)


def _open_file(path: str, identity: tuple[int, int], offset: int, count_bytes: int) -> npt.NDArray[np.uint8]:
    with open(path, "rb") as file:
        state = os.fstat(file.fileno())
        if (state.st_dev, state.st_ino) != identity:
            raise SourceError(
                "was replaced by another file while its rows were in use. Make the dataset anew.", file=path
            )
        if state.st_size < offset + count_bytes:
            raise SourceError(
                f"was cut to {state.st_size:,} bytes while its rows, up to byte {offset + count_bytes:,}, were in use. "
                "Make the dataset anew.",
                file=path,
            )
        return np.memmap(file, np.uint8, "r", offset, (count_bytes,))


class _Mapped(NamedTuple):
    shared: bool
    identity: tuple[bytes, bytes]
    path: str
    offset: int


def file_behind(mapping: mmap.mmap) -> MappedFile | None:
    """The file that a mapping shows, if it is shared and its path still leads to that file."""
    try:
        address = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
        mapped = _mapped_at(address, len(mapping))
        if mapped is None or not mapped.shared:
            return None
        with open(mapped.path, "rb") as file:
            # Compared in one list: overlay and btrfs show other devices there than `stat` does.
            probe = mmap.mmap(file.fileno(), 1, mmap.MAP_SHARED, mmap.PROT_READ)
            now = _mapped_at(np.frombuffer(probe, np.uint8).__array_interface__["data"][0], 1)
            state = os.fstat(file.fileno())
    except (OSError, ValueError):
        return None
    if now is None or now.identity != mapped.identity:
        return None
    return MappedFile(address, mapped.path, (state.st_dev, state.st_ino), mapped.offset, len(mapping))


def _mapped_at(address: int, count_bytes: int) -> _Mapped | None:
    """What is mapped there, if it is one file in one piece, which the kernel may list in several lines."""
    found: set[_Mapped] = set()
    covered = 0
    with open("/proc/self/maps", "rb") as lines:
        for line in lines:
            span, mode, offset, device, inode, *path = line.rstrip(b"\n").split(None, 5)
            first, end = (int(each, 16) for each in span.split(b"-"))
            overlap = min(end, address + count_bytes) - max(first, address)
            if overlap > 0 and path:
                covered += overlap
                name = os.fsdecode(path[0].replace(b"\\012", b"\n"))
                found.add(_Mapped(mode[3:4] == b"s", (device, inode), name, int(offset, 16) + address - first))
    return found.pop() if len(found) == 1 and covered == count_bytes else None
