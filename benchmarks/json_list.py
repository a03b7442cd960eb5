"""A JSON list of 196,434 photos with Chinese names and 61 classes: the cost of opening it; is an epoch exact?

Question: how long does opening take, what does it keep and peak at, and does one epoch of 3,070 batches of 64 give each
row once? Method: the photos are 8x8 PNG files, 61 of them, each under thousands of names (hard links). Each row has its
number as a second label, by which the rows that came are counted. Memory is Pss_Anon + Pss_Shmem of this process, the
peak is that of its resident memory; both less what was there before opening.

    python benchmarks/json_list.py [ROWS]
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import fitstream as fs

CLASSES = 61
WORDS = ["健康", "一般", "严重", "玉米灰斑病", "番茄叶霉病", "葡萄黑腐病", "苹果黑星病", "黄龙病", "疮痂病", "叶枯病"]


def write_list(folder: Path, count: int) -> Path:
    """Write the list, and the photos under all their names."""
    rows = []
    for kind in range(CLASSES):
        Image.fromarray(np.full((8, 8, 3), kind, np.uint8)).save(folder / f"{kind}.png")
    for number in range(count):
        kind = number * 37 % CLASSES
        name = f"{WORDS[number % 10]}_{WORDS[number // 7 % 10]}_{number:06d}.png"
        os.link(folder / f"{kind}.png", folder / name)
        rows.append({"disease_class": kind, "image_id": name, "number": number})
    (folder / "list.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / "list.json"


def own_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if os.fork() == 0:  # a process of its own, whose peak isn't ours
            write_list(Path(folder), count)
            os._exit(0)
        os.wait()
        path = Path(folder) / "list.json"
        fs.from_table([{"path": "a", "label": 0}])  # loads what reading any table needs
        before, peak_before = own_bytes(), peak_bytes()
        start = time.perf_counter()
        ds = fs.from_table(path, image="image_id", label="disease_class", image_size=8)
        opened_s = time.perf_counter() - start
        kept = own_bytes() - before
        print(
            f"{count:,} rows, {path.stat().st_size / 1e6:.1f} MB: opened in {opened_s:.2f} s, "
            f"keeps {kept / 1e6:.1f} MB, peak {(peak_bytes() - peak_before) / 1e6:.1f} MB above "
            f"{peak_before / 1e6:.1f} MB; "
            f"{len(ds.batch(64)):,} steps of 64, {np.unique(ds._source.labels()).size} classes"
        )
        numbered = fs.from_table(path, image="image_id", label=["number", "disease_class"], image_size=8)
        seen, right = np.zeros(count, int), 0
        start = time.perf_counter()
        with numbered.shuffle(0).batch(64).loader(memory="64 MB") as loader:
            for images, labels in loader:
                np.add.at(seen, labels[:, 0].astype(int), 1)
                right += int((images[:, 0, 0, 0] == labels[:, 1]).sum())
        print(
            f"an epoch in {time.perf_counter() - start:.1f} s: {(seen == 1).sum():,} rows came once, "
            f"{(seen != 1).sum():,} did not; {right:,} photos were of the class that their row says"
        )
        assert (seen == 1).all()
        assert right == count


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 196_434)
