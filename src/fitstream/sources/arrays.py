"""Arrays in memory or mapped from disk, and anything with `__len__` and `__getitem__`.

Arrays are never copied as a whole: a lane takes the rows of a batch in one call per array, straight into the slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.sampling import Indices
from fitstream.scratch import Arena
from fitstream.sources.base import Reader, Source
from fitstream.spec import Structure

__all__ = ["ArraySource", "SequenceSource"]


@final
class ArraySource(Source):
    """A tree of arrays whose first axes have one length; a sample is one row of each.

    Args:
        tree: A NumPy array, `np.memmap`, list of numbers, or a tuple or dict of them.
    Raises:
        SourceError: If an array has no rows or no numbers, or the lengths differ.
    """

    def __init__(self, tree: Any) -> None:
        self.structure = Structure(tree)
        if self.structure.leaf_count == 0:
            raise SourceError("from_arrays got no array: the tuple or dict is empty.")
        self.arrays = [
            _rows(leaf, name) for leaf, name in zip(self.structure.flatten(tree), self.structure.names, strict=True)
        ]
        lengths = {len(array) for array in self.arrays}
        if len(lengths) > 1:
            told = ", ".join(
                f"{name or 'array'}: {len(a)}" for name, a in zip(self.structure.names, self.arrays, strict=True)
            )
            raise SourceError(f"arrays of one dataset need first axes of one length, but these differ ({told}).")
        if lengths == {0}:
            raise SourceError("the arrays have no rows, so there is nothing to feed.")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def open(self) -> Reader:
        return _ArrayReader(self)

    def labels(self) -> npt.NDArray[np.generic] | None:
        """The second part, where samples are tuples of at least two."""
        return self.arrays[1] if self.structure.names[:2] == ["[0]", "[1]"] else None

    def __repr__(self) -> str:
        kinds = ", ".join(f"{a.dtype.name}{list(a.shape)}" for a in self.arrays)
        return f"{len(self):,} rows of arrays ({kinds})"


def _rows(leaf: Any, name: str) -> npt.NDArray[Any]:
    where = f"the array at {name}" if name else "the array"
    if hasattr(leaf, "chunks") and not isinstance(leaf, np.ndarray):
        raise SourceError(
            f"{where} is a {type(leaf).__module__}.{type(leaf).__name__}, which is read from disk in chunks. "
            "Load it with [...] if memory holds it, or read it row by row with from_sequence."
        )
    if isinstance(leaf, list) and any(isinstance(child, np.ndarray) and child.ndim for child in leaf):
        raise SourceError(f"{where} is a list of arrays. Use a tuple for several parts, np.stack for one array.")
    if isinstance(leaf, np.ma.MaskedArray):
        raise SourceError(f"{where} is masked. Fill it with .filled(value), or pass data and mask as two parts.")
    try:
        array = leaf if isinstance(leaf, np.ndarray) else np.asarray(leaf)
    except ValueError as error:
        raise SourceError(f"{where} is ragged ({error}). Pad the rows to one length, or use from_sequence.") from None
    if array.ndim == 0:
        raise SourceError(f"{where} is a single number; it needs a first axis of samples.")
    if array.dtype.kind not in "biufc":
        raise SourceError(f"{where} has dtype {array.dtype}; arrays must hold numbers. Encode text and objects first.")
    return array


@final
class _ArrayReader(Reader):
    def __init__(self, source: ArraySource) -> None:
        self._arrays = source.arrays
        self._structure = source.structure
        # np.take copies a whole array that isn't plain in memory; such ones go by fancy indexing, rows only.
        self._plain = [a.flags.c_contiguous and a.flags.aligned and a.dtype.isnative for a in self._arrays]

    def read(self, index: int, arena: Arena) -> Any:
        # A copy, so that a function of the user's that works in place can't change the source.
        return self._structure.build(
            [np.array(array[index], dtype=array.dtype.newbyteorder("=")) for array in self._arrays]
        )

    def gather(self, indices: Indices, out: Sequence[npt.NDArray[Any]]) -> bool:
        first, count = int(indices[0]), len(indices)
        in_line = count > 1 and bool((np.diff(indices) == 1).all())
        for array, plain, rows in zip(self._arrays, self._plain, out, strict=True):
            if in_line:
                rows[...] = array[first : first + count]
            elif plain:
                np.take(array, indices, axis=0, out=rows, mode="clip")
            else:
                rows[...] = array[indices]
        return True


@final
class SequenceSource(Source):
    """Anything with `__len__` and `__getitem__`: a list, a PyTorch Dataset, a Hugging Face dataset, a Keras Sequence.

    Args:
        obj: The object. Lanes call it from several threads at once.
        what: What it holds, "samples" or "batches", for messages.
    Raises:
        SourceError: If it is empty.
    """

    borrows = True

    def __init__(self, obj: Any, what: str = "samples") -> None:
        self.obj = obj
        self.what = what
        for needed in ("__len__", "__getitem__"):
            if not hasattr(obj, needed):
                raise SourceError(
                    f"a {type(obj).__name__} has no {needed}, which random access needs. Use from_generator."
                )
        self._length = len(obj)
        if self._length == 0:
            raise SourceError(f"the {type(obj).__name__} is empty (len() is 0), so there is nothing to feed.")

    def __len__(self) -> int:
        return self._length

    def open(self) -> Reader:
        return _SequenceReader(self.obj)

    def __repr__(self) -> str:
        return f"{len(self):,} {self.what} of a {type(self.obj).__name__}"


@final
class _SequenceReader(Reader):
    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def read(self, index: int, arena: Arena) -> Any:
        return self._obj[index]
