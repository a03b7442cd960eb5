"""Columns of Arrow tables as rows of arrays, without copies: numbers, lists of them nested to any depth, bytes, text.

A list column is its numbers and, for each level, where each list starts. Lists of one length make an array that rows
are taken from by one call; others give each row its own shape. A null is an error of its row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.sampling import Indices
from fitstream.sources.labels import brief, few

__all__ = ["ArrowColumn", "ArrowRows", "Classes", "column_of", "kind_of", "type_of"]


def kind_of(dtype: Any) -> tuple[str, np.dtype[Any] | None, int]:
    """What a column of an Arrow type holds.

    Returns:
        "numbers", "bytes", "text" or "" for anything else; the dtype of numbers; and how deep they are in lists.
    """
    depth = 0
    if str(dtype).startswith("dictionary<"):
        dtype = dtype.value_type
    while str(dtype).startswith(("list<", "large_list<", "fixed_size_list<")):
        dtype, depth = dtype.value_type, depth + 1
    name = str(dtype)
    if name.startswith(("int", "uint", "float", "double", "halffloat", "bool")):
        return "numbers", np.dtype(dtype.to_pandas_dtype()), depth
    if depth:
        return "", None, depth
    if name.startswith("struct<") and "bytes" in {field.name for field in dtype}:
        dtype = dtype.field("bytes").type  # as Hugging Face's datasets store images
    if str(dtype) in ("binary", "large_binary", "binary_view") or str(dtype).startswith("fixed_size_binary"):
        return "bytes", None, 0
    return ("text", None, 0) if str(dtype) in ("string", "large_string", "string_view") else ("", None, 0)


def type_of(schema: Any, name: str) -> Any:
    """The Arrow type of a column, or of a field inside one by its dotted path; None if there is none."""
    found = _way(schema, name)
    return None if found is None else found[1]


def column_of(table: Any, name: str) -> Any:
    """The ChunkedArray of a column, or of a field inside one by its dotted path."""
    way = _way(table.schema, name)
    assert way is not None
    column = table.column(way[0][0])
    for part in way[0][1:]:
        # What is inside a null is null: `flatten` sees to it.
        column = column.flatten()[column.type.get_field_index(part)]
    return column


def _way(schema: Any, name: str) -> tuple[list[str], Any] | None:
    """The column that holds a name's values, the fields to go through from there, and their type."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        root = ".".join(parts[:count])
        if root not in schema.names:
            continue
        dtype = schema.field(root).type
        for part in parts[count:]:
            place = dtype.get_field_index(part) if str(dtype).startswith("struct<") else -1
            if place < 0:
                return None
            dtype = dtype.field(place).type
        return [root, *parts[count:]], dtype
    return None


@final
class Classes:
    """Names of classes in label order, for a column of text or of indices."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._places = {name: place for place, name in enumerate(names)}

    def index(self, value: Any) -> np.int64:
        """The index of a name, or an index as it is.

        Raises:
            SourceError: If it is neither.
        """
        value = value.item() if isinstance(value, np.generic) else value
        place = self._places.get(value) if isinstance(value, str) else int(value) if value % 1 == 0 else None
        if place is None or not 0 <= place < len(self.names):
            told = brief(value)
            raise SourceError(
                f"the label {told} is not in classes ({few(self.names)}), whose indices are 0 to "
                f"{len(self.names) - 1}. Correct it, or add it to classes=."
            )
        return np.int64(place)


def _numbers(array: Any) -> npt.NDArray[Any]:
    """The numbers of a pyarrow Array; what is at a null means nothing.

    pyarrow's `to_numpy` imports pandas: 30 MB in each worker process, and half a second before the first row.
    """
    data, end = array.buffers()[1], array.offset + len(array)
    dtype = np.dtype(array.type.to_pandas_dtype())
    if data is None:
        return np.empty(0, dtype)
    if dtype == np.bool_:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little", count=end)
        return bits[array.offset :].view(np.bool_)
    return np.frombuffer(data, dtype, end)[array.offset :]


def _places(indices: Sequence[int]) -> Any:
    """Places as a pyarrow Array. To make one of a list imports pandas, as above."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.int64(), len(indices), [None, pa.py_buffer(np.asarray(indices, np.int64))])


@final
class ArrowColumn:
    """One column of one piece of a table.

    Args:
        column: A pyarrow ChunkedArray, whose type `kind_of` knows.
        classes: Turns values into class indices.
    """

    def __init__(self, column: Any, classes: Classes | None = None) -> None:
        if str(column.type).startswith("dictionary<") and hasattr(column, "unify_dictionaries"):
            column = column.unify_dictionaries()
        array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        if hasattr(array, "chunks"):  # more than one array can hold
            raise SourceError("it is too large for one block of Arrow. Write it in smaller row groups.")
        kind, dtype, _ = kind_of(array.type)
        if kind != "text" and str(array.type).startswith("dictionary<"):
            array = array.dictionary_decode()
        if kind == "bytes" and str(array.type).startswith("struct<"):
            array = array.field("bytes")
        self.nbytes: int = column.nbytes
        self._kind, self._classes = kind, classes
        self._missing = _numbers(array.is_null()) if array.null_count else None
        self._array = array
        self._levels: list[npt.NDArray[np.int64]] = []
        self._values: npt.NDArray[Any] | None = None
        if kind == "numbers" and dtype is not None:
            self._take_apart(array, dtype)

    def _take_apart(self, array: Any, dtype: np.dtype[Any]) -> None:
        shape = [len(array)]
        while hasattr(array.type, "value_type"):
            if str(array.type).startswith("fixed_size_list<"):
                edges = (np.arange(len(array) + 1) + array.offset) * array.type.list_size
            else:
                edges = np.asarray(_numbers(array.offsets), np.int64)
            if not len(edges):
                edges = np.zeros(1, np.int64)
            inner = array.values
            lengths = np.unique(np.diff(edges)) if len(edges) > 1 else np.zeros(1, np.int64)
            shape.append(int(lengths[0]) if len(lengths) == 1 else -1)
            self._levels.append(edges - edges[0])
            array = inner.slice(int(edges[0]), int(edges[-1] - edges[0]))
        values = _numbers(array).astype(dtype, copy=False)
        if array.null_count:
            missing = _numbers(array.is_null())
            self._miss_inner(missing)
            values = np.where(missing, np.zeros((), dtype), values)
        self._values = values
        if -1 not in shape and len(shape) > 1:
            self._values, self._levels = values.reshape(shape), []

    def _miss_inner(self, missing: npt.NDArray[np.bool_]) -> None:
        """Count a row in whose lists a null is as missing."""
        rows = np.flatnonzero(missing)
        for edges in reversed(self._levels):
            rows = np.unique(np.searchsorted(edges, rows, "right") - 1)
        if self._missing is None:
            self._missing = np.zeros(len(self._array), bool)
        self._missing = self._missing.copy()
        self._missing[rows] = True

    def row(self, index: int) -> Any:
        """One row: an array of its own, a number, text, or bytes as a memoryview.

        Raises:
            SourceError: If it is null, ragged, or no class.
        """
        if self._missing is not None and self._missing[index]:
            raise SourceError("its value is null, or holds one. Fill it in, or leave the row out.")
        if self._kind == "bytes":
            return memoryview(self._array[index].as_buffer()).cast("B")
        if self._values is None:
            value = self._array[index].as_py()
        elif self._levels:
            return self._nested(self._values, index)
        else:
            value = np.array(self._values[index]) if self._values.ndim > 1 else self._values[index]
        return value if self._classes is None else self._classes.index(value)

    def _nested(self, values: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        shape, first, last = [], index, index + 1
        for edges in self._levels:
            lengths = np.diff(edges[first : last + 1])
            if len(np.unique(lengths)) > 1:
                raise SourceError(f"its lists have {len(np.unique(lengths))} different lengths. Pad them to one.")
            shape.append(int(lengths[0]) if len(lengths) else 0)
            first, last = int(edges[first]), int(edges[last])
        return np.array(values[first:last].reshape(shape))

    def gather(self, indices: Indices, out: npt.NDArray[Any]) -> bool:
        """Take many rows by one call.

        Returns:
            False where that isn't possible.
        """
        if self._values is None or self._levels or self._missing is not None or self._classes is not None:
            return False
        if self._values.shape[1:] != out.shape[1:]:
            return False
        out[...] = self._values[indices]
        return True


@final
class ArrowRows:
    """The rows of a pyarrow Table or RecordBatch, as dicts of arrays; what `from_sequence` reads."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a worker process, and load what takes rows before it is measured what the worker costs."""
        import pyarrow.compute  # noqa: F401

        self.__dict__.update(state)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        taken = self._table.take(_places(indices))
        columns = {name: ArrowColumn(taken.column(name)) for name in taken.schema.names}
        return [{name: column.row(place) for name, column in columns.items()} for place in range(len(indices))]
