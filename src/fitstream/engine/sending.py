"""Functions and sources on their way to worker processes: code as pickle bytes, arrays as memory that all share.

A parcel is one block of shared memory, written once and mapped by every worker:

    sizes | places of the arrays, JSON | pickle bytes | array | array | ...

cloudpickle takes apart what the user wrote, so lambdas, closures, bound methods and what `__main__` defines travel by
value, and what modules define by name. Arrays never go through its stream (protocol 5, out of band):

- rows of a file that is mapped shared (`np.memmap`, whatever its mode but "c") go as path and offset, and the worker
  maps the file itself, read-only. Only where the file at that path is still the one that is mapped here: the kernel's
  list of mappings is asked, since a memmap's own `filename` and `offset` say nothing about a slice of it.
- an array in a block that workers can map already (`memory.block_of`) goes as that block's descriptor and an offset.
- any other array of 4 KiB or more is copied once, straight into the parcel. A worker maps it privately: what nobody
  writes to exists once for all processes, what a worker writes is its own.

Pickling comes first and only notes where arrays will lie; then the block is made and filled. So a failure to pickle has
nothing to free; `unsendable` finds what was at fault.
"""

from __future__ import annotations

import functools
import io
import json
import mmap
import os
import pickle
import struct
import sys
import types
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.engine.mapped_files import MappedFile, file_behind
from fitstream.engine.unsendable import explain
from fitstream.errors import FitstreamError, PlanError
from fitstream.memory import Block, block_of
from fitstream.spec import aligned, format_bytes

__all__ = ["Parcel", "Unsendable", "pack", "unpack"]

#: Smaller arrays stay in the pickle bytes, where they cost less than a place of their own.
_SMALL_BYTES = 4096
#: Bytes that are compared at a time.
_COMPARED_BYTES = 1 << 20
#: Bytes of the places, and of the pickle bytes that follow them.
_SIZES = struct.Struct("<QQ")


class Unsendable(Exception):
    """Something can't be sent to a worker process; the message names it and says what to do."""


@final
class Parcel:
    """What `pack` made: descriptors to send to any number of workers, one after another.

    Attributes:
        fds: Descriptors, the parcel's own block first, then blocks that arrays live in already. Empty after `close`.
        count_bytes: Shared memory that the parcel itself takes, until it is closed and no worker maps it.
    """

    __slots__ = ("_blocks", "count_bytes", "fds")

    def __init__(self, fd: int, count_bytes: int, blocks: Sequence[Block]) -> None:
        self.fds = [fd, *(block.fd for block in blocks)]
        self.count_bytes = count_bytes
        # Keeps their descriptors open, also when the arrays that they were made for are gone.
        self._blocks = tuple(blocks)

    def holds(self, head: Sequence[Any], start: int, arrays: _Arrays) -> bool:
        """Whether it is what `pack` would make of these: its first bytes, and arrays from `start` on."""
        if self.count_bytes != start + arrays.count_bytes or list(self._blocks) != arrays.blocks:
            return False
        block = Block(os.dup(self.fds[0]))
        try:
            first = b"".join(head)
            return block.bytes[: len(first)].tobytes() == first and arrays.lie_in(block.bytes[start:])
        finally:
            block.close()

    def close(self) -> None:
        """Close the parcel's own descriptor; the others belong to their blocks. Twice does no harm."""
        fds, self.fds, self._blocks = self.fds, [], ()
        if fds:
            os.close(fds[0])

    def __del__(self) -> None:
        self.close()


def pack(tree: dict[str, Any], most_bytes: int | None = None, before: Parcel | None = None) -> Parcel:
    """Put functions, sources and arrays into shared memory.

    Args:
        tree: Parts by the names that a message gives them: "source", "map(flip)". What several parts refer to is sent
            once and stays one object.
        most_bytes: What it may take.
        before: An earlier parcel, which is returned if it holds just the same.
    Raises:
        Unsendable: If a part, or something that it refers to, can't be pickled.
        PlanError: If it needs more than `most_bytes`, or more memory than is free.
    """
    arrays, body = _Arrays(), _Bounded(most_bytes)
    try:
        _picklers().plain(body, arrays).dump(tree)
    except (MemoryError, FitstreamError):
        raise
    except Exception as error:
        raise Unsendable(explain(tree, error, _picklers().trial)) from error
    places = json.dumps(arrays.places).encode()
    in_band = body.getbuffer()
    head = _SIZES.pack(len(places), len(in_band)) + places
    start = aligned(len(head) + len(in_band))
    _check_size(start + arrays.count_bytes, most_bytes)
    if before is not None and before.holds((head, in_band), start, arrays):
        return before
    block = Block.make(start + arrays.count_bytes, "What the worker processes work on")
    block.bytes[: len(head)] = np.frombuffer(head, np.uint8)
    block.bytes[len(head) : len(head) + len(in_band)] = np.frombuffer(in_band, np.uint8)
    arrays.copy_into(block.bytes[start:])
    # The mapping, and the descriptor that it holds, end with the block; the parcel needs neither.
    return Parcel(os.dup(block.fd), block.count_bytes, arrays.blocks)


@final
class _Bounded(io.BytesIO):
    """Pickle bytes up to a limit: what is too much is refused before minutes were spent on it."""

    def __init__(self, most_bytes: int | None) -> None:
        super().__init__()
        self._most_bytes = most_bytes

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        _check_size(self.tell(), self._most_bytes)
        return written


def _check_size(count_bytes: int, most_bytes: int | None) -> None:
    if most_bytes is not None and count_bytes > most_bytes:
        raise PlanError(
            f"the source and the functions take {format_bytes(count_bytes)} or more to be sent to worker processes, "
            f"and memory= allows {format_bytes(most_bytes)}. Use more memory=, files instead of objects in memory, or "
            "processes=0 for threads."
        )


def unpack(fds: Sequence[int]) -> Any:
    """Take out what `pack` was given; in the worker.

    Args:
        fds: The worker's own descriptors for `Parcel.fds`, in that order. They are closed, whatever happens.
    Returns:
        The same tree. Its arrays are views of the mapped parcel: writing to one copies the touched pages for this
        process alone. Rows of files, and what was read-only, can't be written to.
    Raises:
        SourceError: If a mapped file was replaced since.
        OSError: If it can't be opened.
    """
    left, blocks = list(fds), []
    try:
        while left:
            block = Block(left.pop(0), private=True)
            block.close()
            blocks.append(block.bytes)
    finally:
        for fd in left:
            os.close(fd)
    places_bytes, in_band_bytes = _SIZES.unpack_from(blocks[0].data)
    in_band = _SIZES.size + places_bytes
    places = json.loads(blocks[0][_SIZES.size : in_band].tobytes())
    blocks.insert(0, blocks[0][aligned(in_band + in_band_bytes) :])
    buffers = [blocks[number][first : first + count] for number, first, count in places]
    code = blocks[1][in_band : in_band + in_band_bytes]
    return pickle.loads(code.data, buffers=buffers)  # noqa: S301  made by the process that started this one


class _Place(NamedTuple):
    """Where an array's bytes lie: in the parcel's arrays (0), or in a block: the number of its descriptor, plus 1."""

    number: int
    first: int
    count_bytes: int


@final
class _Arrays:
    """The arrays of one parcel: where each will lie, decided while pickle runs, and copied afterwards."""

    def __init__(self) -> None:
        self.places: list[_Place] = []  # in the order in which pickle will ask for them
        self.blocks: list[Block] = []
        self.count_bytes = 0
        self._copies: list[tuple[_Place, npt.NDArray[Any]]] = []
        self._known: dict[tuple[Any, ...], _Place] = {}
        self._awaited: dict[int, tuple[pickle.PickleBuffer, _Place]] = {}
        self._files: dict[int, tuple[mmap.mmap, MappedFile | None]] = {}

    def reduce(self, array: npt.NDArray[Any]) -> Any:
        """How to make the array again in a worker, for `reducer_override`; NotImplemented leaves it to NumPy."""
        cls, dtype, shape = type(array), array.dtype, array.shape
        changed = cls.__reduce__ is not np.ndarray.__reduce__ or cls.__reduce_ex__ is not np.ndarray.__reduce_ex__
        if dtype.hasobject or changed or array.nbytes == 0:
            return NotImplemented
        address = array.__array_interface__["data"][0]
        file = self._file(array)
        if file is not None:
            return _view, (file, address - file.address, shape, array.strides, dtype, cls)
        if array.nbytes < _SMALL_BYTES:
            return NotImplemented
        if cls is np.memmap:
            cls = np.ndarray  # the copy maps no file
        lowest = address + sum((n - 1) * step for n, step in zip(shape, array.strides, strict=True) if step < 0)
        span = sum((n - 1) * abs(step) for n, step in zip(shape, array.strides, strict=True)) + dtype.itemsize
        found = block_of(array)
        if found is not None:
            block, first = found
            return self._reduced(self._in_block(block, first + lowest - address, span), address - lowest, array, cls)
        if span <= array.nbytes:  # contiguous in any order of the axes, reversed, or broadcast: as it lies
            place = self._in_parcel((lowest, span), _memory(array, lowest, span))
            return self._reduced(place, address - lowest, array, cls)
        place = self._in_parcel((address, shape, array.strides, dtype.itemsize), array)
        return self._reduced(place, 0, array, cls, None)

    def _reduced(
        self, place: _Place, first: int, array: npt.NDArray[Any], cls: type, strides: Any = NotImplemented
    ) -> Any:
        # Pickle hands this empty stand-in to `beside`, in whose place a worker gets the bytes.
        stand_in = pickle.PickleBuffer(bytearray() if array.flags.writeable else b"")
        self._awaited[id(stand_in)] = stand_in, place
        strides = array.strides if strides is NotImplemented else strides
        return _view, (stand_in, first, array.shape, strides, array.dtype, cls)

    def beside(self, buffer: pickle.PickleBuffer) -> bool:
        """Pickle's `buffer_callback`: true keeps a buffer in the pickle bytes."""
        _, place = self._awaited.pop(id(buffer), (None, None))
        if place is None:  # of NumPy itself, for a small array, or of another library
            raw = buffer.raw()
            if raw.nbytes < _SMALL_BYTES:
                return True
            memory = np.frombuffer(raw, np.uint8)
            place = self._in_parcel((memory.__array_interface__["data"][0], raw.nbytes), memory)
        self.places.append(place)
        return False

    def _in_parcel(self, key: tuple[Any, ...], array: npt.NDArray[Any]) -> _Place:
        place = self._known.get(key)
        if place is None:
            place = self._known[key] = _Place(0, self.count_bytes, array.nbytes)
            self._copies.append((place, array))
            self.count_bytes += aligned(array.nbytes)
        return place

    def _in_block(self, block: Block, first: int, count_bytes: int) -> _Place:
        if block not in self.blocks:
            self.blocks.append(block)
        return _Place(self.blocks.index(block) + 2, first, count_bytes)

    def _file(self, array: npt.NDArray[Any]) -> MappedFile | None:
        owner: Any = array
        while owner is not None and not isinstance(owner, mmap.mmap):
            owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
        if owner is None:
            return None
        if id(owner) not in self._files:
            self._files[id(owner)] = owner, file_behind(owner)
        return self._files[id(owner)][1]

    def copy_into(self, area: npt.NDArray[np.uint8]) -> None:
        """Write every array to its place; uint8 `(count_bytes,)`."""
        for place, array in self._copies:
            np.ndarray(array.shape, array.dtype, area, place.first)[...] = array

    def lie_in(self, area: npt.NDArray[np.uint8]) -> bool:
        """Whether every array is at its place already, bit for bit."""
        for place, array in self._copies:
            now = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            for first in range(0, now.size, _COMPARED_BYTES):
                there = area[place.first + first : place.first + first + len(now[first : first + _COMPARED_BYTES])]
                if not np.array_equal(now[first : first + _COMPARED_BYTES], there):
                    return False
        return True


def _reduce_tensor(tensor: Any) -> Any:
    """A plain tensor in memory as its NumPy array, which is shared; NotImplemented leaves it to PyTorch."""
    try:
        array = tensor.numpy()
    except (TypeError, RuntimeError):  # on a device, sparse, with a gradient, or of a dtype that NumPy hasn't
        return NotImplemented
    return sys.modules["torch"].from_numpy, (array,)


def _memory(array: npt.NDArray[Any], lowest: int, span: int) -> npt.NDArray[np.uint8]:
    """The bytes that an array spans, uint8 `(span,)`, of any dtype: not all of them export a buffer."""
    interface = {"version": 3, "data": (lowest, True), "shape": (span,), "typestr": "|u1"}
    return np.asarray(types.SimpleNamespace(__array_interface__=interface, array=array))


def _view(memory: Any, first: int, shape: Any, strides: Any, dtype: np.dtype[Any], cls: type[Any]) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.ndarray(shape, dtype, memory, first, strides)
    if cls is np.ndarray:
        return array
    array = array.view(cls)
    if isinstance(array, np.memmap):
        array.__array_finalize__(memory)  # file name, offset and mode, as any slice of a memmap gets them
    return array


class _Picklers(NamedTuple):
    plain: Any
    trial: Any


@functools.cache
def _picklers() -> _Picklers:
    """The pickler, and one for trials, which writes nothing and leaves out what it is told to."""
    import cloudpickle

    class Plain(cloudpickle.Pickler):
        def __init__(self, file: Any, arrays: _Arrays) -> None:
            super().__init__(file, protocol=5, buffer_callback=arrays.beside)
            self._arrays = arrays

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, np.ndarray):
                return self._arrays.reduce(obj)
            if type(obj).__module__ == "torch" and type(obj).__name__ == "Tensor":
                return _reduce_tensor(obj)
            return super().reducer_override(obj)

    @final
    class Trial(Plain):
        def __init__(self, passed: dict[int, Any]) -> None:
            super().__init__(types.SimpleNamespace(write=len), _Arrays())
            self._passed = passed

        def persistent_id(self, obj: Any) -> Any:
            return 0 if id(obj) in self._passed else None

    return _Picklers(Plain, Trial)
