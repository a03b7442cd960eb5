"""The samples of `reliability.py`, and the transform in which things go wrong.

Sample i is `(i, 1,024 bytes)`; the bytes are drawn from a fixed seed, so that any process can tell whether they are
right. Each loader calls the same `Transform` on each sample. It is the user's function that misbehaves at one sample:
once (a file that only one can make says that it has happened), or each time.

Worker processes import this file, so it imports nothing but NumPy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

__all__ = ["BATCH", "SAMPLES", "Transform", "make_bytes", "worker_pids"]

SAMPLES, BATCH, _WIDTH = 640, 16, 1024
_TAKES_S = 0.001


def make_bytes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of all samples, `(640, 1024)` uint8."""
    return np.random.default_rng(0).integers(0, 256, (SAMPLES, _WIDTH), np.uint8)


class Transform:
    """Gives each sample back as it is, after a millisecond, and misbehaves at one of them.

    Args:
        folder: Where it leaves what the watcher wants to know: `worker-<pid>` for each process that it ran in, and
            `fault`, whose time of change is the moment at which it went wrong first.
        fault: What happens; None for nothing. A name that ends in "-once" happens once and then no more.
        sample: Index of the sample at which it happens.
    """

    def __init__(self, folder: str, fault: str | None, sample: int) -> None:
        self._folder, self._fault, self._sample = folder, fault, sample

    def __call__(self, index: Any, pixels: Any) -> tuple[Any, Any]:
        # Looked up each time: what a function keeps between calls would belong to what a state is compared with.
        _make(Path(self._folder, f"worker-{os.getpid()}"))
        time.sleep(_TAKES_S)
        if self._fault is not None and int(index) == self._sample:
            first = _make(Path(self._folder, "fault"))
            if first or not self._fault.endswith("-once"):
                _misbehave(self._fault.removesuffix("-once"), self._sample)
        return index, pixels


def worker_pids(folder: Path) -> list[int]:
    """Processes in which the transform ran and that live, without the calling one."""
    pids = {int(path.name.partition("-")[2]) for path in folder.glob("worker-*")} - {os.getpid()}
    return sorted(pid for pid in pids if Path("/proc", str(pid)).exists())


def _make(path: Path) -> bool:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        return True
    return False


def _misbehave(fault: str, sample: int) -> NoReturn:
    if fault == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "sigsegv":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "_exit":
        os._exit(3)
    elif fault == "sys.exit":
        sys.exit(3)
    elif fault == "KeyboardInterrupt":
        raise KeyboardInterrupt
    elif fault == "raise":
        raise ValueError(f"sample {sample} is corrupt")
    while True:  # "hang", and until a signal to this process has arrived
        time.sleep(1)
