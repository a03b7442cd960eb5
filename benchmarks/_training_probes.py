"""Trains a small network once, in one of the ways that `beside_training.py` compares.

    python _training_probes.py WAY SETTINGS RESULT      settings and result are JSON, the result in a file

Everything from opening the data to the end of the last epoch is timed. A callback notes the end of each batch.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WAYS"]

CLASSES = 10
_LANES = 2

#: Trains the model and tells what the loader says of itself.
Way = Callable[[Any, Mapping[str, Any], list[Any]], Mapping[str, Any]]


def main(arguments: list[str]) -> None:
    """Train once."""
    way, told, result = arguments
    settings = json.loads(told)
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="", KERAS_BACKEND=settings["backend"])
    import keras

    keras.utils.set_random_seed(0)
    shape = (settings["side"], settings["side"], 3)
    network = keras.applications.MobileNetV2(input_shape=shape, weights=None, classes=CLASSES)
    model = keras.Sequential([keras.Input(shape), keras.layers.Rescaling(1 / 127.5, offset=-1), network])
    # Compiling it by XLA takes longer than all epochs do; JAX can't do without.
    compiled = settings["backend"] == "jax"
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", jit_compile=compiled)

    ends: list[list[float]] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            ends.append([time.perf_counter()])

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ends[-1].append(time.perf_counter())

    start_s = time.perf_counter()
    facts = WAYS[way][1](model, settings, [Clock()])
    total_s = time.perf_counter() - start_s
    Path(result).write_text(json.dumps({"total_s": total_s, **_times(ends, settings), **facts}), encoding="utf-8")


def _times(ends: list[list[float]], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    steps = math.ceil(settings["count"] / settings["batch"])
    counts = [len(times) - 1 for times in ends]
    if counts != [steps] * settings["epochs"]:
        raise ValueError(f"epochs of {counts} steps, not {settings['epochs']} of {steps}")
    # The first epoch traces and warms up; with a single one there is nothing else, save its first steps.
    later = ends[1:] if len(ends) > 1 else [ends[0][min(2, steps - 1) :]]
    step_s = [end - start for times in later for start, end in itertools.pairwise(times)]
    epoch_s = [times[-1] - times[0] for times in ends]
    return {
        "step_s": statistics.median(step_s),
        "first_epoch_s": epoch_s[0],
        "epoch_s": statistics.median(epoch_s[1:] or epoch_s),
        "epochs_s": epoch_s,
    }


def _paths(settings: Mapping[str, Any]) -> list[str]:
    return [os.path.join(settings["folder"], f"{index:05d}.jpg") for index in range(settings["count"])]


def _labels(settings: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    return np.arange(settings["count"]) % CLASSES


def _load(paths: list[str], side: int) -> npt.NDArray[np.uint8]:
    import keras

    images = np.empty((len(paths), side, side, 3), np.uint8)
    for row, path in zip(images, paths, strict=True):
        image = keras.utils.load_img(path, target_size=(side, side), interpolation="bilinear")
        row[:] = keras.utils.img_to_array(image, dtype="uint8")
    return images


def _in_memory(model: Any, settings: Mapping[str, Any], callbacks: list[Any]) -> Mapping[str, Any]:
    start_s = time.perf_counter()
    images = _load(_paths(settings), settings["side"])
    loading_s = time.perf_counter() - start_s
    model.fit(
        images,
        _labels(settings),
        batch_size=settings["batch"],
        epochs=settings["epochs"],
        callbacks=callbacks,
        verbose=0,
    )
    return {"loading_s": loading_s}


def _pydataset(workers: int) -> Way:
    def train(model: Any, settings: Mapping[str, Any], callbacks: list[Any]) -> Mapping[str, Any]:
        import keras

        paths, labels, batch = _paths(settings), _labels(settings), settings["batch"]
        order = np.random.default_rng(0).permutation(len(paths))

        class Photos(keras.utils.PyDataset):
            def __len__(self) -> int:
                return math.ceil(len(paths) / batch)

            def __getitem__(self, index: int) -> tuple[Any, Any]:
                rows = order[index * batch : (index + 1) * batch]
                return _load([paths[row] for row in rows], settings["side"]), labels[rows]

        photos = Photos(workers=workers, use_multiprocessing=workers > 1)
        model.fit(photos, epochs=settings["epochs"], callbacks=callbacks, verbose=0)
        return {}

    return train


def _dataset(settings: Mapping[str, Any]) -> Any:
    import fitstream as fs

    labels = _labels(settings).tolist()
    rows = [{"path": path, "label": label} for path, label in zip(_paths(settings), labels, strict=True)]
    side = settings["side"]
    return fs.from_table(rows, image_size=(side, side)).shuffle(0).batch(settings["batch"])


def _fit(model: Any, settings: Mapping[str, Any], callbacks: list[Any]) -> Mapping[str, Any]:
    import fitstream as fs

    dataset = _dataset(settings)
    fs.fit(model, dataset, epochs=settings["epochs"], callbacks=callbacks, verbose=0)
    return {"projected_bytes": dataset.plan().projected_bytes}


def _fit_in_process(model: Any, settings: Mapping[str, Any], callbacks: list[Any]) -> Mapping[str, Any]:
    import fitstream as fs

    with _dataset(settings).loader(workers=_LANES, processes=1) as loader:
        fs.fit(model, loader, epochs=settings["epochs"], callbacks=callbacks, verbose=0)
        stats = loader.stats()
    return {
        "projected_bytes": stats.projected_bytes,
        "peak_bytes": stats.peak_bytes,
        "waited_share": stats.waited_share,
    }


#: Title and function of each way.
WAYS: dict[str, tuple[str, Way]] = {
    "memory": ("everything in memory", _in_memory),
    "pydataset-0": ("PyDataset, workers=0", _pydataset(0)),
    "pydataset-4": ("PyDataset, 4 workers in processes", _pydataset(4)),
    "fitstream": ("fitstream.fit, defaults", _fit),
    "fitstream-process": ("fitstream.fit, 1 process of 2 lanes", _fit_in_process),
}


if __name__ == "__main__":
    main(sys.argv[1:])
