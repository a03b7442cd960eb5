"""Text files as samples: a line each, read where it lies.

Lines are found once (`text_index`), and each is read by one seek and one read into the lane's scratch. A lane keeps a
few files open. A file whose size or time isn't what it was when its lines were found is refused, since they may have
moved.

Compressed files have no such places: they come from their start to their end, in one thread (`text_stream`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, final

import numpy as np

from fitstream.errors import PlanError, SourceError
from fitstream.events import Observer, checked_observers
from fitstream.kept_arrays import cache_folder
from fitstream.redaction import redacted
from fitstream.scratch import Arena
from fitstream.sources.base import Reader, Sequential, Source
from fitstream.sources.encodings import Encoding, check_encoding, explain_undecodable
from fitstream.sources.file_access import check_file, read_at
from fitstream.sources.patterns import matching_files
from fitstream.sources.text_index import LineIndex, first_bytes, index_lines
from fitstream.sources.text_stream import COMPRESSED, NumberedParse, TextStream
from fitstream.spec import aligned, format_bytes

__all__ = ["TextSource", "open_text"]

_OPEN_FILES = 8
#: Lines that stand for all in a fingerprint.
_FEW_LINES = 16
#: What reading takes for each byte of a line: itself, and a character of up to 4 bytes.
_LINE_BYTES = 1 + 4


def open_text(
    path: Any,
    parse: Callable[..., Any],
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    skip_lines: int = 0,
    keep_empty: bool = False,
    observers: Sequence[Observer] = (),
) -> tuple[Source | Sequential, Callable[..., Any]]:
    """The source for text files, and what makes samples of what it gives.

    Raises:
        PlanError: If an argument can't be used.
        SourceError: If a file is missing or can't be read, or there are no lines.
    """
    check_encoding(encoding, errors)
    observers = checked_observers(observers)
    if not callable(parse):
        raise PlanError(f"parse={parse!r} must be a function of a line, such as str.split or json.loads.")
    if isinstance(skip_lines, bool) or not isinstance(skip_lines, (int, np.integer)) or skip_lines < 0:
        raise PlanError(f"skip_lines={skip_lines!r} must be a whole number from 0 on.")
    paths = matching_files(path, "from_text")
    sizes = [check_file(each) for each in paths]
    shown = repr(paths[0]) if len(paths) == 1 else f"{len(paths):,} files, {paths[0]!r} to {paths[-1]!r}"
    if not sum(sizes):
        raise SourceError(f"there is no text to read: {shown} has 0 bytes.")
    if any(each.lower().endswith(COMPRESSED) for each in paths):
        stream = TextStream(paths, encoding, errors, int(skip_lines), keep_empty)
        return stream, NumberedParse(parse, paths)
    states = [_state(each) for each in paths]  # before lines are looked for, so that no change is missed
    encodings = [Encoding.of(encoding, first_bytes(each)) for each in paths]
    index = index_lines(paths, encodings, skip_lines=int(skip_lines), keep_empty=keep_empty, observers=observers)
    if not len(index.starts):
        raise SourceError(f"there is no line to read: {shown} has {len(index.skipped):,} empty or skipped lines.")
    return TextSource(paths, encodings, errors, index, states), parse


@final
class TextSource(Source):
    """Lines of text files, as text without their ends.

    Args:
        paths: The files.
        encodings: Of each file.
        errors: What becomes of bytes that are no text, as `bytes.decode` says it.
        index: Where the lines are.
        states: Size and time of each file when they were found.
    """

    def __init__(
        self,
        paths: Sequence[str],
        encodings: Sequence[Encoding],
        errors: str,
        index: LineIndex,
        states: Sequence[tuple[int, int]],
    ) -> None:
        self.paths = [os.path.abspath(path) for path in paths]
        self.shown = list(paths)
        self.codecs = [each.codec for each in encodings]
        self.errors = errors
        self.index = index
        self.states = list(states)

    def __len__(self) -> int:
        return len(self.index.starts)

    def open(self) -> Reader:
        return _TextReader(self)

    @property
    def index_bytes(self) -> int:
        return self.index.nbytes + sum(2 * len(path) for path in self.paths)

    @property
    def most_scratch_bytes(self) -> int:
        return aligned(_LINE_BYTES * self.index.longest_bytes)

    def path(self, index: int) -> str:
        """The file and the line in it."""
        file, line = self.index.line(index)
        return f"{self.shown[file]}, line {line}"

    def fingerprint_parts(self) -> dict[str, Any]:
        reader = _TextReader(self)
        try:
            places = np.linspace(0, len(self) - 1, min(len(self), _FEW_LINES)).astype(int)
            some = [reader.raw(int(place)) for place in places]
        finally:
            reader.close()
        return {"lines": (len(self), self.index.starts, self.codecs, self.errors), "text": some}

    def __repr__(self) -> str:
        where = repr(self.shown[0]) if len(self.shown) == 1 else f"{len(self.shown):,} text files"
        return redacted(f"{len(self):,} lines of {where}, {format_bytes(int(self.index.ends[-1]))}")


def _state(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


@final
class _TextReader(Reader):
    """Reads lines for one lane."""

    def __init__(self, source: TextSource) -> None:
        self._source = source
        self._files: dict[int, BinaryIO] = {}

    def read(self, index: int, arena: Arena) -> str:
        """Read one line.

        Raises:
            SourceError: If the file has changed or can't be read, or the line is no text.
            TooLarge: If the arena can't hold it.
        """
        file, start, count_bytes = self._source.index.place(index)
        # The text that is made of it is counted with it; pages that nothing is written to cost nothing.
        line = arena.take(_LINE_BYTES * count_bytes)[:count_bytes].data
        self._fill(file, start, line)
        codec = self._source.codecs[file]
        try:
            text = str(line, codec, self._source.errors)
        except UnicodeDecodeError as error:
            raise explain_undecodable(error, codec) from None
        end = text.find("\n")
        if end < 0:
            return text
        if text[end:].strip("\r\n"):  # empty lines alone, which are no samples, may follow
            raise SourceError(
                "more than one line lies where one was found: the file was changed, and kept its size and time. Delete "
                f'the files in {cache_folder()!r} that begin with "lines".',
                file=self._source.shown[file],
            )
        return text[:end].removesuffix("\r")

    def raw(self, index: int) -> bytes:
        """The bytes of one line, with its end."""
        file, start, count_bytes = self._source.index.place(index)
        line = bytearray(count_bytes)
        self._fill(file, start, memoryview(line))
        return bytes(line)

    def _fill(self, file: int, start: int, line: memoryview) -> None:
        path = self._source.shown[file]
        try:
            if read_at(self._files.get(file) or self._opened(file), start, line) < len(line):
                raise SourceError("the file was cut short while it was in use. Make the dataset anew.", file=path)
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None

    def _opened(self, file: int) -> BinaryIO:
        if len(self._files) >= _OPEN_FILES:
            self._files.pop(next(iter(self._files))).close()
        opened = open(self._source.paths[file], "rb", buffering=0)  # noqa: SIM115  closed in `close`
        state = os.fstat(opened.fileno())
        if (state.st_size, state.st_mtime_ns) != self._source.states[file]:
            opened.close()
            raise SourceError(
                f"the file was changed after its lines were found: it has {state.st_size:,} bytes, and had "
                f"{self._source.states[file][0]:,}. Make the dataset anew.",
                file=self._source.shown[file],
            )
        self._files[file] = opened
        return opened

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()
