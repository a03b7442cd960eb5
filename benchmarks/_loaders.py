"""The contenders of `jpeg_feed.py`: the bare limit, fitstream, and its peers, each as its own documentation uses it.

Every peer has two lanes, prefetches a few batches, and is kept from using further threads behind its lanes. A loader is
a function that imports what it needs and returns a generator function: calling that makes the loader, and leaving it
closes the loader. This file is also the program of the child processes. Each is to pay for its own imports only, so
there are next to none at its top.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _harness import Contender, Job, Measurement, child_main, cpu_seconds, measure

__all__ = ["CONTENDERS", "FITSTREAM", "LANES", "LIMIT", "PACKAGES"]

LANES = 2
BATCH = 64
SIDE = 224
PACKAGES = (
    *("numpy", "simplejpeg", "opencv-python-headless", "pillow", "fitstream"),
    *("torch", "keras", "jax", "grain", "tensorflow", "tensorflow-cpu", "spdl-core", "spdl-io"),
)

Images = npt.NDArray[np.uint8]
Stream = Callable[[], Iterator[Any]]


class Listing:
    """One epoch: the photos end to end, as often as the job says. A sample's label is its place, so it is unique."""

    def __init__(self, job: Job) -> None:
        folder, count = Path(job.inputs["folder"]), int(job.inputs["count"])
        photos = [str(folder / f"{index:05d}.jpg") for index in range(count)]
        self.paths = photos * int(job.inputs["passes"])
        self.order = np.random.default_rng(0).permutation(len(self.paths))

    def __len__(self) -> int:
        return len(self.paths)


class Delivery:
    """The consumer: touches each image, and checks what was delivered."""

    def __init__(self, job: Job) -> None:
        self._seen = np.zeros(len(Listing(job)), bool)
        self._short = len(self._seen) % BATCH
        self._sorted = True
        # Only the run for memory lasts to the end of the epoch; looking at every colour would cost time in the others.
        self._look = job.seconds is None
        self._colours: list[npt.NDArray[np.float64]] = []
        self._expected = np.asarray(job.inputs["mean_rgb"])
        self._touched = 0

    def take(self, batch: Any) -> int:
        """Touch one byte of each image of `(images, labels)`."""
        images, labels = batch[0], np.asarray(batch[1]).reshape(-1)
        count = len(labels)
        if tuple(images.shape) != (count, SIDE, SIDE, 3) or not str(images.dtype).endswith("uint8"):
            raise ValueError(f"{count} labels, but images are {images.dtype} {tuple(images.shape)}.")
        if count not in (BATCH, self._short):
            raise ValueError(f"a batch of {count}; all have {BATCH}, and one of the epoch what is left over.")
        if count == self._short:
            self._short = BATCH
        self._touched += int(images[:, 0, 0, 0].sum())
        if len(set(labels.tolist())) != count or self._seen[labels].any():
            raise ValueError("a sample came twice.")
        self._seen[labels] = True
        self._sorted = self._sorted and bool((np.diff(labels) > 0).all())
        if self._look:
            self._colours.append(np.asarray(images[:, ::4, ::4]).mean(axis=(1, 2)))
        return count

    def finish(self, *, complete: bool) -> None:
        """Check the order; after a complete epoch also that all samples came, and their mean colour."""
        if self._sorted:
            raise ValueError("the samples were not shuffled.")
        if complete and not self._seen.all():
            raise ValueError(f"{np.count_nonzero(~self._seen)} of {len(self._seen)} samples never came.")
        if self._look:
            colour = np.concatenate(self._colours).mean(axis=0)
            if np.abs(colour - self._expected).max() > 2:
                raise ValueError(f"the mean colour is {colour.round(1)}, not {self._expected.round(1)}.")


class Decoder:
    """What fitstream's decoding of these photos amounts to: nothing is allocated, and nothing is copied twice."""

    def __init__(self) -> None:
        import cv2
        import simplejpeg

        cv2.setNumThreads(1)
        self._resize = cv2.resize
        self._decode = simplejpeg.decode_jpeg
        self._kept = threading.local()

    def __reduce__(self) -> tuple[type[Decoder], tuple[()]]:
        return Decoder, ()  # to a worker process; what is kept stays here

    def into(self, path: str, row: Images) -> None:
        """Decode a JPEG file of at most 1 MB and 500x375 pixels into `row`, `(height, width, 3)`."""
        kept = self._kept
        if not hasattr(kept, "file"):
            kept.file, kept.pixels = memoryview(bytearray(1_000_000)), np.empty(375 * 500 * 3, np.uint8)
        file = os.open(path, os.O_RDONLY)
        try:
            size_bytes = os.readv(file, [kept.file])
        finally:
            os.close(file)
        picture = self._decode(kept.file[:size_bytes], buffer=kept.pixels)
        self._resize(picture, (SIDE, SIDE), dst=row)

    def fresh(self, path: str) -> Images:
        """The same for a loader that stacks its samples itself."""
        image = np.empty((SIDE, SIDE, 3), np.uint8)
        self.into(path, image)
        return image


def bare_limit(job: Job) -> Measurement:
    """Two threads that take turns at the batches of the epoch, each into a batch of its own that it uses again."""
    created_s = time.monotonic()
    listing, decoder, delivery = Listing(job), Decoder(), Delivery(job)
    lock = threading.Lock()
    firsts: list[float] = []

    def lane(starts: Iterator[int], deadline_s: float) -> int:
        batch = np.empty((BATCH, SIDE, SIDE, 3), np.uint8)
        samples = 0
        for start in starts:
            labels = listing.order[start : start + BATCH]
            for row, label in zip(batch, labels, strict=False):
                decoder.into(listing.paths[label], row)
            with lock:
                samples += delivery.take((batch[: len(labels)], labels))
                firsts.append(time.monotonic())
            if time.monotonic() >= deadline_s:
                break
        return samples

    def lanes(starts: Iterator[int], deadline_s: float) -> int:
        # The lanes share the iterator: that of a range (and a slice of it) gives each number once.
        with ThreadPoolExecutor(LANES) as pool:
            return sum(pool.map(lane, [starts] * LANES, [deadline_s] * LANES))

    starts = iter(range(0, len(listing), BATCH))
    lanes(itertools.islice(starts, math.ceil(job.warm_up / BATCH)), float("inf"))
    cpu_s, start_s = cpu_seconds(), time.monotonic()
    samples = lanes(starts, float("inf") if job.seconds is None else start_s + job.seconds)
    end_s, cpu_s = time.monotonic(), cpu_seconds() - cpu_s
    delivery.finish(complete=job.seconds is None)
    return Measurement(samples, end_s - start_s, cpu_s, firsts[0] - job.spawned_s, firsts[0] - created_s)


def fitstream(job: Job) -> Stream:
    import fitstream as fs

    listing = Listing(job)
    rows = [{"path": path, "label": label} for label, path in enumerate(listing.paths)]

    def stream() -> Iterator[Any]:
        dataset = fs.from_table(rows, image_size=(SIDE, SIDE)).shuffle(0).batch(BATCH)
        with dataset.loader(memory="256 MB", workers=LANES) as loader:
            yield from loader

    return stream


def torch_loader(job: Job) -> Stream:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    listing = Listing(job)
    decoder = Decoder() if job.setting == "same" else None

    class Photos(Dataset[tuple[torch.Tensor, int]]):
        def __len__(self) -> int:
            return len(listing)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            path = listing.paths[index]
            if decoder is not None:
                return torch.from_numpy(decoder.fresh(path)), index
            with Image.open(path) as image:
                small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(small)), index

    def stream() -> Iterator[Any]:
        yield from DataLoader(Photos(), batch_size=BATCH, shuffle=True, num_workers=LANES, prefetch_factor=2)

    return stream


def keras_loader(job: Job, *, processes: bool) -> Stream:
    os.environ["KERAS_BACKEND"] = "jax"  # the quickest to import; the loader is the same for all three
    import keras

    # What `fit` itself reads from. Keras has no public way to iterate a PyDataset, and a model would cost time.
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    listing = Listing(job)
    decoder = Decoder() if job.setting == "same" else None

    class Photos(keras.utils.PyDataset):
        def __len__(self) -> int:
            return math.ceil(len(listing) / BATCH)

        def __getitem__(self, index: int) -> tuple[Images, npt.NDArray[np.int64]]:
            labels = listing.order[index * BATCH : (index + 1) * BATCH]
            images = np.empty((len(labels), SIDE, SIDE, 3), np.uint8)
            for row, label in zip(images, labels, strict=True):
                path = listing.paths[label]
                if decoder is not None:
                    decoder.into(path, row)
                else:
                    image = keras.utils.load_img(path, target_size=(SIDE, SIDE), interpolation="bilinear")
                    row[:] = keras.utils.img_to_array(image, dtype="uint8")
            return images, labels

    def stream() -> Iterator[Any]:
        adapter = PyDatasetAdapter(Photos(workers=LANES, use_multiprocessing=processes, max_queue_size=10))
        adapter.on_epoch_begin()
        try:
            yield from adapter.get_numpy_iterator()
        finally:
            adapter.on_epoch_end()

    return stream


def grain_loader(job: Job, *, processes: bool) -> Stream:
    import grain
    from absl import flags
    from PIL import Image

    flags.FLAGS.mark_as_parsed()  # Grain's processes read flags, which only a program run by absl would have parsed

    listing = Listing(job)
    decoder = Decoder() if job.setting == "same" else None

    def load(label: int) -> tuple[Images, int]:
        path = listing.paths[label]
        if decoder is not None:
            return decoder.fresh(path), label
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)), label

    def stream() -> Iterator[Any]:
        batches = grain.MapDataset.source(range(len(listing))).shuffle(seed=0).map(load).batch(BATCH)
        if processes:
            dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=LANES, per_worker_buffer_size=2))
        else:
            dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=LANES, prefetch_buffer_size=2 * LANES))
        iterator = iter(dataset)
        try:
            yield from iterator
        finally:
            iterator.close()

    return stream


def tf_data(job: Job) -> Stream:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="")
    import tensorflow as tf

    listing = Listing(job)
    decoder = Decoder() if job.setting == "same" else None

    def load(path: Any, label: Any) -> tuple[Any, Any]:
        if decoder is not None:
            image = tf.numpy_function(lambda name: decoder.fresh(name.decode()), [path], tf.uint8, stateful=False)
            return tf.ensure_shape(image, (SIDE, SIDE, 3)), label
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.image.resize(image, (SIDE, SIDE)), tf.uint8), label

    def stream() -> Iterator[Any]:
        dataset = tf.data.Dataset.from_tensor_slices((listing.paths, np.arange(len(listing))))
        dataset = dataset.shuffle(len(listing), seed=0).map(load, num_parallel_calls=LANES).batch(BATCH).prefetch(2)
        options = tf.data.Options()
        options.threading.private_threadpool_size = LANES
        options.threading.max_intra_op_parallelism = 1
        yield from dataset.with_options(options).as_numpy_iterator()

    return stream


def spdl_loader(job: Job) -> Stream:
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    listing = Listing(job)
    decoder = Decoder() if job.setting == "same" else None
    scaling = spdl.io.get_video_filter_desc(
        scale_width=SIDE, scale_height=SIDE, scale_algo="bilinear", scale_mode=None, pix_fmt="rgb24"
    )

    def load(labels: list[int]) -> tuple[Images, list[int]]:
        paths = [listing.paths[label] for label in labels]
        if decoder is None:
            frames = [spdl.io.decode_packets(spdl.io.demux_image(path), filter_desc=scaling) for path in paths]
            return spdl.io.to_numpy(spdl.io.convert_frames(frames)), labels
        images = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
        for row, path in zip(images, paths, strict=True):
            decoder.into(path, row)
        return images, labels

    def stream() -> Iterator[Any]:
        # Batches and not samples go through the stages: the event loop's share for each sample would cost a quarter.
        builder: Any = PipelineBuilder().add_source(listing.order.tolist())
        pipeline = builder.aggregate(BATCH).pipe(load, concurrency=LANES).add_sink(LANES).build(num_threads=LANES)
        with pipeline.auto_stop():
            yield from pipeline

    return stream


def _run(prepare: Callable[[Job], Stream], job: Job) -> Measurement:
    return measure(job, prepare(job), Delivery(job))


def _peer(key: str, title: str, prepare: Callable[[Job], Stream], *requires: str) -> Contender:
    return Contender(key, title, partial(_run, prepare), ("usual", "same"), requires)


LIMIT = Contender("limit", "bare limit: two plain threads", bare_limit, ("own",), ("cv2", "simplejpeg"))
FITSTREAM = Contender("fitstream", "fitstream, 2 threads", partial(_run, fitstream), ("own",), ("fitstream",))
CONTENDERS = (
    LIMIT,
    FITSTREAM,
    _peer("torch", "PyTorch DataLoader, 2 processes", torch_loader, "torch"),
    _peer("keras-threads", "Keras PyDataset, 2 threads", partial(keras_loader, processes=False), "keras", "jax"),
    _peer("keras-processes", "Keras PyDataset, 2 processes", partial(keras_loader, processes=True), "keras", "jax"),
    _peer("grain-threads", "Grain, 2 threads", partial(grain_loader, processes=False), "grain"),
    _peer("grain-processes", "Grain, 2 processes", partial(grain_loader, processes=True), "grain"),
    _peer("tf.data", "tf.data, 2 parallel calls", tf_data, "tensorflow"),
    _peer("spdl", "SPDL, 2 threads", spdl_loader, "spdl.pipeline", "spdl.io"),
)


if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
