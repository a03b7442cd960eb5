"""The contenders of `python_transform.py`: small rows through a function that holds the interpreter lock for 1 ms.

The bare limit is two forked processes that do nothing but call the function.

Left out: tf.data has no worker processes of its own; it is measured with its usual `numpy_function`, which the lock
serialises. TurboLoader reads archives of pictures only, dataloader-rs has threads and needs Python 3.13.

This file is also the program of the child processes. The job's `inputs`: `count` (samples of the epoch), `turns` (of
the function's loop), `check`.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import _peers
import _pipelines
import numpy as np
from _harness import Contender, Job, Measurement, child_main, cpu_seconds, measure
from _rows import Delivery, Indices, Rows

__all__ = ["CONTENDERS", "Transform", "calibrate"]

BATCH, WIDTH = 64, 32
_COUNTER = struct.Struct("q")


class Small:
    """Samples by number, float32 `(32,)`: the first value is the number, the others are made of it."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Rows:
        row = np.full(WIDTH, index % 97, np.float32)
        row[0] = index
        return row


class Transform:
    """A pure-Python loop over a row's values; the result stands in the last one."""

    def __init__(self, turns: int) -> None:
        self._turns = turns

    def __call__(self, row: Rows) -> Rows:
        values = row.tolist()
        total = 0.0
        for _ in range(self._turns):
            for value in values:
                total = total * 0.5 + value
        changed = row.copy()
        changed[-1] = total
        return changed


class Transformed:
    """The samples after the function; also as batches of a fixed shuffled order, for loaders that deal in batches."""

    def __init__(self, samples: Small, transform: Transform, *, batch: int | None = None) -> None:
        self._samples = samples
        self._transform = transform
        self._batch = batch
        self._order = np.random.default_rng(0).permutation(len(samples)) if batch else None

    def __len__(self) -> int:
        return len(self._samples) if self._batch is None else -(len(self._samples) // -self._batch)

    def __getitem__(self, index: int) -> Rows:
        if self._batch is None or self._order is None:
            return self._transform(self._samples[index])
        indices = self._order[index * self._batch : (index + 1) * self._batch]
        return np.stack([self._transform(self._samples[number]) for number in indices.tolist()])


def calibrate(seconds: float = 1e-3) -> int:
    """Find how many turns of the loop take this long on this machine; the fastest of some tries counts."""
    turns, row = 10, Small(2)[1]

    def once(transform: Transform) -> float:
        start_s = time.perf_counter()
        transform(row)
        return time.perf_counter() - start_s

    fastest = min(once(Transform(turns)) for _ in range(500))
    return max(1, round(turns * seconds / fastest))


def _parts(job: Job) -> tuple[Small, Transform]:
    return Small(job.inputs["count"]), Transform(job.inputs["turns"])


def _delivery(job: Job) -> Delivery:
    samples, transform = _parts(job)

    def check(indices: Indices, batch: Rows) -> None:
        if not np.array_equal(batch[0], transform(samples[int(indices[0])])):
            raise ValueError(f"sample {indices[0]} is not what the function makes of it.")

    return Delivery(len(samples), (WIDTH,), BATCH, check=check if job.inputs["check"] else None)


def bare_processes(job: Job) -> Measurement:
    """Count the calls of two processes; there are no batches and no consumer."""
    created_s = time.monotonic()
    samples, transform = _parts(job)
    counted, count = os.pipe()
    children = []
    for lane in range(_peers.LANES):
        child = os.fork()
        if child == 0:
            _call(samples, transform, lane, count)
        children.append(child)
    first_s = 0.0
    try:

        def take(most: float, deadline_s: float) -> int:
            nonlocal first_s
            taken = 0
            while taken < most and time.monotonic() < deadline_s:
                taken += _COUNTER.unpack(os.read(counted, _COUNTER.size))[0]
                first_s = first_s or time.monotonic()
            return taken

        take(job.warm_up, float("inf"))
        take(float("inf"), time.monotonic() + job.warm_up_s)
        cpu_s, start_s = cpu_seconds(), time.monotonic()
        deadline_s = float("inf") if job.seconds is None else start_s + job.seconds
        taken = take(len(samples), deadline_s)
        end_s, cpu_s = time.monotonic(), cpu_seconds() - cpu_s
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return Measurement(taken, end_s - start_s, cpu_s, first_s - job.spawned_s, first_s - created_s)


def _call(samples: Small, transform: Transform, lane: int, count: int) -> None:
    """What a forked process does: batches' worth of calls, without end, until it is killed. Never returns."""
    try:
        number = lane
        while True:
            for _ in range(BATCH // 8):
                transform(samples[number])
                number = (number + _peers.LANES) % len(samples)
            os.write(count, _COUNTER.pack(BATCH // 8))
    finally:
        os._exit(1)


def ours(job: Job, *, workers: Any, processes: int | None) -> Measurement:
    import fitstream as fs

    samples, transform = _parts(job)
    facts: dict[str, Any] = {}

    def dataset() -> fs.Dataset:
        return fs.from_sequence(samples).shuffle(0).map(transform).batch(BATCH)

    stream = _peers.fitstream(dataset, facts, epochs=1, memory="256 MB", workers=workers, processes=processes)
    return measure(job, stream, _delivery(job), facts)


def _samplewise(make: Callable[..., _peers.Stream], **options: Any) -> Callable[[Small, Transform], _peers.Stream]:
    return lambda samples, transform: make(Transformed(samples, transform), batch=BATCH, epochs=1, **options)


def _batchwise(make: Callable[..., _peers.Stream], **options: Any) -> Callable[[Small, Transform], _peers.Stream]:
    return lambda samples, transform: make(Transformed(samples, transform, batch=BATCH), epochs=1, **options)


def _ray(samples: Small, transform: Transform) -> _peers.Stream:
    return _pipelines.ray_samples(samples, transform, batch=BATCH, epochs=1)


def _tf_data(samples: Small, transform: Transform) -> _peers.Stream:
    fetch = Transformed(samples, transform).__getitem__
    return _pipelines.tf_mapped(len(samples), fetch, (WIDTH,), batch=BATCH, epochs=1, whole=False)


def _peer(key: str, title: str, make: Callable[[Small, Transform], _peers.Stream], *requires: str) -> Contender:
    def run(job: Job) -> Measurement:
        return measure(job, make(*_parts(job)), _delivery(job))

    return Contender(key, title, run, ("own",), requires)


def _ours(key: str, title: str, workers: Any, processes: int | None) -> Contender:
    return Contender(
        key,
        title,
        partial(ours, workers=workers, processes=processes),
        ("own",),
        ("fitstream",),
        _peers.settles_s(workers),
    )


CONTENDERS = (
    Contender("limit", "bare limit: two processes, the function only", bare_processes, ("own",)),
    _ours("fitstream-processes", "fitstream, 2 processes", 2, 2),
    _ours("fitstream-process", "fitstream, 1 process", 1, 1),
    _ours("fitstream-threads", "fitstream, 2 threads", 2, 0),
    _ours("fitstream-auto", "fitstream, auto", "auto", None),
    _peer("torch", "PyTorch DataLoader, 2 processes", _samplewise(_peers.torch_samples), "torch"),
    _peer("torchdata", "torchdata, 2 processes", _samplewise(_peers.torchdata_samples, processes=True), "torchdata"),
    _peer("keras", "Keras PyDataset, 2 processes", _batchwise(_peers.keras_batches, processes=True), "keras", "jax"),
    _peer("grain", "Grain, 2 processes", _samplewise(_peers.grain, processes=True), "grain"),
    _peer("tf.data", "tf.data, 2 parallel calls", _tf_data, "tensorflow"),
    _peer("spdl", "SPDL, 2 processes", _batchwise(_pipelines.spdl_batches, processes=True), "spdl.pipeline"),
    _peer("ray", "Ray Data, 2 processes", _ray, "ray.data"),
    _peer("dali", "DALI, 2 processes", _batchwise(_pipelines.dali_batches, batch=BATCH), "nvidia.dali"),
)


if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
