"""A worker's memory is limited, so that a function that allocates without end fails by itself.

Without a limit the system would look for a process to kill, and the training may be it. The limit counts what is
private and can be written (RLIMIT_DATA). The address space (RLIMIT_AS) would count slots and mapped files too, and
addresses that libraries reserve and never use.

The worker may take what was free when it started, so that the limit refuses nothing that could have worked; several
workers that all take that much at once can still be too many.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fitstream.errors import SampleError
from fitstream.machine import available_memory_bytes
from fitstream.spec import format_bytes

__all__ = ["limit_memory", "room_bytes", "tell_limit"]

#: What a worker may always take, however little seems to be free: that can't be known exactly.
_LEAST_BYTES = 1 << 30


def room_bytes() -> int:
    """What a worker that starts now may take; in the main process."""
    return max(_LEAST_BYTES, available_memory_bytes())


def limit_memory(room: int, parcel: Sequence[int]) -> None:
    """Limit this process.

    Args:
        room: Bytes that it may take beyond what it has.
        parcel: Descriptors of what it will map privately, which takes no memory until it is written to, but counts.
    """
    import resource  # not there on Windows

    limit = _data_bytes() + sum(os.fstat(fd).st_size for fd in parcel) + room
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    for other in (soft, hard):
        if other != resource.RLIM_INFINITY:
            limit = min(limit, other)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def tell_limit(error: SampleError) -> SampleError:
    """The same error; where memory was refused, with the limit in it."""
    if not isinstance(error.__cause__, MemoryError):
        return error
    import resource

    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    told = SampleError(
        f"{error.reason}. A worker process may take {format_bytes(limit)}, which was free when it started. Make "
        "less at once in the function, or use fewer workers if they need so much together.",
        index=error.index,
        path=error.path,
        stage=error.stage,
        user_line=error.user_line,
        unit=error.unit,
    )
    told.__cause__ = error.__cause__
    return told


def _data_bytes() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0
