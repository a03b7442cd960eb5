"""Words and their numbers.

The padding is number 0 and the unknown word number 1, unless there is none; then come the words, the frequent ones
first, in the order of their letters where they are equally frequent: so equal texts give equal numbers everywhere.
"""

from __future__ import annotations

import codecs
import json
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError

__all__ = ["Vocabulary"]

_FORMAT = "fitstream vocabulary"
_SHOWN = 5


@final
class Vocabulary:
    """Words and their numbers. Calling it encodes a list of words, in `map` too.

    Args:
        words: Words in the order of their numbers, each once. Padding and unknown are put before them where they
            aren't among them.
        padding: Stands for what fills short sequences; None for none.
        unknown: Stands for all words that aren't there; None makes them an error.
    Raises:
        PlanError: If a word is there twice, or is no text, or they come as a set.
    Example:
        >>> vocabulary = Vocabulary.of([["the", "cat"], ["the", "dog"]])
        >>> vocabulary.words
        ('<pad>', '<unk>', 'the', 'cat', 'dog')
        >>> vocabulary(["the", "bird"])
        array([2, 1])
    """

    def __init__(self, words: Iterable[str], *, padding: str | None = "<pad>", unknown: str | None = "<unk>") -> None:
        if isinstance(words, (set, frozenset)):
            raise PlanError("the order of a set, and so each word's number, differs each run. Use sorted(words).")
        listed = list(words)
        if isinstance(words, str) or not all(isinstance(word, str) for word in listed):
            raise PlanError("a Vocabulary takes a list of words in the order of their numbers; count texts with .of().")
        special = [word for word in (padding, unknown) if word is not None and word not in set(listed)]
        self.words: tuple[str, ...] = (*special, *listed)
        self.padding = padding
        self.unknown = unknown
        self._numbers = {word: number for number, word in enumerate(self.words)}
        if len(self._numbers) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise PlanError(f"the word {twice!r} is there twice, so that it would have two numbers.")
        self._unknown_number = None if unknown is None else self._numbers[unknown]

    @staticmethod
    def of(
        texts: Iterable[str | Iterable[str]],
        *,
        max_size: int | None = None,
        min_count: int = 1,
        padding: str | None = "<pad>",
        unknown: str | None = "<unk>",
    ) -> Vocabulary:
        """Count the words of texts.

        Args:
            texts: Lists of words, or words.
            max_size: Numbers in all, padding and unknown included; the rarest words are left out.
            min_count: Words that are rarer are left out.
            padding: As in the class.
            unknown: As in the class.
        Raises:
            PlanError: If a limit can't be, or there are no words.
        """
        counts: Counter[str] = Counter()
        if isinstance(texts, str):
            raise PlanError("texts= is one text: pass a list of words (text.split()), or Vocabulary.from_file(path).")
        for text in texts:
            counts.update([text] if isinstance(text, str) else text)
        return _most_common(counts, max_size, min_count, padding, unknown, "the texts have")

    @staticmethod
    def from_file(
        path: str | os.PathLike[str],
        tokenize: Callable[[str], Iterable[str]] = str.split,
        *,
        max_size: int | None = None,
        min_count: int = 1,
        padding: str | None = "<pad>",
        unknown: str | None = "<unk>",
        encoding: str = "utf-8",
    ) -> Vocabulary:
        """Count the words of a text file, line by line.

        Args:
            path: The file.
            tokenize: Makes words of a line.
            max_size: As in `of`, like all that follow.
            min_count: See there.
            padding: See there.
            unknown: See there.
            encoding: Of the file.
        Raises:
            SourceError: If it can't be read.
            PlanError: As in `of`.
        """
        if not callable(tokenize):
            raise PlanError(f"tokenize={tokenize!r} must be a function of a line, such as str.split.")
        name = os.fspath(path)
        counts: Counter[str] = Counter()
        line = 1
        try:
            with open(name, encoding=_without_mark(encoding), newline="\n") as file:
                for text in file:
                    counts.update(tokenize(text.rstrip("\r\n")))
                    line += 1
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=name) from None
        except UnicodeDecodeError as error:
            # What is decoded together begins where the lines that came before end.
            line += bytes(error.object[: error.start]).decode(encoding, "replace").count("\n")
            raise SourceError(f"it is no text in {encoding}: {error}.", file=name, line=line) from None
        return _most_common(counts, max_size, min_count, padding, unknown, f"{name!r} has")

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._numbers

    def __getitem__(self, word: str) -> int:
        """The number of a word.

        Raises:
            SourceError: If it isn't there, and there is no unknown one; or if it is no text.
        """
        number = self._numbers.get(word) if isinstance(word, str) else None
        if number is None and not isinstance(word, str):
            # Bytes and numbers would all be unknown words.
            raise SourceError(f"words are text, and this is a {type(word).__name__}: {reprlib.repr(word)}.")
        if number is None:
            number = self._unknown_number
        if number is None:
            raise SourceError(
                f"the word {word!r} isn't in the vocabulary of {len(self):,} words, which has no unknown= word."
            )
        return number

    def __call__(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """Numbers of words, int64 `(words,)`.

        Raises:
            SourceError: As for one word; or if it is one text instead of a list.
        """
        if isinstance(words, str):
            raise SourceError("a Vocabulary encodes lists of words, and got one text. Split it before: text.split().")
        return np.fromiter((self[word] for word in words), np.int64, len(words))

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Words of numbers.

        Raises:
            SourceError: If there is no such number.
        """
        found = []
        for number in np.asarray(list(numbers)).tolist():
            if not isinstance(number, int) or not 0 <= number < len(self.words):
                raise SourceError(f"{number} is no word's number: there are {len(self):,}, from 0.")
            found.append(self.words[number])
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: JSON, or for a name in `.txt` a word a line.

        Raises:
            SourceError: If the file can't be written, or a word has a line end and the file a word a line.
        """
        name = os.fspath(path)
        if name.endswith(".txt"):
            wrong = next((word for word in self.words if not word or "\n" in word or "\r" in word), None)
            if wrong is not None:
                raise SourceError(f"the word {wrong!r} can't stand on a line of its own. Save as .json.", file=name)
            text = "".join(f"{word}\n" for word in self.words)
        else:
            told = {"format": _FORMAT, "padding": self.padding, "unknown": self.unknown, "words": self.words}
            text = json.dumps(told, ensure_ascii=False, indent=0)
        try:
            with open(name, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise SourceError(f"the file can't be written: {error.strerror}.", file=name) from None

    @staticmethod
    def load(
        path: str | os.PathLike[str], *, padding: str | None = "<pad>", unknown: str | None = "<unk>"
    ) -> Vocabulary:
        """Read what `save` wrote, or any list of a word a line.

        Args:
            path: The file.
            padding: Which word it is in a list of a word a line; JSON says it itself.
            unknown: The same.
        Raises:
            SourceError: If it can't be read, or is something else.
        """
        name = os.fspath(path)
        try:
            with open(name, encoding="utf-8-sig", newline="") as file:
                text = file.read()
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=name) from None
        except UnicodeDecodeError as error:
            raise SourceError(f"it is no text in UTF-8: {error}.", file=name) from None
        try:
            if name.endswith(".txt"):
                lines = text.removesuffix("\n").split("\n") if text else []
                return Vocabulary([line.removesuffix("\r") for line in lines], padding=padding, unknown=unknown)
            told = json.loads(text)
            if isinstance(told, dict) and told.get("format") == _FORMAT:
                return Vocabulary(told["words"], padding=told["padding"], unknown=told["unknown"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SourceError(f"it holds no vocabulary: {type(error).__name__}: {error}.", file=name) from None
        raise SourceError("it holds no vocabulary that was saved by Vocabulary.save().", file=name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.words, self.padding, self.unknown)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self.words, self.padding, self.unknown) == (other.words, other.padding, other.unknown)

    def __hash__(self) -> int:
        return hash((self.words, self.padding, self.unknown))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.words[:_SHOWN])) + (", ..." if len(self) > _SHOWN else "")
        return f"Vocabulary of {len(self):,} words: {shown}"


def _without_mark(encoding: str) -> str:
    """The encoding that takes a byte order mark for what it is."""
    try:
        return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    except (LookupError, TypeError) as error:
        raise PlanError(f"encoding={encoding!r}: {error}.") from None


def _made(words: Sequence[str], padding: str | None, unknown: str | None) -> Vocabulary:
    return Vocabulary(words, padding=padding, unknown=unknown)


def _most_common(
    counts: Counter[str], max_size: int | None, min_count: int, padding: str | None, unknown: str | None, what: str
) -> Vocabulary:
    for name, limit in (("max_size", max_size), ("min_count", min_count)):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, np.integer))):
            raise PlanError(f"{name}={limit!r} must be a whole number.")
    special = [word for word in (padding, unknown) if word is not None]
    if max_size is not None and max_size <= len(special):
        raise PlanError(f"max_size={max_size} leaves no room for words beside {', '.join(map(repr, special))}.")
    if min_count < 1:
        raise PlanError(f"min_count={min_count} must be a whole number from 1 on.")
    words = [word for word, count in counts.items() if count >= min_count and word not in special]
    if not words:
        raise PlanError(f"{what} {len(counts):,} different words, and none that is there {min_count:,} times.")
    words.sort(key=lambda word: (-counts[word], word))
    most = None if max_size is None else max_size - len(special)
    return Vocabulary(words[:most], padding=padding, unknown=unknown)
