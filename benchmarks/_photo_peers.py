"""The peers of `jpeg_feed.py` and `large_photos.py`, each as its own documentation uses it.

Every peer has two lanes, prefetches a few batches, and is kept from using further threads behind its lanes. A loader is
a function that imports what it needs and returns a generator function: calling that makes the loader, and leaving it
closes the loader. In the setting "same" it decodes by the bare limit's `Decoder`.
"""

from __future__ import annotations

import gc
import math
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _harness import Job
from _photo_work import LANES, SIDE, Decoder, Images, Listing, Stream, peer

__all__ = ["PEERS"]


def torch_loader(job: Job) -> Stream:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    listing = Listing(job)
    decoder = Decoder(job) if job.setting == "same" else None

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
        yield from DataLoader(Photos(), batch_size=listing.batch, shuffle=True, num_workers=LANES, prefetch_factor=2)

    return stream


def torchdata_nodes(job: Job) -> Stream:
    import torch
    import torchdata.nodes as tn
    from PIL import Image
    from torch.utils.data import RandomSampler, default_collate

    listing = Listing(job)
    decoder = Decoder(job) if job.setting == "same" else None

    def load(label: int) -> tuple[torch.Tensor, int]:
        path = listing.paths[label]
        if decoder is not None:
            return torch.from_numpy(decoder.fresh(path)), label
        with Image.open(path) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small)), label

    def load_batch(labels: list[int]) -> Any:
        return default_collate([load(label) for label in labels])

    def nodes() -> Any:
        sampler = RandomSampler(range(len(listing)))
        labels = tn.Batcher(tn.SamplerWrapper(sampler), batch_size=listing.batch, drop_last=False)
        batches = tn.ParallelMapper(labels, load_batch, num_workers=LANES, method="thread")
        return tn.Loader(tn.Prefetcher(batches, prefetch_factor=2))

    def stream() -> Iterator[Any]:
        loader = nodes()
        try:
            yield from loader
        finally:
            # Its threads end when its nodes are collected, and must not live until the interpreter ends.
            del loader
            gc.collect()

    return stream


def keras_loader(job: Job, *, processes: bool) -> Stream:
    os.environ["KERAS_BACKEND"] = "jax"  # the quickest to import; the loader is the same for all three
    import keras

    # What `fit` itself reads from. Keras has no public way to iterate a PyDataset, and a model would cost time.
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    listing = Listing(job)
    decoder = Decoder(job) if job.setting == "same" else None

    class Photos(keras.utils.PyDataset):
        def __len__(self) -> int:
            return math.ceil(len(listing) / listing.batch)

        def __getitem__(self, index: int) -> tuple[Images, npt.NDArray[np.int64]]:
            labels = listing.order[index * listing.batch : (index + 1) * listing.batch]
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
    decoder = Decoder(job) if job.setting == "same" else None

    def load(label: int) -> tuple[Images, int]:
        path = listing.paths[label]
        if decoder is not None:
            return decoder.fresh(path), label
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)), label

    def stream() -> Iterator[Any]:
        batches = grain.MapDataset.source(range(len(listing))).shuffle(seed=0).map(load).batch(listing.batch)
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
    decoder = Decoder(job) if job.setting == "same" else None

    def load(path: Any, label: Any) -> tuple[Any, Any]:
        if decoder is not None:
            image = tf.numpy_function(lambda name: decoder.fresh(name.decode()), [path], tf.uint8, stateful=False)
            return tf.ensure_shape(image, (SIDE, SIDE, 3)), label
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.image.resize(image, (SIDE, SIDE)), tf.uint8), label

    def stream() -> Iterator[Any]:
        dataset = tf.data.Dataset.from_tensor_slices((listing.paths, np.arange(len(listing))))
        dataset = (
            dataset.shuffle(len(listing), seed=0).map(load, num_parallel_calls=LANES).batch(listing.batch).prefetch(2)
        )
        options = tf.data.Options()
        options.threading.private_threadpool_size = LANES
        options.threading.max_intra_op_parallelism = 1
        yield from dataset.with_options(options).as_numpy_iterator()

    return stream


def spdl_loader(job: Job) -> Stream:
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    listing = Listing(job)
    decoder = Decoder(job) if job.setting == "same" else None
    if decoder is None:
        try:
            spdl.io.demux_image(listing.paths[0])
        except RuntimeError as error:  # asked here, because its stages would only end early
            raise RuntimeError("SPDL finds no shared libraries of FFmpeg 4 to 9.") from error
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
        pipeline = (
            builder.aggregate(listing.batch).pipe(load, concurrency=LANES).add_sink(LANES).build(num_threads=LANES)
        )
        with pipeline.auto_stop():
            yield from pipeline

    return stream


def ray_data(job: Job) -> Stream:
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    import ray
    from PIL import Image

    listing = Listing(job)
    decoder = Decoder(job) if job.setting == "same" else None

    def load(rows: dict[str, Any]) -> dict[str, Any]:
        images = np.empty((len(rows["path"]), SIDE, SIDE, 3), np.uint8)
        for row, path in zip(images, rows["path"], strict=True):
            if decoder is not None:
                decoder.into(path, row)
                continue
            with Image.open(path) as image:
                row[:] = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return {"image": images, "label": rows["label"]}

    def stream() -> Iterator[Any]:
        ray.init(num_cpus=LANES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        before = threading.enumerate()
        try:
            rows = [{"path": listing.paths[label], "label": int(label)} for label in listing.order]
            # Four batches a task: with one, what a task costs is a third of the time; with many, memory grows.
            dataset = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / (4 * listing.batch)))
            dataset = dataset.map_batches(load, batch_size=listing.batch)
            batches = iter(dataset.iter_batches(batch_size=listing.batch, prefetch_batches=2))
            try:
                for batch in batches:
                    yield batch["image"], batch["label"]
            finally:
                batches.close()
                # Its threads must not call Ray once that has ended.
                for thread in threading.enumerate():
                    if thread not in before:
                        thread.join(1.0)
        finally:
            ray.shutdown()

    return stream


def dali_cpu(job: Job) -> Stream:
    from nvidia.dali import fn, pipeline_def, types

    listing = Listing(job)

    @pipeline_def(batch_size=listing.batch, num_threads=LANES, device_id=None, prefetch_queue_depth=2)
    def pipeline() -> Any:
        encoded, labels = fn.readers.file(
            files=[listing.paths[label] for label in listing.order],  # its own shuffling is within a buffer only
            labels=listing.order.tolist(),
        )
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        return fn.resize(images, size=(SIDE, SIDE), interp_type=types.INTERP_LINEAR), labels

    def stream() -> Iterator[Any]:
        running = pipeline()
        running.build()
        left = len(listing)
        while left:
            images, labels = (part.as_array() for part in running.run())
            count = min(left, len(labels))  # the last batch is filled up from the next epoch
            yield images[:count], labels[:count]
            left -= count

    return stream


def turboloader(job: Job) -> Stream:
    import turboloader as turbo

    listing = Listing(job)
    if job.setting == "same":
        decoder = Decoder(job)

        class Photos:
            def __len__(self) -> int:
                return len(listing)

            def __getitem__(self, index: int) -> tuple[Images, int]:
                return decoder.fresh(listing.paths[index]), index

        def mapped() -> Iterator[Any]:
            yield from turbo.MapDataLoader(Photos(), batch_size=listing.batch, shuffle=True, num_workers=LANES)

        return mapped

    # Its decoder reads a TAR and nothing else. The TAR holds as many passes as make whole batches, not all of them.
    passes = min(listing.batch // math.gcd(len(listing.photos), listing.batch), len(listing) // len(listing.photos))
    archive, count = _archive(listing.photos, passes), passes * len(listing.photos)

    def stream() -> Iterator[Any]:
        loader = turbo.DataLoader(
            archive,
            batch_size=listing.batch,
            num_workers=LANES,
            shuffle=True,
            image_size=SIDE,
            output_format="numpy",
            antialias=bool(job.inputs["large"]),
        )
        for epoch in range(len(listing) // count):
            loader.set_epoch(epoch)
            for images, told in loader:
                yield images, epoch * count + np.asarray(told["indices"])

    return stream


def _archive(photos: list[str], passes: int) -> str:
    path = Path(photos[0]).parent / f"passes-{passes}.tar"
    if not path.exists():
        building = path.with_suffix(f".{os.getpid()}")
        with tarfile.open(building, "w", format=tarfile.USTAR_FORMAT) as archive:
            for index, photo in enumerate(photos * passes):
                archive.add(os.path.realpath(photo), arcname=f"{index:07d}.jpg")
        building.rename(path)
    return str(path)


PEERS = (
    peer("torch", "PyTorch DataLoader, 2 processes", torch_loader, "torch"),
    peer("torchdata", "torchdata nodes, 2 threads", torchdata_nodes, "torchdata.nodes"),
    peer("keras-threads", "Keras PyDataset, 2 threads", partial(keras_loader, processes=False), "keras", "jax"),
    peer("keras-processes", "Keras PyDataset, 2 processes", partial(keras_loader, processes=True), "keras", "jax"),
    peer("grain-threads", "Grain, 2 threads", partial(grain_loader, processes=False), "grain"),
    peer("grain-processes", "Grain, 2 processes", partial(grain_loader, processes=True), "grain"),
    peer("tf.data", "tf.data, 2 parallel calls", tf_data, "tensorflow"),
    peer("spdl", "SPDL, 2 threads", spdl_loader, "spdl.pipeline", "spdl.io"),
    peer("ray", "Ray Data, 2 processes", ray_data, "ray.data"),
    peer("dali", "DALI on the CPU, 2 threads", dali_cpu, "nvidia.dali", same=False),
    peer("turboloader", "TurboLoader, 2 threads", turboloader, "turboloader"),
)
