"""What wakes the pool's thread from other threads, and from inside a collection."""

from __future__ import annotations

import contextlib
import os
from typing import final

__all__ = ["Bell"]


@final
class Bell:
    """A descriptor to poll. It lives as long as anyone may ring."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pid = os.getpid()

    def ring(self) -> None:
        """Wake the thread."""
        # A forked child that drops a batch has no business here.
        if os.getpid() == self._pid:
            os.eventfd_write(self.fd, 1)

    def hush(self) -> None:
        """Be silent until the next ring."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def __del__(self) -> None:
        os.close(self.fd)
