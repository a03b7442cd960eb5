"""Labels of a table or a folder, from text or numbers to the array that training needs.

A column of class labels is read in pieces. Each value is replaced at once by a small code, so that what is held is the
distinct labels and four bytes a sample; all rules are then applied to the distinct labels alone. In their order:

1. Nothing, None, blank text, NaN and the text "nan" are missing labels: an error.
2. With `classes`, labels are names from it if at least one of them is; otherwise they are places in it, as integers.
3. If all labels are, or read as, numbers, they must be whole and not negative, and stay as they are. `3.0` is 3, and
   true is 1. Anything else is more likely a target than a class, and an error says how to have either.
4. If one label is other text, all are text: class names in sorted order.

Numbers that are no classes (`label_mode="raw"`, or several columns) keep the dtype of a typed column. Text and JSON
have none: whole numbers become int64 and all others float32. Several columns make one float32 vector.
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError

__all__ = [
    "Blame",
    "ClassEncoder",
    "Encoder",
    "LabelMode",
    "Labels",
    "NumberEncoder",
    "Values",
    "brief",
    "few",
]

LabelMode: TypeAlias = Literal["int", "categorical", "binary", "raw"]

#: One piece of one column: Python objects, or an array of numbers.
Values: TypeAlias = list[Any] | npt.NDArray[Any]

#: Makes the error for (row, column, message); it knows the file and finds the line.
Blame: TypeAlias = Callable[[int, str, str], SourceError]

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LARGEST = 2**63 - 1
_SHOWN_CHARACTERS = 80
#: Of an integer. Python writes no number of more than 4,300 digits.
_MOST_BITS = 10_000


def brief(value: Any) -> str:
    """A value for an error: its `repr`, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"a number of {value.bit_length():,} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters)"


def few(names: Sequence[str]) -> str:
    """The first names of a list, for an error."""
    shown = ", ".join(map(brief, names[:8]))
    return shown if len(names) <= 8 else f"{shown}, ... {len(names)} in all"


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of all samples.

    Attributes:
        values: int64 class indices `(count,)`, or numbers `(count,)` or `(count, columns)`.
        class_names: In label order; None where labels are plain numbers.
        class_count: One more than the largest index, or the number of names; 0 where labels are no classes.
    """

    values: npt.NDArray[Any]
    class_names: list[str] | None
    class_count: int


class Encoder(ABC):
    """Turns label columns into `Labels`, piece by piece."""

    @abstractmethod
    def extend(self, columns: Sequence[Values]) -> None:
        """Add the next rows: one list or array for each column."""

    @abstractmethod
    def finish(self) -> Labels:
        """All labels.

        Raises:
            SourceError: If they break a rule of this module; names the first row at fault.
        """


class _Codes(dict[Any, int]):
    """Gives each new key the next code."""

    def __missing__(self, key: Any) -> int:
        self[key] = code = len(self)
        return code


@final
class ClassEncoder(Encoder):
    """One column of class labels.

    Args:
        column: Its name, for errors.
        mode: "int", "categorical" or "binary"; decides how many classes are allowed, not how labels are kept.
        classes: Names in the order of their indices, or None.
        blame: Makes errors.
    """

    def __init__(self, column: str, mode: LabelMode, classes: list[str] | None, blame: Blame) -> None:
        self._column = column
        self._mode = mode
        self._classes = classes
        self._blame = blame
        self._codes = _Codes()
        self._pieces: list[npt.NDArray[np.int32]] = []
        self._count = 0

    def extend(self, columns: Sequence[Values]) -> None:
        values = columns[0].tolist() if isinstance(columns[0], np.ndarray) else columns[0]
        try:
            piece = np.fromiter(map(self._codes.__getitem__, values), np.int32, len(values))
        except TypeError:
            place, value = next((i, value) for i, value in enumerate(values) if not _is_hashable(value))
            raise self._error(self._count + place, _unusable(value)) from None
        self._pieces.append(piece)
        self._count += len(values)

    def finish(self) -> Labels:
        keys = [key.item() if isinstance(key, np.generic) else key for key in self._codes]
        for code, key in enumerate(keys):
            if not (isinstance(key, str) and key in (self._classes or ())):
                self._check_usable(code, key)
        numbers = [_number(key) for key in keys]
        names = self._classes
        if names is not None:
            indices = self._look_up(keys, numbers, names)
        elif None in numbers:
            names = sorted({_spellings(key)[0] for key in keys})
            places = {name: index for index, name in enumerate(names)}
            indices = [places[_spellings(key)[0]] for key in keys]
        else:
            indices = self._whole(keys, numbers)
        class_count = max(indices, default=-1) + 1 if names is None else len(names)
        if self._mode == "binary" and class_count > 2:
            raise self._too_many(keys, indices)
        codes = np.concatenate(self._pieces)
        return Labels(np.array(indices, np.int64)[codes], names, class_count)

    def _error(self, row: int, message: str) -> SourceError:
        return self._blame(row, self._column, message)

    def _error_at(self, code: int, message: str) -> SourceError:
        """The error for the first row with this label."""
        return self._error(int(np.flatnonzero(np.concatenate(self._pieces) == code)[0]), message)

    def _check_usable(self, code: int, key: Any) -> None:
        if _is_missing(key):
            raise self._error_at(code, "the label is missing. Fill it in, or leave the row out.")
        if not isinstance(key, (str, int, float)):
            raise self._error_at(code, _unusable(key))
        if isinstance(key, int) and key.bit_length() > _MOST_BITS:
            raise self._error_at(code, f"the label is {brief(key)}. Give it as text.")
        if isinstance(key, str) and not _is_utf8(key):
            raise self._error_at(code, f"the label {brief(key)} is not valid UTF-8. Save the table as UTF-8.")
        if isinstance(key, str) and "\0" in key:
            raise self._error_at(code, f"the label {brief(key)} holds a zero byte: the table is damaged, or no text.")

    def _look_up(self, keys: list[Any], numbers: list[int | float | None], names: list[str]) -> list[int]:
        places = {name: index for index, name in enumerate(names)}
        found = [next((places[text] for text in _spellings(key) if text in places), None) for key in keys]
        by_name = any(place is not None for place in found)
        indices: list[int] = []
        for code, (key, place, number) in enumerate(zip(keys, found, numbers, strict=True)):
            if place is not None:
                indices.append(place)
            elif not by_name and isinstance(number, int) and 0 <= number < len(names):
                indices.append(number)
            else:
                close = [] if number is not None else difflib.get_close_matches(str(key)[:_SHOWN_CHARACTERS], names, 1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise self._error_at(
                    code,
                    f"the label {brief(key)} is not in classes ({few(names)}).{hint} Correct it, add it to classes=, "
                    f"or leave its rows out.",
                )
        return indices

    def _whole(self, keys: list[Any], numbers: list[int | float | None]) -> list[int]:
        for code, (key, number) in enumerate(zip(keys, numbers, strict=True)):
            if not isinstance(number, int) or not 0 <= number <= _LARGEST:
                texts = sorted({_spellings(key)[0] for key in keys})
                short = len(texts) <= 5 and max(map(len, texts)) <= _SHOWN_CHARACTERS
                classes = f"classes={texts}" if short else "classes=[...]"
                raise self._error_at(
                    code,
                    f"the label {brief(key)} is not a class index from 0 to {_LARGEST}. "
                    f'Use label_mode="raw" if labels are numbers to predict, or {classes} if they name classes.',
                )
        return [number for number in numbers if isinstance(number, int)]

    def _too_many(self, keys: list[Any], indices: list[int]) -> SourceError:
        code = next(code for code, index in enumerate(indices) if index > 1)
        texts = sorted({_spellings(key)[0] for key in keys})
        advice = f"Name them with classes={texts}." if len(texts) <= 2 else 'Use label_mode="int" or "categorical".'
        return self._error_at(
            code,
            f'label_mode="binary" needs the labels 0 and 1, or two names, but this is {brief(keys[code])}, and there '
            f"are {len(texts)} labels ({few(texts)}). {advice}",
        )


@final
class NumberEncoder(Encoder):
    """Columns of numbers.

    Args:
        columns: Their names, for errors.
        vector: Whether they become one float32 vector, `(count, columns)`; otherwise there is one column.
        blame: Makes errors.
    """

    def __init__(self, columns: Sequence[str], vector: bool, blame: Blame) -> None:
        self._columns = columns
        self._vector = vector
        self._blame = blame
        self._pieces: list[npt.NDArray[Any]] = []
        self._count = 0

    def extend(self, columns: Sequence[Values]) -> None:
        arrays = [self._numbers(name, values) for name, values in zip(self._columns, columns, strict=True)]
        self._pieces.append(np.stack(arrays, axis=1) if self._vector else arrays[0])
        self._count += len(arrays[0])

    def finish(self) -> Labels:
        values = np.concatenate(self._pieces)
        if any(piece.dtype == np.float32 for piece in self._pieces):
            # Otherwise NumPy would make float64 of int64 and float32 pieces of one untyped column.
            values = values.astype(np.float32, copy=False)
        return Labels(values, None, 0)

    def _numbers(self, column: str, values: Values) -> npt.NDArray[Any]:
        try:
            array = _as_numbers(values)
        except (ValueError, TypeError, OverflowError):
            raise self._not_a_number(column, values) from None
        if self._vector:
            with np.errstate(over="ignore"):
                array = array.astype(np.float32)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            place = int(np.argmin(np.isfinite(array)))
            raise self._blame(self._count + place, column, _not_finite(values[place], array.dtype))
        return array

    def _not_a_number(self, column: str, values: Values) -> SourceError:
        for place, value in enumerate(values):
            try:
                _as_numbers([value])
            except (ValueError, TypeError, OverflowError):
                several = " Several label columns make one float32 vector." if self._vector else ""
                message = f'the label {brief(value)} is not a number. Use label_mode="int" for class names.{several}'
                if _is_missing(value):
                    message = "the label is missing. Fill it in, or leave the row out."
                return self._blame(self._count + place, column, message)
        return self._blame(self._count, column, "the labels from here on are not numbers of one kind.")


def _as_numbers(values: Values) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    kinds = set(map(type, values))
    if str in kinds:
        if kinds <= {str, int, bool}:
            try:
                return np.fromiter(map(int, values), np.int64, len(values))
            except (ValueError, OverflowError):
                pass  # Not all are whole.
        array = np.fromiter(map(float, values), np.float64, len(values))
    else:
        array = np.array(values)
        if array.dtype.kind == "O" and kinds <= {int, float, bool}:
            array = array.astype(np.float64)  # Beyond 64 bits.
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise TypeError
        if all(issubclass(kind, np.generic) for kind in kinds):
            return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype.kind == "f" else array


def _not_finite(value: Any, dtype: np.dtype[Any]) -> str:
    if _is_missing(value):
        return "the label is missing. Fill it in, or leave the row out."
    return f"the label {brief(value)} is not a finite {dtype.name}."


def _is_missing(key: Any) -> bool:
    if key is None:
        return True
    if isinstance(key, str):
        return key.strip() in ("", "nan", "NaN", "NAN")
    return bool(isinstance(key, (float, np.floating)) and key != key)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(key: Any) -> int | float | None:
    """The number that a label is or reads as; an int if it is whole."""
    if isinstance(key, str):
        if not _NUMBER.fullmatch(key):
            return None
        try:
            return int(key)
        except ValueError:
            key = float(key)
    if isinstance(key, float):
        return int(key) if key.is_integer() else key
    return int(key)


def _spellings(key: Any) -> tuple[str, ...]:
    """Texts that may name this label in `classes`, the usual one first."""
    if isinstance(key, bool):
        return (str(key), str(key).lower())
    if isinstance(key, float) and key.is_integer():
        return (str(int(key)), str(key))
    return (str(key),)


def _unusable(value: Any) -> str:
    return f"the label is of type {type(value).__name__}; labels are text or numbers. Several columns are label=[...]."
