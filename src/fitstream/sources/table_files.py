"""Tables in files: text with separators, JSON, JSON lines, Parquet.

Text is read as UTF-8, with or without a byte order mark. Bytes that are not UTF-8 are kept as they are (as Python keeps
them in file names), so that a list of files whose names are not text works; labels and JSON syntax must be text.

Separators are not guessed: `.csv` has commas, `.tsv` tabs. Quotes are read strictly. A stray quote would otherwise
swallow all rows up to the next one, silently.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TextIO, final

from fitstream.errors import SourceError
from fitstream.sources.columns import CHUNK_ROWS, Table, arrow_values, record_values
from fitstream.sources.json_text import list_records, parse, past_blanks
from fitstream.sources.labels import Values

__all__ = ["TABLE_SUFFIXES", "open_table_file"]

#: What is looked at to tell whether a file is text.
_START_BYTES = 4096


def open_table_file(path: str) -> Table:
    """Open a table and read its column names.

    Raises:
        SourceError: If it does not exist, is of a kind that is not supported, or has no readable start.
    """
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        raise SourceError("it is a folder, not a table. Use from_folder for a folder of pictures.", file=path)
    if suffix not in _KINDS:
        raise SourceError(
            f"a table of the kind {suffix or 'without a suffix'!r} is not supported. Supported are "
            f"{', '.join(TABLE_SUFFIXES)}; for others, read it with pandas and pass the frame.",
            file=path,
        )
    if not os.path.exists(path):
        raise SourceError(f"the table does not exist. Relative paths start at {os.getcwd()!r}.", file=path)
    if not os.path.isfile(path):
        raise SourceError("it is a device or pipe, whose end may never come. Save it as a file.", file=path)
    return _KINDS[suffix](path)


class _TextTable(Table):
    """A table in a text file."""

    def __init__(self, path: str) -> None:
        with self._open(path) as file:
            names = self._read_names(file, path)
        super().__init__(names, f"table {path!r}", path)
        self._path = path

    @abstractmethod
    def _read_names(self, file: TextIO, path: str) -> list[str]: ...

    @staticmethod
    def _open(path: str) -> TextIO:
        try:
            with open(path, "rb") as file:
                start = file.read(_START_BYTES).partition(b"\n")[0]
            if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise SourceError("the table is UTF-16 or UTF-32 text. Save it as UTF-8.", file=path)
            if b"\0" in start:
                raise SourceError(
                    "the first line holds zero bytes: it is UTF-16 text, or no text. Save it as UTF-8.",
                    file=path,
                    line=1,
                )
            return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")
        except OSError as error:
            raise SourceError(f"the table cannot be read: {error.strerror}.", file=path) from error


@final
class _Delimited(_TextTable):
    """Rows of fields with separators; the first row names the columns. Blank lines are passed over."""

    def __init__(self, path: str, delimiter: str) -> None:
        self._delimiter = delimiter
        super().__init__(path)

    def _read_names(self, file: TextIO, path: str) -> list[str]:
        self.header_line = 1
        reader, names = self._reader(file), list[str]()
        try:
            for names in reader:
                if names:
                    break
                self.header_line = reader.line_num + 1
        except csv.Error as error:
            raise SourceError(
                f"the header is malformed: {self._told(error)}.", file=path, line=self.header_line
            ) from None
        others = {mark: names[0].count(mark) for mark in ",;\t|" if mark != self._delimiter} if len(names) == 1 else {}
        mark = max(others, key=others.__getitem__, default="")
        if others.get(mark):
            raise SourceError(
                f"the header has no {self._delimiter!r} but {others[mark]} times {mark!r}, which seems to separate its "
                f"fields. Save it with {self._delimiter!r}, or pass pandas.read_csv({os.path.basename(path)!r}, "
                f"sep={mark!r}) instead of its path.",
                file=path,
                line=self.header_line,
            )
        return names

    @staticmethod
    def _told(error: csv.Error) -> str:
        if "field limit" in str(error):
            return f"a field is longer than {csv.field_size_limit():,} characters, perhaps because a quote isn't closed"
        return str(error)

    def _reader(self, file: TextIO) -> Any:
        return csv.reader(file, delimiter=self._delimiter, strict=True)

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        places = [self.names.index(name) for name in columns]
        width = {len(self.names)}
        first = 0
        with self._open(self._path) as file:
            reader = self._reader(file)
            next(filter(None, reader))
            try:
                while rows := list(islice(reader, CHUNK_ROWS)):
                    if set(map(len, rows)) != width:
                        rows = self._without_blanks(rows, first)
                    yield [[fields[place] for fields in rows] for place in places]
                    first += len(rows)
            except csv.Error as error:
                raise SourceError(
                    f"the row is malformed: {self._told(error)}. A field that holds a quote or a separator is written "
                    f'in quotes, each quote inside doubled: "a ""b"" c".',
                    file=self._path,
                    line=self.line(sys.maxsize),
                ) from None

    def _without_blanks(self, rows: list[list[str]], first: int) -> list[list[str]]:
        rows = [fields for fields in rows if fields]
        for row, fields in enumerate(rows, first):
            if len(fields) != len(self.names):
                raise self.blame(
                    row,
                    None,
                    f"the row has {len(fields)} fields, the header {len(self.names)}. "
                    f"A field that holds {self._delimiter!r} is written in quotes.",
                )
        return rows

    def line(self, row: int) -> int:
        """First line of a row, or of the first row that is malformed."""
        seen, start = -1, 1
        with self._open(self._path) as file:
            reader = self._reader(file)
            try:
                for fields in reader:
                    if fields:
                        if seen == row:
                            break
                        seen += 1
                    start = reader.line_num + 1
            except csv.Error:
                pass
        return start


@final
class _JsonList(_TextTable):
    """A JSON list of objects."""

    def _read_names(self, file: TextIO, path: str) -> list[str]:
        for record in list_records(file, path, self._open):
            return _names_of(record, path)
        return []

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        first = 0
        with self._open(self._path) as file:
            every = list_records(file, self._path, self._open)
            while records := list(islice(every, CHUNK_ROWS)):
                yield record_values(records, columns, first, self)
                first += len(records)

    def line(self, row: int) -> int | None:
        with self._open(self._path) as file:
            text = file.read()
        decoder = json.JSONDecoder()
        place = text.index("[") + 1
        try:
            for _ in range(row):
                place = decoder.raw_decode(text, past_blanks(text, place))[1]
                place = text.index(",", place) + 1
        except RecursionError:
            return None  # It went just about well when there were fewer callers.
        return text.count("\n", 0, past_blanks(text, place)) + 1


@final
class _JsonLines(_TextTable):
    """One JSON object a line. Blank lines are passed over."""

    def _read_names(self, file: TextIO, path: str) -> list[str]:
        for line, text in self._lines(file):
            self.header_line = line
            return _names_of(parse(text, path, line), path, line)
        return []

    @staticmethod
    def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
        return ((line, text.rstrip()) for line, text in enumerate(file, 1) if not text.isspace())

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        first = 0
        with self._open(self._path) as file:
            lines = self._lines(file)
            while records := [parse(text, self._path, line) for line, text in islice(lines, CHUNK_ROWS)]:
                yield record_values(records, columns, first, self)
                first += len(records)

    def line(self, row: int) -> int:
        with self._open(self._path) as file:
            return next(islice(self._lines(file), row, None))[0]


@final
class _Parquet(Table):
    """A Parquet file; reads only the columns that are asked for."""

    def __init__(self, path: str) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise SourceError('reading Parquet needs pyarrow: pip install "fitstream[parquet]".', file=path) from None
        self._errors = (OSError, ValueError, pa.ArrowException)  # names and texts that are not UTF-8 are a ValueError
        try:
            self._file = parquet.ParquetFile(path)
            names = self._file.schema_arrow.names
        except self._errors as error:
            raise self._unreadable(path, error) from None
        super().__init__(names, f"table {path!r}", path)

    def chunks(self, columns: Sequence[str]) -> Iterator[list[Values]]:
        batches = self._file.iter_batches(CHUNK_ROWS, columns=list(columns))
        try:
            for batch in batches:
                yield [arrow_values(batch.column(name)) for name in columns]
        except self._errors as error:
            raise self._unreadable(str(self.file), error) from None
        finally:
            self._file.close()

    @staticmethod
    def _unreadable(path: str, error: Exception) -> SourceError:
        return SourceError(f"the table is not readable as Parquet: {error}", file=path)


def _names_of(record: Any, path: str, line: int | None = None) -> list[str]:
    if not isinstance(record, dict):
        raise SourceError(
            f"the first row is of type {type(record).__name__}, not an object with names.", file=path, line=line
        )
    return list(record)


_KINDS: dict[str, Callable[[str], Table]] = {
    ".csv": lambda path: _Delimited(path, ","),
    ".tsv": lambda path: _Delimited(path, "\t"),
    ".json": _JsonList,
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
    ".parquet": _Parquet,
}

#: Kinds of files that can be read, by their suffix.
TABLE_SUFFIXES = tuple(_KINDS)
