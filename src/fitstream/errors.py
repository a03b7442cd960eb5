"""Every error that fitstream raises about input, arguments or data.

    FitstreamError
    ├── PlanError (ValueError)       the description or the budget cannot work; nothing was started
    ├── SourceError                  a folder, table or array that cannot be read; file, line, column
    ├── SampleError                  one sample failed; its index, path, stage and the user's own line
    ├── WorkerDied                   a worker process ended by itself; its id, how, and the batch it worked on
    ├── StateError                   a state that can't be loaded; what changed since it was taken
    ├── DeviceError                  a GPU that isn't there, or a limit that comes too late
    ├── Stalled (TimeoutError)       one side waited too long for the other; which, and for how long
    └── LoaderClosed                 an iterator or loader was used after it ended

A message says what failed, with which numbers, why, and what to do. Python's own TypeError is kept for calls that
don't match a signature. Messages never hold credentials: the root class takes those of URLs out, and they are taken out
of attributes that hold files and reasons.
"""

from __future__ import annotations

from typing import Any

from fitstream.redaction import redacted

__all__ = [
    "DeviceError",
    "FitstreamError",
    "LoaderClosed",
    "PlanError",
    "SampleError",
    "SourceError",
    "Stalled",
    "StateError",
    "WorkerDied",
]


class FitstreamError(Exception):
    """Root of all errors of fitstream. Credentials in URLs are taken out of its message."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # Python's own way calls the class with the whole message, as if it were the first argument, and no other: what
        # a process of the user's raises would not reach who started it.
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[FitstreamError], args: tuple[object, ...], attributes: dict[str, Any]) -> FitstreamError:
    error = kind.__new__(kind, *args)
    error.args = args  # of an OSError they come with its __init__
    error.__dict__.update(attributes)
    return error


class PlanError(FitstreamError, ValueError):
    """The description or the budget cannot work. Raised before anything starts.

    Attributes:
        needed_bytes: The least budget that would do, where the budget is too small; else None.
    """

    def __init__(self, message: str, *, needed_bytes: int | None = None) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


class SourceError(FitstreamError):
    """Input that cannot be listed or read as a whole: a folder, a table, an array.

    Attributes:
        file: The file at fault, or None.
        line: Its line, counted from 1, or None.
        column: Its column name or number, or None.
    """

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, column: str | int | None = None
    ) -> None:
        place = ""
        if file is not None:
            place = f"{file}"
            if line is not None:
                place += f", line {line}"
            if column is not None:
                place += f", column {column!r}"
            place += ": "
        super().__init__(place + message)
        self.file = None if file is None else redacted(file)
        self.line = line
        self.column = column


class SampleError(FitstreamError):
    """One sample could not be read, decoded, transformed or placed in its batch.

    Attributes:
        index: The sample's index in its source, from 0, or None where a source has no indices.
        path: The file that holds it, or None.
        stage: What was being done: "read", "decode", "map(<function>)", "batch".
        user_line: "file:line in function" of the innermost frame of the user's own code, or None.
        unit: What it is: a "sample", or a "batch" where batches come finished.
    """

    def __init__(
        self,
        reason: str,
        *,
        index: int | None = None,
        path: str | None = None,
        stage: str | None = None,
        user_line: str | None = None,
        unit: str = "sample",
    ) -> None:
        what = f"A {unit}" if index is None else f"{unit.capitalize()} {index}"
        if path is not None:
            what += f" ({path})"
        if stage is not None:
            what += f" failed in {stage}"
        message = f"{what}: {reason}"
        if user_line is not None:
            message += f"\n  at {user_line}"
        super().__init__(message)
        self.reason = redacted(reason)
        self.index = index
        self.path = None if path is None else redacted(path)
        self.stage = stage
        self.user_line = user_line
        self.unit = unit


class WorkerDied(FitstreamError):
    """A worker process ended by itself, again and again, or whenever it made one sample.

    Attributes:
        pid: Its process id.
        exit_code: Its exit code; the signal's number, negative, if one ended it.
        index: The sample that it worked on, or the first of several; None if there was none.
        path: The file that holds that sample, or None.
    """

    def __init__(
        self, message: str, *, pid: int, exit_code: int | None, index: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.exit_code = exit_code
        self.index = index
        self.path = path


class Stalled(FitstreamError, TimeoutError):
    """One side waited too long for the other."""


class StateError(FitstreamError):
    """A state can't be loaded, or the data is not what it was when the state was taken.

    Attributes:
        changes: What changed since, such as "batch size 32 -> 64"; empty where the state itself is unusable.
    """

    def __init__(self, message: str, *, changes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.changes = changes


class DeviceError(FitstreamError):
    """A GPU can't be limited as asked: there is none of that number or size, or its framework runs already."""


class LoaderClosed(FitstreamError):
    """A loader was used after `close()`, or an iterator after a newer one replaced it."""
