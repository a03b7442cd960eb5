"""Errors as old programs catch them.

They say `except RuntimeError` around `fit_generator` and mean what their own generator raised. So such an error is a
`SampleError` and an instance of the original's type at once, by a class made for the pair. Of an error in a worker
process only the traceback's text arrives; its type is known by name there, if it is Python's own or of a module that
is loaded here.
"""

from __future__ import annotations

import builtins
import re
import sys
from typing import Any

from fitstream.engine.messages import WorkerTraceback
from fitstream.errors import FitstreamError, SampleError

__all__ = ["BadBatch", "as_raised"]

#: Types that mean something else than a failure; `except` clauses for them must not see one.
_NEVER = (StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt, SystemExit)
_LAST_LINE = re.compile(r"^((?:\w+\.)*)(\w+)(?::|$)")


class BadBatch(SampleError, ValueError):
    """A batch that Keras can't take; a ValueError too, as Keras 2's was.

    Args:
        name: What the batches come from.
        index: The batch's number among those taken, from 0.
        reason: What is wrong with it.
    """

    def __init__(self, name: str, index: int, reason: str) -> None:
        super().__init__(reason, index=index, stage="batch")
        self.args = (f"Batch {index} of {name} (counted from 0) {self.reason}",)


def as_raised(error: Exception) -> Exception:
    """The error that is also an instance of the type that the program's own code raised; itself if it can't be.

    Args:
        error: What a `Supply` raised; the program's own error is its cause.
    """
    if not isinstance(error, SampleError):
        return error
    origin = _type_of(error.__cause__)
    if origin is None or isinstance(error, origin) or issubclass(origin, (FitstreamError, *_NEVER)):
        return error
    try:
        both: Any = _both(type(error), origin)
        # MemoryError's own works for no class but itself.
        made: Exception = (BaseException if issubclass(origin, MemoryError) else both).__new__(both)
        made.args = error.args
        for name, value in vars(error).items():
            # Some types keep what has the same name, such as `reason`, outside the dict.
            setattr(made, name, value)
    except Exception:  # noqa: BLE001  a program's own exception class may do anything when it is made
        return error
    made.__cause__ = error.__cause__
    return made.with_traceback(error.__traceback__)


def _type_of(cause: BaseException | None) -> type[Exception] | None:
    if isinstance(cause, WorkerTraceback):
        for line in reversed(cause.text.splitlines()):
            found = _LAST_LINE.match(line)
            kind = _named(found[1].rstrip("."), found[2]) if found else None
            if kind is not None:
                return kind
        return None
    return type(cause) if isinstance(cause, Exception) else None


def _named(module: str, name: str) -> type[Exception] | None:
    """The type that a traceback calls so. It names no module for Python's own types and those of the main program."""
    for place in [sys.modules.get(module)] if module else [builtins, sys.modules["__main__"]]:
        kind = getattr(place, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind
    return None


def _both(ours: type[SampleError], origin: type[Exception]) -> type[Exception]:
    return type(
        f"{ours.__name__}({origin.__name__})",
        (ours, origin),
        {
            "__module__": ours.__module__,
            # The original's own would read fields that only its constructor sets.
            "__str__": lambda self: str(self.args[0]),
            "__reduce__": lambda self: (SampleError, (self.reason,)),
        },
    )
