"""The old program that runs: which Keras it was written for, which of its lines calls, and what it is told.

Translations are told on standard error, one line for each kind, with the first line of the program that needs it. What
can't be translated is an `OldName` error with that line.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, Literal, final

from fitstream.errors import PlanError

__all__ = ["OldAttribute", "OldName", "Program", "calls_itself", "is_ours", "place", "program", "warn"]


class _Old(PlanError):
    """A name of Keras 1 or 2 that Keras 3 has no equal for.

    Attributes:
        file: The program's file, or None where no line of it is known.
        line: Its line, from 1, or None.
        old: The old name.
        way: What to do in Keras 3.
    """

    def __init__(self, old: str, way: str, what: str = "is not in Keras 3") -> None:
        where = place()
        super().__init__(f"{_told(where)}{old} {what}. {way}")
        self.file = where[0] if where else None
        self.line = where[1] if where else None
        self.old = old
        self.way = way


class OldName(_Old, ImportError):
    """A name of Keras 1 or 2 that Keras 3 has no equal for. An ImportError too, for programs that try several names."""


class OldAttribute(_Old, AttributeError):
    """The same of a module's attribute. An AttributeError, so that `hasattr` answers."""


@final
class Program:
    """What is known of the program.

    Attributes:
        keras: 1 or 2: whose positional arguments it uses.
        backend: What Keras runs on where the program asks for a backend that is gone.
        tensorflow: Whether it uses `tensorflow.keras`, whose defaults and orders were those of Keras 3 in places.
    """

    def __init__(self) -> None:
        self.keras: Literal[1, 2] = 2
        self.tensorflow = False
        self.backend = "tensorflow"
        self._told: set[str] = set()

    def settle_backend(self) -> None:
        """Choose another backend than the one that the program's environment asks for, if Keras 3 lost it."""
        asked = os.environ.get("KERAS_BACKEND", "")
        if asked in ("theano", "cntk"):
            os.environ["KERAS_BACKEND"] = self.backend
            self.tell(f"KERAS_BACKEND={asked} -> {self.backend}")

    def tell(self, translation: str) -> None:
        """Say on standard error what was translated, the first time that it is."""
        if translation in self._told:
            return
        self._told.add(translation)
        sys.stderr.write(f"fitstream run: {_told(place())}{translation}\n")
        sys.stderr.flush()


#: The program of this process.
program = Program()


def place() -> tuple[str, int] | None:
    """File and line of the program that called, directly or through libraries; None if no frame is the program's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_program(frame.f_code.co_filename):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def warn(message: str) -> None:
    """Warn at the line of the program that called, directly or through libraries; here if no frame is the program's."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and not (_is_program(frame.f_code.co_filename) or _is_typed(frame.f_code.co_filename)):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=2 if frame is None else level)


def calls_itself(depth: int = 1) -> bool:
    """Whether the program itself calls, and no library does for it.

    Args:
        depth: Frames between the caller of this function and the one in question.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return frame is not None and _is_program(frame.f_code.co_filename)


_OURS = str(Path(__file__).resolve().parents[1]) + "/"


def is_ours(filename: str) -> bool:
    """Whether a file is one of fitstream's, or of what starts its command line."""
    return filename.startswith((_OURS, "<frozen runpy")) or filename == _LAUNCHER


def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {str(Path(path).resolve()) for path in found}
    # What has no file, "<string>", is code that libraries make.
    return (_OURS, "<", *(f"{path}/" for path in found))


_LAUNCHER = sys.argv[0]
_LIBRARIES = _libraries()


def _is_program(filename: str) -> bool:
    return not filename.startswith(_LIBRARIES) and "/site-packages/" not in filename


def _is_typed(filename: str) -> bool:
    """Whether it is code without a file that a person entered: `python -c`, a prompt."""
    return filename.startswith(("<string>", "<stdin>", "<ipython"))


def _told(where: tuple[Any, int] | None) -> str:
    return "" if where is None else f"{where[0]}:{where[1]}: "
