"""The characters of a text as numbers: places in its alphabet.

A text in memory becomes one array of small numbers. A file is read once, to find its alphabet, and where each block of
it starts: bytes and characters before it, 16 bytes for 8 KiB, kept in the user's cache folder. Then any stretch of it
is read where it lies, from the start of its block, and decoded; the file is never copied, and may be longer than
memory.
"""

from __future__ import annotations

import codecs
import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.events import Observer
from fitstream.kept_arrays import Column, file_identity, keep, kept
from fitstream.memory import shared_copy
from fitstream.sources.encodings import Encoding, explain_undecodable
from fitstream.sources.file_access import check_file
from fitstream.sources.text_index import first_bytes, tell

__all__ = ["CharacterFile", "OpenCharacters", "encode_text"]

_BLOCK_BYTES = 1 << 13
_KEPT_BYTES = 1 << 16
_TOLD_EVERY_BYTES = 1 << 26
_MOST_CHARACTERS = 0x110000
_SHOWN = 10


def encode_text(text: str, alphabet: Sequence[str] | None) -> tuple[npt.NDArray[Any], list[str]]:
    """A text in memory as numbers.

    Returns:
        `(characters,)` of the smallest unsigned dtype, and the alphabet.
    Raises:
        SourceError: If a character isn't in the alphabet.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    seen = np.zeros(_MOST_CHARACTERS, bool)
    seen[codes] = True
    table, names = _table(seen, alphabet, "the text")
    return table[codes], names


def _table(
    seen: npt.NDArray[np.bool_], alphabet: Sequence[str] | None, what: str
) -> tuple[npt.NDArray[Any], list[str]]:
    """For each code point its place in the alphabet, and the alphabet: that of the text, sorted, if none is given."""
    there = np.flatnonzero(seen)
    points = there if alphabet is None else _points(alphabet)
    missing = np.setdiff1d(there, points)
    if len(missing):
        shown = ", ".join(repr(chr(each)) for each in missing[:_SHOWN].tolist())
        more = ", ..." if len(missing) > _SHOWN else ""
        raise SourceError(
            f"{what} has {len(missing):,} characters that the alphabet of {len(points):,} lacks: {shown}{more}. Add "
            "them to alphabet=, or leave it out for all characters of the text."
        )
    table = np.zeros(_MOST_CHARACTERS, np.min_scalar_type(max(0, len(points) - 1)))
    table[points] = np.arange(len(points))
    return table, [chr(each) for each in points.tolist()]


def _points(alphabet: Any) -> npt.NDArray[np.int64]:
    if isinstance(alphabet, (set, frozenset)) or not isinstance(alphabet, Iterable):
        raise PlanError(
            f"alphabet= must be a text or list of characters in the order of their numbers, not a "
            f"{type(alphabet).__name__}. Of a set, whose order differs from run to run, sorted() makes one."
        )
    wrong = next((each for each in alphabet if not isinstance(each, str) or len(each) != 1), None)
    if wrong is not None:
        raise PlanError(f"alphabet= has {wrong!r}; it must be single characters, in the order of their numbers.")
    twice = next((each for each, count in Counter(alphabet).items() if count > 1), None)
    if twice is not None:
        raise PlanError(f"alphabet= has {twice!r} twice, so that it would have two numbers.")
    return np.array([ord(each) for each in alphabet], np.int64)


@final
class CharacterFile:
    """A text file as an array of characters.

    Args:
        path: The file.
        encoding: Of its text.
        alphabet: Characters in the order of their numbers; None for all that are there, sorted.
        observers: Called with `IndexProgress`.
    Raises:
        SourceError: If the file can't be read or decoded, or the alphabet lacks characters of it.

    Attributes:
        alphabet: As above.
        dtype: Of the numbers.
    """

    def __init__(
        self, path: str, encoding: str, alphabet: Sequence[str] | None, observers: Sequence[Observer] = ()
    ) -> None:
        size = check_file(path)
        self.path = os.path.abspath(path)
        self.shown = path
        identity = file_identity(path)
        self._state = identity["bytes"], identity["time_ns"]
        self._encoding = Encoding.of(encoding, first_bytes(path))
        origin = {"files": [identity], "options": list(self._encoding)}
        found = _checked(kept("characters", origin)) if size >= _KEPT_BYTES else None
        if found is None:
            found = self._scan(observers)
            if size >= _KEPT_BYTES:
                with contextlib.suppress(OSError):  # a folder that can't be written to costs only time
                    keep("characters", origin, [Column(name, each.dtype, [each]) for name, each in found.items()])
        seen = np.zeros(_MOST_CHARACTERS, bool)
        seen[found["alphabet"]] = True
        self._table, self.alphabet = _table(seen, alphabet, f"the text of {path!r}")
        self.dtype = self._table.dtype
        self._bytes = shared_copy(found["bytes"])
        self._characters = shared_copy(found["characters"])

    def __len__(self) -> int:
        return int(self._characters[-1])

    @property
    def index_bytes(self) -> int:
        """Bytes of where blocks start, and of the table of characters."""
        return self._bytes.nbytes + self._characters.nbytes + self._table.nbytes

    @property
    def block_bytes(self) -> int:
        """Memory that reading a stretch takes beside it: what is read to its start."""
        return 6 * _BLOCK_BYTES

    def _scan(self, observers: Sequence[Observer]) -> dict[str, npt.NDArray[Any]]:
        seen = np.zeros(_MOST_CHARACTERS, bool)
        places, counts = [self._encoding.mark_bytes], [0]
        try:
            for text, place in self._blocks(observers):
                seen[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)] = True
                places.append(place)
                counts.append(counts[-1] + len(text))
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{explain_undecodable(error, self._encoding.codec)} It lies in the {_BLOCK_BYTES:,} bytes from byte "
                f"{places[-1]:,} on.",
                file=self.shown,
            ) from None
        return {
            "alphabet": np.flatnonzero(seen).astype(np.uint32),
            "bytes": np.array(places, np.int64),
            "characters": np.array(counts, np.int64),
        }

    def _blocks(self, observers: Sequence[Observer]) -> Iterator[tuple[str, int]]:
        """The text, block by block, and where each block ends."""
        decoder = codecs.getincrementaldecoder(self._encoding.codec)()
        at_first = decoder.getstate()[1]
        place, size = self._encoding.mark_bytes, self._state[0]
        try:
            with open(self.path, "rb") as file:
                file.seek(place)
                while block := file.read(_BLOCK_BYTES):
                    place += len(block)
                    text = decoder.decode(block)
                    held, state = decoder.getstate()
                    if state != at_first:
                        raise SourceError(
                            f"in {self._encoding.codec} what bytes mean depends on those before, so that it can't be "
                            "read from its middle. Convert the file to UTF-8 once.",
                            file=self.shown,
                        )
                    yield text, place - len(held)
                    if place % _TOLD_EVERY_BYTES < _BLOCK_BYTES:
                        tell(observers, self.shown, place, size)
                yield decoder.decode(b"", final=True), place
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=self.shown) from None
        tell(observers, self.shown, size, size)

    def open(self) -> OpenCharacters:
        """Open for one lane.

        Raises:
            SourceError: If the file isn't the one that was read before.
        """
        return OpenCharacters(
            self.path, self.shown, self._state, self._encoding.codec, self._bytes, self._characters, self._table
        )


def _checked(found: dict[str, npt.NDArray[Any]] | None) -> dict[str, npt.NDArray[Any]] | None:
    if found is None or found.keys() != {"alphabet", "bytes", "characters"}:
        return None
    whole = len(found["bytes"]) == len(found["characters"]) > 0 and (found["alphabet"] < _MOST_CHARACTERS).all()
    return found if whole else None


@final
class OpenCharacters:
    """A file of characters opened by one lane."""

    def __init__(
        self,
        path: str,
        shown: str,
        state: tuple[int, int],
        codec: str,
        places: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
        table: npt.NDArray[Any],
    ) -> None:
        self._shown = shown
        self._codec = codec
        self._places = places
        self._counts = counts
        self._table = table
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed in `close`
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=shown) from None
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != state:
            self._file.close()
            raise SourceError(
                f"the file was changed after it was listed: it has {now.st_size:,} bytes, and had {state[0]:,}. Make "
                "the dataset anew.",
                file=shown,
            )

    def stretch(self, start: int, count: int) -> npt.NDArray[Any]:
        """Numbers of the characters from `start` on, `(count,)`."""
        first = int(np.searchsorted(self._counts, start, "right")) - 1
        last = int(np.searchsorted(self._counts, start + count, "left"))
        place = int(self._places[first])
        try:
            self._file.seek(place)
            data = self._read(int(self._places[last]) - place)
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=self._shown) from None
        text = data.decode(self._codec)
        skipped = start - int(self._counts[first])
        points = text[skipped : skipped + count].encode("utf-32-le", "surrogatepass")
        numbers: npt.NDArray[Any] = self._table[np.frombuffer(points, np.uint32)]
        return numbers

    def _read(self, count_bytes: int) -> bytes:
        data = self._file.read(count_bytes)
        while len(data) < count_bytes:
            more = self._file.read(count_bytes - len(data))
            if not more:
                raise SourceError(
                    "the file was cut short while it was in use. Make the dataset anew.", file=self._shown
                )
            data += more
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()
