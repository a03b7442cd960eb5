"""What tests of worker processes share: bytes of epochs, forced moves, child programs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fitstream as fs
from fitstream.engine.pool import Pool, split_lanes

#: Room for two workers, also where they may take a third of the budget only.
ROOM = "500 MB"


class Recorder:
    """An observer that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def leaves(batch: Any) -> list[np.ndarray]:
    if isinstance(batch, dict):
        return [leaf for key in batch for leaf in leaves(batch[key])]
    return [leaf for part in batch for leaf in leaves(part)] if isinstance(batch, tuple) else [batch]


def told(batch: Any) -> bytes:
    """All that a batch is: dtypes, shapes, bytes."""
    return b"|".join(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes() for leaf in leaves(batch))


def epochs(dataset: fs.Dataset, workers: Any, processes: int | None, count: int = 2) -> list[list[bytes]]:
    with dataset.loader(memory=ROOM, workers=workers, processes=processes) as loader:
        return [[told(batch) for batch in loader] for _ in range(count)]


class Mover:
    """Changes who fills batches, as the tuner does, but when a test wants it."""

    def __init__(self, loader: fs.Loader, process_count: int) -> None:
        loader.stream().close()
        pipeline = loader._pipeline
        assert pipeline is not None
        assert pipeline.plan.process_count, pipeline.plan.lane_reason
        pipeline._tuner._may_move = pipeline._tuner._may_change = False
        self._pipeline, self._process_count = pipeline, process_count
        self.most = pipeline.plan.lane_count

    def to_processes(self) -> None:
        pipeline, plan = self._pipeline, self._pipeline.plan
        pool = Pool(plan, split_lanes(plan.lane_count, self._process_count), lambda event: None)
        pool.attach(pipeline.board, pipeline._crashed)
        pipeline.crew.move_to(pool, sum(pool.lane_counts))

    def to_threads(self) -> None:
        self._pipeline.crew.move_back()

    def set_lanes(self, count: int) -> None:
        self._pipeline.crew.set_lanes(count)

    def turn(self, rng: random.Random) -> None:
        """Any change that is possible now."""
        if rng.random() < 0.4:
            if self._pipeline.crew.pool is None:
                self.to_processes()
            else:
                self.to_threads()
        else:
            self.set_lanes(rng.randint(1, self.most))


def worker_pids(pid: int | None = None) -> list[int]:
    """Children of a process that are alive."""
    pids = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == (pid or os.getpid()) and state != "Z":
            pids.append(int(status.parent.name))
    return pids


def until(condition: Any, limit_s: float = 60.0) -> bool:
    """Watch until something is so; whether it was within the time."""
    deadline, pause = time.monotonic() + limit_s, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


_HEAD = """
import os, pathlib, sys, signal, threading, time, warnings
import numpy as np
import fitstream as fs

def children():
    return " ".join(path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/children")).split()

"""


def script(code: str) -> str:
    return _HEAD + textwrap.dedent(code)


def run(code: str, *args: str, **options: Any) -> str:
    """Run a program with `-c` and give what it prints. Warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script(code), *args],
        capture_output=True, text=True, timeout=300, check=False, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done.stdout


def counting(count: int) -> Iterator[tuple[np.ndarray, int]]:
    for i in range(count):
        yield np.full(3, i, np.float32), i
