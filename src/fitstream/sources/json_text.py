"""JSON text as Python objects, with the place in every error.

A list of objects is decoded piece by piece, so that one of a million rows is never held as a whole. What can't be
decoded so is decoded again as a whole, for an error with line and column.

A name that an object has twice is refused: which of the two is meant can't be told. Python's own parser would take the
last one.
"""

from __future__ import annotations

import json
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TextIO, final

from fitstream.errors import SourceError
from fitstream.sources.labels import brief

__all__ = ["list_records", "parse", "past_blanks"]

#: Taken at a time.
_PIECE_CHARACTERS = 1 << 18


def list_records(file: TextIO, path: str, reopen: Callable[[str], TextIO]) -> Iterator[Any]:
    """What a JSON list holds, one by one.

    Args:
        file: The text, from its start.
        path: For errors.
        reopen: Opens it anew, to find what is wrong with it.
    Raises:
        SourceError: If it is no JSON list; with line and column.
    """
    text = _Text(file)
    try:
        right = text.took("[")
        if right and not text.took("]"):
            yield from text.values()
            while text.took(","):
                yield from text.values()
            right = text.took("]")
    except (_TwiceNamed, ValueError, RecursionError):
        right = False
    if right and text.at_end():
        return
    with reopen(path) as again:
        whole = parse(again.read(), path)
    raise SourceError(_told_what(whole), file=path)


def _told_what(whole: Any) -> str:
    """What a file holds that is no list, and how to get the rows out of it."""
    what, advice = f"type {type(whole).__name__}", "Pass a list to from_table."
    if isinstance(whole, dict):
        what = f"an object with the names {reprlib.repr(list(whole))}"
        lists = [name for name, value in whole.items() if isinstance(value, list)]
        if lists:
            advice = f"Pass the list inside it to from_table, such as json.load(file)[{lists[0]!r}]."
        elif whole and all(isinstance(value, dict) for value in whole.values()):
            advice = (
                "If each object in it is a row, pass list(json.load(file).values()) to from_table; if each is a "
                "column, as pandas writes them, pandas.read_json(path)."
            )
    return f'it holds {what}, not a list of objects such as [{{"path": "a.jpg", "label": 0}}, ...]. {advice}'


def parse(text: str, path: str, line: int | None = None) -> Any:
    """Parse JSON, with the place in the error; `line` is the line that `text` is, if it is only one."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        advice = " For one object a line, name the file .jsonl." if error.msg == "Extra data" and line is None else ""
        raise SourceError(
            f"not valid JSON: {error.msg}.{advice}", file=path, line=line or error.lineno, column=error.colno
        ) from None
    except _TwiceNamed as error:
        raise SourceError(
            f"an object has the name twice: {brief(dict(error.pairs))}. Remove one.",
            file=path,
            line=line,
            column=error.name,
        ) from None
    except ValueError:
        digits = f"{sys.get_int_max_str_digits():,}"
        raise SourceError(f"not readable as JSON: a number has over {digits} digits.", file=path, line=line) from None
    except RecursionError:
        raise SourceError("the JSON is nested too deeply.", file=path, line=line) from None


@final
class _TwiceNamed(Exception):
    """An object of JSON has a name more than once."""

    def __init__(self, pairs: list[tuple[str, Any]], name: str) -> None:
        super().__init__(name)
        self.pairs = pairs
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _TwiceNamed(pairs, next(name for name, count in counts.items() if count > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


_BLANKS = re.compile(r"[ \t\r\n]*")
#: How an object begins: its first name.
_BEGINNING = re.compile(r'[ \t\r\n]*\{[ \t\r\n]*("(?:[^"\\]|\\.)*")')


def past_blanks(text: str, place: int) -> int:
    """The next place that holds no blank."""
    found = _BLANKS.match(text, place)
    return place if found is None else found.end()


@final
class _Text:
    """JSON text that is read a piece at a time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._place = 0
        self._is_whole = False
        self._first_name: str | None = None

    def _read_on(self) -> None:
        """Drop what was used. What is left grows to twice its size, so that long values don't take quadratic time."""
        more = self._file.read(max(_PIECE_CHARACTERS, len(self._text) - self._place))
        self._text, self._place, self._is_whole = self._text[self._place :] + more, 0, not more

    def at_end(self) -> bool:
        """Whether nothing but blanks follows."""
        while True:
            self._place = past_blanks(self._text, self._place)
            if self._place < len(self._text) or self._is_whole:
                return self._place == len(self._text)
            self._read_on()

    def took(self, sign: str) -> bool:
        """Step over a sign, if it comes next."""
        found = not self.at_end() and self._text[self._place] == sign
        self._place += found
        return found

    def values(self) -> list[Any]:
        """The values that come next, at least one: of objects many, which are decoded by one call."""
        if len(self._text) - self._place < _PIECE_CHARACTERS and not self._is_whole:
            self._read_on()
        end = self._end_of_objects()
        if end:
            try:
                # Brackets around it fit only if no object or text is cut in two.
                found: list[Any] = _DECODER.decode(f"[{self._text[self._place : end]}]")
            except json.JSONDecodeError:
                pass
            else:
                self._place = end
                return found
        values = [self._value()]
        while self._place < end and self.took(","):
            values.append(self._value())
        return values

    def _end_of_objects(self) -> int:
        """Where the last object that is here as a whole ends, as far as can be told without decoding; 0 for nowhere.

        Objects in a list mostly begin with the same name, and those inside them with others.
        """
        if self._first_name is None:
            first = _BEGINNING.match(self._text, self._place)
            self._first_name = "" if first is None else first[1]
        end = len(self._text)
        while self._first_name and (end := self._text.rfind("},", self._place, end)) > 0:
            after = _BEGINNING.match(self._text, end + 2)
            if after is not None and after[1] == self._first_name:
                return end + 1
        return self._text.rfind("},", self._place) + 1

    def _value(self) -> Any:
        """The value that comes next."""
        self.at_end()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
                if end < len(self._text) or self._is_whole:  # else more of a number may follow
                    self._place = end
                    return value
            except json.JSONDecodeError:
                if self._is_whole:
                    raise
            self._read_on()
