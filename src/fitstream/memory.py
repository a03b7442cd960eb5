"""Memory that worker processes can see: anonymous, owned by descriptors and by no name, so nothing can be left over.

A `Block` is one `memfd`. It is reserved in full when it is made (a write into memory that the system can't give would
end the process by SIGBUS), and its size is sealed. What is free is looked up before: nothing else limits a memfd, and
asking for too much would wake the out-of-memory killer. The memory lives until the last descriptor is closed and the
last mapping is gone; a view of a mapping keeps it, and it alone.

Arrays that `shared_copy` put into a block are recognised later by `block_of`, so that a source's index reaches the
workers as a descriptor and is never copied again.

Where there is no memfd (macOS, Windows) `HAS_SHARED_MEMORY` is False, blocks can't be made, and `shared_copy` gives
arrays of the process's own.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.machine import available_memory_bytes
from fitstream.spec import format_bytes

__all__ = ["HAS_SHARED_MEMORY", "Block", "block_of", "is_mapped", "shared_copy"]

HAS_SHARED_MEMORY = hasattr(os, "memfd_create") and hasattr(mmap, "MAP_POPULATE")
#: Below this a block would cost more, in pages and descriptors, than it saves.
_WORTH_BYTES = 1 << 16


@final
class Block:
    """Shared memory behind one descriptor.

    Attributes:
        fd: The descriptor; -1 after `close`.
        count_bytes: Its size.
        mapping: This process's view. It stays valid after `close`.
        bytes: The same as an array, uint8 `(count_bytes,)`.
    """

    __slots__ = ("bytes", "count_bytes", "fd", "mapping")

    def __init__(self, fd: int, *, private: bool = False) -> None:
        self.fd = fd
        self.count_bytes = os.fstat(fd).st_size
        flags = (mmap.MAP_PRIVATE if private else mmap.MAP_SHARED) | (0 if private else mmap.MAP_POPULATE)
        self.mapping = mmap.mmap(fd, self.count_bytes, flags=flags)
        self.bytes = np.frombuffer(self.mapping, np.uint8)

    @staticmethod
    def make(count_bytes: int, purpose: str) -> Block:
        """Reserve memory, zeroed.

        Args:
            count_bytes: At least 1.
            purpose: What for, for the error.
        Raises:
            PlanError: If the machine, or its cgroup, has not that much free, or a limit of the process forbids it.
        """
        free = available_memory_bytes()
        if count_bytes > free:
            raise PlanError(
                f"{purpose} needs {format_bytes(count_bytes)} of shared memory, but only {format_bytes(free)} "
                "are free. Use a smaller memory=, or close other programs."
            )
        import fcntl  # not there on Windows

        fd = os.memfd_create("fitstream", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, count_bytes)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return Block(fd)
        except OSError as error:
            os.close(fd)
            limit = " (a limit on file sizes, see `ulimit -f`, counts for it)" if error.errno == errno.EFBIG else ""
            raise PlanError(
                f"{purpose} needs {format_bytes(count_bytes)} of shared memory, which the system refuses: "
                f"{error.strerror}{limit}. Use a smaller memory=, or processes=0 for threads."
            ) from error

    def close(self) -> None:
        """Close the descriptor. The memory lives on where it is mapped, here too as long as `bytes` is."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


#: The blocks of `shared_copy` by the identity of their root array, which lives exactly as long as any view of it.
_SHARED: dict[int, tuple[weakref.ref[npt.NDArray[np.uint8]], Block]] = {}


def shared_copy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers, read-only, in memory that workers can map; small arrays, and all without memfd, as they are."""
    if array.nbytes < _WORTH_BYTES or not HAS_SHARED_MEMORY:
        return array
    try:
        block = Block.make(array.nbytes, "The dataset's index")
    except PlanError:
        return array  # workers will be sent a copy
    copy = block.bytes.view(array.dtype).reshape(array.shape)
    copy[...] = array
    root = np.frombuffer(memoryview(block.bytes.data), np.uint8)
    key = id(root)
    _SHARED[key] = weakref.ref(root, lambda _: _forget(key)), block
    shared = root.view(array.dtype).reshape(array.shape)
    shared.flags.writeable = False
    return shared


def _forget(key: int) -> None:
    _SHARED.pop(key, None)


def is_mapped(array: npt.NDArray[Any]) -> bool:
    """Whether an array lies in a mapping, as of a file, and not in memory of the process's own."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def block_of(array: npt.NDArray[Any]) -> tuple[Block, int] | None:
    """The block that `shared_copy` put an array into, and the array's first byte there; None for other arrays."""
    root: npt.NDArray[Any] = array
    while isinstance(base := root.base, np.ndarray):
        root = base
    found = _SHARED.get(id(root))
    if found is None or found[0]() is not root:
        return None
    start: int = root.__array_interface__["data"][0]
    return found[1], array.__array_interface__["data"][0] - start
