"""The rows of a table that lists pictures: which are kept, and what becomes of their columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.legacy.image_files import validate_filename
from fitstream.legacy.image_targets import Targets, numbers
from fitstream.legacy.program import warn

__all__ = ["Table", "WrongType"]

_WITHOUT_CLASSES = ("input", "multi_output", "raw", None)


@final
class WrongType(PlanError, TypeError):
    """Values of a column have the wrong type, which Keras called a TypeError."""


@final
class Table:
    """Columns of a table as lists.

    Args:
        table: Its columns come by `table[name]`.
        directory: Folder that paths start at.
        x_col: As in `DataFrameIterator`, like all that follow.
        y_col: See there.
        weight_col: See there.
        class_mode: See there.
    Raises:
        PlanError: If a column is missing, or its values don't suit the class mode.

    Attributes:
        paths: As the table has them.
    """

    def __init__(
        self,
        table: Any,
        directory: str,
        x_col: str,
        y_col: str | list[str],
        weight_col: str | None,
        class_mode: str | None,
    ) -> None:
        self._directory, self._x_col, self._y_col, self._class_mode = directory, x_col, y_col, class_mode
        if class_mode == "multi_output" and not isinstance(y_col, list):
            raise WrongType(f'y_col={y_col!r} must be a list of columns for class_mode="multi_output".')
        self.paths: list[Any] = _column(table, x_col)
        strange = next((path for path in self.paths if not isinstance(path, str)), None)
        if strange is not None:
            raise WrongType(f"all values of x_col={x_col!r} must be text, and {strange!r} is none.")
        names = y_col if isinstance(y_col, list) else [y_col]
        self._columns = [] if class_mode in ("input", None) else [_column(table, name) for name in names]
        self._weights = None if weight_col is None else np.asarray(_column(table, weight_col))
        if self._weights is not None and self._weights.dtype.kind not in "biuf":
            raise WrongType(f"weight_col={weight_col!r} must hold numbers, not {self._weights.dtype}.")
        self._check_classes()

    def _check_classes(self) -> None:
        allowed: tuple[type, ...] = (str, list, tuple) if self._class_mode == "categorical" else (str,)
        if self._class_mode in _WITHOUT_CLASSES:
            return
        strange = next((value for value in self._columns[0] if not isinstance(value, allowed)), None)
        if strange is not None:
            also = ", or a list of texts" if list in allowed else ""
            raise WrongType(
                f"all values of y_col={self._y_col!r} must be text{also} for class_mode={self._class_mode!r}, and "
                f'{strange!r} is none. Use .astype(str), or class_mode="raw" for numbers.'
            )

    def _keep(self, rows: Sequence[bool] | npt.NDArray[np.bool_]) -> None:
        def kept(values: list[Any]) -> list[Any]:
            return [value for value, keep in zip(values, rows, strict=True) if keep]

        self.paths = kept(self.paths)
        self._columns = [kept(column) for column in self._columns]
        self._weights = None if self._weights is None else self._weights[np.asarray(rows, bool)]

    def choose(self, suffixes: tuple[str, ...], *, has_ext: bool, drop_duplicates: bool, validate: bool) -> None:
        """Complete names and leave out rows, as the arguments of `DataFrameIterator` say."""
        if not has_ext:
            self._complete_names(suffixes)
        if drop_duplicates:
            seen: dict[str, int] = {}
            self._keep([seen.setdefault(path, row) == row for row, path in enumerate(self.paths)])
        if validate:
            self._keep_pictures(suffixes)

    def _complete_names(self, suffixes: tuple[str, ...]) -> None:
        """Give names that lack a suffix that of a file of this name, which the folder holds."""
        there: dict[str, str] = {}
        for name in sorted(os.listdir(self._directory or ".")):
            stem, suffix = os.path.splitext(name)
            if suffix[1:].lower() in suffixes:
                there.setdefault(stem, name)
        self.paths = [there.get(path, path) for path in self.paths]

    def _keep_pictures(self, suffixes: tuple[str, ...]) -> None:
        """Leave out rows without a picture's file, and say how many."""
        there = [validate_filename(os.path.join(self._directory, path), suffixes) for path in self.paths]
        if not all(there):
            missing = self.paths[there.index(False)]
            warn(
                f"{there.count(False)} of {len(there)} paths in {self._x_col!r} are no picture files and are left out, "
                f"such as {missing!r} in {self._directory or os.getcwd()!r}.",
            )
        self._keep(there)

    def keep_part(self, first: float, last: float) -> None:
        """Keep the rows from a fraction of all on, up to another."""
        count = len(self.paths)
        rows = np.zeros(count, bool)
        rows[int(first * count) : int(last * count)] = True
        self._keep(rows)

    def classes(self, wanted: Sequence[str] | None) -> list[str] | None:
        """Names of the classes in label order; rows of other classes are left out. None where there are none."""
        if self._class_mode in _WITHOUT_CLASSES:
            if wanted:
                told = f"classes= does nothing with class_mode={self._class_mode!r}."
                warn(told)
            return None
        column = self._columns[0]
        if wanted:
            names = list(dict.fromkeys(wanted))
            chosen = set(names)
            column[:] = [
                value if isinstance(value, str) else [one for one in value if one in chosen] for value in column
            ]
            self._keep([value in chosen if isinstance(value, str) else bool(value) for value in column])
        else:
            names = sorted({one for value in column for one in ([value] if isinstance(value, str) else value)})
        if self._class_mode == "binary" and len(names) != 2:
            raise PlanError(f'class_mode="binary" is for 2 classes, but {self._y_col!r} has {len(names)}.')
        return names

    def codes(self, indices: dict[str, int]) -> list[Any]:
        """Each row's class, or list of classes."""
        return [
            indices[value] if isinstance(value, str) else [indices[one] for one in value] for value in self._columns[0]
        ]

    def weights(self) -> npt.NDArray[Any] | None:
        """Sample weights of the rows."""
        return self._weights

    def targets(self, weights: npt.NDArray[Any] | None) -> Targets:
        """What goes with the pictures where there are no classes."""
        if self._class_mode is None:
            return Targets()
        if self._class_mode == "input":
            return Targets(copies_input=True, weights=weights)
        names = self._y_col if isinstance(self._y_col, list) else [self._y_col]
        arrays = [numbers(column, f"the column {name!r}") for name, column in zip(names, self._columns, strict=True)]
        if self._class_mode == "multi_output":
            return Targets(outputs=tuple(arrays), several=True, weights=weights)
        whole = np.stack(arrays, axis=1) if isinstance(self._y_col, list) else arrays[0]
        return Targets(outputs=(whole,), weights=weights)


def _column(table: Any, name: str) -> list[Any]:
    try:
        return list(table[name])
    except (KeyError, IndexError, TypeError):
        there = ", ".join(map(repr, list(getattr(table, "columns", ()))[:20]))
        raise PlanError(f"the table has no column {name!r}. Its columns: {there}.") from None
