"""What wakes the pool's thread from other threads, and from inside a collection."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, final

__all__ = ["Bell"]


@final
class Bell:
    """A descriptor to poll. It lives as long as anyone may ring; a forked child that does wakes for nothing."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Wake the thread."""
        os.eventfd_write(self.fd, 1)

    def ringer(self) -> Callable[[Any], object]:
        """The same as a function that runs no bytecode, and takes and ignores one argument."""
        # `next` calls what writes, and would give back its second argument if there were nothing left to write.
        ringer = partial(next, map(os.eventfd_write, repeat(self.fd), repeat(1)))
        ringer.bell = self  # type: ignore[attr-defined]  # so that the descriptor stays open
        return ringer

    def hush(self) -> None:
        """Be silent until the next ring."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def __del__(self) -> None:
        os.close(self.fd)
