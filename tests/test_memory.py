"""The memory promise, measured: the process grows by no more than its budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps_rollup")

# The watcher reads what is private or shared memory; file pages are the page cache's.
PROGRAM = r"""
import json, re, sys, threading
import cv2, PIL.Image, simplejpeg
import numpy as np
import fitstream as fs

def held():
    text = open("/proc/self/smaps_rollup").read()
    return sum(1024 * int(size) for size in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", text, re.M))

base, most, done = held(), 0, threading.Event()

def watch():
    global most
    while not done.wait(0.005):
        most = max(most, held())

watcher = threading.Thread(target=watch)
watcher.start()
dataset = fs.from_folder(sys.argv[1], label_mode=None, image_size=IMAGE_SIZE).shuffle(0).batch(32)
with dataset.loader(memory=sys.argv[2], workers=2) as loader:
    for _ in range(4):
        count = sum(len(batch) for batch in loader)
    most = max(most, held())
    stats = loader.stats()
done.set()
watcher.join()
print(json.dumps([count, most - base, stats.peak_bytes, stats.projected_bytes]))
"""


def photo(rng: np.random.Generator, height: int, width: int) -> bytes:
    small = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(cv2.resize(small, (width, height))), quality=80)


def measure(folder: Path, memory: str, image_size: object) -> tuple[int, int, int, int]:
    program = PROGRAM.replace("IMAGE_SIZE", repr(image_size))
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), memory], check=True, capture_output=True, text=True, timeout=300
    )
    count, grown, peak, projected = json.loads(done.stdout)
    return count, grown, peak, projected


def test_photos_many_times_the_budget_stay_inside_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(600):
        (tmp_path / f"{i}.jpg").write_bytes(photo(rng, 160, 224))
    count, grown, peak, projected = measure(tmp_path, "24 MB", None)
    assert count == 600  # 64 MB of pixels
    assert 1e6 < grown <= 24e6  # the least that the ring takes, so that a broken gauge is noticed
    assert peak <= projected <= 24e6


def test_a_few_large_pictures_among_small_ones_stay_inside_the_budget(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(100):
        size = (2000, 2000) if i % 10 == 5 else (100, 100)
        (tmp_path / f"{i:03}.jpg").write_bytes(photo(rng, *size))
    count, grown, peak, projected = measure(tmp_path, "24 MB", (96, 96))
    assert count == 100
    assert 1e6 < grown <= 24e6  # the least that the ring takes, so that a broken gauge is noticed
    assert peak <= projected <= 24e6


FAULTS = r"""
import json, os, sys
import fitstream as fs
from fitstream.events import WorkerStarted

pids = [os.getpid()]

class Watch:
    def on_event(self, event):
        if isinstance(event, WorkerStarted):
            pids.append(event.pid)

def faults():
    return sum(int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[7]) for pid in pids)

dataset = fs.from_folder(sys.argv[1], label_mode=None, image_size=(96, 96)).shuffle(0).batch(8)
with dataset.loader(memory="256 MB", workers=2, processes=int(sys.argv[2]), observers=[Watch()]) as loader:
    for _ in range(5):
        for _ in loader:
            pass
    before, batches = faults(), 0
    for _ in range(10):
        for _ in loader:
            batches += 1
    print(json.dumps([batches, faults() - before]))
"""


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_a_steady_epoch_allocates_no_memory(tmp_path: Path, processes: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(64):
        (tmp_path / f"{number}.jpg").write_bytes(photo(rng, 375, 500))
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(tmp_path), str(processes)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    batches, faults = json.loads(done.stdout)
    assert batches == 80
    # A decoded picture has 137 pages, and a batch 54: whoever allocated them anew would fault on each.
    assert faults / batches < 20
