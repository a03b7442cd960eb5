"""Vectors of words, looked up in a file that is mapped: hundreds of thousands of them, of which a few MB are in memory.

The text or binary file is read once, and its vectors are kept in the user's cache folder: rows of float32, the words,
and a table of 8-byte digests of the words, sorted, in which a word is found by halving. What a lookup touches is mapped
by the system in pieces of 64 KiB; after a number of new rows all pages are let go, so that what is resident stays below
some 20 MB whatever is looked up; what is looked up often comes back from the page cache.

A row is compared with its checksum when it is read. In worker processes the same file is mapped.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.events import IndexProgress, Observer, checked_observers
from fitstream.kept_arrays import Column, cache_folder, file_identity, keep, kept
from fitstream.transforms.vector_files import Head, read_head, read_rows
from fitstream.transforms.vocabulary import Vocabulary

__all__ = ["WordVectors"]

#: Rows that are looked up before pages are let go. Each may map 64 KiB.
_ROWS_KEPT = 128
_TOLD_EVERY_BYTES = 1 << 24


@final
class WordVectors:
    """Vectors by word, from a file of word2vec (text or binary) or GloVe (text). Calling it gives those of a list.

    Args:
        path: The file. It is read once; later its numbers come from the user's cache folder.
        observers: Called with `IndexProgress` while it is read.
    Raises:
        SourceError: With the line, if a row is short, holds something else than numbers, or there are more or fewer
            than declared; or if the cache folder can't be written to.

    Attributes:
        dimension: Numbers of a vector.
        name: Of the file, without its folder.
    """

    def __init__(self, path: str | os.PathLike[str], *, observers: Sequence[Observer] = ()) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise PlanError(f"path={path!r} must be a file of vectors.")
        self.name = os.path.basename(os.fspath(path))
        found = _found(os.fspath(path), checked_observers(observers))
        self.dimension = int(found["dimension"][0])
        self._rows = found["rows"].reshape(-1, self.dimension)
        self._sums = found["sums"]
        self._digests = found["digests"]
        self._places = found["places"]
        self._starts = found["starts"]
        self._words = found["words"]
        self._touched = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_touched"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _touched=0)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._place(word) is not None

    def __iter__(self) -> Iterator[str]:
        """All words, in the file's order."""
        for place in range(len(self)):
            yield self._word(place).decode("utf-8", "replace")

    def __getitem__(self, word: str) -> npt.NDArray[np.float32]:
        """The vector of a word, float32 `(dimension,)`.

        Raises:
            SourceError: If it isn't there.
        """
        found = self.get(word)
        if found is None:
            raise SourceError(f"the word {word!r} isn't among the {len(self):,} of {self.name!r}.")
        return found

    def get(self, word: str) -> npt.NDArray[np.float32] | None:
        """The vector of a word, float32 `(dimension,)`; None if it isn't there."""
        place = self._place(word)
        return None if place is None else self._row(place)

    def __call__(self, words: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of words, float32 `(words, dimension)`; zeros for those that aren't there.

        Raises:
            SourceError: If it is one text instead of a list.
        """
        if isinstance(words, str):
            raise SourceError("WordVectors encode lists of words, and got one text. Split it before: text.split().")
        return self._stack(words)[0]

    def matrix(
        self, vocabulary: Vocabulary, missing: Literal["zeros", "normal"] = "zeros", seed: int = 0
    ) -> npt.NDArray[np.float32]:
        """Weights for an embedding layer: a row for each word of a vocabulary, in its order.

        Args:
            vocabulary: The words.
            missing: What words get that have no vector: "zeros", or numbers drawn at random with the standard deviation
                of those that were found. The padding always gets zeros.
            seed: Of what is drawn.
        Returns:
            float32 `(words, dimension)`.
        Raises:
            PlanError: If `missing` is neither.
        """
        if not isinstance(vocabulary, Vocabulary):
            raise PlanError(f"matrix() takes a Vocabulary, not a {type(vocabulary).__name__}.")
        if missing not in ("zeros", "normal"):
            raise PlanError(f'missing={missing!r} must be "zeros" or "normal".')
        made, found = self._stack(vocabulary.words)
        if missing == "normal" and found.any():
            rng = np.random.default_rng(seed)
            made[~found] = rng.normal(0, made[found].std(), (int((~found).sum()), self.dimension))
        if vocabulary.padding is not None:
            made[vocabulary[vocabulary.padding]] = 0
        return made

    def _stack(self, words: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        made = np.zeros((len(words), self.dimension), np.float32)
        found = np.zeros(len(words), bool)
        for number, word in enumerate(words):
            vector = self.get(word)
            if vector is not None:
                made[number], found[number] = vector, True
        return made, found

    def _place(self, word: str) -> int | None:
        if not isinstance(word, str):
            raise SourceError(f"words are text, and this is a {type(word).__name__}: {reprlib.repr(word)}.")
        encoded = word.encode("utf-8", "surrogatepass")
        digest = np.uint64(_digest(encoded))
        at = int(np.searchsorted(self._digests, digest))
        while at < len(self._digests) and self._digests[at] == digest:
            place = int(self._places[at])
            if self._word(place) == encoded:
                return place
            at += 1
        return None

    def _word(self, place: int) -> bytes:
        return self._words[int(self._starts[place]) : int(self._starts[place + 1])].tobytes()

    def _row(self, place: int) -> npt.NDArray[np.float32]:
        row = np.array(self._rows[place])
        if zlib.crc32(row.data) != self._sums[place]:
            raise SourceError(
                f"a vector that was kept in {cache_folder()!r} is damaged. Delete the files there that begin with "
                '"vectors"; they are made anew.',
                file=self.name,
            )
        self._touched += 1
        if self._touched >= _ROWS_KEPT:
            self._touched = 0
            self._let_go()
        return row

    def _let_go(self) -> None:
        """Let the pages go that were mapped, of this process alone; the system still has them."""
        base: Any = self._rows
        while base is not None and not isinstance(base, mmap.mmap):
            base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
        if base is not None and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)

    def __repr__(self) -> str:
        return f"{len(self):,} vectors of {self.dimension} numbers from {self.name!r}"


def _digest(word: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")


def _found(path: str, observers: Sequence[Observer]) -> dict[str, npt.NDArray[Any]]:
    """What is kept of a file, made if it isn't there."""
    try:
        origin = {"files": [file_identity(path)], "options": 1}
    except OSError as error:
        raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None
    found = kept("vectors", origin)
    if found is None or not _fits(found):
        head = read_head(path)
        try:
            keep("vectors", origin, _columns(path, head, observers))
        except OSError as error:
            raise SourceError(
                f"its vectors can't be kept in {cache_folder()!r}: {error.strerror}. Name another folder in the "
                "environment variable FITSTREAM_CACHE.",
                file=path,
            ) from None
        found = kept("vectors", origin)
    if found is None or not _fits(found):
        raise SourceError(f"its vectors could not be read back from {cache_folder()!r}.", file=path)
    return found


def _fits(found: dict[str, npt.NDArray[Any]]) -> bool:
    """Whether the arrays belong together."""
    if found.keys() != {"dimension", "rows", "sums", "digests", "places", "starts", "words"}:
        return False
    count = len(found["sums"])
    lengths = [len(found[name]) for name in ("digests", "places")]
    whole = len(found["rows"]) == count * int(found["dimension"][0])
    return whole and lengths == [count, count] and len(found["starts"]) == count + 1


def _columns(path: str, head: Head, observers: Iterable[Observer]) -> Iterator[Column]:
    """All that is kept of a file, in the order in which it is known."""
    told, words = 0, bytearray()
    starts, sums, digests = [0], [], []

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done - told >= _TOLD_EVERY_BYTES or done == total:
            told = done
            for observer in observers:
                observer.on_event(IndexProgress(path, done, total))

    def rows() -> Iterator[npt.NDArray[np.float32]]:
        for names, vectors in read_rows(path, head, tell):
            for word, vector in zip(names, vectors, strict=True):
                words.extend(word)
                starts.append(len(words))
                digests.append(_digest(word))
                sums.append(zlib.crc32(vector.data))
            yield vectors

    yield Column("dimension", np.uint32, [np.array([head.dimension])])
    yield Column("rows", np.float32, rows(), is_checked=False)
    sorted_digests = np.array(digests, np.uint64)
    # Stable, so that of a word that is there twice the first is found.
    order = np.argsort(sorted_digests, kind="stable")
    yield Column("digests", np.uint64, [sorted_digests[order]])
    yield Column("places", np.uint32, [order])
    yield Column("sums", np.uint32, [np.array(sums, np.uint32)])
    yield Column("starts", np.uint64, [np.array(starts, np.uint64)])
    yield Column("words", np.uint8, [np.frombuffer(bytes(words), np.uint8)])
