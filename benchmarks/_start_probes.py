"""What `start.py` measures, one probe a process: an import, the first batch of a large table, that of a synthetic set.

    python _start_probes.py PROBE SETTINGS RESULT      settings and result are JSON, the result in a file

A probe gives seconds and bytes by name. Bytes are the proportional set size of the whole process tree without pages
that a file backs, just after the first batch. Each loader keeps its list of paths as its documentation does: columns of
a pandas table turned into a list of tuples, a tensor, a NumPy array.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _tree import tree_bytes

__all__ = ["IMPORTS", "SYNTHETIC", "TABLES"]

LANES, BATCH, SIDE = 2, 64, 64
#: A loader that lists all numbers up to a billion would take the whole machine down with it.
_MOST_BYTES = 4 * 2**30

Probe = Callable[[Mapping[str, Any]], Mapping[str, float]]
#: Opens the dataset, then gives a function that makes the loader and gives an iterator over batches that can be closed.
Opening = Callable[[Mapping[str, Any]], Callable[[], Any]]


def main(arguments: list[str]) -> None:
    """Run one probe."""
    name, settings, result = arguments
    found = PROBES[name](json.loads(settings))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


def _import(module: str) -> Probe:
    def probe(settings: Mapping[str, Any]) -> Mapping[str, float]:
        start_s = time.perf_counter()
        loaded = importlib.import_module(module)
        if module == "fitstream":  # which loads its parts when they are first used
            _ = loaded.Dataset, loaded.Loader
        return {"import_s": time.perf_counter() - start_s}

    return probe


def _first_batch(opening: Opening) -> Probe:
    def probe(settings: Mapping[str, Any]) -> Mapping[str, float]:
        if "count" in settings:
            resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
        start_s = time.monotonic()
        make = opening(settings)
        opened_s = time.monotonic()
        batches = make()
        batch = next(batches)
        first_s = time.monotonic()
        count = len(batch[1])
        if count != min(BATCH, settings.get("count", BATCH)):
            raise ValueError(f"the first batch has {count} samples")
        held_bytes = tree_bytes(os.getpid(), unbacked=True)
        batches.close()
        return {
            "opening_s": opened_s - start_s,
            "from_loader_s": first_s - opened_s,
            "from_start_s": first_s - settings["spawned_s"],
            "held_bytes": held_bytes,
            **getattr(batches, "facts", {}),
        }

    return probe


def _image(path: str) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _table(settings: Mapping[str, Any]) -> Any:
    import pandas as pd

    return pd.read_csv(settings["table"])


def _root(settings: Mapping[str, Any]) -> str:
    """The folder that the table's paths are in; joined when a photo is read, not kept with each row."""
    return f"{Path(settings['table']).parent}/"


def _fitstream_table(processes: int | None) -> Opening:
    def opening(settings: Mapping[str, Any]) -> Callable[[], Any]:
        import fitstream as fs

        dataset = fs.from_table(settings["table"], image_size=(SIDE, SIDE)).shuffle(0).batch(BATCH)
        return lambda: _FitstreamBatches(dataset, processes)

    return opening


class _FitstreamBatches:
    """The batches of a loader, and what that says of itself once they are closed."""

    def __init__(self, dataset: Any, processes: int | None) -> None:
        self.facts: dict[str, float] = {}
        workers = "auto" if processes is None else LANES
        self._loader = dataset.loader(memory="512 MB", workers=workers, processes=processes)
        self._batches = iter(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def close(self) -> None:
        stats = self._loader.stats()
        self.facts.update(projected_bytes=stats.projected_bytes, peak_bytes=stats.peak_bytes)
        self._loader.close()


def _torch_batches(samples: Any, processes: int) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    yield from DataLoader(samples, batch_size=BATCH, shuffle=True, num_workers=processes)


def _torch_table(processes: int, *, pandas: bool) -> Opening:
    def opening(settings: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
        from torch.utils.data import Dataset

        table, root = _table(settings), _root(settings)
        rows = table if pandas else list(zip(table["path"].tolist(), table["label"].tolist(), strict=True))

        class Photos(Dataset[Any]):
            def __len__(self) -> int:
                return len(rows)

            def __getitem__(self, index: int) -> tuple[Any, int]:
                path, label = rows.iloc[index] if pandas else rows[index]
                return _image(root + path), int(label)

        return lambda: _torch_batches(Photos(), processes)

    return opening


def _tf_table(settings: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="")
    import tensorflow as tf

    table, root = _table(settings), _root(settings)
    paths, labels = table["path"].tolist(), table["label"].to_numpy()

    def load(path: Any, label: Any) -> tuple[Any, Any]:
        image = tf.io.decode_jpeg(tf.io.read_file(root + path), channels=3)
        return tf.cast(tf.image.resize(image, (SIDE, SIDE)), tf.uint8), label

    def make() -> Iterator[Any]:
        dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths), seed=0)
        dataset = dataset.map(load, num_parallel_calls=LANES).batch(BATCH).prefetch(2)
        yield from dataset.as_numpy_iterator()

    return make


def _keras_table(settings: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    table, root = _table(settings), _root(settings)
    paths, labels = table["path"].tolist(), table["label"].to_numpy()
    order = np.random.default_rng(0).permutation(len(paths))

    class Photos(keras.utils.PyDataset):
        def __len__(self) -> int:
            return math.ceil(len(paths) / BATCH)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            rows = order[index * BATCH : (index + 1) * BATCH]
            return np.stack([_image(root + paths[row]) for row in rows]), labels[rows]

    def make() -> Iterator[Any]:
        adapter = PyDatasetAdapter(Photos(workers=LANES, use_multiprocessing=False))
        adapter.on_epoch_begin()
        try:
            yield from adapter.get_numpy_iterator()
        finally:
            adapter.on_epoch_end()

    return make


def _grain_batches(source: Any, load: Callable[[Any], Any], processes: int) -> Iterator[Any]:
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # its processes read flags, which only a program run by absl would have parsed
    batches = grain.MapDataset.source(source).shuffle(seed=0).map(load).batch(BATCH)
    threads = 1 if processes else LANES
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if processes:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes, per_worker_buffer_size=2))
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()


def _grain_table(processes: int) -> Opening:
    def opening(settings: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
        table, root = _table(settings), _root(settings)
        rows = list(zip(table["path"].tolist(), table["label"].tolist(), strict=True))
        return lambda: _grain_batches(rows, lambda row: (_image(root + row[0]), row[1]), processes)

    return opening


class _Numbers:
    """A synthetic set of any length: sample i is eight numbers, and its label."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], int]:
        return np.full(8, index, np.float32), int(index) % 10


def _fitstream_numbers(processes: int | None) -> Opening:
    def opening(settings: Mapping[str, Any]) -> Callable[[], Any]:
        import fitstream as fs

        dataset = fs.from_sequence(_Numbers(settings["count"])).shuffle(0).batch(BATCH)
        return lambda: _FitstreamBatches(dataset, processes)

    return opening


def _torch_numbers(settings: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
    import torch.utils.data  # noqa: F401  counted as opening

    return lambda: _torch_batches(_Numbers(settings["count"]), 0)


def _grain_numbers(settings: Mapping[str, Any]) -> Callable[[], Iterator[Any]]:
    import grain  # noqa: F401  counted as opening

    return lambda: _grain_batches(_Numbers(settings["count"]), lambda sample: sample, 0)


#: Title and module of each import.
IMPORTS = {
    "fitstream": "fitstream",
    "torch": "torch.utils.data",
    "grain": "grain",
    "keras": "keras",
    "tensorflow": "tensorflow",
}
#: Title and opening of each way to read the table.
TABLES: dict[str, Opening] = {
    "fitstream, 2 threads": _fitstream_table(0),
    "fitstream, 2 processes": _fitstream_table(LANES),
    "fitstream, auto": _fitstream_table(None),
    "PyTorch DataLoader, list of tuples, 0 processes": _torch_table(0, pandas=False),
    "PyTorch DataLoader, list of tuples, 2 processes": _torch_table(LANES, pandas=False),
    "PyTorch DataLoader, pandas, 2 processes": _torch_table(LANES, pandas=True),
    "tf.data, tensor slices": _tf_table,
    "Keras PyDataset, 2 threads": _keras_table,
    "Grain, 2 threads": _grain_table(0),
    "Grain, 2 processes": _grain_table(LANES),
}
#: The same for the synthetic set.
SYNTHETIC: dict[str, Opening] = {
    "fitstream, 2 threads": _fitstream_numbers(0),
    "fitstream, 2 processes": _fitstream_numbers(LANES),
    "PyTorch DataLoader, 0 processes": _torch_numbers,
    "Grain, 2 threads": _grain_numbers,
}
PROBES: dict[str, Probe] = {
    **{f"import {name}": _import(module) for name, module in IMPORTS.items()},
    **{f"table {name}": _first_batch(opening) for name, opening in TABLES.items()},
    **{f"numbers {name}": _first_batch(opening) for name, opening in SYNTHETIC.items()},
}


if __name__ == "__main__":
    main(sys.argv[1:])
