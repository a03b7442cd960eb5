"""Compressed text: lines in their order, from the start, since no line can be reached without those before it.

The reading and unpacking is done by one thread, as with a generator; `parse` runs in the lanes like any other function.
A line travels with the number of its file and its own, so that an error can name them.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, final

from fitstream.errors import SourceError
from fitstream.redaction import redacted
from fitstream.sources.base import Sequential, Started
from fitstream.sources.encodings import Encoding, explain_undecodable
from fitstream.sources.generators import GeneratorSource

__all__ = ["COMPRESSED", "NumberedParse", "TextStream"]

#: Endings of the files that are unpacked.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_READ_BYTES = 1 << 18
_PACKED_BYTES = 1 << 11
_MOST_LINE_BYTES = 1 << 30


class _Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


@final
class TextStream(Sequential):
    """Lines of text files of which at least one is compressed.

    Args:
        paths: The files, in their order.
        encoding: Of all of them.
        errors: As in `TextSource`.
        skip_lines: Lines at the start of each file that are no samples.
        keep_empty: Whether empty lines are samples.
    """

    def __init__(self, paths: Sequence[str], encoding: str, errors: str, skip_lines: int, keep_empty: bool) -> None:
        self._paths = list(paths)
        self._options = encoding, errors, skip_lines, keep_empty
        self._runs = GeneratorSource(self._lines, None, "lines")
        packed = os.path.basename(next(path for path in paths if path.lower().endswith(COMPRESSED)))
        self.why = f"come from {packed}, which is compressed and can only be read from its start"
        self.remedy = "Unpack the file once, and give that."
        for path in paths:
            _open(path).close()

    @property
    def length(self) -> None:
        """Unknown before all is read."""
        return

    def first(self) -> Any:
        return self._runs.first()

    def start(self, owner: object, own_state: Any = None) -> Started:
        return self._runs.start(owner)

    def fingerprint_parts(self) -> dict[str, Any]:
        return {"compressed lines": ([os.path.basename(path) for path in self._paths], self._options)}

    def __repr__(self) -> str:
        what = repr(self._paths[0]) if len(self._paths) == 1 else f"{len(self._paths):,} text files"
        return redacted(f"the lines of {what}, in their order")

    def _lines(self) -> Iterator[tuple[str, int, int]]:
        _, _, skip_lines, keep_empty = self._options
        found = False
        for number, path in enumerate(self._paths):
            line = 0
            try:
                with contextlib.closing(_open(path)) as file:
                    for line, text in enumerate(self._texts(file), 1):
                        if line > skip_lines and (text or keep_empty):
                            found = True
                            yield text, number, line
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise SourceError(
                    f"it can't be unpacked beyond here: {error}. It is cut off or damaged.", file=path, line=line + 1
                ) from None
            except UnicodeDecodeError as error:
                raise SourceError(f"{explain_undecodable(error, self._options[0])}", file=path, line=line + 1) from None
        if not found:
            shown = repr(self._paths[0]) if len(self._paths) == 1 else f"{len(self._paths):,} files"
            raise SourceError(f"there is no line to read: {shown} unpacked to nothing, or to empty or skipped lines.")

    def _texts(self, file: _Bytes) -> Iterator[str]:
        """The lines of one file, without their ends."""
        block = file.read(_READ_BYTES)
        encoding = Encoding.of(self._options[0], block[:4])
        decoder = codecs.getincrementaldecoder(encoding.codec)(self._options[1])
        block = block[encoding.mark_bytes :]
        wrong: UnicodeDecodeError | None = None
        rest: list[str] = []
        held = 0
        while True:
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # The lines before come first, so that they are samples and the error's line is its own.
                text, wrong = bytes(error.object[: error.start]).decode(encoding.codec, "replace"), error
            pieces = text.split("\n")
            for piece in pieces[:-1]:
                rest.append(piece)
                yield "".join(rest).removesuffix("\r")
                rest, held = [], 0
            rest.append(pieces[-1])
            held += len(pieces[-1])
            if wrong is not None:
                raise _in_line(wrong, "".join(rest), encoding.codec)
            if held > _MOST_LINE_BYTES:
                raise OSError(f"a line has more than {_MOST_LINE_BYTES:,} characters")
            if not block:
                break
            block = file.read(_READ_BYTES)
        if held:
            yield "".join(rest)


def _in_line(error: UnicodeDecodeError, before: str, codec: str) -> UnicodeDecodeError:
    """The same error, counted from the start of its line."""
    start = len(before.encode(codec, "replace"))
    data = bytes(start) + bytes(error.object[error.start : error.end])
    return UnicodeDecodeError(error.encoding, data, start, len(data), error.reason)


def _open(path: str) -> _Bytes:
    """Open a file for reading what it holds."""
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".gz":
            return gzip.open(path)
        if suffix == ".bz2":
            return bz2.open(path)
        if suffix == ".xz":
            return lzma.open(path)
        if suffix == ".zst":
            return _Zstandard(path)
        return open(path, "rb")
    except OSError as error:
        raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None


@final
class _Zstandard:
    """A file of Zstandard frames, unpacked a little at a time: a few bytes may hold megabytes."""

    def __init__(self, path: str) -> None:
        try:
            import zstandard
        except ImportError:
            raise SourceError(
                'files of Zstandard need the package zstandard: pip install "fitstream[zstd]".', file=path
            ) from None
        self._file = open(path, "rb")  # noqa: SIM115  closed in `close`
        self._unpacker = zstandard.ZstdDecompressor()
        self._damaged = zstandard.ZstdError
        self._frame: Any = None

    def read(self, _: int) -> bytes:
        """The next bytes; as many as there are, b"" at the end."""
        while data := self._file.read(_PACKED_BYTES):
            found = b""
            while data:
                if self._frame is None:
                    self._frame = self._unpacker.decompressobj()
                try:
                    found += self._frame.decompress(data)
                except self._damaged as error:
                    raise OSError(str(error)) from None
                data = b""
                if self._frame.eof:
                    data, self._frame = self._frame.unused_data, None
            if found:
                return found
        if self._frame is not None:
            raise EOFError("the file ends within a frame")
        return b""

    def close(self) -> None:
        self._file.close()


@final
class NumberedParse:
    """Parses lines that come with their numbers.

    Args:
        parse: The user's function of a line.
        paths: The files that numbers mean.
    """

    def __init__(self, parse: Callable[..., Any], paths: Sequence[str]) -> None:
        self.parse = parse
        self._paths = list(paths)
        self.__qualname__ = getattr(parse, "__qualname__", None) or type(parse).__name__
        self.__wrapped__ = parse  # its signature is the function's, so that it gets an rng if that asks for one

    def __call__(self, text: str, file: int, line: int, **options: Any) -> Any:
        try:
            return self.parse(text, **options)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            # The user's own line is found in the traceback.
            raise SourceError(reason, file=self._paths[int(file)], line=int(line)).with_traceback(
                error.__traceback__
            ) from error
