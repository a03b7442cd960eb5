"""Arrays that stay on disk: what h5py and zarr read, and memory-mapped files.

An `h5py.Dataset` or `zarr.Array` is known by the module of its class; nothing is imported to recognise it. Its rows are
fetched a chunk of a batch at a time, in one call: sorted, each once, so that a block of the file that several of them
share is read and unpacked once. The rows of a run are read straight into their place. Still, shuffled rows out of
compressed blocks are slow by nature: each row costs the unpacking of a whole block.

The main process reads through the user's own object, and only here is its life the user's concern. What goes to a
worker is the place: the file and the name in it for HDF5, whose objects can't be sent; the object itself for zarr,
which holds no data. A worker opens the file read-only, each lane for itself. What `from_hdf5` names is a place from the
start: every lane opens it, and looks again at what it found (`hdf5`).

HDF5 takes one thread at a time, so that lanes of one process read in turn.
"""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import FitstreamError, PlanError, SourceError
from fitstream.sampling import Indices
from fitstream.sources import hdf5, zarr
from fitstream.sources.blocks import KeptBlocks, by_block
from fitstream.spec import Structure

__all__ = ["Axes", "StoredArray", "StoredRows", "open_datasets"]

Axes: TypeAlias = Literal["stored", "matlab"]

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
        block_bytes: Memory that a lane takes to read one row, beside the row.
        block_rows: Rows that are stored together; 0 where each stands alone.
    """

    def __init__(self, array: Any, kind: str, axes: Axes = "stored") -> None:
        shape = tuple(array.shape)
        self.shape: tuple[int, ...] = shape[::-1] if axes == "matlab" else shape
        self.dtype: np.dtype[Any] = array.dtype
        self._kind = kind
        self._axes = axes
        self._array = array
        self._place: tuple[str, str] | None = None
        # A place that was named and not opened: every lane opens it, and not by a chain of links to somewhere else.
        self._named = self._allow_outside = self._with_plugins = False
        chunks = getattr(array, "shards", None) or getattr(array, "chunks", None)
        self.block_rows = 0 if not chunks else int(chunks[-1] if axes == "matlab" else chunks[0])
        # zarr reads the blocks of a shard one by one, but a shard as a whole where it is kept.
        self.block_bytes = hdf5.block_bytes(array) if kind == "h5py" else zarr.reading_bytes(array, *array.chunks[:1])
        self._kept_blocks = 0

    def keeping(self, stretch_count: int, stretch_rows: int) -> StoredArray:
        """The same array, if it has blocks with those kept in each lane that hold so many stretches of rows."""
        kept = copy.copy(self)
        if self.block_rows:
            # Stretches are blocks of an array whose blocks may have other lengths: some lie across one more of ours.
            across = stretch_rows % self.block_rows and self.block_rows % stretch_rows
            each = -(-stretch_rows // self.block_rows) + (across > 0)
            block_count = min(stretch_count * each, -(-self.shape[0] // self.block_rows))
            row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
            kept._kept_blocks = block_count
            reading_bytes = (
                self.block_bytes if self._kind == "h5py" else zarr.reading_bytes(self._array, self.block_rows)
            )
            kept.block_bytes = reading_bytes + block_count * min(self.block_rows, self.shape[0]) * row_bytes
        return kept

    @staticmethod
    def of(leaf: Any, where: str) -> StoredArray | None:
        """Take an `h5py.Dataset` or `zarr.Array`; None for anything else.

        Args:
            where: What it is called in errors.
        Raises:
            SourceError: If it is closed, or has no shape.
        """
        if isinstance(leaf, StoredArray):
            return leaf
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(leaf).__mro__}
        if "h5py.Dataset" in kinds:
            if not leaf:
                raise SourceError(f"{where} is a dataset of an HDF5 file that is closed. Keep the file open.")
            with hdf5.hdf5_errors(os.fsdecode(leaf.file.filename)):
                hdf5.check_storage(leaf, where)
                hdf5.check_numbers(leaf, where)
                return StoredArray(leaf, "h5py")
        if "zarr.Array" not in kinds:
            return None
        zarr.check_codecs(leaf, where)
        return StoredArray(leaf, "zarr")

    @staticmethod
    def named(file: Any, name: str, axes: Axes, *, allow_outside: bool) -> StoredArray:
        """Describe a dataset of an HDF5 file, which may be closed then.

        Args:
            file: An open `h5py.File`.
            axes: "stored", or "matlab" for the reverse.
            allow_outside: Take what links, storage and virtual datasets of the file bring from elsewhere.
        Raises:
            SourceError: If there is no such dataset, or it can't be read safely.
        """
        path, where = os.path.abspath(os.fsdecode(file.filename)), f"the dataset {name!r}"
        found = hdf5.find_dataset(file, name, allow_outside=allow_outside)
        if found is None:
            raise SourceError(f"there is no dataset {name!r}. {hdf5.told_names(file)}.", file=path)
        if not allow_outside:
            hdf5.check_storage(found, where)
        hdf5.check_numbers(found, where)
        hdf5.check_filters(found, where)
        made = StoredArray(found, "h5py", axes)
        made._array, made._place = None, (path, name)
        made._named, made._allow_outside = True, allow_outside
        return made

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def place(self) -> tuple[str | None, str | None]:
        """The file or folder that it lies in and its name there, as far as they are known."""
        return self._place or _told_place(self._array, self._kind)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_with_plugins": "hdf5plugin" in sys.modules}
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
            return self._kept(StoredRows(self._array, self._kind, None))
        path, name = self._place
        if self._with_plugins and "hdf5plugin" not in sys.modules:
            import hdf5plugin  # noqa: F401  registers filters, as the user's own import of it did
        file = hdf5.open_hdf5(path)
        try:
            with hdf5.hdf5_errors(path):
                return self._kept(StoredRows(self._found(file, path, name), self._kind, file, self._axes))
        except BaseException:
            file.close()
            raise

    def _kept(self, rows: StoredRows) -> StoredRows:
        if self._kept_blocks:
            rows.keep(self._kept_blocks, self.block_rows)
        return rows

    def _found(self, file: Any, path: str, name: str) -> Any:
        """The dataset in the file as it is now, with the same looks at it as the first time."""
        found = hdf5.find_dataset(file, name, allow_outside=self._allow_outside)
        shape = self.shape[::-1] if self._axes == "matlab" else self.shape
        if found is None or (found.shape, found.dtype) != (shape, self.dtype):
            now = "is gone" if found is None else f"is now {found.dtype}{list(found.shape or ())}"
            raise SourceError(
                f"the dataset {name!r} was {self.dtype}{list(shape)} when it was given, and {now}. "
                "Leave the file as it is while it is read.",
                file=path,
            )
        if not self._allow_outside:
            hdf5.check_storage(found, f"the dataset {name!r}")
        if self._named:
            hdf5.check_filters(found, f"the dataset {name!r}")
        return found

    def some_rows(self) -> tuple[str, tuple[int, ...], list[npt.NDArray[Any]]]:
        """Dtype, shape, and some rows that stand for all: each may cost the unpacking of a whole block."""
        rows = self.open()
        try:
            places = np.linspace(0, len(self) - 1, min(len(self), _FEW_ROWS)).astype(int)
            return self.dtype.str, self.shape, [rows.row(int(place)) for place in places]
        finally:
            rows.close()

    def small_numbers(self) -> npt.NDArray[Any] | None:
        """All of it, if it has one axis or two and at most 16 MiB; else None."""
        if len(self.shape) > 2 or math.prod(self.shape) * self.dtype.itemsize > _SMALL_BYTES:
            return None
        if self.block_bytes > 4 * _SMALL_BYTES:
            return None
        rows = self.open()
        try:
            return np.asarray(rows.all())
        finally:
            rows.close()


def open_datasets(path: str, names: Sequence[Any], axes: Axes | Sequence[Axes], *, allow_outside: bool) -> Any:
    """Describe datasets of an HDF5 file, which is closed again.

    Args:
        names: One name, several for a tuple, or one tree of names.
        axes: As in `StoredArray.named`, like `allow_outside`; one for all, or one for each name.
    Returns:
        A tree of `StoredArray` in the place of the names.
    Raises:
        PlanError: If there is no name, or axes is none of the two, or not one for each name.
        SourceError: If the file or a dataset can't be read safely.
    """
    tree = names[0] if len(names) == 1 else tuple(names)
    structure = Structure(tree)
    leaves = structure.flatten(tree)
    with hdf5.open_hdf5(path) as file, hdf5.hdf5_errors(path):
        if not leaves or not all(isinstance(name, str) and name.strip("/") for name in leaves):
            raise PlanError(f"from_hdf5({path!r}) needs names of datasets, not {tree!r}. {hdf5.told_names(file)}.")
        each_axes = [axes] * len(leaves) if isinstance(axes, str) else list(axes)
        if len(each_axes) != len(leaves) or not all(one in ("stored", "matlab") for one in each_axes):
            raise PlanError(
                f'axes={axes!r} must be "stored" (as in the file) or "matlab" (reversed), or a list with one of them '
                f"for each of {len(leaves)} names."
            )
        named = zip(leaves, each_axes, strict=True)
        return structure.build([StoredArray.named(file, *one, allow_outside=allow_outside) for one in named])


def _told_place(array: Any, kind: str) -> tuple[str | None, str | None]:
    """Where an array of the user's lies, for errors."""
    if kind == "h5py":
        return (os.path.abspath(os.fsdecode(array.file.filename)), array.name) if array else (None, None)
    path = str(getattr(array, "store_path", "") or "")
    return (path.removeprefix("file://") or None) if not path.startswith("memory:") else None, None


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

    def __init__(self, array: Any, kind: str, file: Any, axes: Axes = "stored") -> None:
        self._array = array
        self._is_hdf5 = kind == "h5py"
        self._file = file
        self._reversed = axes == "matlab"
        self.row_shape: tuple[int, ...] = tuple(array.shape[-2::-1] if self._reversed else array.shape[1:])
        self.dtype: np.dtype[Any] = array.dtype.newbyteorder("=")
        self._blocks: KeptBlocks[npt.NDArray[Any]] | None = None
        self._block_rows = 0

    def keep(self, block_count: int, block_rows: int) -> None:
        """Read whole blocks from now on, and keep the last ones."""
        self._blocks, self._block_rows = KeptBlocks(self._block, block_count), block_rows

    def _block(self, number: int) -> npt.NDArray[Any]:
        span = slice(number * self._block_rows, (number + 1) * self._block_rows)
        return np.asarray(self._array[..., span].T if self._reversed else self._array[span], self.dtype)

    def row(self, index: int) -> npt.NDArray[Any]:
        """One row, in memory of its own."""
        try:
            if self._blocks is not None:
                return np.array(self._blocks.get(index // self._block_rows)[index % self._block_rows])
            row = self._array[..., index].T if self._reversed else self._array[index]
            return np.array(row, dtype=self.dtype)
        except Exception as error:
            raise self._explained(error) from error

    def all(self) -> npt.NDArray[Any]:
        """All rows."""
        try:
            return np.asarray(self._array[...].T if self._reversed else self._array[...], self.dtype)
        except Exception as error:
            raise self._explained(error) from error

    def gather(self, indices: Indices, run: bool, rows: npt.NDArray[Any]) -> None:
        """Fetch rows in one call.

        Args:
            indices: `(rows,)`, in any order, also more than once.
            run: Whether each is one more than the one before.
            rows: Where they go, `(rows, ...)`, C-contiguous.
        """
        array = self._array
        try:
            if self._blocks is not None:
                for block, places in by_block(indices // self._block_rows):
                    rows[places] = self._blocks.get(block)[indices[places] - block * self._block_rows]
                return
            if self._reversed:
                rising, places = np.unique(indices, return_inverse=True)
                found = array[..., rising].T
                for row, place in enumerate(places.tolist()):
                    rows[row] = found[place]
                return
            if run:
                span = slice(int(indices[0]), int(indices[0]) + len(indices))
                if self._is_hdf5:
                    array.read_direct(rows, span)
                else:
                    rows[...] = array[span]
                return
            if not self._is_hdf5:
                zarr.gather(array, indices, rows)
                return
            # h5py takes rows in rising order only, and reads them twice as fast into an array of its own.
            rising, places = np.unique(indices, return_inverse=True)
            found = array[rising]
        except Exception as error:
            raise self._explained(error) from error
        if found.dtype == rows.dtype:
            np.take(found, places, axis=0, out=rows, mode="clip")
        else:
            rows[...] = found[places]

    def _explained(self, error: Exception) -> Exception:
        if self._is_hdf5 and not self._array:
            return SourceError("its HDF5 file was closed. Keep it open until the loader is closed.")
        if self._is_hdf5 and not isinstance(error, MemoryError):
            name, path = self._array.name, os.fsdecode(self._array.file.filename)
            return SourceError(f"the dataset {name!r} can't be read: {error}. Restore the file.", file=path)
        if not self._is_hdf5 and not isinstance(error, (FitstreamError, MemoryError)):
            file = _told_place(self._array, "zarr")[0]
            return SourceError(
                f"the zarr array can't be read ({type(error).__name__}: {error}). Restore it.", file=file
            )
        return error

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._file is not None:
            self._file.close()
