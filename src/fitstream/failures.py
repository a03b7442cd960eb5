"""A sample's failure: its row, where in the user's code it was, and how it differs from the user's Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from typing import final

import numpy as np

from fitstream.errors import SampleError

__all__ = ["RowError", "is_ctrl_c", "sample_error"]


@final
class RowError(Exception):
    """A failure and the row of the batch that it belongs to."""

    def __init__(self, row: int, error: SampleError) -> None:
        super().__init__(row, error)
        self.row = row
        self.error = error


def is_ctrl_c(error: BaseException) -> bool:
    """Whether an exception is the user's Ctrl-C, which no policy may swallow, and not raised by a function itself."""
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    )


def sample_error(error: BaseException, index: int, path: str | None, stage: str, unit: str = "sample") -> SampleError:
    """Wrap an error with all that is known of where it happened.

    Args:
        error: What a stage raised.
        index: The sample's index in its source.
        path: The file that holds it, or None.
        stage: What was being done.
        unit: As in `SampleError`.
    """
    told = _beyond_place(str(error), path)
    own = type(error).__module__.startswith("fitstream.")
    reason = told if own else f"{type(error).__name__}: {told}" if told else type(error).__name__
    return SampleError(reason, index=index, path=path, stage=stage, user_line=_user_line(error), unit=unit)


def _beyond_place(told: str, path: str | None) -> str:
    """A message without the file at its start, which the `SampleError` names before it."""
    for file in () if path is None else (path, path.rpartition("@")[0]):
        if file and told.startswith((f"{file}: ", f"{file}, ")):
            return told[len(file) + 2 :]
    return told


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# The folders of modules that every interpreter has, and of the packages that are installed beside ours.
_LIBRARIES = tuple(os.path.dirname(os.path.abspath(file)) + os.sep for file in (os.__file__, np.__file__ + "/.."))


def _user_line(error: BaseException) -> str | None:
    """The innermost frame that is neither ours nor a library's, as "file:line in function"."""
    own = [frame for frame in _frames(error) if not frame[0].startswith((_PACKAGE, *_LIBRARIES))]
    for file, line, function in reversed(own):
        return f"{file}:{line} in {function}"
    return None


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield os.path.abspath(frame.f_code.co_filename), line, frame.f_code.co_name
