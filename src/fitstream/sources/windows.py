"""Overlapping windows over one long thing: a text, a list of tokens, a time series.

A sample is a stretch of it, read where it lies, and nothing overlapping is ever stored: 10^9 characters give 10^9
samples. What is long may be an array in memory, mapped, in HDF5 or zarr, or a text file (`characters`).

Tokens and characters come as int64, or one-hot as float32, made when they are read. Time series keep their dtype.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.events import Observer, checked_observers
from fitstream.sampling import Indices
from fitstream.scratch import Arena
from fitstream.sources.array_files import is_in_npz, with_files_mapped
from fitstream.sources.arrays import ArraySource
from fitstream.sources.base import Reader, Source
from fitstream.sources.characters import CharacterFile, encode_text
from fitstream.sources.encodings import check_encoding

__all__ = ["Target", "WindowSource", "open_windows"]

Target: TypeAlias = Literal["next", "sequence"] | None

_ARRAY_FILES = (".npy", ".npz")
_FEW_ROWS = 16
#: What is no text to learn from: without spaces, and with an ending as files have.
_FILE_NAME = re.compile(r"[^\s]{1,255}\.[A-Za-z]\w{0,7}")


def open_windows(
    source: Any,
    length: int,
    stride: int,
    *,
    target: Target,
    one_hot: bool,
    class_count: int | None,
    alphabet: Sequence[str] | None,
    encoding: str,
    allow_nan: bool,
    observers: Sequence[Observer],
) -> WindowSource:
    """The source for windows over a text, an array, or a file of either.

    Raises:
        PlanError: If an argument can't be used.
        SourceError: If the source can't be read, is empty, or is shorter than a window.
    """
    for name, value in (("length", length), ("stride", stride), ("class_count", class_count)):
        if value is None and name == "class_count":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise PlanError(f"{name}={value!r} must be a whole number from 1 on.")
    if target not in ("next", "sequence", None):
        raise PlanError(f'target={target!r} must be "next", "sequence" or None.')
    check_encoding(encoding)
    observers = checked_observers(observers)
    names: list[str] | None = None
    rows: ArraySource | CharacterFile
    is_path = isinstance(source, os.PathLike) or (isinstance(source, str) and _is_file(source))
    in_archive = isinstance(source, (str, os.PathLike)) and is_in_npz(os.fspath(source))
    if is_path and not in_archive and not os.fspath(source).lower().endswith(_ARRAY_FILES):
        rows = CharacterFile(os.fspath(source), encoding, alphabet, observers)
        names = rows.alphabet
    elif isinstance(source, str) and not is_path and not in_archive:
        if not source:
            raise SourceError("the text has no characters, so there are no windows.")
        if _FILE_NAME.fullmatch(source):
            raise SourceError(f"the file does not exist. Relative paths start at {os.getcwd()!r}.", file=source)
        _check_length(len(source), int(length), target, "characters", _maybe_path(source))
        codes, names = encode_text(source, alphabet)
        rows = ArraySource(codes)
    else:
        rows = _array_rows(source, allow_nan)
    if names is not None and class_count is not None:
        raise PlanError(f"class_count={class_count} is for tokens; characters have their alphabet, of {len(names):,}.")
    if names is None and alphabet is not None:
        raise PlanError("alphabet= is for text; for tokens say how many there are by class_count=.")
    return WindowSource(
        rows, names, int(length), int(stride), target, one_hot, None if class_count is None else int(class_count)
    )


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # a zero byte is in it
        return False


def _maybe_path(text: str) -> str:
    """Advice where a short text looks like the name of a file that isn't there."""
    if len(text) > 200 or "\n" in text or not os.path.splitext(text)[1]:
        return ""
    return f" There is no file {text!r} in {os.getcwd()!r}, so that it was taken for the text itself."


def _array_rows(source: Any, allow_nan: bool) -> ArraySource:
    given = os.fspath(source) if isinstance(source, os.PathLike) else source
    if not hasattr(given, "shape"):
        try:
            given = with_files_mapped(given) if isinstance(given, str) else np.asarray(given)
        except ValueError as error:
            raise SourceError(f"windows go over one array, and this {type(source).__name__} is none: {error}") from None
    if isinstance(given, dict):
        raise SourceError(
            f"it holds {len(given)} arrays; windows go over one. Name it behind the file.", file=str(source)
        )
    if len(given.shape) == 0:
        raise SourceError(
            f"windows go over a text, a file, or an array of at least one axis, and this is a {type(source).__name__}."
        )
    if given.shape[0] == 0:
        raise SourceError("the array has no rows, so there are no windows.")
    return ArraySource(given, allow_nan=allow_nan)


def _check_length(count: int, length: int, target: Target, unit: str, advice: str = "") -> None:
    span = length + (target is not None)
    if count < span:
        what = f"a window of {length:,}" + (" and the next one" if target is not None else "")
        raise SourceError(
            f"{what} takes {span:,} {unit}, but there are {count:,}. Use length <= "
            f"{max(1, count - (target is not None)):,}, or a longer source.{advice}"
        )


@final
class WindowSource(Source):
    """Windows over rows.

    Args:
        rows: The rows.
        names: Characters by number, where the rows are a text.
        length: Rows of a window.
        stride: Rows from the start of a window to that of the next one.
        target: What comes with a window: the row after it, the window one row later, or nothing.
        one_hot: Whether numbers become rows of zeros and a one.
        class_count: How many tokens there are, where they are no characters.
    """

    def __init__(
        self,
        rows: ArraySource | CharacterFile,
        names: list[str] | None,
        length: int,
        stride: int,
        target: Target,
        one_hot: bool,
        class_count: int | None,
    ) -> None:
        self.rows = rows
        self.class_names = names
        self.length = length
        self.stride = stride
        self.target = target
        self.one_hot = one_hot
        self.class_count = len(names) if names is not None else class_count
        self.row_shape, dtype = _row_of(rows)
        self.is_discrete = not self.row_shape and dtype.kind in "iu"
        self.dtype = np.dtype(np.float32 if one_hot else np.int64) if self.is_discrete else dtype.newbyteorder("=")
        if not self.is_discrete and (one_hot or class_count is not None):
            raise PlanError(
                "one_hot= and class_count= are for tokens and characters, and these rows are "
                f"{dtype}{list(self.row_shape)}."
            )
        if one_hot and self.class_count is None:
            raise PlanError("one_hot=True needs class_count=, the number of different tokens.")
        unit = "characters" if names is not None else "tokens" if self.is_discrete else "rows"
        if len(rows) == 0:
            where = f" of {rows.shown!r}" if isinstance(rows, CharacterFile) else ""
            raise SourceError(f"the text{where} has no characters (0 bytes), so there are no windows.")
        _check_length(len(rows), length, target, unit)
        self.unit = unit
        self.checks_finite = isinstance(rows, ArraySource) and rows.checks_finite

    def __len__(self) -> int:
        return (len(self.rows) - self.length - (self.target is not None)) // self.stride + 1

    def open(self) -> Reader:
        return _WindowReader(self)

    @property
    def index_bytes(self) -> int:
        return self.rows.index_bytes

    @property
    def memory_bytes(self) -> int:
        return self.rows.memory_bytes if isinstance(self.rows, ArraySource) else 0

    @property
    def least_bytes(self) -> int:
        width = self.class_count or 1 if self.one_hot else 1
        return self.block_bytes + 2 * self.length * width * math.prod(self.row_shape) * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        return self.rows.block_bytes + (8 * self.length if isinstance(self.rows, CharacterFile) else 0)

    def path(self, index: int) -> str | None:
        """The file, and where in it the window begins."""
        if isinstance(self.rows, CharacterFile):
            return f"{self.rows.shown}, character {index * self.stride}"
        file = self.rows.path(index)
        return None if file is None else f"{file}, row {index * self.stride}"

    def fingerprint_parts(self) -> dict[str, Any]:
        options = self.length, self.stride, self.target, self.one_hot, self.class_count
        parts: dict[str, Any] = {"windows": options}
        if self.class_names is not None:
            parts["alphabet"] = self.class_names
        if isinstance(self.rows, ArraySource):
            return parts | self.rows.fingerprint_parts()
        reader = _WindowReader(self)
        try:
            places = np.linspace(0, len(self) - 1, min(len(self), _FEW_ROWS)).astype(int).tolist()
            return parts | {"text": (len(self.rows), [reader.span(place).copy() for place in places])}
        finally:
            reader.close()

    def __repr__(self) -> str:
        where = f" of {self.rows.shown!r}" if isinstance(self.rows, CharacterFile) else ""
        stride = f", {self.stride} apart" if self.stride > 1 else ""
        return f"{len(self):,} windows of {self.length:,} over {len(self.rows):,} {self.unit}{where}{stride}"


def _row_of(rows: ArraySource | CharacterFile) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if isinstance(rows, CharacterFile):
        return (), rows.dtype
    if len(rows.arrays) != 1:
        raise SourceError(f"windows go over one array, and these are {len(rows.arrays)}. Join them, or give one.")
    array = rows.arrays[0]
    return tuple(array.shape[1:]), array.dtype


@final
class _WindowReader(Reader):
    """Reads windows for one lane."""

    def __init__(self, source: WindowSource) -> None:
        self._source = source
        self._rows = source.rows.open()
        self._count = source.length + (source.target is not None)
        shape, dtype = _row_of(source.rows)
        self._span = np.empty((self._count, *shape), dtype.newbyteorder("="))
        self._steps = np.arange(self._count)
        # Rows of an array that is in memory or mapped are reached as they are.
        array = source.rows.arrays[0] if isinstance(source.rows, ArraySource) else None
        self._array = array if isinstance(array, np.ndarray) else None

    def span(self, index: int) -> npt.NDArray[Any]:
        """The rows of a window and its target, `(length + 1, ...)`; valid until the next call."""
        start = index * self._source.stride
        if self._array is not None:
            return self._array[start : start + self._count]
        if isinstance(self._rows, Reader):
            self._rows.gather(self._steps + start, [self._span])
            return self._span
        return self._rows.stretch(start, self._count)

    def read(self, index: int, arena: Arena) -> Any:
        source = self._source
        parts = [np.empty(shape, source.dtype) for shape in self._shapes()]
        self._place(index, parts)
        return parts[0] if source.target is None else tuple(parts)

    def _shapes(self) -> list[tuple[int, ...]]:
        source = self._source
        inner = (source.class_count or 0,) if source.one_hot else source.row_shape
        window = (source.length, *inner)
        return {None: [window], "next": [window, inner], "sequence": [window, window]}[source.target]

    def gather(self, indices: Indices, out: Sequence[npt.NDArray[Any]]) -> bool:
        for row, index in enumerate(indices.tolist()):
            self._place(index, [part[row, ...] for part in out])
        return True

    def _place(self, index: int, parts: Sequence[npt.NDArray[Any]]) -> None:
        """Write one sample."""
        source, span = self._source, self.span(index)
        if source.is_discrete and source.class_names is None and source.class_count is not None:
            self._check_range(index, span, source.class_count)
        self._write(span[: source.length], parts[0])
        if source.target == "next":
            self._write(span[source.length], parts[1])
        elif source.target == "sequence":
            self._write(span[1:], parts[1])

    def _write(self, numbers: Any, part: npt.NDArray[Any]) -> None:
        if not self._source.one_hot:
            part[...] = numbers
            return
        part[...] = 0
        np.put_along_axis(part, np.asarray(numbers, np.int64)[..., None], 1, axis=-1)

    def _check_range(self, index: int, span: npt.NDArray[Any], class_count: int) -> None:
        wrong = np.flatnonzero((span < 0) | (span >= class_count))
        if len(wrong):
            place = index * self._source.stride + int(wrong[0])
            raise SourceError(
                f"token {place:,} is {int(span[wrong[0]])}, and class_count={class_count} allows 0 to "
                f"{class_count - 1}."
            )

    def close(self) -> None:
        self._rows.close()
