"""An HDF5 file and a MATLAB file, each of 3 GB, trained on within 256 MB.

Expected: above 0.9 of the last rows are told right, the plan stays below 256 MB, and this process grows by less than
256 MB while it trains (the framework and the model are there before). The rows are made: two classes that a line parts.

    python examples/large_hdf5.py                   # 3 GB each, which it writes first: some minutes
    python examples/large_hdf5.py --gigabytes 0.1
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import h5py
import numpy as np

import fitstream as fs
from fitstream.backend import choose_backend

FEATURES, BLOCK = 256, 4096


def write_rows(path: Path, gigabytes: float) -> None:
    """Write float32 (rows, 256) as "x" and their classes as "y", block by block."""
    rows = int(gigabytes * 1e9 / (FEATURES * 4)) // BLOCK * BLOCK
    line = np.random.default_rng(0).standard_normal(FEATURES).astype(np.float32)
    is_matlab = path.suffix == ".mat"
    with h5py.File(path, "w", userblock_size=512 if is_matlab else 0) as file:
        # What MATLAB calls (256, rows) lies in the file as (rows, 256). The HDF5 file is in blocks, as large ones are.
        x = file.create_dataset("x", (rows, FEATURES), np.float32, chunks=None if is_matlab else (256, FEATURES))
        y = file.create_dataset("y", (rows,), np.int64)
        for start in range(0, rows, BLOCK):
            rng = np.random.default_rng(start)
            block = rng.standard_normal((BLOCK, FEATURES), np.float32)
            x[start : start + BLOCK] = block
            y[start : start + BLOCK] = block @ line > 0
    if is_matlab:
        with open(path, "r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def own_bytes() -> int:
    """Memory of this process alone, without pages of files."""
    fields = Path("/proc/self/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * 4096


def main(gigabytes: float) -> None:
    choose_backend()
    import keras

    with tempfile.TemporaryDirectory() as folder:
        for name, within in (("rows.h5", "chunks"), ("rows.mat", None)):
            path = Path(folder) / name
            write_rows(path, gigabytes)
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1, activation="sigmoid")])
            model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy", metrics=["accuracy"])
            model.fit(
                np.zeros((512, FEATURES), np.float32), np.zeros(512), verbose=0
            )  # what a framework takes at first

            ds = fs.from_hdf5(path, "x", "y")
            train = ds.take(len(ds) * 9 // 10).shuffle(0, within=within).batch(512)
            last = fs.from_hdf5(path, "x", "y").shard(9, 10).batch(512)
            plan = train.plan(memory="256 MB")
            before = own_bytes()
            history = fs.fit(model, train, epochs=1, memory="256 MB", verbose=0)
            grown = own_bytes() - before
            _, accuracy = fs.evaluate(model, last, memory="256 MB", verbose=0)
            print(
                f"{name}: {path.stat().st_size / 1e9:.2f} GB, planned {plan.projected_bytes / 1e6:.0f} MB, grew by "
                f"{grown / 1e6:.0f} MB, loss {history.history['loss'][-1]:.3f}, accuracy {accuracy:.3f}"
            )
            assert plan.projected_bytes <= 256e6
            assert grown < 256e6
            assert accuracy > 0.9
            path.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=3.0)
    main(parser.parse_args().gigabytes)
