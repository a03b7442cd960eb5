"""Files of word vectors, read from their start to their end: word2vec's text and binary form, and GloVe's text.

- word2vec, text: a line `count dimension`, then a line for each word: the word and its numbers.
- word2vec, binary: the same first line, then each word, a space, and its numbers as little-endian float32.
- GloVe, text: as word2vec's, without the first line.

Words may hold spaces (some of GloVe's do): the numbers are counted from the end of a line.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError

__all__ = ["Form", "Head", "read_head", "read_rows"]

Form: TypeAlias = Literal["word2vec", "word2vec-binary", "glove"]

_HEAD_BYTES = 1 << 16
_READ_BYTES = 1 << 20
_MOST_WORD_BYTES = 1 << 16
_MOST_DIMENSION = 1 << 16
_MOST_FLOAT = float(np.finfo(np.float32).max)
#: How gzip, zip, xz, bzip2 and Zstandard files start.
_PACKED = (b"\x1f\x8b\x08", b"PK\x03\x04", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd")
#: Rows that are handed on together.
_ROWS = 512
#: Put behind the last number of a text. A float32, and a number that no vector holds.
_END = 2.0**-100


@final
@dataclass(frozen=True, slots=True)
class Head:
    """What the start of a file tells.

    Attributes:
        form: How it is written.
        count: Words that it declares; None where it doesn't say.
        dimension: Numbers of a vector.
    """

    form: Form
    count: int | None
    dimension: int


def read_head(path: str) -> Head:
    """Tell the form of a file from its start.

    Raises:
        SourceError: If it can't be read, or is no file of vectors.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_HEAD_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None
    if not start:
        raise SourceError("it is empty (0 bytes), so there are no vectors.", file=path)
    if start.startswith(_PACKED):
        raise SourceError("it is compressed. Unpack it once, and give that.", file=path)
    first, _, rest = start.removeprefix(codecs.BOM_UTF8).partition(b"\n")
    fields = first.split()
    if len(fields) == 2 and all(field.isdigit() and len(field) < 19 for field in fields):
        count, dimension = int(fields[0]), int(fields[1])
        if not 1 <= dimension <= _MOST_DIMENSION or count < 1:
            raise SourceError(f"it declares {count:,} vectors of {dimension:,} numbers.", file=path, line=1)
        if rest and _is_text(rest):
            return Head("word2vec", count, dimension)
        if count * (4 * dimension + 2) > size - len(first) - 1:
            raise SourceError(
                f"it declares {count:,} vectors of {dimension:,} numbers, which take at least "
                f"{count * (4 * dimension + 2):,} bytes in binary form, but {size - len(first) - 1:,} follow. It is "
                "cut off, or no file of vectors.",
                file=path,
                line=1,
            )
        return Head("word2vec-binary", count, dimension)
    dimension = 0
    for field in reversed(fields[1:]):
        if _number(field) is None:
            break
        dimension += 1
    if not 1 <= dimension <= _MOST_DIMENSION or not _is_text(first):
        raise SourceError(
            "it is no file of word vectors: the first line must be a word and its numbers (GloVe), or the count and "
            "the dimension (word2vec).",
            file=path,
            line=1,
        )
    return Head("glove", None, dimension)


def _is_text(data: bytes) -> bool:
    """Whether hardly any byte is a control character, as every tenth is among numbers in binary form."""
    values = np.frombuffer(data, np.uint8)
    odd = np.count_nonzero((values < 32) & (values != 9) & (values != 10) & (values != 13))
    return bool(50 * odd <= len(data))


def _number(field: bytes) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def read_rows(
    path: str, head: Head, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[list[bytes], npt.NDArray[np.float32]]]:
    """Read words and their vectors, some hundred at a time.

    Args:
        path: The file.
        head: What `read_head` told of it.
        on_progress: Called with the bytes read so far, and all.
    Returns:
        Words as UTF-8, and float32 `(words, dimension)`.
    Raises:
        SourceError: With the line (or, in binary form, the row) that has not as many numbers as the first, or something
            else than numbers; or if there are more or fewer words than declared.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            read = _binary if head.form == "word2vec-binary" else _text
            found = 0
            for words, rows in read(file, path, head):
                found += len(words)
                on_progress(file.tell(), size)
                yield words, rows
    except OSError as error:
        raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None
    if head.count is not None and found != head.count:
        raise SourceError(
            f"its first line declares {head.count:,} vectors, but {found:,} follow. It is cut off, or was put together "
            "from several: correct the first line.",
            file=path,
            line=1,
        )


def _text(file: BinaryIO, path: str, head: Head) -> Iterator[tuple[list[bytes], npt.NDArray[np.float32]]]:
    limit = _MOST_WORD_BYTES + 64 * head.dimension
    number = 0
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    if head.count is not None:
        file.readline()
        number = 1
    while lines := [line for line in (file.readline(limit) for _ in range(_ROWS)) if line]:
        found = _plain(lines, head.dimension) or _careful(lines, path, number, head.dimension)
        number += len(lines)
        if found[0]:
            yield found


def _plain(lines: list[bytes], dimension: int) -> tuple[list[bytes], npt.NDArray[np.float32]] | None:
    """Read lines that are as they should be, in a tenth of the time; None if one of them isn't."""
    split = [line.rstrip().partition(b" ") for line in lines]
    if any(not word or tail.count(b" ") != dimension - 1 for word, _, tail in split):
        return None
    try:
        # What is no number ends it, with an error or a warning, as NumPy's version has it. To catch the warning would
        # change the filters of all threads; that the end was reached shows in what stands there.
        text = b" ".join([*(tail for _, _, tail in split), repr(_END).encode()]).decode("ascii")
        rows = np.fromstring(text, np.float32, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    if rows.size != len(lines) * dimension + 1 or rows[-1] != _END or not np.isfinite(rows).all():
        return None
    return [word for word, _, _ in split], rows[:-1].reshape(-1, dimension)


def _careful(lines: list[bytes], path: str, before: int, dimension: int) -> tuple[list[bytes], npt.NDArray[np.float32]]:
    """Read lines of which some are empty, are spaced otherwise, have words with spaces, or are wrong."""
    words: list[bytes] = []
    values: list[tuple[int, list[bytes]]] = []
    for number, line in enumerate(lines, before + 1):
        fields = line.rsplit(None, dimension)
        if not fields:
            continue
        word = fields[0].lstrip(b" ")
        if len(fields) != dimension + 1 or _has_number_at_end(word):
            raise _wrong_length(path, number, line, dimension)
        words.append(word)
        values.append((number, fields[1:]))
    return words, _numbers(values, path)


def _has_number_at_end(word: bytes) -> bool:
    """Whether a word of several fields ends with a number: then the line has one number too many."""
    before, _, last = word.replace(b"\t", b" ").rpartition(b" ")
    return bool(before) and _number(last) is not None


def _wrong_length(path: str, line: int, text: bytes, dimension: int) -> SourceError:
    found = 0
    for field in reversed(text.split()[1:]):
        if _number(field) is None:
            break
        found += 1
    return SourceError(
        f"the vector has {found:,} numbers, and the others have {dimension:,}: {bytes(text[:60])!r}...",
        file=path,
        line=line,
    )


def _numbers(values: list[tuple[int, list[bytes]]], path: str) -> npt.NDArray[np.float32]:
    """Numbers of several lines, each with its place in the file."""
    with contextlib.suppress(ValueError), np.errstate(over="ignore"):
        rows = np.array([list(map(float, row)) for _, row in values], np.float32)
        if np.isfinite(rows).all():
            return rows
    for line, row in values:
        for field in row:
            number = _number(field)
            if number is None or not abs(number) <= _MOST_FLOAT:
                raise SourceError(f"{bytes(field[:40])!r} is no finite number.", file=path, line=line)
    raise AssertionError("one of them isn't finite")


def _binary(file: BinaryIO, path: str, head: Head) -> Iterator[tuple[list[bytes], npt.NDArray[np.float32]]]:
    file.readline()
    assert head.count is not None
    row_bytes = 4 * head.dimension
    data, at = b"", 0
    words: list[bytes] = []
    rows = np.empty((_ROWS, head.dimension), np.float32)
    for number in range(1, head.count + 1):
        end = data.find(b" ", at)
        if end < 0 or end + 1 + row_bytes > len(data):
            data, at = data[at:] + file.read(max(_READ_BYTES, 2 * row_bytes)), 0
            end = data.find(b" ")
        if end < 0 or end + 1 + row_bytes > len(data):
            raise SourceError(
                f"vector {number:,} of {head.count:,} is cut off: {max(0, len(data) - end - 1):,} bytes of "
                f"{row_bytes:,} are there.",
                file=path,
            )
        if end - at > _MOST_WORD_BYTES:
            raise SourceError(f"the word of vector {number:,} has {end - at:,} bytes. It is damaged.", file=path)
        words.append(data[at:end].lstrip(b"\n"))
        row = rows[len(words) - 1]
        row[:] = np.frombuffer(data, "<f4", head.dimension, end + 1)
        if not np.isfinite(row).all():
            raise SourceError(f"vector {number:,} ({words[-1][:40]!r}) holds a number that isn't finite.", file=path)
        at = end + 1 + row_bytes
        if len(words) == _ROWS:
            yield words, rows
            words = []
    if words:
        yield words, rows[: len(words)]
    rest = (data[at:] + file.read(1)).strip()
    if rest:
        raise SourceError(f"bytes follow the {head.count:,} vectors that its first line declares.", file=path)
