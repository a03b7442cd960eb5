"""Tables as pieces of columns: the interface, and the tables that are in memory.

A `Table` hands out a few of its columns, some thousand rows at a time, so that a file of a million rows is never held
as objects. It does not remember where its rows are; where an error needs a line, the table finds it by reading again.

Data frames are known by the module of their class: nothing is imported to recognise or to read them.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np

from fitstream.errors import SourceError
from fitstream.sources.files import PICTURE_SUFFIXES
from fitstream.sources.labels import Values, brief, few

__all__ = ["CHUNK_ROWS", "Arrow", "Frame", "Paths", "Records", "Rows", "Table", "arrow_values", "record_values"]

#: Rows handed out at a time: enough that the work by piece doesn't count, few enough that its objects fit in a cache.
CHUNK_ROWS = 1024


class Table(ABC):
    """Named columns of equal length.

    Args:
        names: Of the columns.
        origin: What it is, for people: "a pandas.DataFrame", "table 'train.csv'".
        file: Its path, or None in memory.
        positional: Columns are known by place: the first holds paths, the others labels.

    Attributes:
        header_line: The line of the file that names the columns, from 1; None where none does.
    """

    header_line: int | None = None

    def __init__(self, names: Sequence[Any], origin: str, file: str | None = None, positional: bool = False) -> None:
        self.names = list(names)
        self.origin = origin
        self.file = file
        self.positional = positional

    @abstractmethod
    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        """Read the given columns, at most `CHUNK_ROWS` rows at a time; each piece is a list of values a column.

        Raises:
            SourceError: If the table is malformed; with file and line.
        """

    @final
    def pieces(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        """Read columns as `chunks` does, also those inside others by a dotted path: "meta.file", "boxes.0.label"."""
        roots = [self._root(name) for name in columns]
        if roots == list(columns):
            yield from self.chunks(columns)
            return
        read = list(dict.fromkeys(roots))
        first = 0
        for piece in self.chunks(read):
            by_name = dict(zip(read, piece, strict=True))
            yield [
                by_name[root] if root == name else self._inside(by_name[root], root, name, first)
                for root, name in zip(roots, columns, strict=True)
            ]
            first += len(piece[0])

    def _root(self, name: str) -> str:
        """The column that holds a name's values: itself, or the longest one that a dotted path begins with."""
        parts = name.split(".") if isinstance(name, str) else []
        known = set(map(str, self.names))
        starts = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
        return name if name in known else next((start for start in starts if start in known), name)

    def _inside(self, values: Values, root: str, name: str, first: int) -> list[Any]:
        keys = name[len(root) + 1 :].split(".")
        found = list(values)
        for place, key in enumerate(keys):
            for row, value in enumerate(found):
                try:
                    found[row] = value[int(key)] if isinstance(value, list) else value[key]
                except (KeyError, IndexError, TypeError, ValueError):
                    where = ".".join([root, *keys[:place]])
                    held = f"has the names {few(list(value))}" if isinstance(value, Mapping) else f"is {brief(value)}"
                    raise self.blame(first + row, name, f"there is no {key!r} in {where!r}, which {held}.") from None
        return found

    def line(self, row: int) -> int | None:
        """The line of the file where a row starts, from 1; None where rows have no lines."""
        return None

    @final
    def blame(self, row: int, column: str | None, message: str) -> SourceError:
        """The error for one row, counted from 0."""
        line = self.line(row)
        if self.file is None:
            place = f"row {row} of {self.origin}" + ("" if column is None else f", column {column!r}")
            return SourceError(f"{place}: {message}", column=column)
        if line is None:
            message = f"row {row}: {message}"
        return SourceError(message, file=self.file, line=line, column=column)

    @final
    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Check that columns exist, once each.

        Args:
            columns: Name of a column -> name of the argument that asks for it.
        Raises:
            SourceError: Names the column, those that there are, and the closest.
        """
        if not self.names:
            raise SourceError(
                "the table is empty: it names no columns and has no rows. Begin it with a line of column names.",
                file=self.file,
            )
        twice = [name for name, count in Counter(self.names).items() if count > 1 and name != ""]
        if twice:
            raise SourceError(
                f"the column {brief(twice[0])} is there {self.names.count(twice[0])} times. Rename them.",
                file=self.file,
                line=self.header_line,
                column=twice[0],
            )
        for name, argument in columns.items():
            if self._root(name) not in self.names:
                place = "" if self.file is not None else f"{self.origin}: "
                raise SourceError(
                    f"{place}there is no column {name!r}. {self._known_names(name, argument)}",
                    file=self.file,
                    line=self.header_line,
                )

    def _known_names(self, name: str, argument: str) -> str:
        texts = {str(known): known for known in self.names}
        folded = {text.strip().casefold(): text for text in texts}
        close = difflib.get_close_matches(str(name).strip().casefold(), folded, 1)
        shown = ", ".join(map(brief, self.names[:20])) + (", ..." if len(self.names) > 20 else "")
        advice = f"Name the right one with {argument}=."
        if close:
            advice = f"Did you mean {argument}={texts[folded[close[0]]]!r}?"
        elif any(text.strip().lower().endswith(PICTURE_SUFFIXES) for text in texts):
            advice = "The first row looks like data: a table needs a row with the names of its columns above it."
        return f"Its {len(self.names)} columns: {shown}. {advice}"


def record_values(records: Sequence[Any], columns: Sequence[str], first: int, table: Table) -> list[Values]:
    """Columns of a piece of a list of dicts, whose first row is row `first` of the table."""
    try:
        return [[record[name] for record in records] for name in columns]
    except (KeyError, TypeError, IndexError):
        for row, record in enumerate(records, first):
            if not isinstance(record, Mapping):
                raise table.blame(
                    row, None, f"this is of type {type(record).__name__}, not an object with names."
                ) from None
            for name in columns:
                if name not in record:
                    raise table.blame(row, name, f"it is missing; this row has {list(record)!r}.") from None
        raise


@final
class Records(Table):
    """A list of dicts; the first names the columns."""

    def __init__(self, records: Sequence[Any]) -> None:
        super().__init__(list(records[0]), "a list of dicts")
        self._records = records

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        for first in range(0, len(self._records), CHUNK_ROWS):
            yield record_values(self._records[first : first + CHUNK_ROWS], columns, first, self)


@final
class Rows(Table):
    """A 2-D array, or a list of lists or tuples: paths in the first column, labels in the others."""

    def __init__(self, rows: Any) -> None:
        self._width = len(rows[0])
        origin = "a 2-D array" if isinstance(rows, np.ndarray) else "a list of rows"
        super().__init__([f"column {place}" for place in range(self._width)], origin, positional=True)
        self._rows = rows

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        places = [self.names.index(name) for name in columns]
        for first in range(0, len(self._rows), CHUNK_ROWS):
            rows = self._rows[first : first + CHUNK_ROWS]
            rows = rows.tolist() if isinstance(rows, np.ndarray) else rows
            for row, cells in enumerate(rows, first):
                if not isinstance(cells, (list, tuple, np.ndarray)) or len(cells) != self._width:
                    told = f"{brief(cells)} is not a row of {self._width} cells as the first row is."
                    raise self.blame(row, None, told)
            yield [[cells[place] for cells in rows] for place in places]


@final
class Paths(Table):
    """A list of paths."""

    def __init__(self, paths: Sequence[Any]) -> None:
        super().__init__(["path"], "a list of paths", positional=True)
        self._paths = paths

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        for first in range(0, len(self._paths), CHUNK_ROWS):
            yield [list(self._paths[first : first + CHUNK_ROWS])]


@final
class Frame(Table):
    """A pandas or polars data frame."""

    def __init__(self, frame: Any, kind: str) -> None:
        super().__init__(list(frame.columns), f"a {kind}")
        self._frame = frame
        self._is_pandas = kind.startswith("pandas")

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        series = [self._frame[name] for name in columns]
        for first in range(0, len(self._frame), CHUNK_ROWS):
            pieces = [
                (one.iloc if self._is_pandas else one)[first : min(first + CHUNK_ROWS, len(self._frame))]
                for one in series
            ]
            yield [self._pandas(piece) if self._is_pandas else self._polars(piece) for piece in pieces]

    @staticmethod
    def _pandas(series: Any) -> Values:
        missing = series.isna()
        if missing.any():
            return [None if gone else value for value, gone in zip(series.tolist(), missing, strict=True)]
        array = series.to_numpy()
        return array if array.dtype.kind in "biuf" else list(series.tolist())

    @staticmethod
    def _polars(series: Any) -> Values:
        if series.dtype.is_numeric() and series.null_count() == 0:
            array = series.to_numpy()
            if array.dtype.kind in "biuf":
                return array  # type: ignore[no-any-return]
        return list(series.to_list())


@final
class Arrow(Table):
    """A pyarrow Table or RecordBatch."""

    def __init__(self, table: Any, kind: str) -> None:
        super().__init__(table.schema.names, f"a {kind}")
        self._table = table

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        table = self._table.select(list(columns))
        for first in range(0, len(table), CHUNK_ROWS):
            yield [arrow_values(column) for column in table.slice(first, CHUNK_ROWS).columns]


def arrow_values(column: Any) -> Values:
    """Values of a pyarrow Array or ChunkedArray: an array if they are numbers and none is null."""
    if column.null_count == 0 and str(column.type).startswith(("int", "uint", "float", "double", "halffloat")):
        return np.asarray(column)
    return list(column.to_pylist())
