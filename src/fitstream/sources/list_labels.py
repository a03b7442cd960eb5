"""A column whose values are lists of numbers, such as one-hot labels: one float32 vector a sample."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from fitstream.sources.labels import Blame, Encoder, Labels, Values, brief

__all__ = ["ListEncoder", "holds_lists"]


def holds_lists(values: Values, *, named: bool) -> bool:
    """Whether the first value of a column is a list, or the JSON text of two numbers or more.

    Args:
        named: Classes are named, so that text is names.
    """
    first = _listed(values[0]) if len(values) else None
    if not isinstance(first, (list, tuple, np.ndarray)):
        return False
    return not isinstance(values[0], str) or (not named and len(first) > 1 and all(map(_is_number, first)))


def _listed(value: Any) -> Any:
    """A value, of JSON text of a list the list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


@final
class ListEncoder(Encoder):
    """One column of lists of numbers, all of one length.

    Args:
        column: Its name, for errors.
        blame: Makes errors.
    """

    def __init__(self, column: str, blame: Blame) -> None:
        self._column = column
        self._blame = blame
        # One block that grows, since pieces that are let go of would stay with the process as holes in its heap.
        self._numbers = io.BytesIO()
        self._count = 0
        self._width = 0

    def extend(self, columns: Sequence[Values]) -> None:
        values = [_listed(value) for value in columns[0]]
        self._width = self._width or len(values[0])
        try:
            rows = [np.asarray(value) for value in values]
            piece = np.stack(rows).astype(np.float32)
            good = 0 < self._width == piece.shape[-1] and piece.ndim == 2
            good = good and all(row.dtype.kind in "biuf" for row in rows)
        except (ValueError, TypeError):
            good = False
        if not good or not np.isfinite(piece).all():
            raise self._wrong(values)
        self._numbers.write(piece.tobytes())
        self._count += len(values)

    def _wrong(self, values: Values) -> Exception:
        for row, value in enumerate(values, self._count):
            told = ""
            if not isinstance(value, (list, tuple, np.ndarray)):
                told = f"the label {brief(value)} is no list, as those of the rows before are"
            elif not len(value):
                told = "the label is an empty list"
            elif len(value) != self._width:
                told = f"the label {brief(value)} has {len(value)} numbers, and the first one has {self._width}"
            elif not all(_is_number(number) for number in value):
                told = f"the label {brief(value)} holds something that is no finite number"
            if told:
                advice = "Lists of labels must be numbers, all of one length."
                return self._blame(row, self._column, f"{told}. {advice}")
        return self._blame(self._count, self._column, "the labels from here on are no lists of numbers.")

    def finish(self) -> Labels:
        numbers = np.frombuffer(self._numbers.getvalue(), np.float32).reshape(self._count, self._width)
        self._numbers = io.BytesIO()
        return Labels(numbers, None, 0)


def _is_number(value: Any) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in "biuf" and bool(np.isfinite(array))
