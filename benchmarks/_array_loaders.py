"""The contenders of `arrays.py` and `tiny_samples.py`: rows of a memory-mapped float32 array as shuffled batches.

The bare limit is `np.take` of permuted indices into a kept buffer, in two plain threads and in one. With `out=`, only
`mode="clip"` writes straight into it; the default mode fills a buffer of its own first.

Left out: TurboLoader, which reads archives of pictures only, dataloader-rs, which needs Python 3.13, and Keras and
torchdata with processes, which send every batch through a pipe and are slower than their own threads here. tf.data
reads tensor slices where the job says that memory holds the array twice, and gathers in a `numpy_function` otherwise.

This file is also the program of the child processes. A setting is a batch size. The job's `inputs`: `path` of the
array, `epochs`, `fits` (memory holds the array twice), `check` (look at each batch closely).
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import _peers
import _pipelines
import numpy as np
from _harness import Contender, Job, Measurement, child_main, cpu_seconds, measure
from _rows import Delivery, Gathers, Indices, Mapped, Rows, tail_of

__all__ = ["CONTENDERS", "LARGE_BATCH"]

LARGE_BATCH = 1024
_SMALL = ("64",)
_BOTH = ("64", str(LARGE_BATCH))


def _size(job: Job) -> int:
    return int(job.setting)


def _array(job: Job) -> Rows:
    rows: Rows = np.load(job.inputs["path"], mmap_mode="r")
    return rows


def _delivery(job: Job, array: Rows) -> Delivery:
    last = (slice(None), *(-1 for _ in array.shape[1:]))

    def check(indices: Indices, batch: Rows) -> None:
        if not np.array_equal(batch[last], tail_of(indices)):
            raise ValueError("a row holds another row's values.")

    look = check if job.inputs["check"] else None
    return Delivery(len(array), array.shape[1:], _size(job), check=look)


def _starts(job: Job, count: int) -> Iterator[int]:
    starts = range(0, count, _size(job))
    return itertools.chain.from_iterable(itertools.repeat(starts, job.inputs["epochs"]))


def one_thread(job: Job) -> Measurement:
    array, size = _array(job), _size(job)

    def stream() -> Iterator[Any]:
        order = np.random.default_rng(0).permutation(len(array))
        plain, kept = np.asarray(array), np.empty((size, *array.shape[1:]), np.float32)
        for start in _starts(job, len(array)):
            indices = order[start : start + size]
            out = kept[: len(indices)]
            np.take(plain, indices, axis=0, out=out, mode="clip")
            yield out

    return measure(job, stream, _delivery(job, array))


def two_threads(job: Job) -> Measurement:
    """Two threads that take turns at the batches, each into a buffer of its own."""
    array, size = _array(job), _size(job)
    delivery = _delivery(job, array)
    created_s = time.monotonic()
    plain, order = np.asarray(array), np.random.default_rng(0).permutation(len(array))
    lock = threading.Lock()
    firsts: list[float] = []

    def lane(starts: Iterator[int], deadline_s: float, most: float) -> int:
        kept = np.empty((size, *array.shape[1:]), np.float32)
        samples = 0
        while time.monotonic() < deadline_s and samples < most:
            # An iterator made of several can't be shared by threads without a lock.
            with lock:
                start = next(starts, None)
            if start is None:
                break
            indices = order[start : start + size]
            out = kept[: len(indices)]
            np.take(plain, indices, axis=0, out=out, mode="clip")
            with lock:
                samples += delivery.take(out)
                firsts.append(time.monotonic())
        return samples

    def lanes(starts: Iterator[int], deadline_s: float, most: float = math.inf) -> int:
        with ThreadPoolExecutor(_peers.LANES) as pool:
            return sum(pool.map(partial(lane, deadline_s=deadline_s, most=most), [starts] * _peers.LANES))

    starts = _starts(job, len(array))
    warm = math.ceil(job.warm_up / _peers.LANES)
    lanes(starts, math.inf, warm)
    lanes(starts, time.monotonic() + job.warm_up_s)
    cpu_s, start_s = cpu_seconds(), time.monotonic()
    samples = lanes(starts, math.inf if job.seconds is None else start_s + job.seconds)
    end_s, cpu_s = time.monotonic(), cpu_seconds() - cpu_s
    delivery.finish(complete=job.seconds is None)
    return Measurement(samples, end_s - start_s, cpu_s, firsts[0] - job.spawned_s, firsts[0] - created_s)


def ours(job: Job, *, workers: Any, processes: int | None) -> Measurement:
    import fitstream as fs

    array, facts = _array(job), dict[str, Any]()

    def dataset() -> fs.Dataset:
        return fs.from_arrays(array).shuffle(0).batch(_size(job))

    epochs = job.inputs["epochs"]
    stream = _peers.fitstream(dataset, facts, epochs=epochs, memory="512 MB", workers=workers, processes=processes)
    return measure(job, stream, _delivery(job, array), facts)


def _tensor(array: Rows) -> Any:
    """The array as a tensor, which is a map-style dataset."""
    import torch

    # Mapped copy-on-write, since PyTorch warns of arrays that can't be written.
    return torch.from_numpy(np.load(array.filename, mmap_mode="c"))


def _torch(array: Rows, size: int, epochs: int, workers: int) -> _peers.Stream:
    return _peers.torch_samples(_tensor(array), batch=size, epochs=epochs, workers=workers)


def _torchdata(array: Rows, *, batch: int, epochs: int, processes: bool) -> _peers.Stream:
    return _peers.torchdata_samples(_tensor(array), batch=batch, epochs=epochs, processes=processes)


def _grain(array: Rows, *, batch: int, epochs: int, processes: bool) -> _peers.Stream:
    return _peers.grain(Mapped(str(array.filename)), batch=batch, epochs=epochs, processes=processes)


def _dali(array: Rows, size: int, epochs: int) -> _peers.Stream:
    return _pipelines.dali_batches(Gathers(array, size), epochs=epochs, batch=size)


def _tf_data(job: Job) -> Measurement:
    array, size, epochs = _array(job), _size(job), job.inputs["epochs"]
    if job.inputs["fits"]:
        stream = _pipelines.tf_slices(array, batch=size, epochs=epochs)
    else:
        plain = np.asarray(array)
        stream = _pipelines.tf_mapped(
            len(array), plain.__getitem__, array.shape[1:], batch=size, epochs=epochs, whole=True
        )
    return measure(job, stream, _delivery(job, array))


def _peer(
    key: str,
    title: str,
    make: Callable[[Rows, int, int], _peers.Stream],
    *requires: str,
    sizes: tuple[str, ...] = _SMALL,
) -> Contender:
    def run(job: Job) -> Measurement:
        array = _array(job)
        stream = make(array, _size(job), job.inputs["epochs"])
        return measure(job, stream, _delivery(job, array))

    return Contender(key, title, run, sizes, requires)


def _batchwise(make: Callable[..., _peers.Stream], **options: Any) -> Callable[[Rows, int, int], _peers.Stream]:
    return lambda array, size, epochs: make(Gathers(array, size), epochs=epochs, **options)


def _samplewise(make: Callable[..., _peers.Stream], **options: Any) -> Callable[[Rows, int, int], _peers.Stream]:
    return lambda array, size, epochs: make(array, batch=size, epochs=epochs, **options)


def _ours(key: str, title: str, workers: Any, processes: int | None, sizes: tuple[str, ...] = _SMALL) -> Contender:
    return Contender(
        key,
        title,
        partial(ours, workers=workers, processes=processes),
        sizes,
        ("fitstream",),
        _peers.settles_s(workers),
    )


_torch_batches = _batchwise(_peers.torch_batches)
CONTENDERS = (
    Contender("limit-two", "bare np.take, two threads", two_threads, _BOTH),
    Contender("limit-one", "bare np.take, one thread", one_thread, _BOTH),
    _ours("fitstream-threads", "fitstream, 2 threads", 2, 0, _BOTH),
    _ours("fitstream-processes", "fitstream, 2 processes", 2, 2),
    _ours("fitstream-auto", "fitstream, auto", "auto", None, _BOTH),
    _peer("torch", "PyTorch DataLoader, 2 processes", partial(_torch, workers=_peers.LANES), "torch"),
    _peer("torch-main", "PyTorch DataLoader, no worker", partial(_torch, workers=0), "torch"),
    _peer("torch-batches", "PyTorch DataLoader, 2 processes, batch sampler", _torch_batches, "torch", sizes=_BOTH),
    _peer("torchdata-threads", "torchdata, 2 threads", _samplewise(_torchdata, processes=False), "torchdata"),
    _peer(
        "keras-threads",
        "Keras PyDataset, 2 threads",
        _batchwise(_peers.keras_batches, processes=False),
        *("keras", "jax"),
    ),
    _peer("grain-threads", "Grain, 2 threads", _samplewise(_grain, processes=False), "grain"),
    _peer("grain-processes", "Grain, 2 processes", _samplewise(_grain, processes=True), "grain"),
    Contender("tf.data", "tf.data, 2 parallel calls", _tf_data, _SMALL, ("tensorflow",)),
    _peer(
        "spdl", "SPDL, 2 threads", _batchwise(_pipelines.spdl_batches, processes=False), "spdl.pipeline", sizes=_BOTH
    ),
    _peer("ray", "Ray Data, 2 processes", _samplewise(_pipelines.ray_arrays), "ray.data"),
    _peer("dali", "DALI, 2 processes", _dali, "nvidia.dali"),
)

if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
