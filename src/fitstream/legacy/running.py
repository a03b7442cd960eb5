"""An old program run in this process as `__main__`, as Python itself would run it.

The program gets a new `__main__` module with its own `__file__`, its `sys.argv` and its folder as `sys.path[0]`. Its
classes and functions belong to `__main__`, so that they go to worker processes by value. What it raises leaves through
us to the interpreter, which does as always: exit codes, Ctrl-C, `sys.excepthook`, `atexit`. Only the traceback
is cut, so that it begins at the program.

Keras is met when the program imports it, and not before, since many programs set environment variables first.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Literal, final

from fitstream.errors import FitstreamError
from fitstream.legacy import old_modules
from fitstream.legacy.detecting import parse, python2
from fitstream.legacy.program import is_ours, program
from fitstream.legacy.spawned import follow

__all__ = ["Script", "adapt_late"]

_PYTHON_2_NAMES = {
    "xrange",
    "unicode",
    "raw_input",
    "basestring",
    "unichr",
    "execfile",
    "reduce",
    "cmp",
    "long",
    "file",
}

_IMPORTING = old_modules.__file__


@final
@dataclass(frozen=True, slots=True)
class Script:
    """A program that is ready to run.

    Args:
        path: Its file.
        arguments: What follows its name on the command line.
        keras: 1 if positional counts are samples, 2 if steps.
        tensorflow: Whether it uses `tensorflow.keras` alone.
    """

    path: Path
    arguments: Sequence[str]
    keras: Literal[1, 2]
    tensorflow: bool

    def __call__(self) -> None:
        """Run it. What it raises comes out."""
        program.keras, program.tensorflow = self.keras, self.tensorflow
        program.backend = os.environ.get("KERAS_BACKEND", program.backend)
        old_modules.install_modules(adapt_late)
        follow(str(self.path))
        try:
            exec(self._begin(), vars(sys.modules["__main__"]))  # noqa: S102  it is the user's own program
        except SystemExit:
            raise
        except SyntaxError as error:
            told = python2(error)
            if told is None:
                _cut(error)
                raise
            _cut(told)
            raise told from None
        except BaseException as error:
            if isinstance(error, NameError) and error.name in _PYTHON_2_NAMES:
                error.add_note(f"{error.name} is Python 2's. 2to3 turns the program into Python 3.")
            _cut(error)
            raise

    def _begin(self) -> CodeType:
        main = ModuleType("__main__")
        file = str(self.path)
        main.__dict__.update(
            __file__=file, __builtins__=builtins, __cached__=None, __loader__=SourceFileLoader("__main__", file)
        )
        sys.modules["__main__"] = main
        sys.argv[:] = [file, *self.arguments]
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(file))
        return compile(parse(self.path), file, "exec", dont_inherit=True)


def adapt_late() -> None:
    """Adapt Keras, once it is there."""
    # It needs Keras.
    from fitstream.legacy.adapting import adapt

    adapt()


def _cut(error: BaseException) -> None:
    """Have the interpreter show the traceback from the program's first line on.

    Our own errors end in the program's line too. FITSTREAM_TRACEBACK=1 leaves all as it is.
    """
    if os.environ.get("FITSTREAM_TRACEBACK"):
        return
    # Frames of the import statement are Python's own affair, also where it passes through `old_modules`.
    passing = (_IMPORTING, "<frozen importlib")
    frames = [one for one in _frames(error.__traceback__) if not _file(one).startswith(passing)]
    while frames and is_ours(_file(frames[0])):
        frames.pop(0)
    if isinstance(error, FitstreamError):
        while frames and is_ours(_file(frames[-1])):
            frames.pop()
    shown: TracebackType | None = None
    for frame in reversed(frames):
        shown = TracebackType(shown, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    hook = sys.excepthook

    def report(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if value is error:
            trace = value.__traceback__ = shown
        hook(kind, value, trace)

    sys.excepthook = report


def _file(frame: TracebackType) -> str:
    return frame.tb_frame.f_code.co_filename


def _frames(trace: TracebackType | None) -> list[TracebackType]:
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames
