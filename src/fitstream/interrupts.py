"""Ctrl-C in the command line: one line, the exit code that shells expect, and in time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

__all__ = ["leave", "watch_for_interrupts"]

#: Seconds that an orderly end after Ctrl-C may take, and the exit code that shells expect.
_INTERRUPT_S = 1.5
_INTERRUPTED = 130


def watch_for_interrupts() -> None:
    """Make Ctrl-C end the program in time, whatever a framework does with it.

    KeyboardInterrupt is lost where it meets a callback of the garbage collector, such as JAX's: then Python calls
    `sys.unraisablehook`, and goes on. And some frameworks take seconds to return. So a thread ends the program if the
    exception hasn't. It waits from the start: a thread that the handler started could wait for a lock of `threading`
    that the interrupted code holds.
    """
    report = sys.unraisablehook
    heard, told = os.pipe()

    def on_unraisable(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            leave()
        report(lost)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        os.write(told, b"!")
        raise KeyboardInterrupt

    def end() -> None:
        os.read(heard, 1)
        time.sleep(_INTERRUPT_S)
        leave()

    # A shell that starts the program in the background has it ignore Ctrl-C; that stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        threading.Thread(target=end, name="fitstream-interrupts", daemon=True).start()
        signal.signal(signal.SIGINT, on_interrupt)
        sys.unraisablehook = on_unraisable


def leave() -> NoReturn:
    """End the program without the frameworks' shutdown. Callable from any thread: it takes no lock."""
    show_cursor = b"\x1b[?25h" if os.isatty(1) else b""
    os.write(2, show_cursor + b"Interrupted.\n")
    os._exit(_INTERRUPTED)
