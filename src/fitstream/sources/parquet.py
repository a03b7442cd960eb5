"""Rows of Parquet files, read by row group: each is decoded whole, and a lane keeps the ones that it used last.

How large a decoded group is, the file's metadata say, so that the plan knows before one is read. What turns out larger
(bytes that repeat, which the file stores once) is an error that says so, and no surprise of the memory.

Each lane opens the files for itself, a few at a time. A file whose row groups are others than when it was given is
refused.
"""

from __future__ import annotations

import bisect
import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.sampling import Indices
from fitstream.scratch import Arena
from fitstream.sources.arrow import ArrowColumn, Classes, column_of, kind_of, type_of
from fitstream.sources.base import Reader, Source
from fitstream.sources.blocks import KeptBlocks, by_block
from fitstream.sources.labels import few
from fitstream.sources.parquet_files import OpenedFile, Part, decoded_bytes, described, let_go, load, mark
from fitstream.spec import Structure, format_bytes

__all__ = ["ParquetSource", "open_parquet"]

#: Files that a lane keeps open, and labels that are read whole when all are asked for.
_OPEN_FILES, _SMALL_BYTES = 4, 1 << 24


def open_parquet(
    paths: Sequence[str], names: Sequence[Any], classes: list[str] | None, *, allow_nan: bool
) -> ParquetSource:
    """Describe the rows of some files.

    Args:
        paths: Of the files, at least one.
        names: Of columns: one, several for a tuple, or one tree of names.
        classes: Names of the classes that the last column holds, in label order.
        allow_nan: Don't look for NaN and infinity.
    Raises:
        PlanError: If there is no name.
        SourceError: If a file can't be read, or a column isn't there or holds what no array can.
    """
    tree = names[0] if len(names) == 1 else tuple(names)
    structure = Structure(tree)
    leaves = structure.flatten(tree)
    parts, group_bytes, schema = [], 0, None
    for path in paths:
        with OpenedFile(path) as file:
            if schema is None:
                schema = file.schema_arrow
                if not leaves or not all(isinstance(name, str) and name for name in leaves):
                    raise PlanError(f"from_parquet needs names of columns, not {tree!r}. {_told_names(schema)}")
                _check_columns(schema, leaves, classes, path)
            for name in leaves:
                here, first = type_of(file.schema_arrow, name), type_of(schema, name)
                if here is None:
                    raise SourceError(
                        f"there is no column {name!r}, as there is in {paths[0]!r}. {_told_names(file.schema_arrow)}",
                        file=path,
                    )
                if here != first:
                    raise SourceError(
                        f"column {name!r} holds {here}, and {first} in {paths[0]!r}. Write them alike.", file=path
                    )
            parts.append(described(file, path, leaves))
            sizes = [decoded_bytes(file, group, leaves) for group in range(file.num_row_groups)]
            group_bytes = max(group_bytes, *sizes, 0)
    if not sum(map(sum, (part.group_rows for part in parts))):
        raise SourceError("it has no rows, so that there is nothing to feed.", file=paths[0])
    assert schema is not None
    kinds = [kind_of(type_of(schema, name)) for name in leaves]
    floats = any(dtype is not None and dtype.kind in "fc" for _, dtype, _ in kinds)
    # fmt: off
    return ParquetSource(
        parts, structure, leaves, group_bytes, None if classes is None else Classes(classes),
        text=[name for name, (kind, *_) in zip(leaves, kinds, strict=True) if kind == "text"],
        checks_finite=floats and not allow_nan, begins_with_bytes=kinds[0][0] == "bytes",
        has_labels=len(leaves) > 1 and (classes is not None or kinds[-1][::2] == ("numbers", 0)))
    # fmt: on


class _Group(NamedTuple):
    """A decoded row group: the columns of each piece of it, and where the pieces begin and the last one ends."""

    pieces: list[list[ArrowColumn]]
    edges: list[int]

    def columns(self, row: int) -> tuple[list[ArrowColumn], int]:
        """The columns of the piece that holds a row, and its place there."""
        piece = bisect.bisect_right(self.edges, row) - 1
        return self.pieces[piece], row - self.edges[piece]


def _check_columns(schema: Any, names: Sequence[str], classes: list[str] | None, path: str) -> None:
    for place, name in enumerate(names):
        held = type_of(schema, name)
        if held is None:
            raise SourceError(f"there is no column {name!r}. {_told_names(schema)}", file=path, column=name)
        kind, _, depth = kind_of(held)
        if classes is not None and place == len(names) - 1 and (kind == "bytes" or depth):
            raise SourceError(
                f"the column holds {held}, but classes= names what the last column holds, one name or index a row.",
                file=path,
                column=name,
            )
        if kind == "text" and (classes is None or place < len(names) - 1):
            raise SourceError(
                "the column is text, and samples are numbers. Name its values with classes=[...], as the last column; "
                "or read paths of pictures with from_table.",
                file=path,
                column=name,
            )
        if not kind:
            inside = " Name a column inside it by a dotted path." if str(held).startswith("struct<") else ""
            raise SourceError(
                f"the column holds {held}; numbers, lists of them and bytes can be read.{inside}",
                file=path,
                column=name,
            )


def _told_names(schema: Any) -> str:
    return f"Its {len(schema.names)} columns: {few(schema.names)}."


@final
class ParquetSource(Source):
    """Rows of Parquet files.

    Args:
        parts: The files.
        structure: Of a sample.
        names: Of its columns, in the order of the structure.
        group_bytes: Memory of the largest decoded row group.
        classes: Of the last column.
        text: Names of the columns of text.
        checks_finite: As in `Source`.
        begins_with_bytes: Whether the first column holds encoded pictures.
        has_labels: Whether the last column of several is one number or class a row.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        structure: Structure,
        names: Sequence[str],
        group_bytes: int,
        classes: Classes | None,
        *,
        text: Sequence[str],
        checks_finite: bool,
        begins_with_bytes: bool,
        has_labels: bool,
    ) -> None:
        self.parts = list(parts)
        self.structure = structure
        self.names = list(names)
        self.part_names = [f"column {name!r}" for name in names]
        self.group_bytes = group_bytes
        self.classes = classes
        self.class_names = None if classes is None else classes.names
        self.text = list(text)
        self.has_labels = has_labels
        self.checks_finite = checks_finite
        self.begins_with_bytes = begins_with_bytes
        self.kept_blocks = 1
        rows = [count for part in self.parts for count in part.group_rows]
        self.edges = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        #: File and row group of each block.
        self.places = [(n, group) for n, part in enumerate(self.parts) for group in range(len(part.group_rows))]

    def __len__(self) -> int:
        return int(self.edges[-1])

    def open(self) -> Reader:
        return _ParquetReader(self)

    @property
    def index_bytes(self) -> int:
        return self.edges.nbytes + 100 * len(self.places)

    @property
    def block_bytes(self) -> int:
        # One more while it is decoded, from compressed pages to arrays.
        return (self.kept_blocks + 1) * self.group_bytes

    @property
    def least_bytes(self) -> int:
        return self.block_bytes

    def block_edges(self) -> Indices:
        return np.unique(self.edges)

    def keeping(self, block_count: int) -> ParquetSource:
        kept = copy.copy(self)
        kept.kept_blocks = min(block_count, len(self.places))
        return kept

    def path(self, index: int) -> str:
        return self.parts[self.places[self.block(index)][0]].path

    def block(self, index: int) -> int:
        """The block that holds a row."""
        return int(np.searchsorted(self.edges, index, "right")) - 1

    def labels(self) -> npt.NDArray[np.generic] | None:
        """The last column of several, if it is one number or class a row, and not too long to be read now."""
        if not self.has_labels or 8 * len(self) > _SMALL_BYTES:
            return None
        read = _ParquetReader(self, self.names[-1:])
        try:
            rows = [
                read.column(block, 0, int(self.edges[block + 1] - self.edges[block]))
                for block in range(len(self.places))
            ]
            return np.concatenate(rows)
        except SourceError as error:
            raise SourceError(str(error), file=self.parts[0].path, column=self.names[-1]) from None
        finally:
            read.close()

    def fingerprint_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "row groups": [[part.group_rows, part.content] for part in self.parts],
            "columns": self.names,
        }
        return parts | ({} if self.classes is None else {"class names": self.classes.names})

    def __repr__(self) -> str:
        files = f"Parquet file {self.parts[0].path!r}" if len(self.parts) == 1 else f"{len(self.parts)} Parquet files"
        return f"{files}: {len(self):,} rows in {len(self.places):,} row groups of {', '.join(self.names)}"


@final
class _ParquetReader(Reader):
    def __init__(self, source: ParquetSource, names: Sequence[str] | None = None) -> None:
        load()  # now, so that what it takes is measured before the first row
        self._source = source
        self._names = list(names or source.names)
        self._files = KeptBlocks(self._open, _OPEN_FILES)
        self._groups = KeptBlocks(self._decode, source.kept_blocks)

    def _open(self, number: int) -> OpenedFile:
        part = self._source.parts[number]
        opened = OpenedFile(part.path, self._source.text)
        if mark(part.path) != part.mark:
            opened.close()
            raise SourceError("it was written anew since it was given. Leave it as it is.", file=part.path)
        return opened

    def _decode(self, block: int) -> _Group:
        source = self._source
        number, group = source.places[block]
        decoded, taken, last = _Group([], [0]), 0, len(self._names) - 1
        for piece in self._files.get(number).pieces(group, self._names):
            columns = [
                ArrowColumn(column_of(piece, name), source.classes if i == last else None)
                for i, name in enumerate(self._names)
            ]
            decoded.pieces.append(columns)
            decoded.edges.append(decoded.edges[-1] + piece.num_rows)
            taken += sum(column.nbytes for column in columns)
        if taken > source.group_bytes:
            raise SourceError(
                f"its row group {group} takes {format_bytes(taken)} decoded, and {format_bytes(source.group_bytes)} "
                "were planned by the file's metadata: values repeat. Write it with use_dictionary=False.",
                file=source.parts[number].path,
            )
        return decoded

    def column(self, block: int, place: int, count: int) -> npt.NDArray[Any]:
        """All rows of one column of a block."""
        places = map(self._groups.get(block).columns, range(count))
        try:
            return np.array([columns[place].row(row) for columns, row in places])
        except SourceError as error:
            path = self._source.parts[self._source.places[block][0]].path
            raise SourceError(str(error), file=path, column=self._names[place]) from None

    def read(self, index: int, arena: Arena) -> Any:
        block = self._source.block(index)
        columns, place = self._groups.get(block).columns(index - int(self._source.edges[block]))
        values = []
        for name, column in zip(self._names, columns, strict=True):
            try:
                values.append(column.row(place))
            except SourceError as error:
                raise SourceError(str(error), file=self._source.path(index), column=name) from None
        return self._source.structure.build(values)

    def gather(self, indices: Indices, out: Sequence[npt.NDArray[Any]]) -> bool:
        edges = self._source.edges
        for block, rows in by_block(np.searchsorted(edges, indices, "right") - 1):
            group = self._groups.get(block)
            places = indices[rows] - edges[block]
            for piece, some in by_block(np.searchsorted(group.edges, places, "right") - 1):
                for column, leaf in zip(group.pieces[piece], out, strict=True):
                    taken = np.empty((len(some), *leaf.shape[1:]), leaf.dtype)
                    if not column.gather(places[some] - group.edges[piece], taken):
                        return False
                    leaf[rows[some]] = taken
        return True

    def close(self) -> None:
        self._groups.clear()
        self._files.clear()
        let_go()
