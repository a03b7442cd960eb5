"""The data of the benchmarks without pictures, and the consumer that checks its delivery.

Sample i carries i in its first value, so the one value of each sample that the consumer touches tells which one it was.
float32 holds whole numbers exactly up to 16.7 million.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Delivery", "Gathers", "Mapped", "Rows", "prepare_rows", "read_through", "tail_of"]

Rows = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_FORMAT = 1  # raise it when this file writes other values
_CHUNK_BYTES = 64_000_000


def tail_of(indices: Indices) -> Rows:
    """The last value of these rows of a file."""
    return (indices % 997).astype(np.float32)


def prepare_rows(count: int, shape: tuple[int, ...], cache: Path | None = None) -> Path:
    """Give a .npy file of `count` rows of this shape, float32, and make it first if it is not there yet.

    Args:
        count: Rows; each has at least two values, its index first and `tail_of` it last.
        shape: Of a row.
        cache: Where to keep it; None is `fitstream-bench` in the user's cache folder.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fitstream-bench"
    path = cache / f"rows-{_FORMAT}-{'x'.join(map(str, (count, *shape)))}.npy"
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    handle, building = tempfile.mkstemp(prefix=path.name, dir=cache)
    os.close(handle)
    try:
        mapped = np.lib.format.open_memmap(building, "w+", np.float32, (count, *shape))
        rows = mapped.reshape(count, -1)
        step = max(1, _CHUNK_BYTES // rows[0].nbytes)
        pattern = np.random.default_rng(0).random(rows.shape[1], np.float32)
        for start in range(0, count, step):
            indices = np.arange(start, min(start + step, count))
            part = rows[start : start + step]
            part[:] = pattern
            part[:, 0], part[:, -1] = indices, tail_of(indices)
        mapped.flush()
        Path(building).rename(path)
    finally:
        Path(building).unlink(missing_ok=True)
    return path


def read_through(path: Path) -> None:
    """Read a file once, so that it is in the page cache."""
    block = bytearray(16_000_000)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


class Mapped:
    """The rows of a .npy file one by one. Another process gets the path and not the data."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.rows = np.asarray(np.load(path, mmap_mode="r"))

    def __reduce__(self) -> tuple[type[Mapped], tuple[str]]:
        return Mapped, (self.path,)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Rows:
        return self.rows[index]


class Gathers:
    """Shuffled batches of an array, as a user with batches in mind would write it: `gathers[k]` is a fresh batch."""

    def __init__(self, rows: Rows, batch: int) -> None:
        # Indexing a memmap gives a memmap, whose bookkeeping costs more than a small batch.
        self.rows = np.asarray(rows)
        self.batch = batch
        self.order = np.random.default_rng(0).permutation(len(rows))

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch)

    def __getitem__(self, index: int) -> Rows:
        return self.rows[self.order[index * self.batch : (index + 1) * self.batch]]


class Delivery:
    """The consumer: touches the first value of each sample, and checks what was delivered.

    Args:
        count: Samples of an epoch.
        shape: Of a sample.
        batch: Samples of a batch.
        check: Looks closer at each batch, given its sample indices, and raises; None where time is measured.
        shuffled: Whether samples must come out of order; looked at together with `check`.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        batch: int,
        *,
        check: Callable[[Indices, Rows], None] | None = None,
        shuffled: bool = True,
    ) -> None:
        self._times = np.zeros(count, np.int32)
        self._full, self._short = (batch, *shape), (count % batch, *shape)
        self._first = (slice(None), *(0 for _ in shape))
        self._check = check
        self._total = 0
        self._sorted = shuffled

    def take(self, batch: Any) -> int:
        """Touch one value of each sample of `(batch, *shape)`, float32."""
        array = np.asarray(batch)
        if array.shape not in (self._full, self._short) or array.dtype != np.float32:
            raise ValueError(f"a batch is {array.dtype} {array.shape}, not float32 {self._full}.")
        indices = array[self._first].astype(np.intp)
        # A sample that comes twice in one batch counts once here, and is found by the total.
        self._times[indices] += 1
        self._total += len(indices)
        if self._check is not None:
            self._sorted = self._sorted and bool((np.diff(indices) > 0).all())
            self._check(indices, array)
        return len(indices)

    def finish(self, *, complete: bool) -> None:
        """Check that each sample came once an epoch, epochs laid end to end."""
        least, most = int(self._times.min()), int(self._times.max())
        if int(self._times.sum()) != self._total or most - least > 1:
            raise ValueError(f"samples came from {least} to {most} times within the same epochs, or twice in a batch.")
        if self._check is None:
            return
        if complete and least == 0:
            raise ValueError(f"{np.count_nonzero(self._times == 0)} of {len(self._times)} samples never came.")
        if self._sorted:
            raise ValueError("the samples were not shuffled.")
