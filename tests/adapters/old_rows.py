"""Samples, and generators and Sequences over them. Without a framework, because worker processes import this file."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

import fitstream as fs


def samples(count: int, first: int = 0) -> tuple[Any, Any]:
    """`x` float32 `(count, 2)` of id and feature, `y` int64 `(count,)`."""
    ids = np.arange(first, first + count)
    return np.stack([ids, ids % 3], axis=1).astype(np.float32), (ids % 3).astype(np.int64)


def batches(count: int | None = None, rows: int = 5, told: list[Any] | None = None) -> Iterator[Any]:
    """Batches of consecutive ids; writes down in `told` which were made, and in which thread."""
    step = 0
    while count is None or step < count:
        if told is not None:
            told.append((step, threading.current_thread()))
        yield samples(rows, rows * step)
        step += 1


class Rows(fs.Sequence):
    """Batches of ids 0 to `count`, the last one smaller; counts what is called."""

    def __init__(self, count: int, size: int = 5, first: int = 0) -> None:
        self.count, self.size, self.first = count, size, first
        self.asked: list[int] = []
        self.ends = 0

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        start = index * self.size
        return samples(min(self.size, self.count - start), self.first + start)

    def on_epoch_end(self) -> None:
        self.ends += 1


class Shrinking(Rows):
    """Has a third fewer samples after each pass."""

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        self.count = self.count * 2 // 3


class Varying(Rows):
    """As many samples a pass, in another order after each, as programs shuffle."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(count, size)
        self.turn = 0

    def __getitem__(self, index: int) -> Any:
        x, y = samples(self.count)
        ids = [(i + self.turn) % self.count for i in range(self.count)][index * self.size : (index + 1) * self.size]
        return x[ids], y[ids]

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        self.turn += 7
