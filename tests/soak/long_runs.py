"""200 epochs of a small set: no growth of memory, descriptors or threads.

`python -m pytest tests/soak/long_runs.py`; about half a minute on two cores.
"""

from __future__ import annotations

import gc
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from kinds import KINDS, write_files
from loops import worker_pids

import fitstream as fs


def held() -> int:
    """Memory of this process and its workers that they share with nobody else, and their part of what they share."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in [os.getpid(), *worker_pids()]]
    return sum(
        1024 * int(size) for text in texts for size in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", text, re.MULTILINE)
    )


@pytest.mark.parametrize("processes", [0, 1, 2])
@pytest.mark.parametrize("kind", ["pictures, noised", "a map with rng", "a generator, noised"])
def test_200_epochs_grow_nothing(kind: str, processes: int, tmp_path: Path) -> None:
    dataset = KINDS[kind](write_files(tmp_path))
    measured = []
    with dataset.loader(memory="500 MB", workers=2, processes=processes) as loader:
        for epoch in range(200):
            for batch in loader:
                del batch
            if epoch == 20:
                gc.collect()
                before = len(os.listdir("/proc/self/fd")), threading.active_count(), sorted(worker_pids())
            if epoch >= 100 and epoch % 5 == 4:
                measured.append(held())
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before[0]
        assert (threading.active_count(), sorted(worker_pids())) == before[1:]
    slope = np.polyfit(np.arange(len(measured)), measured, 1)[0] * len(measured)
    assert max(measured) - min(measured) < 4e6
    assert slope < 1e6


@pytest.mark.parametrize("processes", [1, 2])
def test_50_loaders_one_after_another_grow_nothing(processes: int) -> None:
    dataset = fs.from_arrays(np.arange(400)).map(lambda x: x).batch(8)
    measured = []
    for _ in range(50):
        with dataset.loader(memory="500 MB", workers=2, processes=processes) as loader:
            for batch in loader:
                del batch
        del loader
        gc.collect()
        measured.append((held(), len(os.listdir("/proc/self/fd")), threading.active_count()))
    assert measured[-1][1:] == measured[5][1:]
    assert measured[-1][0] - measured[5][0] < 1e6
