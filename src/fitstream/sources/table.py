"""A table that lists files and their labels.

One loop takes the table piece by piece: paths are packed, labels encoded, and the piece is dropped. What is left is the
path's own bytes and about twelve more for each row.

With an explicit `root` no row may lead out of it. Each distinct folder in the table is resolved once, when the table
is read, as the system would: absolute paths, `..` and linked folders are seen there. A file that is itself a link is
resolved when it is read, since looking at each of a million files would take minutes on a network drive. Whether files
exist is not checked here either, for the same reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import numpy as np

from fitstream.errors import PlanError, SourceError
from fitstream.sources.class_names import check_labelling
from fitstream.sources.columns import Arrow, Frame, Paths, Records, Rows, Table
from fitstream.sources.files import FileSource, PathPacker, encode_path, is_inside
from fitstream.sources.labels import ClassEncoder, Encoder, LabelMode, NumberEncoder, Values, brief
from fitstream.sources.list_labels import ListEncoder, holds_lists
from fitstream.sources.table_files import TABLE_SUFFIXES, open_table_file

__all__ = ["read_table"]


def read_table(
    table: Any,
    *,
    image: str = "path",
    label: str | Sequence[str] | None = "label",
    root: str | os.PathLike[str] | None = None,
    label_mode: LabelMode | None = "int",
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
    path_to_class: Callable[[str], Any] | None = None,
) -> FileSource:
    """Read a table of paths and labels.

    Args:
        table: Path of a .csv, .tsv, .json, .jsonl, .ndjson or .parquet file; a pandas, polars or pyarrow table; a list
            of dicts; a 2-D array or list of rows `[path, label...]`, for which `image` and `label` don't apply; or a
            list of paths.
        image: Column of paths.
        label: Column of labels, or a list of columns that make one float32 vector; None for no labels.
        root: Folder that relative paths start at, and that no path may leave. By default they start at the table's own
            folder, or the current one for a table in memory, and may lead anywhere.
        label_mode: "int", "categorical", "binary", "raw" (numbers as they are), or None for samples without labels.
        classes: Class names in label order.
        allow_outside: Let paths leave `root`.
        path_to_class: Gives the class of a path, as the table has it, in the place of a column of labels.
    Returns:
        The files in the order of the rows.
    Raises:
        PlanError: If arguments are wrong or contradict each other.
        SourceError: If the table can't be read, or a row is wrong: with file, line and column where it has them.
    """
    if label is None:
        label_mode = None
    names = check_labelling(label_mode, classes)
    base, inside = _check_root(table, root, allow_outside)
    opened = _open_table(table)
    if path_to_class is not None:
        _check_path_to_class(path_to_class, label, label_mode)
    image, labels = _columns(opened, image, None if path_to_class is not None else label, label_mode)
    vector = path_to_class is None and _is_vector(opened, label, labels)
    encoder = _encoder(opened, labels or [image], vector, label_mode, names)
    packer = PathPacker()
    guard = None if inside is None else _Guard(base, inside)
    for path_values, *label_values in opened.pieces([image, *labels]):
        paths = _encode(path_values, len(packer), opened, image)
        if guard is not None:
            guard.check(paths, len(packer), opened, image)
        if len(labels) == 1 and not len(packer) and holds_lists(label_values[0], named=names is not None):
            _check_vector("a list", label_mode, names)
            encoder = ListEncoder(labels[0], opened.blame)
        if path_to_class is not None:
            label_values.append(_classes_of(path_to_class, paths, len(packer), opened, image))
        packer.extend(paths)
        if encoder is not None:
            encoder.extend(label_values)
    if len(packer) == 0:
        raise _no_rows(opened.file)
    paths_of_all = packer.packed(base)
    if encoder is None or label_mode is None:
        return FileSource(paths_of_all, None, None, opened.origin, inside=inside)
    found = encoder.finish()
    kind: LabelMode = label_mode if isinstance(encoder, ClassEncoder) else "raw"
    return FileSource(paths_of_all, found.values, found.class_names, opened.origin, kind, found.class_count, inside)


def _columns(
    opened: Table, image: str, label: str | Sequence[str] | None, label_mode: LabelMode | None
) -> tuple[str, list[str]]:
    """The column of paths and those of labels, all of which are there."""
    labels = [] if label is None else _label_columns(opened, label, label_mode)
    if opened.positional:
        return opened.names[0], labels
    opened.check_columns({image: "image"} | dict.fromkeys(labels, "label"))
    return image, labels


def _open_table(table: Any) -> Table:
    if isinstance(table, (str, os.PathLike)):
        return open_table_file(os.fsdecode(table))
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(table).__mro__}
    for kind in sorted(kinds & {"pandas.DataFrame", "polars.DataFrame"}):
        return Frame(table, kind)
    for kind in sorted(kinds & {"pyarrow.Table", "pyarrow.RecordBatch"}):
        return Arrow(table, kind)
    if kinds & {"pandas.Series", "pandas.Index", "polars.Series"} and len(table):
        return Paths(table.to_list())
    if isinstance(table, np.ndarray) and table.ndim == 1 and table.dtype.kind in "OUT" and len(table):
        return Paths(list(table))
    if isinstance(table, np.ndarray) and table.ndim == 2 and table.shape[1] > 0 and len(table):
        return Rows(table)
    if isinstance(table, (list, tuple)) and table:
        if isinstance(table[0], dict):
            return Records(table)
        if isinstance(table[0], (list, tuple, np.ndarray)) and len(table[0]):
            return Rows(table)
        if isinstance(table[0], (str, os.PathLike)):
            return Paths(table)
    if isinstance(table, (list, tuple, np.ndarray)) and len(table) == 0:
        raise _no_rows(None)
    what = (
        f"a list of {type(table[0]).__name__}" if isinstance(table, (list, tuple)) else f"type {type(table).__name__}"
    )
    lazy = " Call .collect() on it first." if "polars.LazyFrame" in kinds else ""
    raise SourceError(
        f"{what} is not a table.{lazy} Supported are {', '.join(TABLE_SUFFIXES)} files; pandas, polars and pyarrow "
        f"tables; a list of dicts; a 2-D array or list of rows [path, label...]; and a list of paths."
    )


def _no_rows(file: str | None) -> SourceError:
    return SourceError("the table has no rows. Add one for each sample: a path, and its label.", file=file)


def _check_root(table: Any, root: str | os.PathLike[str] | None, allow_outside: bool) -> tuple[bytes, bytes | None]:
    """Where relative paths start, and the resolved folder that none may leave."""
    if root is not None:
        if not isinstance(root, (str, bytes, os.PathLike)):
            raise PlanError(f"root={root!r} must be the path of a folder, or None for the table's own.")
        base = os.path.abspath(os.fsencode(root))
        if not os.path.isdir(base):
            what = "is not a folder" if os.path.exists(base) else "does not exist"
            raise SourceError(f"root={os.fspath(root)!r} {what}. Relative paths start at {os.getcwd()!r}.")
        return base, None if allow_outside else os.path.realpath(base)
    if isinstance(table, (str, os.PathLike)):
        return os.path.dirname(os.path.abspath(os.fsencode(table))), None
    return os.fsencode(os.getcwd()), None


def _label_columns(table: Table, label: Any, label_mode: LabelMode | None) -> list[str]:
    if label_mode is None:
        return []
    if table.positional:
        if len(table.names) == 1:
            raise SourceError(f"{table.origin} has paths only. Add labels, give path_to_class=, or use label=None.")
        return list(table.names[1:])
    if isinstance(label, str) or _is_column(table, label):
        return [label]
    labels = list(label) if isinstance(label, Iterable) else []
    named = all(isinstance(name, str) or _is_column(table, name) for name in labels)
    if not labels or not named or len(set(labels)) < len(labels):
        raise PlanError(f"label={label!r} must be a column, or a list of different columns, or None for no labels.")
    return labels


def _is_column(table: Table, name: Any) -> bool:
    """Whether a frame has a column of that name, which may be a number or a tuple."""
    return not isinstance(name, list) and name in table.names


def _check_path_to_class(path_to_class: Any, label: str | Sequence[str] | None, label_mode: str | None) -> None:
    if not callable(path_to_class):
        raise PlanError(f"path_to_class= must be a function of a path, not a {type(path_to_class).__name__}.")
    if label not in ("label", None) or label_mode is None:
        given = f"label={label!r}" if label_mode is not None else "label_mode=None"
        raise PlanError(f"path_to_class= gives the labels, so that {given} contradicts it. Leave one of them out.")


def _classes_of(
    path_to_class: Callable[[str], Any], paths: list[bytes], first: int, table: Table, column: str
) -> Values:
    """The labels of one piece."""
    made = []
    for row, path in enumerate(map(os.fsdecode, paths), first):
        try:
            made.append(path_to_class(path))
        except Exception as error:
            raise table.blame(
                row, column, f"path_to_class({brief(path)}) failed with {type(error).__name__}: {error}."
            ) from error
    return made


def _is_vector(table: Table, label: str | Sequence[str] | None, labels: list[str]) -> bool:
    return len(labels) > 1 if table.positional else labels != [label]


def _encoder(
    table: Table, labels: list[str], vector: bool, label_mode: LabelMode | None, classes: list[str] | None
) -> Encoder | None:
    if label_mode is None:
        return None
    if vector:
        _check_vector(f"{len(labels)} columns", label_mode, classes)
    if vector or label_mode == "raw":
        return NumberEncoder(labels, vector, table.blame)
    return ClassEncoder(labels[0], label_mode, classes, table.blame)


def _check_vector(what: str, label_mode: LabelMode | None, classes: list[str] | None) -> None:
    if classes is not None or label_mode in ("categorical", "binary"):
        given = "classes=" if classes is not None else f"label_mode={label_mode!r}"
        raise PlanError(
            f"{given} is for one class a sample, but {what} of labels make one float32 vector. Leave it out."
        )


def _encode(values: Values, first: int, table: Table, column: str) -> list[bytes]:
    """Paths of one piece as bytes; its first row is row `first` of the table."""
    try:
        paths = [encode_path(path) for path in values]
    except (AttributeError, UnicodeEncodeError):
        paths = [_encode_one(path, row, table, column) for row, path in enumerate(values, first)]
    if not all(paths):
        raise table.blame(first + paths.index(b""), column, "the path is empty. Fill it in, or leave the row out.")
    for row, path in enumerate(paths, first):
        if b"\0" in path:
            raise table.blame(row, column, f"the path {brief(os.fsdecode(path))} holds a zero byte; no file can.")
    return paths


def _encode_one(path: Any, row: int, table: Table, column: str) -> bytes:
    if path is None or path != path:
        raise table.blame(row, column, "the path is missing. Fill it in, or leave the row out.")
    try:
        return os.fsencode(path)
    except TypeError:
        raise table.blame(row, column, f"{brief(path)} is of type {type(path).__name__}, not a path.") from None
    except UnicodeEncodeError:
        raise table.blame(row, column, f"the path {brief(path)} has characters that no file name can have.") from None


@final
class _Guard:
    """Refuses paths that lead out of a folder, through absolute paths, `..` or links to folders.

    Args:
        base: Folder that relative paths start at.
        inside: The folder, resolved.
    """

    def __init__(self, base: bytes, inside: bytes) -> None:
        self._base = base
        self._inside = inside
        self._known: set[bytes] = set()

    def check(self, paths: list[bytes], first: int, table: Table, column: str) -> None:
        folders = {path[: path.rfind(b"/") + 1] for path in paths} - self._known
        for folder in sorted(folders):
            target = os.path.realpath(os.path.join(self._base, folder))
            if not is_inside(target, self._inside):
                row, path = next((i, path) for i, path in enumerate(paths) if path[: path.rfind(b"/") + 1] == folder)
                raise table.blame(
                    first + row,
                    column,
                    f"the path {os.fsdecode(path)!r} leaves root {os.fsdecode(self._inside)!r}: it leads to "
                    f"{os.fsdecode(target)!r}. Correct it, or pass allow_outside=True if the table is trusted.",
                )
        self._known |= folders
