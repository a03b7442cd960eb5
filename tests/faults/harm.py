"""Faults, and what commits them: functions, objects to read from, codecs, our own loops, observers.

Workers import this module by name, so it imports next to nothing. A culprit is a plain object: it commits its fault at
one sample, each time or the first time only (a file remembers that, since workers share nothing else).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

#: In the order of the matrix.
FAULTS = (
    "raise", "sys.exit", "KeyboardInterrupt", "os._exit", "SIGKILL", "SIGSEGV", "stack overflow", "hang", "SIGSTOP",
)  # fmt: skip
#: Those that end the process that they are committed in, and how it ends.
DEADLY = {
    "os._exit": 7, "SIGKILL": -signal.SIGKILL, "SIGSEGV": -signal.SIGSEGV, "stack overflow": -signal.SIGSEGV,
}  # fmt: skip


def commit(fault: str) -> None:
    """Do it."""
    if fault == "raise":
        raise RuntimeError("as it was told to")
    if fault == "sys.exit":
        sys.exit(3)
    if fault == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if fault == "os._exit":
        os._exit(7)
    if fault == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "SIGSEGV":
        ctypes.string_at(0)
    if fault == "stack overflow":
        # A parser that calls itself for each bracket: Python's own limit on recursion doesn't see that.
        ctypes.CDLL(None).regcomp(ctypes.create_string_buffer(1 << 12), b"(" * 1_000_000, 1)
    if fault == "SIGSTOP":
        # To this thread, which doesn't go on then: what is sent to the process may reach another thread first.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    if fault == "hang":
        threading.Event().wait(3600)


class Culprit:
    """Commits a fault at some samples.

    Args:
        fault: Which.
        at: Indices of the samples.
        once: A file that is made the first time; from then on nothing happens. None for each time.
    """

    def __init__(self, fault: str, at: tuple[int, ...], once: Path | None = None) -> None:
        self.fault = fault
        self.at = at
        self.once = once

    def meet(self, index: int) -> None:
        """A sample is in the making."""
        if index not in self.at:
            return
        if self.once is not None:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
        commit(self.fault)


class Transform(Culprit):
    """A function for `map`: what it is given, doubled."""

    def __call__(self, x: Any) -> Any:
        self.meet(int(x))
        return x * 2


class Rows(Culprit):
    """An object for `from_sequence`."""

    def __init__(self, count: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.meet(index)
        return np.int64(index * 2)


class ManyRows(Rows):
    """The same, read many at a time."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Stream(Rows):
    """A function for `from_generator`."""

    def __call__(self) -> Any:
        return (self[index] for index in range(self.count))


class Codec(Culprit):
    """A function for `map` that changes nothing. Wherever it is, decoding the pictures of its samples is at fault.

    Args:
        pictures: The files of the samples.
    """

    def __init__(self, pictures: list[bytes], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pictures = pictures
        self.__setstate__(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        import simplejpeg

        whole = getattr(simplejpeg.decode_jpeg, "whole", simplejpeg.decode_jpeg)

        def decode_jpeg(encoded: Any, *arguments: Any) -> Any:
            self.meet(self.pictures.index(bytes(encoded)))
            return whole(encoded, *arguments)

        decode_jpeg.whole = whole  # type: ignore[attr-defined]
        simplejpeg.decode_jpeg = decode_jpeg

    def __call__(self, pixels: Any, index: Any) -> Any:
        return index * 2


class Loop(Culprit):
    """A function for `map`: what it is given, doubled. Wherever it is, our own loop over a lane's rows is at fault."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.__setstate__(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        from fitstream.filler import Filler

        whole = getattr(Filler.fill, "whole", Filler.fill)

        def fill(filler: Any, leaves: Any, start: int, indices: Any, *arguments: Any) -> None:
            whole(filler, leaves, start, indices, *arguments)
            for index in indices:
                self.meet(int(index))

        fill.whole = whole  # type: ignore[attr-defined]
        Filler.fill = fill  # type: ignore[method-assign]

    def __call__(self, x: Any) -> Any:
        return x * 2


class Callback(Culprit):
    """An observer. Its samples are those of the batch that is delivered, or none where it is told of a worker."""

    def __init__(self, kind: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kind = kind

    def on_event(self, event: Any) -> None:
        if type(event).__name__ == self.kind:
            self.meet(getattr(event, "step", self.at[0]))
