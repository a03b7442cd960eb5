"""Every kind of dataset that lanes can be given, for tests of what must not depend on where lanes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from loops import counting
from PIL import Image

import fitstream as fs

#: Lanes and processes: every split, and fewer lanes than processes.
SPLITS = [(1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (3, 2), (4, 2)]


def arrays(count: int = 333) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3), np.arange(count)


def noised(dataset: fs.Dataset) -> fs.Dataset:
    # Local, so that it travels by value and no worker imports this module.
    def noise(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return x + rng.random(3).astype(np.float32), y

    return dataset.map(noise)


def varying() -> Iterator[Any]:
    for i in range(70):
        yield {"name": f"sample-{i}", "values": np.arange(i % 5 + 1), "place": (i, float(i))}


def letters(text: str) -> np.ndarray:
    return np.frombuffer(text.encode()[:8], np.uint8)


def plain_batches() -> Iterator[Any]:
    for size in (4, 4, 1, 3):
        yield {"x": np.full((size, 2), size), "y": np.arange(size)}


class Batches:
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        return np.full((5 - index % 2, 2), index), np.full(5 - index % 2, index)


KINDS: dict[str, Callable[[Path], fs.Dataset]] = {
    "rows of arrays": lambda _: fs.from_arrays(arrays()).shuffle(5).batch(32),
    "a map with rng": lambda _: noised(fs.from_arrays(arrays()).shuffle(5)).batch(32),
    "drop": lambda _: noised(fs.from_arrays(arrays())).batch(32, "drop"),
    "pad": lambda _: noised(fs.from_arrays(arrays()).shuffle(2)).batch(32, "pad"),
    "pad and mask": lambda _: noised(fs.from_arrays(arrays()).shuffle(2)).batch(32, "pad", mask=True),
    "wrap": lambda _: noised(fs.from_arrays(arrays()).shuffle(2)).batch(32, "wrap"),
    "a rank's part": lambda _: noised(fs.from_arrays(arrays()).shuffle(2)).batch(32, "pad").shard(1, 2),
    "pictures": lambda root: fs.from_folder(root / "photos", image_size=(20, 20)).shuffle(1).batch(8),
    "pictures, noised": lambda root: (
        fs.from_folder(root / "photos", image_size=(20, 20), dtype="float32")
        .shuffle(1)
        .map(lambda x, y, rng: (x + rng.random(x.shape, np.float32), y))
        .batch(8)
    ),
    "a memmap": lambda root: fs.from_arrays(np.load(root / "rows.npy", mmap_mode="r")).shuffle(3).batch(32),
    "a list": lambda _: fs.from_sequence([{"a": np.full(4, i), "b": i} for i in range(90)]).shuffle(1).batch(16),
    "batches of an object": lambda _: fs.from_batches(Batches(), batch_size=5).shuffle(3).map(lambda x, y: (x + 1, y)),
    "a generator": lambda _: fs.from_generator(lambda: counting(100)).batch(16, "pad"),
    "a generator, mapped": lambda _: fs.from_generator(lambda: counting(100)).map(lambda x, y: (x * 2, y)).batch(16),
    "a generator, noised": lambda _: noised(fs.from_generator(lambda: counting(100))).batch(16, "drop"),
    "text and shapes of a generator": lambda _: (
        fs.from_generator(varying)
        .map(lambda s: {"sum": s["values"].sum(), "name": letters(s["name"]), "at": s["place"]})
        .batch(16)
    ),
    "batches of a generator": lambda _: fs.from_batches(plain_batches).map(lambda b: {"x": b["x"] + 1, "y": b["y"]}),
}  # fmt: skip


def write_files(folder: Path) -> Path:
    """What the kinds that read files need."""
    rng = np.random.default_rng(0)
    for label in ("cats", "dogs"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(9):
            suffix = "png" if number % 3 == 0 else "jpg"
            pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.{suffix}")
    np.save(folder / "rows.npy", rng.random((300, 7)))
    return folder
