"""What shuffling by chunk costs in randomness, and gains in speed, on data that is sorted by class.

Question: rows of one class stand together in a file of compressed blocks. How alike are neighbours after
`shuffle(within="chunks")` with windows of several sizes, what does training by SGD reach after one and five passes, and
how many rows come a second? Method: scikit-learn's digits sorted by class, repeated with noise to 28,752 rows in blocks
of 256 (HDF5, gzip); softmax regression, batches of 64, mean of 5 seeds. "Alike" is the share of pairs of rows of
one class in a batch, less what chance gives. The last batches decide what SGD remembers: sorted data ends with the last
classes.

    python benchmarks/chunk_shuffle.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from sklearn.datasets import load_digits

import fitstream as fs

BLOCK, REPEATS, SEEDS = 256, 16, 5


def write(path: Path) -> tuple[np.ndarray, np.ndarray]:
    digits, rng = load_digits(), np.random.default_rng(0)
    order = np.argsort(digits.target, kind="stable")
    x = np.repeat(digits.data[order] / 16, REPEATS, 0).astype(np.float32)
    x = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)
    y = np.repeat(digits.target[order], REPEATS)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, chunks=(BLOCK, 64), compression="gzip")
        file["y"] = y
    return digits.data / 16, digits.target


def trained(ds: fs.Dataset, x: np.ndarray, y: np.ndarray, passes: int) -> list[float]:
    """Accuracy after each pass."""
    weights, bias, found = np.zeros((64, 10)), np.zeros(10), []
    with ds.loader(memory="64 MB", workers=1, processes=0) as loader:
        for _ in range(passes):
            for rows, labels in loader:
                scores = rows @ weights + bias
                scores = np.exp(scores - scores.max(1, keepdims=True))
                error = scores / scores.sum(1, keepdims=True) - np.eye(10)[labels]
                weights -= 0.5 * rows.T @ error / len(rows)
                bias -= 0.5 * error.mean(0)
            found.append(float((np.argmax(x @ weights + bias, 1) == y).mean()))
    return found


def main() -> None:
    passes = 2 if "--quick" in sys.argv[1:] else 5
    with tempfile.TemporaryDirectory() as folder:
        x, y = write(Path(folder) / "d.h5")
        ds = fs.from_hdf5(Path(folder) / "d.h5", "x", "y")
        print(
            "| window (blocks of 256) | alike | rows/s | accuracy after 1 pass | after", passes, "|\n| --- " * 1, end=""
        )
        print("| --- " * 4 + "|")
        for window in (1, 2, 4, 8, 16, 32, None):
            alike, rates, first, last = [], [], [], []
            for seed in range(SEEDS):
                how = {} if window is None else {"within": "chunks", "window_blocks": window}
                shuffled = ds.shuffle(seed, **how).batch(64)
                start = time.perf_counter()
                with shuffled.loader(memory="64 MB", workers=1, processes=0) as loader:
                    for _, labels in loader:
                        share = np.bincount(labels, minlength=10) / len(labels)
                        alike.append(float((share**2).sum() - 1 / len(labels)))
                rates.append(len(ds) / (time.perf_counter() - start))
                got = trained(shuffled, x, y, passes)
                first.append(got[0])
                last.append(got[-1])
            told = "all rows" if window is None else str(window)
            print(
                f"| {told} | {np.mean(alike) - 0.1:+.2f} | {np.median(rates):,.0f} | {np.mean(first):.3f} (worst "
                f"{min(first):.3f}) | {np.mean(last):.3f} (worst {min(last):.3f}) |"
            )


if __name__ == "__main__":
    main()
