"""The peers that are pipelines of stages, each in its usual form; `_peers.py` has the others, and the options of all.

- tf.data: tensor slices where memory holds them, `numpy_function` otherwise. It has no worker processes.
- SPDL: a pipeline whose one stage fetches whole batches, in threads or in a pool of processes.
- Ray Data: blocks in its object store, read by `iter_batches`; whole shuffles are a step of their own, so it shuffles
  in a local buffer, which is what its guide for training recommends.
- DALI: the CPU pipeline over a parallel `external_source`, which has worker processes and shared memory.
"""

from __future__ import annotations

import gc
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from _peers import AHEAD, LANES, Data, Stream

__all__ = [
    "dali_batches",
    "ray_arrays",
    "ray_batches",
    "ray_samples",
    "spdl_batches",
    "spdl_ring",
    "tf_mapped",
    "tf_slices",
]

_SHUFFLE_BUFFER = 10_000  # samples, as in TensorFlow's own tutorials


def tf_slices(array: npt.NDArray[Any], *, batch: int, epochs: int) -> Stream:
    """An array that memory holds; TensorFlow copies it."""
    tf, options = _tensorflow()

    def stream() -> Iterator[Any]:
        dataset = tf.data.Dataset.from_tensor_slices(np.asarray(array)).shuffle(_SHUFFLE_BUFFER, seed=0)
        dataset = dataset.batch(batch).prefetch(AHEAD).with_options(options)
        for _ in range(epochs):
            yield from dataset.as_numpy_iterator()

    return stream


def tf_mapped(
    count: int, fetch: Callable[[Any], Any], shape: tuple[int, ...], *, batch: int, epochs: int, whole: bool
) -> Stream:
    """`fetch` gives float32 samples of `shape` by index, or with `whole` a batch by its indices."""
    tf, options = _tensorflow()

    def mapped(indices: Any) -> Any:
        found = tf.numpy_function(fetch, [indices], tf.float32, stateful=False)
        return tf.ensure_shape(found, (None, *shape) if whole else shape)

    def stream() -> Iterator[Any]:
        dataset = tf.data.Dataset.range(count).shuffle(min(count, 1_000_000), seed=0)
        if whole:
            dataset = dataset.batch(batch).map(mapped, num_parallel_calls=LANES)
        else:
            dataset = dataset.map(mapped, num_parallel_calls=LANES).batch(batch)
        dataset = dataset.prefetch(AHEAD).with_options(options)
        for _ in range(epochs):
            yield from dataset.as_numpy_iterator()

    return stream


def _tensorflow() -> tuple[Any, Any]:
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", CUDA_VISIBLE_DEVICES="")
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = LANES
    options.threading.max_intra_op_parallelism = 1
    return tf, options


def spdl_batches(batches: Data, *, epochs: int, processes: bool) -> Stream:
    from spdl.pipeline import PipelineBuilder

    def stream() -> Iterator[Any]:
        numbers = itertools.chain.from_iterable(range(len(batches)) for _ in range(epochs))
        pool = ProcessPoolExecutor(LANES, initializer=_lend, initargs=(batches,)) if processes else None
        fetch = _lent if processes else batches.__getitem__
        builder: Any = PipelineBuilder().add_source(numbers)
        pipeline = builder.pipe(fetch, concurrency=LANES, executor=pool).add_sink(LANES).build(num_threads=LANES)
        try:
            with pipeline.auto_stop():
                yield from pipeline
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    return stream


#: What a process of SPDL's pool fetches from, so that the data is not sent with each task.
_lending: list[Data] = []


def _lend(batches: Data) -> None:
    _lending[:] = [batches]


def _lent(index: int) -> Any:
    return _lending[0][index]


def spdl_ring(batches: Data, *, epochs: int, batch_bytes: int) -> Stream:
    """One process behind SPDL's own shared ring, sized as its documentation says."""
    from spdl.pipeline import SharedMemoryRingBuffer, iterate_in_subprocess

    def stream() -> Iterator[Any]:
        ring: Any = SharedMemoryRingBuffer((AHEAD + 2) * (batch_bytes + 4096))
        each = partial(_each, batches, epochs)
        yield from iterate_in_subprocess(each, buffer_size=AHEAD, arena=ring)

    return stream


def _each(batches: Data, epochs: int) -> Iterator[Any]:
    for _ in range(epochs):
        for index in range(len(batches)):
            yield batches[index]


def ray_arrays(array: npt.NDArray[Any], *, batch: int, epochs: int) -> Stream:
    """An array that the object store holds, in blocks of some 16 MB."""
    ray = _ray()

    def stream() -> Iterator[Any]:
        _start(ray)
        step = max(batch, 16_000_000 // array[0].nbytes)
        blocks = [np.asarray(array[start : start + step]) for start in range(0, len(array), step)]
        dataset = ray.data.from_numpy(blocks)
        del blocks
        buffer = min(_SHUFFLE_BUFFER, 16 * batch)
        yield from _ray_epochs(ray, dataset, epochs, batch_size=batch, local_shuffle_buffer_size=buffer)

    return stream


def ray_samples(samples: Data, transform: Callable[[Any], Any], *, batch: int, epochs: int) -> Stream:
    """Each sample fetched and transformed in a task's batch."""
    ray = _ray()

    def load(rows: dict[str, Any]) -> dict[str, Any]:
        return {"data": np.stack([transform(samples[index]) for index in rows["id"].tolist()])}

    def stream() -> Iterator[Any]:
        _start(ray)
        blocks = -(-len(samples) // batch)
        dataset = ray.data.range(len(samples), override_num_blocks=min(blocks, 1000)).map_batches(
            load, batch_size=batch, zero_copy_batch=False
        )
        yield from _ray_epochs(ray, dataset, epochs, batch_size=batch, local_shuffle_buffer_size=16 * batch)

    return stream


def ray_batches(batches: Data, *, epochs: int, samples: int) -> Stream:
    """A task a batch of `samples`."""
    ray = _ray()

    def load(rows: dict[str, Any]) -> dict[str, Any]:
        return {"data": batches[int(rows["id"][0])]}

    def stream() -> Iterator[Any]:
        _start(ray)
        dataset = ray.data.range(len(batches), override_num_blocks=len(batches)).map_batches(load, batch_size=1)
        yield from _ray_epochs(ray, dataset, epochs, batch_size=samples)

    return stream


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    warnings.simplefilter("ignore")
    import ray
    import ray.data

    return ray


def _start(ray: Any) -> None:
    ray.init(num_cpus=LANES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False


def _ray_epochs(ray: Any, dataset: Any, epochs: int, **options: Any) -> Iterator[Any]:
    try:
        for _ in range(epochs):
            batches: Any = iter(dataset.iter_batches(batch_format="numpy", prefetch_batches=LANES, **options))
            try:
                for batch in batches:
                    yield batch["data"]
            finally:
                # What still runs must end before the shutdown, which would abort the process otherwise.
                if hasattr(batches, "close"):
                    batches.close()
                del batches
                gc.collect()
    finally:
        ray.shutdown()


def dali_batches(batches: Data, *, epochs: int, batch: int) -> Stream:
    from nvidia.dali import fn, pipeline_def

    def source(index: int) -> list[Any]:
        if index >= len(batches):
            raise StopIteration
        return list(batches[index])

    @pipeline_def(batch_size=batch, num_threads=LANES, device_id=None, py_num_workers=LANES, prefetch_queue_depth=AHEAD)
    def pipeline() -> Any:
        return fn.external_source(
            source=source, batch=True, parallel=True, batch_info=False, prefetch_queue_depth=AHEAD
        )

    def stream() -> Iterator[Any]:
        running = pipeline()
        running.build()
        for _ in range(epochs):
            while True:
                try:
                    (found,) = running.run()
                except StopIteration:
                    running.reset()
                    break
                yield np.asarray(found.as_tensor())

    return stream
