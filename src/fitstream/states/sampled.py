"""What stands for things that are too large to be read each time: large arrays, and tables of other libraries.

Arrays count by dtype, shape and content; above 64 MiB, or where they are mapped from a file, rows stand for all. What
was read whole is kept as long as the array lives, and read again only if some of its values have changed.

Tables (pandas, polars, pyarrow) count by their shape, column names, dtypes and rows. At most 64 rows of 256 columns are
read, fewer where they are large, and nothing else is copied.
"""

from __future__ import annotations

import weakref
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.memory import is_mapped
from fitstream.states.plain import blake

__all__ = ["Arrays", "table_content"]

_ROWS, _ROWS_BYTES, _COLUMNS, _VALUES = 64, 1 << 24, 256, 4096
_WHOLE_BYTES, _LARGE_BYTES = 1 << 26, 1 << 20


def _rows(count: int, size_bytes: int) -> list[int]:
    """Rows that stand for all: evenly spaced, 64 or what 16 MiB hold."""
    row_bytes = max(1, size_bytes // max(1, count))
    return _spread(count, min(_ROWS, max(2, _ROWS_BYTES // row_bytes)))


def _spread(count: int, most: int) -> list[int]:
    """Indices from the first to the last, evenly spaced."""
    return [int(index) for index in np.linspace(0, max(0, count - 1), min(count, most)).astype(np.int64)]


@final
class Arrays:
    """Takes digests of arrays, and keeps those of large ones."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], bytes, bytes]] = {}

    def digest(self, array: npt.NDArray[Any], owner: Any) -> bytes:
        """The digest of an array, which must hold no objects.

        Args:
            array: What is read.
            owner: What lives as long as its content: the array itself, or the tensor that it is a view of.
        """
        head = b"array", array.dtype.str.encode(), str(array.shape).encode()
        plain = np.asarray(array)
        if array.nbytes <= _LARGE_BYTES:
            return blake(*head, _content(plain))
        if array.nbytes > _WHOLE_BYTES or is_mapped(array):
            rows = _rows(len(array), array.nbytes)
            if array.nbytes // len(array) * len(rows) <= 2 * _ROWS_BYTES:
                return blake(*head, _content(plain[rows]))
            return blake(*head, _some(plain))
        some = blake(*head, _some(plain))
        if not type(owner).__weakrefoffset__:
            return some
        known = self._known.get(id(owner))
        if known is not None and known[0]() is owner and known[1] == some:
            return known[2]
        found = blake(*head, _content(plain))
        self._known = {key: kept for key, kept in self._known.items() if kept[0]() is not None}
        self._known[id(owner)] = weakref.ref(owner), some, found
        return found


def _content(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _some(array: npt.NDArray[Any]) -> memoryview:
    return _content(array.flat[np.array(_spread(array.size, _VALUES))])


def table_content(thing: Any) -> tuple[Any, ...] | None:
    """What stands for a table or column of pandas, polars or pyarrow, as plain data; None for anything else."""
    libraries = {cls.__module__.partition(".")[0] for cls in type(thing).__mro__}
    names = {cls.__name__ for cls in type(thing).__mro__}
    if "pandas" in libraries and names & {"DataFrame", "Series", "Index"}:
        return _of_pandas(thing, is_frame="DataFrame" in names)
    if "polars" in libraries and names & {"DataFrame", "Series"}:
        return _of_polars(thing, is_frame="DataFrame" in names)
    if "pyarrow" in libraries and names & {"_Tabular", "Table", "RecordBatch", "Array", "ChunkedArray"}:
        return _of_arrow(thing, is_table=hasattr(thing, "schema"))
    return None


def _of_pandas(thing: Any, is_frame: bool) -> tuple[Any, ...]:
    sizes = thing.memory_usage(index=False) if is_frame or hasattr(thing, "index") else thing.memory_usage()
    rows = _rows(len(thing), int(np.sum(sizes)))
    if not hasattr(thing, "iloc"):
        return thing.shape, str(thing.dtype), [str(name) for name in thing.names], thing[rows].tolist()
    index = str(thing.index.dtype), thing.index[rows].tolist()
    if not is_frame:
        return thing.shape, index, str(thing.dtype), thing.name, thing.iloc[rows].tolist()
    columns = _spread(thing.shape[1], _COLUMNS)
    kinds = [(name, str(kind)) for name, kind in zip(thing.columns[columns], thing.dtypes.iloc[columns], strict=True)]
    return thing.shape, index, kinds, [thing.iloc[rows, i].tolist() for i in columns]


def _of_polars(thing: Any, is_frame: bool) -> tuple[Any, ...]:
    rows = _rows(len(thing), thing.estimated_size())
    if not is_frame:
        return thing.shape, thing.name, str(thing.dtype), thing[rows].to_list()
    columns = _spread(thing.width, _COLUMNS)
    kinds = [(thing.columns[i], str(thing.dtypes[i])) for i in columns]
    return thing.shape, kinds, [thing.to_series(i)[rows].to_list() for i in columns]


def _of_arrow(thing: Any, is_table: bool) -> tuple[Any, ...]:
    rows = _rows(len(thing), thing.nbytes)
    if not is_table:
        return len(thing), str(thing.type), _arrow_rows(thing, rows)
    columns = _spread(thing.num_columns, _COLUMNS)
    kinds = [(field.name, str(field.type)) for field in (thing.schema.field(i) for i in columns)]
    return len(thing), thing.num_columns, kinds, [_arrow_rows(thing.column(i), rows) for i in columns]


def _arrow_rows(column: Any, rows: list[int]) -> list[Any]:
    # `take` would join the chunks of a column: a copy of all of it.
    return [column[row].as_py() for row in rows]
