"""Arrays that stay on disk: what h5py and zarr read, and memory-mapped files.

An `h5py.Dataset` or `zarr.Array` is known by the module of its class; nothing is imported to recognise it. Its rows are
fetched a chunk of a batch at a time, in one call: sorted, each once, so that a block of the file that several of them
share is read and unpacked once. The rows of a run are read straight into their place. Still, shuffled rows out of
compressed blocks are slow by nature: each row costs the unpacking of a whole block.

The main process reads through the user's own object, and only here is its life the user's concern. What goes to a
worker is the place: the file and the name in it for HDF5, whose objects can't be sent; the object itself for zarr,
which holds no data. A worker opens the file read-only, each lane for itself.

HDF5 takes one thread at a time, so that lanes of one process read in turn.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from typing import Any, final

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import byte_bounds

from fitstream.errors import SourceError
from fitstream.sampling import Indices

__all__ = ["ReadAhead", "StoredArray", "StoredRows"]

#: Labels that are read whole when all are asked for.
_SMALL_BYTES = 1 << 24
#: Rows that stand for all in a fingerprint.
_FEW_ROWS = 16
#: Ways of h5py to reach a file by its name. The others hold it in memory, or read it through a Python object.
_FILE_DRIVERS = {"sec2", "stdio", "windows", "mpio"}


@final
class StoredArray:
    """An array in a file that h5py or zarr reads.

    Attributes:
        shape: Lengths of the axes.
        dtype: As stored.
    """

    def __init__(self, array: Any, kind: str) -> None:
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = array.dtype
        self._kind = kind
        self._array = array
        self._place: tuple[str, str] | None = None

    @staticmethod
    def of(leaf: Any, where: str) -> StoredArray | None:
        """Take an `h5py.Dataset` or `zarr.Array`; None for anything else.

        Args:
            where: What it is called in errors.
        Raises:
            SourceError: If it is closed, or has no shape.
        """
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(leaf).__mro__}
        if "h5py.Dataset" in kinds:
            if not leaf:
                raise SourceError(f"{where} is a dataset of an HDF5 file that is closed. Keep the file open.")
            if leaf.shape is None:
                raise SourceError(f"{where} is an HDF5 dataset without data (its dataspace is null).")
            return StoredArray(leaf, "h5py")
        return StoredArray(leaf, "zarr") if "zarr.Array" in kinds else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._kind == "h5py" and self._array is not None:
            state |= {"_array": None, "_place": _place(self._array)}
        elif self._kind == "zarr" and "memory" in type(self._array.store).__name__.lower():
            raise SourceError(
                "a zarr array in memory can't be read by worker processes. Load it with [...], which gives a NumPy "
                "array that they share, or use processes=0."
            )
        return state

    def open(self) -> StoredRows:
        """Open for one lane.

        Raises:
            SourceError: If the file can't be opened again, or isn't what it was.
        """
        if self._place is None:
            return StoredRows(self._array, self._kind, None)
        path, name = self._place
        import h5py

        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise SourceError(f"the HDF5 file can't be opened for reading: {error}", file=path) from error
        found = file.get(name)
        if found is None or (found.shape, found.dtype) != (self.shape, self.dtype):
            file.close()
            now = "is gone" if found is None else f"is now {found.dtype}{list(found.shape)}"
            raise SourceError(
                f"the dataset {name!r} was {self.dtype}{list(self.shape)} when it was given, and {now}. "
                "Leave the file as it is while it is read.",
                file=path,
            )
        return StoredRows(found, self._kind, file)

    def some_rows(self) -> tuple[str, tuple[int, ...], list[npt.NDArray[Any]]]:
        """Dtype, shape, and some rows that stand for all: each may cost the unpacking of a whole block."""
        rows = self.open()
        try:
            places = np.linspace(0, len(self) - 1, min(len(self), _FEW_ROWS)).astype(int)
            return self.dtype.str, self.shape, [rows.row(int(place)) for place in places]
        finally:
            rows.close()

    def small_numbers(self) -> npt.NDArray[Any] | None:
        """All of it, if it has one axis and at most 16 MiB; else None."""
        if len(self.shape) != 1 or self.shape[0] * self.dtype.itemsize > _SMALL_BYTES:
            return None
        rows = self.open()
        try:
            return np.asarray(rows.all())
        finally:
            rows.close()


def _place(dataset: Any) -> tuple[str, str]:
    """File and name of a dataset, if another process can read it there."""
    file = dataset.file
    path, name = os.path.abspath(os.fsdecode(file.filename)), dataset.name
    if file.driver not in _FILE_DRIVERS:
        raise SourceError(
            f"it is held by h5py's {file.driver!r} driver, which worker processes can't reach. Open the file itself, "
            "or use processes=0.",
            file=path,
        )
    if file.mode != "r":
        raise SourceError(
            f'the HDF5 file is open for writing (mode "{file.mode}"), and HDF5 may lock other processes out, or let '
            f'them read half of a change. Open it with h5py.File({os.path.basename(path)!r}, "r"), or use processes=0.',
            file=path,
        )
    if name is None:
        raise SourceError("the dataset has no name, by which worker processes could find it.", file=path)
    return path, name


@final
class StoredRows:
    """A stored array opened by one lane.

    Attributes:
        row_shape: Lengths of the axes of a row.
        dtype: Of what `row` gives: as stored, in this machine's byte order.
    """

    def __init__(self, array: Any, kind: str, file: Any) -> None:
        self._array = array
        self._is_hdf5 = kind == "h5py"
        self._file = file
        self.row_shape: tuple[int, ...] = tuple(array.shape[1:])
        self.dtype: np.dtype[Any] = array.dtype.newbyteorder("=")

    def row(self, index: int) -> npt.NDArray[Any]:
        """One row, in memory of its own."""
        try:
            return np.array(self._array[index], dtype=self.dtype)
        except Exception as error:
            raise self._explained(error) from error

    def all(self) -> npt.NDArray[Any]:
        """All rows."""
        return np.asarray(self._array[...], self.dtype)

    def gather(self, indices: Indices, run: bool, rows: npt.NDArray[Any]) -> None:
        """Fetch rows in one call.

        Args:
            indices: `(rows,)`, in any order, also more than once.
            run: Whether each is one more than the one before.
            rows: Where they go, `(rows, ...)`, C-contiguous.
        """
        array = self._array
        try:
            if run:
                span = slice(int(indices[0]), int(indices[0]) + len(indices))
                if self._is_hdf5:
                    array.read_direct(rows, span)
                else:
                    rows[...] = array[span]
                return
            # h5py takes rows in rising order only, and reads them twice as fast into an array of its own.
            rising, places = np.unique(indices, return_inverse=True)
            found = array[rising] if self._is_hdf5 else array.oindex[rising]
        except Exception as error:
            raise self._explained(error) from error
        if found.dtype == rows.dtype:
            np.take(found, places, axis=0, out=rows, mode="clip")
        else:
            rows[...] = found[places]

    def _explained(self, error: Exception) -> Exception:
        if self._is_hdf5 and not self._array:
            return SourceError("its HDF5 file was closed. Keep it open until the loader is closed.")
        return error

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._file is not None:
            self._file.close()


@final
class ReadAhead:
    """Asks the system for the pages of mapped rows before they are touched, while touching them proves slow.

    A touched row that isn't in memory is read from disk alone, and the lane waits; rows asked for are read at the same
    time. But asking for a row costs more than copying a small one that is in memory. So a gather that was slow and had
    page faults starts it, for the gathers that follow; then one without is tried again. One lane's alone.
    """

    #: Gathers that ask, before one doesn't.
    LASTING = 64
    #: What a row may take, beside copying it at 1 GB/s, that is in memory.
    PATIENCE_S = 10e-6

    def __init__(self, mapping: mmap.mmap, first: int, row_bytes: int) -> None:
        self._mapping = mapping
        self._first = first
        self._row_bytes = row_bytes
        self._slow_s = self.PATIENCE_S + row_bytes / 1e9
        self._faults = 0
        self.left = 0

    @staticmethod
    def of(array: npt.NDArray[Any]) -> ReadAhead | None:
        """For a C-contiguous array that is mapped from a file; None for others, and where the system can't."""
        mapping: Any = array
        while isinstance(mapping, np.ndarray):
            mapping = mapping.base
        if sys.platform != "linux" or not isinstance(mapping, mmap.mmap):
            return None
        first = byte_bounds(array)[0] - byte_bounds(np.frombuffer(mapping, np.uint8))[0]
        return ReadAhead(mapping, first, array.nbytes // len(array))

    def take(self, array: npt.NDArray[Any], indices: Indices, rows: npt.NDArray[Any]) -> None:
        """Copy rows of the array."""
        if self.left:
            self.left -= 1
            for index in indices.tolist():
                start = self._first + index * self._row_bytes
                page = start - start % mmap.PAGESIZE
                self._mapping.madvise(mmap.MADV_WILLNEED, page, start + self._row_bytes - page)
            np.take(array, indices, axis=0, out=rows, mode="clip")
            return
        begun = time.perf_counter()
        np.take(array, indices, axis=0, out=rows, mode="clip")
        if time.perf_counter() - begun > self._slow_s * len(indices):
            import resource  # not there on Windows

            # A lane that only waited for its turn had no faults.
            faults = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
            if faults - self._faults >= len(indices) / 8:
                self.left = self.LASTING
            self._faults = faults
