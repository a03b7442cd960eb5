"""Where the lines of text files start: found once, kept in the user's cache folder, and shared by all workers.

The files count as one, laid end to end, so that a line is one number: 4 bytes a line below 4 GiB of text, else 8. Lines
that are no samples (empty ones, headers) take no place there; of each it is kept how many samples come before it, so
that the number of a line in its file can be told.
"""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.events import IndexProgress, Observer
from fitstream.kept_arrays import Column, file_identity, keep, kept
from fitstream.memory import shared_copy
from fitstream.sources.encodings import Encoding

__all__ = ["LineIndex", "first_bytes", "index_lines", "tell"]

_READ_BYTES = 1 << 22
#: Below this, reading the file again takes no longer than looking for what was kept.
_KEPT_BYTES = 1 << 16
_TOLD_EVERY_S = 0.5
#: How compressed files start.
_PACKED = ((b"\x1f\x8b\x08", ".gz"), (b"\xfd7zXZ\0", ".xz"), (b"\x28\xb5\x2f\xfd", ".zst"))
#: Lines whose lengths are compared at a time.
_LOOKED_AT = 1 << 18


@final
class LineIndex:
    """Where the samples of text files start.

    Attributes:
        starts: `(samples,)`, uint32 or uint64, in the files laid end to end.
        ends: `(files,)`, where each file ends there.
        skipped: Samples before each line that is none, `(skipped,)`, rising.
        lines: Lines before each file, `(files,)`.
    """

    __slots__ = ("_ends", "_starts", "ends", "lines", "skipped", "starts")

    def __init__(
        self, starts: npt.NDArray[Any], ends: npt.NDArray[Any], skipped: npt.NDArray[Any], lines: npt.NDArray[Any]
    ) -> None:
        self.starts = shared_copy(starts)
        self.ends = ends
        self.skipped = shared_copy(skipped)
        self.lines = lines
        # Single numbers come in a fraction of the time that they take out of arrays.
        self._starts, self._ends = self.starts.data, ends.tolist()

    def __reduce__(self) -> tuple[Any, ...]:
        return LineIndex, (self.starts, self.ends, self.skipped, self.lines)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.starts.nbytes + self.ends.nbytes + self.skipped.nbytes + self.lines.nbytes

    @property
    def longest_bytes(self) -> int:
        """Bytes of the longest sample at most, with what follows up to the next one."""
        longest = int(self.ends[-1]) - int(self.starts[-1])
        for first in range(0, len(self.starts), _LOOKED_AT):
            longest = max(longest, int(np.diff(self.starts[first : first + _LOOKED_AT + 1]).max(initial=0)))
        return longest

    def place(self, index: int) -> tuple[int, int, int]:
        """Which file a sample is in, where there, and how many bytes it has with what follows up to the next one."""
        start = self._starts[index]
        file = bisect.bisect_right(self._ends, start)
        before = self._ends[file - 1] if file else 0
        end = self._ends[file]
        if index + 1 < len(self._starts):
            end = min(end, self._starts[index + 1])
        return file, start - before, end - start

    def line(self, index: int) -> tuple[int, int]:
        """Which file a sample is in, and its line there, from 1."""
        file = self.place(index)[0]
        line = index + int(np.searchsorted(self.skipped, index, "right")) - int(self.lines[file])
        return file, line + 1


def first_bytes(path: str) -> bytes:
    """The first bytes of a text file, which hold its byte order mark.

    Raises:
        SourceError: If it can't be read, or holds no text but something compressed.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
    except OSError as error:
        raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None
    packed = next((suffix for magic, suffix in _PACKED if start.startswith(magic)), None)
    if packed is not None:
        raise SourceError(
            f"it is compressed. Unpack it; from_text reads it as it is, too, under a name that ends in {packed}.",
            file=path,
        )
    return start


def index_lines(
    paths: Sequence[str],
    encodings: Sequence[Encoding],
    *,
    skip_lines: int,
    keep_empty: bool,
    observers: Sequence[Observer],
) -> LineIndex:
    """Find the lines of text files, or what was kept of them.

    Raises:
        SourceError: If a file can't be read.
    """
    identities = [file_identity(path) for path in paths]
    ends = np.cumsum([each["bytes"] for each in identities], dtype=np.int64)
    options = json.dumps([[*map(list, encodings)], skip_lines, keep_empty])
    origin = {"files": identities, "options": options}
    scan = _Scan(paths, encodings, ends, skip_lines, keep_empty, observers)
    if ends[-1] >= _KEPT_BYTES:
        found = _checked(kept("lines", origin), ends)
        if found is None:
            try:
                keep("lines", origin, scan.columns())
                found = _checked(kept("lines", origin), ends)
            except OSError:
                found = None  # a folder that can't be written to costs only time
        if found is not None:
            return LineIndex(found["starts"], ends, found["skipped"], found["lines"])
    starts = np.concatenate([np.empty(0, scan.dtype), *scan.pieces()])
    return LineIndex(starts, ends, scan.skipped, scan.lines)


def _checked(found: dict[str, npt.NDArray[Any]] | None, ends: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]] | None:
    if found is None or found.keys() != {"starts", "skipped", "lines"} or len(found["lines"]) != len(ends):
        return None
    starts = found["starts"]
    if len(starts) and (starts[-1] >= ends[-1] or not (starts[1:] > starts[:-1]).all()):
        return None
    return found


@final
class _Scan:
    """Reads files once, from their start to their end.

    Attributes:
        dtype: Of what `pieces` gives.
    """

    def __init__(
        self,
        paths: Sequence[str],
        encodings: Sequence[Encoding],
        ends: npt.NDArray[Any],
        skip_lines: int,
        keep_empty: bool,
        observers: Sequence[Observer],
    ) -> None:
        self.dtype = np.dtype(np.uint32 if ends[-1] < 2**32 else np.uint64)
        self._paths = paths
        self._encodings = encodings
        self._ends = ends
        self._skip_lines = skip_lines
        self._keep_empty = keep_empty
        self._observers = observers
        self._skipped: list[npt.NDArray[Any]] = []
        self._lines: list[int] = []
        self._told_s = 0.0

    def columns(self) -> Iterator[Column]:
        """All that makes a `LineIndex`, to be kept."""
        yield Column("starts", self.dtype, self.pieces())
        yield Column("skipped", np.int64, [self.skipped])
        yield Column("lines", np.int64, [self.lines])

    @property
    def skipped(self) -> npt.NDArray[Any]:
        """As in `LineIndex`, after `pieces` has come to its end."""
        return np.concatenate([np.empty(0, np.int64), *self._skipped])

    @property
    def lines(self) -> npt.NDArray[Any]:
        """As in `LineIndex`, after `pieces` has come to its end."""
        return np.array(self._lines, np.int64)

    def pieces(self) -> Iterator[npt.NDArray[Any]]:
        """Starts of samples, some thousands at a time."""
        self._skipped, self._lines = [], []
        samples = lines = 0
        for number, path in enumerate(self._paths):
            before = int(self._ends[number - 1]) if number else 0
            self._lines.append(lines)
            first = lines
            for starts, empty in self._lines_of(path, self._encodings[number], int(self._ends[number]) - before):
                dropped = np.zeros(len(starts), bool) if self._keep_empty else empty
                dropped[: max(0, first + self._skip_lines - lines)] = True
                lines += len(starts)
                if dropped.any():
                    self._skipped.append((samples + np.cumsum(~dropped)[dropped]).astype(np.int64))
                found = starts[~dropped]
                samples += len(found)
                yield (found + before).astype(self.dtype)

    def _lines_of(
        self, path: str, encoding: Encoding, size: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
        """Starts of the lines of a file, and which are empty."""
        dtype, newline, returned = encoding.unit_dtype, encoding.unit("\n"), encoding.unit("\r")
        width = dtype.itemsize
        line, last = encoding.mark_bytes, None
        try:
            with open(path, "rb", buffering=0) as file:
                place = file.seek(line)
                buffer = np.empty(_READ_BYTES, np.uint8)
                while place < size:
                    got = file.readinto(buffer.data) or 0
                    got = min(got, size - place)
                    units = buffer[: got - got % width].view(dtype)
                    if not len(units):
                        break
                    ends = np.flatnonzero(units == newline)
                    if len(ends):
                        before = units[ends - 1]
                        if ends[0] == 0:
                            before[0] = 0 if last is None else last
                        ends = ends * width + place
                        starts = np.concatenate([[line], ends[:-1] + width])
                        lengths = ends - starts
                        yield starts, (lengths == 0) | ((lengths == width) & (before == returned))
                        line = int(ends[-1]) + width
                    last = units[-1]
                    place = file.seek(place + len(units) * width)
                    self._tell(path, place, size)
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None
        if line < size:
            yield np.array([line]), np.zeros(1, bool)
        tell(self._observers, path, size, size)

    def _tell(self, path: str, done: int, size: int) -> None:
        now = time.monotonic()
        if self._observers and now - self._told_s >= _TOLD_EVERY_S:
            self._told_s = now
            tell(self._observers, path, done, size)


def tell(observers: Sequence[Observer], path: str, done: int, size: int) -> None:
    """Emit how far the reading of a file has come."""
    for observer in observers:
        observer.on_event(IndexProgress(path, done, size))
