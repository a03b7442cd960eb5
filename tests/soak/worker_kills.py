"""Workers killed at random moments: no sample lost or doubled, each batch equal to an undisturbed run's, and soon.

`python tests/soak/worker_kills.py [KILLS] [SEED]`; 1,000 kills take some minutes on two quiet cores. Three kinds of
source in three splits of lanes share the kills: SIGKILL and SIGSEGV from outside, to a worker that was told to have
started, and `os._exit` and a real segmentation fault from inside, in a function that finds a file.

How soon is measured twice: from the kill to the next batch, which may have been ready; and to the first batch that
can't have been, since the ring has fewer slots than came between.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

import numpy as np
from loops import leaves, told
from PIL import Image
from report import report

import fitstream as fs
from fitstream.events import WorkerLost, WorkerStarted

EPOCHS, COUNT, SIZE = 3, 320, 16
SPLITS = [(2, 2), (3, 2), (2, 1)]
WAYS = ("SIGKILL", "SIGSEGV", "os._exit inside", "SIGSEGV inside")


def ending(mark: Path) -> Callable[[], None]:
    """A function that ends its process if there is a file; who takes the file away is who ends."""
    exit_file, fault_file = str(mark) + ".exit", str(mark) + ".fault"

    def check() -> None:
        for file in (exit_file, fault_file):
            if not os.path.exists(file):
                continue
            try:
                os.unlink(file)
            except FileNotFoundError:
                continue
            if file is exit_file:
                os._exit(7)
            ctypes.string_at(0)

    return check


def datasets(root: Path, mark: Path) -> dict[str, fs.Dataset]:
    """By name. The last leaf of each sample tells which one it is."""
    check = ending(mark)
    for number in range(COUNT if not root.exists() else 0):
        root.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:04}.jpg")
    rows = [{"path": f"{number:04}.jpg", "label": number} for number in range(COUNT)]
    work = np.arange(8.0)

    def noised(x: Any, y: Any, rng: np.random.Generator) -> Any:
        check()
        return x + np.sort(rng.random(4000))[0] + work[0], y

    def numbers() -> Iterator[Any]:
        for i in range(COUNT):
            yield np.full(8, i, np.float32), i

    arrays = np.arange(COUNT * 8, dtype=np.float64).reshape(COUNT, 8), np.arange(COUNT)
    pictures = fs.from_table(rows, root=root, image_size=(32, 32), label_mode="raw")
    return {
        "folder": pictures.shuffle(1).map(noised).batch(SIZE),
        "arrays": fs.from_arrays(arrays).shuffle(2).map(noised).batch(SIZE),
        "generator": fs.from_generator(numbers).map(noised).batch(SIZE),
    }  # fmt: skip


def digest(batch: Any) -> str:
    return hashlib.sha256(told(batch)).hexdigest()


@dataclass
class Kills:
    """What was done and found.

    Attributes:
        next_s: From each kill to the next batch.
        fresh_s: From each kill to a batch that can't have been ready.
        wrong: Batches that differ from the undisturbed run's.
        lost: Samples that did not come in their epoch.
        doubled: Samples that came more often than once.
    """

    ways: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    next_s: list[float] = field(default_factory=list)
    fresh_s: list[float] = field(default_factory=list)
    batches: int = 0
    wrong: int = 0
    lost: int = 0
    doubled: int = 0

    def told(self) -> str:
        """In words."""
        lines = [f"{sum(self.ways.values()):,} kills ({dict(self.ways)}), {self.batches:,} batches"]
        lines.append(f"{self.lost} samples lost, {self.doubled} doubled, {self.wrong} batches differ (SHA-256)")
        for name, took_s in (("next batch", self.next_s), ("first batch that was not ready", self.fresh_s)):
            if took_s:
                p99 = float(np.percentile(took_s, 99))
                lines.append(
                    f"from kill to {name}: median {statistics.median(took_s):.3f} s, "
                    f"99th percentile {p99:.3f} s, most {max(took_s):.3f} s"
                )
        lines.append(f"how workers were told to have ended: {dict(self.reasons)}")
        return "\n".join(lines)


class Disturber:
    """Kills workers of one loader, seldom enough that something is finished between two kills."""

    def __init__(self, kills: Kills, rng: random.Random, mark: Path, most: int) -> None:
        self.living: set[int] = set()
        self._kills, self._rng, self._mark, self._left = kills, rng, mark, most
        self._pause = 0
        self._waiting: list[tuple[float, int]] = []
        self.slot_count = 4

    @property
    def done(self) -> bool:
        return self._left <= 0 and not self._waiting

    def on_event(self, event: Any) -> None:
        if isinstance(event, WorkerStarted):
            self.living.add(event.pid)
        elif isinstance(event, WorkerLost):
            self.living.discard(event.pid)
            self._kills.reasons[event.reason.split(":")[0]] += 1

    def came(self) -> None:
        """One more batch came: take the times, and kill again if it is time to."""
        now, still = time.monotonic(), []
        for since, batches in self._waiting:
            if batches == 0:
                self._kills.next_s.append(now - since)
            if batches == self.slot_count:
                self._kills.fresh_s.append(now - since)
            else:
                still.append((since, batches + 1))
        self._waiting = still
        self._pause -= 1
        if self._left > 0 and self._pause < 0 and self.living:
            self._kill(self._rng.choice(WAYS), self._rng.choice(sorted(self.living)))
            self._left -= 1
            self._pause = self.slot_count + self._rng.randint(1, 6)
            self._waiting.append((time.monotonic(), 0))

    def _kill(self, way: str, pid: int) -> None:
        self._kills.ways[way] += 1
        if way.endswith("inside"):
            Path(f"{self._mark}.{'exit' if way.startswith('os') else 'fault'}").touch()
            return
        self.living.discard(pid)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself, and that isn't told yet
            os.kill(pid, signal.SIGKILL if way == "SIGKILL" else signal.SIGSEGV)


def disturb(dataset: fs.Dataset, split: tuple[int, int], kills: Kills, disturber: Disturber) -> None:
    """Run epochs of one dataset until all kills are done, and compare."""
    with dataset.loader("500 MB", workers=0) as loader:
        expected = [[digest(batch) for batch in loader] for _ in range(EPOCHS)]
    epoch = 0
    with dataset.loader("500 MB", workers=split[0], processes=split[1], observers=[disturber]) as loader:
        disturber.slot_count = loader.plan.slot_count
        while not disturber.done:
            loader.set_epoch(epoch % EPOCHS)
            seen, met = [], Counter()  # type: ignore[var-annotated]
            for batch in loader:
                disturber.came()
                seen.append(digest(batch))
                met.update(leaves(batch)[-1].tolist())
            wanted = expected[epoch % EPOCHS]
            kills.batches += len(seen)
            kills.wrong += sum(one != other for one, other in zip(seen, wanted, strict=False))
            kills.wrong += abs(len(seen) - len(wanted))
            kills.lost += sum(met[i] == 0 for i in range(COUNT))
            kills.doubled += sum(count - 1 for count in met.values())
            epoch += 1


def soak(count: int, seed: int, folder: Path) -> Kills:
    """So many kills, over all sources and splits."""
    kills, rng = Kills(), random.Random(seed)
    jobs = [(name, split) for split in SPLITS for name in ("folder", "arrays", "generator")]
    for number, (name, split) in enumerate(jobs):
        mark = folder / f"mark-{number}"
        dataset = datasets(folder / "pictures", mark)[name]
        share = count * (number + 1) // len(jobs) - count * number // len(jobs)
        disturb(dataset, split, kills, Disturber(kills, rng, mark, share))
    return kills


def main(count: int = 1000, seed: int = 0) -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kills = soak(count, seed, Path(folder))
    took_s = time.monotonic() - begun
    report(f"worker_kills, seed {seed}, {took_s:.0f} s, load {os.getloadavg()[0]:.1f}\n{kills.told()}")
    return int(bool(kills.wrong or kills.lost or kills.doubled) or float(np.percentile(kills.fresh_s, 99)) >= 2)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
