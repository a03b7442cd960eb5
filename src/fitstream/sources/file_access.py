"""Files that hold many samples: looked at before they are opened, and read at any place."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from fitstream.errors import SourceError

__all__ = ["check_file", "read_at"]


def check_file(path: str) -> int:
    """The size of a file, in bytes. To be asked before it is opened, which would wait for a pipe.

    Raises:
        SourceError: If it isn't there, or no file.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise SourceError(f"the file does not exist. Relative paths start at {os.getcwd()!r}.", file=path) from None
    except (OSError, ValueError) as error:  # of a path with a zero byte
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise SourceError(f"the file can't be read: {reason}.", file=path) from None
    if not stat.S_ISREG(state.st_mode):
        what = "a folder" if stat.S_ISDIR(state.st_mode) else "a device or pipe"
        raise SourceError(f"it is {what}, not a file.", file=path)
    return state.st_size


def read_at(file: BinaryIO, place: int, into: memoryview) -> int:
    """Read bytes from a place on, until there is no room or the file ends; returns how many.

    Args:
        file: Without a buffer, and of one lane alone: some systems can't read elsewhere without going there.
        place: The first byte.
        into: Where they go.
    """
    got = 0
    while got < len(into):
        if hasattr(os, "preadv"):  # one call of the system instead of two
            more = os.preadv(file.fileno(), [into[got:]], place + got)
        else:
            file.seek(place + got)
            more = file.readinto(into[got:]) or 0  # type: ignore[attr-defined]
        if not more:
            break
        got += more
    return got
