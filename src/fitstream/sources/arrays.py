"""Arrays in memory or on disk, and anything with `__len__` and `__getitem__`.

Arrays are never copied as a whole: a lane takes the rows of a chunk in one call per array, straight into the slot.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.memory import is_mapped
from fitstream.sampling import Indices
from fitstream.scratch import Arena
from fitstream.sources.base import Reader, Source
from fitstream.sources.read_ahead import ReadAhead
from fitstream.sources.stored import StoredArray
from fitstream.spec import Structure

__all__ = ["ArraySource", "SequenceSource"]

#: What the permutation takes.
_MOST_ROWS = 2**60


@final
class ArraySource(Source):
    """A tree of arrays whose first axes have one length; a sample is one row of each.

    Args:
        tree: A NumPy array, `np.memmap`, h5py Dataset, zarr Array, list of numbers, or a tuple or dict of them.
        allow_nan: Don't look for NaN and infinity.
    Raises:
        SourceError: If an array has no rows or no numbers, or the lengths differ.
    """

    def __init__(self, tree: Any, *, allow_nan: bool = False) -> None:
        self.structure = Structure(tree)
        if self.structure.leaf_count == 0:
            raise SourceError("from_arrays got no array: the tuple or dict is empty.")
        leaves = self.structure.flatten(tree)
        self.arrays = [_rows(leaf, name) for leaf, name in zip(leaves, self.structure.names, strict=True)]
        leaves = [
            array if isinstance(array, StoredArray) else leaf for array, leaf in zip(self.arrays, leaves, strict=True)
        ]
        files = [_place(leaf)[0] for leaf in leaves]
        self.file = next((file for file in files if file is not None), None)
        self.part_names = [
            _called(leaf, name) + (f" of {file}" if file not in (None, self.file) else "")
            for leaf, name, file in zip(leaves, self.structure.names, files, strict=True)
        ]
        lengths = {array.shape[0] for array in self.arrays}
        if len(lengths) > 1:
            told = ", ".join(f"{name}: {a.shape[0]:,}" for name, a in zip(self.part_names, self.arrays, strict=True))
            is_npz = self.file is not None and self.file.endswith(".npz")
            advice = ' To take some of an .npz file, name each: "data.npz/x".' if is_npz else ""
            raise SourceError(
                f"arrays of one dataset need first axes of one length, but these differ ({told}).{advice}",
                file=self.file,
            )
        if lengths == {0}:
            raise SourceError("the arrays have no rows, so there is nothing to feed.", file=self.file)
        if max(lengths) > _MOST_ROWS:
            raise SourceError(
                f"the arrays declare {max(lengths):,} rows, and up to 2^60 can be put in an order.", file=self.file
            )
        self.checks_finite = not allow_nan and any(array.dtype.kind in "fc" for array in self.arrays)
        self.fetches_many = any(isinstance(array, StoredArray) for array in self.arrays)
        self.copies_many = not all(_is_plain(array) for array in self.arrays if isinstance(array, np.ndarray))

    def __len__(self) -> int:
        return len(self.arrays[0])

    def open(self) -> Reader:
        return _ArrayReader(self)

    def path(self, index: int) -> str | None:
        return self.file

    @property
    def least_bytes(self) -> int:
        return self.block_bytes + sum(math.prod(a.shape[1:]) * a.dtype.itemsize for a in self.arrays)

    @property
    def block_bytes(self) -> int:
        return sum(array.block_bytes for array in self.arrays if isinstance(array, StoredArray))

    @property
    def memory_bytes(self) -> int:
        return sum(_own_bytes(a) for a in self.arrays if isinstance(a, np.ndarray) and not is_mapped(a))

    def block_edges(self) -> Indices | None:
        rows = self._block_rows()
        return None if rows is None else np.append(np.arange(0, len(self), rows), len(self))

    def _block_rows(self) -> int | None:
        """Of the array whose rows are largest, of those that are stored in blocks."""
        stored = [array for array in self.arrays if isinstance(array, StoredArray) and array.block_rows]
        if not stored:
            return None
        return max(stored, key=lambda array: math.prod(array.shape[1:]) * array.dtype.itemsize).block_rows

    def keeping(self, block_count: int) -> ArraySource:
        kept = copy.copy(self)
        rows = self._block_rows() or 1
        kept.arrays = [one.keeping(block_count, rows) if isinstance(one, StoredArray) else one for one in self.arrays]
        return kept

    def labels(self) -> npt.NDArray[np.generic] | None:
        """The second part, where samples are tuples, it is one array, and that is in memory, mapped, or small."""
        if "[1]" not in self.structure.names:
            return None
        array = self.arrays[self.structure.names.index("[1]")]
        return array.small_numbers() if isinstance(array, StoredArray) else array

    def fingerprint_parts(self) -> dict[str, Any]:
        return {
            f"array{name}": array.some_rows() if isinstance(array, StoredArray) else array
            for name, array in zip(self.structure.names, self.arrays, strict=True)
        }

    def __repr__(self) -> str:
        kinds = ", ".join(f"{a.dtype.name}{list(a.shape)}" for a in self.arrays)
        return f"{len(self):,} rows of arrays ({kinds})"


def _is_plain(array: npt.NDArray[Any]) -> bool:
    """Whether rows can be taken without a copy in between."""
    return bool(array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative)


def _own_bytes(array: npt.NDArray[Any]) -> int:
    """Memory that an array takes: less than its size where a broadcast repeats rows."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return min(array.nbytes, high - low)


def _place(leaf: Any) -> tuple[str | None, str | None]:
    """The file that an array lies in and its name there, as far as they are known."""
    if isinstance(leaf, StoredArray):
        return leaf.place
    file = getattr(leaf, "filename", None) if isinstance(leaf, np.memmap) else None
    return None if file is None else os.fspath(file), None


def _called(leaf: Any, name: str) -> str:
    dataset = _place(leaf)[1]
    return f"array{name}" if dataset is None else f"dataset {dataset!r}"


def _rows(leaf: Any, name: str) -> npt.NDArray[Any] | StoredArray:
    _check_kind(leaf, f"the array{name}")
    stored = StoredArray.of(leaf, f"the array{name}")
    known = leaf if stored is None else stored
    where, file = f"the {_called(known, name)}", _place(known)[0]
    try:
        # Of a memmap, the plain array over the same memory: the class alone makes each access some times slower.
        array = stored if stored is not None else np.asarray(leaf)
    except ValueError as error:
        raise SourceError(f"{where} is ragged ({error}). Pad the rows to one length, or use from_sequence.") from None
    except Exception as error:  # noqa: BLE001  an array's own reading may raise anything
        kind = f"{type(leaf).__module__.partition('.')[0]}.{type(leaf).__name__}"
        raise SourceError(f"{where} is a {kind} that NumPy can't read: {error}. Convert it first.") from None
    if len(array.shape) == 0 and array.dtype == object:
        advice = " Make it dense: .toarray()." if hasattr(leaf, "toarray") else ""
        raise SourceError(f"{where} is a {type(leaf).__name__}, and no array.{advice}", file=file)
    if array.dtype.kind not in "biufc":
        raise SourceError(
            f"{where} has dtype {array.dtype}; arrays must hold numbers. Encode text and objects first.", file=file
        )
    if len(array.shape) == 0:
        raise SourceError(f"{where} is a single number; it needs a first axis of samples.", file=file)
    return array


def _check_kind(leaf: Any, where: str) -> None:
    """Refuse what looks like an array or holds some, and is none."""
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(leaf).__mro__}
    known = isinstance(leaf, (np.ndarray, StoredArray)) or kinds & {"h5py.Dataset", "zarr.Array"}
    for holder in kinds & {"h5py.Group", "zarr.Group", "numpy.NpzFile"}:
        advice = 'Give the path of the file, or "data.npz/x" for one array.' if "Npz" in holder else "Name its arrays."
        raise SourceError(f"{where} is a {holder}, which holds arrays by name. {advice}")
    if hasattr(leaf, "chunks") and not known:
        raise SourceError(
            f"{where} is a {type(leaf).__module__}.{type(leaf).__name__}, which is read in chunks, but is no h5py or "
            "zarr array. Load it with [...] if memory holds it, or read it row by row with from_sequence."
        )
    if isinstance(leaf, list) and any(isinstance(child, np.ndarray) and child.ndim for child in leaf):
        raise SourceError(f"{where} is a list of arrays. Use a tuple for several parts, np.stack for one array.")
    if isinstance(leaf, list) and any(isinstance(child, (str, os.PathLike)) for child in leaf):
        raise SourceError(f"{where} is a list of text or paths. Use a tuple of paths of .npy files for several parts.")
    if isinstance(leaf, np.ma.MaskedArray):
        raise SourceError(f"{where} is masked. Fill it with .filled(value), or pass data and mask as two parts.")


@final
class _Rows:
    """Rows of an array in memory, or mapped into it."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        self.row_shape = array.shape[1:]
        self.dtype = array.dtype.newbyteorder("=")
        # np.take copies a whole array that isn't plain in memory; such ones go by fancy indexing, rows only.
        self._plain = _is_plain(array)
        self._ahead = ReadAhead.of(array) if self._plain else None

    def row(self, index: int) -> npt.NDArray[Any]:
        return np.array(self._array[index], dtype=self.dtype)

    def gather(self, indices: Indices, run: bool, rows: npt.NDArray[Any]) -> None:
        if run:
            rows[...] = self._array[int(indices[0]) : int(indices[0]) + len(indices)]
        elif self._ahead is not None:
            self._ahead.take(self._array, indices, rows)
        elif self._plain:
            np.take(self._array, indices, axis=0, out=rows, mode="clip")
        else:
            rows[...] = self._array[indices]

    def close(self) -> None:
        pass


@final
class _ArrayReader(Reader):
    def __init__(self, source: ArraySource) -> None:
        self._structure = source.structure
        self._arrays = [array.open() if isinstance(array, StoredArray) else _Rows(array) for array in source.arrays]

    def read(self, index: int, arena: Arena) -> Any:
        # A copy, so that a function of the user's that works in place can't change the source.
        return self._structure.build([array.row(index) for array in self._arrays])

    def read_many(self, indices: Indices) -> Sequence[Any]:
        chunks = [np.empty((len(indices), *array.row_shape), array.dtype) for array in self._arrays]
        self.gather(indices, chunks)
        return [self._structure.build([chunk[i, ...] for chunk in chunks]) for i in range(len(indices))]

    def gather(self, indices: Indices, out: Sequence[npt.NDArray[Any]]) -> bool:
        last = int(indices[-1]) - int(indices[0]) == len(indices) - 1  # tells shuffled rows at once
        run = last and bool((np.diff(indices) == 1).all())
        for array, rows in zip(self._arrays, out, strict=True):
            array.gather(indices, run, rows)
        return True

    def close(self) -> None:
        for array in self._arrays:
            array.close()


@final
class SequenceSource(Source):
    """Anything with `__len__` and `__getitem__`: a list, a PyTorch Dataset, a Hugging Face dataset, a Keras Sequence.

    Args:
        obj: The object. Lanes call it from several threads at once. Where it has `__getitems__(indices)`, which takes a
            list of places and returns a list of samples, that is called once for the samples of a chunk.
        what: What it holds, "samples" or "batches", for messages.
    Raises:
        SourceError: If it is empty.
    """

    borrows = True

    def __init__(self, obj: Any, what: str = "samples") -> None:
        self.obj = obj
        self.what = what
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(obj).__mro__}
        if isinstance(obj, Mapping) and obj and 0 not in obj:
            keys = ", ".join(map(repr, list(obj)[:4]))
            raise SourceError(
                f"a {type(obj).__name__} holds what it has by name ({keys}), not by place. Choose one of them."
            )
        if kinds & {"pandas.DataFrame", "polars.DataFrame"}:
            raise SourceError(
                "a data frame is read by columns. Use from_table for paths with labels, and "
                "from_arrays((frame[[...]].to_numpy(), frame[...].to_numpy())) for numbers."
            )
        for needed in ("__len__", "__getitem__"):
            if not hasattr(obj, needed):
                raise SourceError(
                    f"a {type(obj).__name__} has no {needed}, which random access needs. Use from_generator."
                )
        self._length = len(obj)
        if self._length == 0:
            raise SourceError(f"the {type(obj).__name__} is empty (len() is 0), so there is nothing to feed.")
        self.fetches_many = what == "samples" and callable(getattr(obj, "__getitems__", None))

    def __len__(self) -> int:
        return self._length

    def open(self) -> Reader:
        return _SequenceReader(self.obj)

    def fingerprint_parts(self) -> dict[str, Any]:
        return {f"{type(self.obj).__name__}": self.obj}

    def __repr__(self) -> str:
        return f"{len(self):,} {self.what} of a {type(self.obj).__name__}"


@final
class _SequenceReader(Reader):
    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def read(self, index: int, arena: Arena) -> Any:
        return self._obj[index]

    def read_many(self, indices: Indices) -> Sequence[Any]:
        samples = self._obj.__getitems__(indices.tolist())
        if isinstance(samples, Mapping) or not hasattr(samples, "__len__"):
            raise SourceError(f"__getitems__ returned a {type(samples).__name__}, not a list of {len(indices)} samples")
        if len(samples) != len(indices):
            raise SourceError(f"__getitems__ was asked for {len(indices)} samples and returned {len(samples)}")
        return list(samples)
