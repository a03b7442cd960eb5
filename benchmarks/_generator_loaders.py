"""The contenders of `image_data_generator.py`: photos changed at random, as floating batches.

All read one folder as a single class, with the same options. Keras's own class is the one that Keras 3 keeps in
private; its iterator is a PyDataset, read through the adapter that `fit` itself reads from, on the JAX backend, which
is the quickest to import.

The bare limit is two plain threads that do nothing else: read into a kept buffer, decode into kept scratch, take the
nearest pixels, warp by a drawn matrix, and scale into a row of a reused batch.

This file is also the program of the child processes. The job's `inputs`: `folder`, `count` (photos), `mean_rgb`,
`passes`, `check`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import _peers
import numpy as np
from _harness import Contender, Job, Measurement, child_main, cpu_seconds, measure

__all__ = ["AUGMENTED", "BATCH", "CONTENDERS", "SIDE"]

BATCH, SIDE = 64, 224
AUGMENTED = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "rescale": 1 / 255,
}
#: Of 1. Warping shows the middle more often than the borders, so the mean colour is another than the photos' own.
_COLOUR_LIMIT = 0.05


class Delivery:
    """Touches one value of each picture, and checks form, number and mean colour."""

    def __init__(self, job: Job) -> None:
        self._inputs = job.inputs
        self._taken = 0
        self._colour = np.zeros(3)

    def take(self, batch: Any) -> int:
        pictures, labels = np.asarray(batch[0]), np.asarray(batch[1])
        count = len(pictures)
        if pictures.shape != (count, SIDE, SIDE, 3) or pictures.dtype != np.float32 or labels.shape != (count,):
            raise ValueError(f"a batch of {pictures.dtype} {pictures.shape} with labels {labels.shape}.")
        if not 0 <= pictures[:, 0, 0, 0].min() <= pictures[:, 0, 0, 0].max() <= 1:
            raise ValueError("values are not from 0 to 1.")
        if self._inputs["check"]:
            self._colour += pictures.mean(axis=(1, 2)).sum(axis=0)
        self._taken += count
        return count

    def finish(self, *, complete: bool) -> None:
        wanted = self._inputs["count"] * self._inputs["passes"]
        if complete and self._taken != wanted:
            raise ValueError(f"{self._taken} pictures came, not {wanted}.")
        if complete and self._inputs["check"]:
            off = np.abs(self._colour / wanted - np.asarray(self._inputs["mean_rgb"]) / 255).max()
            if off > _COLOUR_LIMIT:
                raise ValueError(f"the mean colour is off by {off:.3f} of 1.")


def flowing(job: Job, package: str) -> Any:
    """The iterator over the folder, made by the class of this package."""
    if package == "keras":
        os.environ["KERAS_BACKEND"] = "jax"
        from keras.src.legacy.preprocessing.image import ImageDataGenerator
    else:
        from fitstream.legacy.images import ImageDataGenerator
    folder = Path(job.inputs["folder"])
    return ImageDataGenerator(**AUGMENTED).flow_from_directory(
        str(folder.parent), (SIDE, SIDE), classes=[folder.name], class_mode="sparse", batch_size=BATCH, seed=0
    )


def by_next(job: Job, *, package: str) -> Measurement:
    """What a program's own loop does: `next`, which makes a batch when it is called."""

    def stream() -> Iterator[Any]:
        iterator = flowing(job, package)
        for _ in range(len(iterator) * job.inputs["passes"]):
            yield next(iterator)

    return measure(job, stream, Delivery(job))


def keras(job: Job, *, processes: bool) -> Measurement:
    """Keras's iterator with two workers, through Keras's adapter."""

    def stream() -> Iterator[Any]:
        iterator = flowing(job, "keras")
        from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

        iterator.workers, iterator.use_multiprocessing = _peers.LANES, processes
        iterator.max_queue_size = _peers.LANES * _peers.AHEAD
        adapter = PyDatasetAdapter(iterator)
        for _ in range(job.inputs["passes"]):
            adapter.on_epoch_begin()
            try:
                yield from adapter.get_numpy_iterator()
            finally:
                adapter.on_epoch_end()

    return measure(job, stream, Delivery(job))


def ours(job: Job, *, workers: Any, processes: int | None) -> Measurement:
    """Our iterator, as `fit_generator` takes it: its dataset's loader."""
    facts: dict[str, Any] = {}

    def dataset() -> Any:
        return flowing(job, "fitstream").as_dataset()

    stream = _peers.fitstream(
        dataset, facts, epochs=job.inputs["passes"], memory="512 MB", workers=workers, processes=processes
    )
    return measure(job, stream, Delivery(job), facts)


def bare_limit(job: Job) -> Measurement:
    """Two threads; each fills rows of one batch of its own, again and again."""
    import cv2
    import simplejpeg

    created_s = time.monotonic()
    cv2.setNumThreads(1)
    paths = sorted(str(path) for path in Path(job.inputs["folder"]).glob("*.jpg"))
    firsts: list[float] = []

    def lane(number: int, deadline_s: float, most: float) -> int:
        rows = np.empty((BATCH, SIDE, SIDE, 3), np.float32)
        file, photo = bytearray(1 << 20), np.empty(1 << 20, np.uint8)
        small, warped = np.empty((SIDE, SIDE, 3), np.uint8), np.empty((SIDE, SIDE, 3), np.float32)
        rng, taken, scale = np.random.default_rng(number), 0, np.float32(1 / 255)
        while time.monotonic() < deadline_s and taken < most:
            with open(paths[(number + taken * _peers.LANES) % len(paths)], "rb", buffering=0) as opened:
                encoded = memoryview(file)[: opened.readinto(file)]
            height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
            out = photo[: height * width * 3].reshape(height, width, 3)
            simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
            cv2.resize(out, (SIDE, SIDE), dst=small, interpolation=cv2.INTER_NEAREST_EXACT)
            angle, zoom, *shifts = rng.uniform(-1, 1, 4)
            matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 20 * angle, 1 + 0.2 * zoom)
            matrix[:, 2] += np.multiply(shifts, 0.1 * SIDE)
            cv2.warpAffine(small.astype(np.float32), matrix, (SIDE, SIDE), dst=warped, borderMode=cv2.BORDER_REPLICATE)
            np.multiply(warped[:, ::-1] if angle > 0 else warped, scale, out=rows[taken % BATCH])
            taken += 1
            if taken == BATCH:
                firsts.append(time.monotonic())
        return taken

    def lanes(deadline_s: float, most: float) -> int:
        with ThreadPoolExecutor(_peers.LANES) as pool:
            return sum(pool.map(lambda number: lane(number, deadline_s, most), range(_peers.LANES)))

    lanes(float("inf"), max(job.warm_up / _peers.LANES, BATCH))
    cpu_s, start_s = cpu_seconds(), time.monotonic()
    whole = job.inputs["count"] * job.inputs["passes"] / _peers.LANES
    taken = lanes(float("inf") if job.seconds is None else start_s + job.seconds, whole)
    end_s = time.monotonic()
    first_s = min(firsts)
    return Measurement(taken, end_s - start_s, cpu_seconds() - cpu_s, first_s - job.spawned_s, first_s - created_s)


def _ours(key: str, title: str, workers: Any, processes: int | None) -> Contender:
    run = partial(ours, workers=workers, processes=processes)
    return Contender(key, title, run, ("own",), ("fitstream",), _peers.settles_s(workers))


def _peer(key: str, title: str, run: Callable[[Job], Measurement], *requires: str) -> Contender:
    return Contender(key, title, run, ("own",), requires)


CONTENDERS = (
    Contender("limit", "bare limit: two plain threads", bare_limit, ("own",)),
    _ours("fitstream-auto", "fitstream, auto", "auto", None),
    _ours("fitstream-threads", "fitstream, 2 threads", 2, 0),
    _ours("fitstream-processes", "fitstream, 2 processes", 2, 2),
    _peer("fitstream-next", "fitstream, next()", partial(by_next, package="fitstream"), "fitstream"),
    _peer("keras-threads", "Keras, 2 threads", partial(keras, processes=False), "keras", "jax", "scipy"),
    _peer("keras-processes", "Keras, 2 processes", partial(keras, processes=True), "keras", "jax", "scipy"),
    _peer("keras-next", "Keras, next() in one thread", partial(by_next, package="keras"), "keras", "jax", "scipy"),
)


if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
