"""Pages of mapped rows, asked for before they are touched."""

from __future__ import annotations

import mmap
import sys
import time
from typing import Any, final

import numpy as np
import numpy.typing as npt
from numpy.lib.array_utils import byte_bounds

from fitstream.sampling import Indices

__all__ = ["ReadAhead"]


@final
class ReadAhead:
    """Asks the system for the pages of mapped rows before they are touched, while touching them proves slow.

    A touched row that isn't in memory is read from disk alone, and the lane waits; rows asked for are read at the same
    time. But asking for a row costs more than copying a small one that is in memory. So a gather that was slow and had
    page faults starts it, for the gathers that follow; then one without is tried again. One lane's alone.
    """

    #: Gathers that ask, before one doesn't.
    LASTING = 64
    #: What a row may take, beside copying it at 1 GB/s, that is in memory.
    PATIENCE_S = 10e-6

    def __init__(self, mapping: mmap.mmap, first: int, row_bytes: int) -> None:
        self._mapping = mapping
        self._first = first
        self._row_bytes = row_bytes
        self._slow_s = self.PATIENCE_S + row_bytes / 1e9
        self._faults = 0
        self.left = 0

    @staticmethod
    def of(array: npt.NDArray[Any]) -> ReadAhead | None:
        """For a C-contiguous array that is mapped from a file; None for others, and where the system can't."""
        mapping: Any = array
        while isinstance(mapping, np.ndarray):
            mapping = mapping.base
        if sys.platform != "linux" or not isinstance(mapping, mmap.mmap):
            return None
        first = byte_bounds(array)[0] - byte_bounds(np.frombuffer(mapping, np.uint8))[0]
        return ReadAhead(mapping, first, array.nbytes // len(array))

    def take(self, array: npt.NDArray[Any], indices: Indices, rows: npt.NDArray[Any]) -> None:
        """Copy rows of the array."""
        if self.left:
            self.left -= 1
            for index in indices.tolist():
                start = self._first + index * self._row_bytes
                page = start - start % mmap.PAGESIZE
                self._mapping.madvise(mmap.MADV_WILLNEED, page, start + self._row_bytes - page)
            np.take(array, indices, axis=0, out=rows, mode="clip")
            return
        begun = time.perf_counter()
        np.take(array, indices, axis=0, out=rows, mode="clip")
        if time.perf_counter() - begun > self._slow_s * len(indices):
            import resource  # not there on Windows

            # A lane that only waited for its turn had no faults.
            faults = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
            if faults - self._faults >= len(indices) / 8:
                self.left = self.LASTING
            self._faults = faults
