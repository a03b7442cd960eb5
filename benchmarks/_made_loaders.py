"""The contenders of `transport.py`: finished batches made in worker processes by a function that costs next to nothing.

The bare limit is a bare shared ring: two forked processes call the same function, copy its result once into kept shared
memory, and say so through a pipe; the consumer reads a view of that memory.

Left out: tf.data has no worker processes of its own (its service is a server of batches), TurboLoader reads archives of
pictures only, dataloader-rs has threads and needs Python 3.13. SPDL twice: with a pool of processes, as its guide
shows, and with one process behind its own shared ring, which it marks as experimental.

This file is also the program of the child processes. The job's `inputs`: `count` (batches of the epoch), `check`.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import _peers
import _pipelines
import numpy as np
from _harness import Contender, Job, Measurement, child_main, measure
from _rows import Delivery, Indices, Rows

__all__ = ["BATCH", "CONTENDERS", "SHAPE"]

BATCH, SHAPE = 64, (224, 224, 3)
_BATCH_BYTES = BATCH * math.prod(SHAPE) * 4
_KEPT = 8  # as many as a loader may have on its way in one worker before it has copied the first
_SLOTS = 2  # of the ring, for each process
_MESSAGE = struct.Struct("qq")  # number of the batch, slot


class Made:
    """Batches by number: float32 `(64, 224, 224, 3)`, finished beforehand but for the number of each sample.

    Each thread of each worker keeps a few finished batches and marks the next one, so that a call costs microseconds,
    and what is measured is moving 38.5 MB.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept = threading.local()

    def __reduce__(self) -> tuple[type[Made], tuple[int]]:
        return Made, (self._count,)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Rows:
        kept = self._kept
        if not hasattr(kept, "batches"):
            kept.batches = [np.full((BATCH, *SHAPE), 0.5, np.float32) for _ in range(_KEPT)]
            kept.turn = 0
        batch: Rows = kept.batches[kept.turn]
        kept.turn = (kept.turn + 1) % _KEPT
        batch[:, 0, 0, 0] = batch[:, -1, -1, -1] = np.arange(index * BATCH, (index + 1) * BATCH)
        return batch


def _delivery(job: Job) -> Delivery:
    def check(indices: Indices, batch: Rows) -> None:
        if not np.array_equal(batch[:, -1, -1, -1], indices) or (batch[:, 1::31] != 0.5).any():
            raise ValueError("a batch was overwritten while it was on its way.")

    look = check if job.inputs["check"] else None
    return Delivery(job.inputs["count"] * BATCH, SHAPE, BATCH, check=look, shuffled=False)


def shared_ring(job: Job) -> Measurement:
    return measure(job, partial(_ring_stream, Made(job.inputs["count"])), _delivery(job))


def _ring_stream(made: Made) -> Iterator[Rows]:
    shared = mmap.mmap(-1, _peers.LANES * _SLOTS * _BATCH_BYTES)
    ring = np.frombuffer(shared, np.float32).reshape(_peers.LANES, _SLOTS, BATCH, *SHAPE)
    ready, done = os.pipe()
    free: list[int] = []  # where each process is told which of its slots it may fill
    children = []
    for lane in range(_peers.LANES):
        slots, tell = os.pipe()
        child = os.fork()
        if child == 0:
            _fill(made, range(lane, len(made), _peers.LANES), ring[lane], slots, done)
        os.write(tell, bytes(range(_SLOTS)))
        free.append(tell)
        children.append(child)
    try:
        for _ in range(len(made)):
            index, slot = _MESSAGE.unpack(os.read(ready, _MESSAGE.size))
            yield ring[index % _peers.LANES, slot]
            os.write(free[index % _peers.LANES], bytes([slot]))
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fill(made: Made, numbers: range, ring: Rows, slots: int, done: int) -> None:
    """What a forked process does: its batches in turn, each into the slot that is free next. Never returns."""
    try:
        for index in numbers:
            slot = os.read(slots, 1)[0]
            ring[slot][...] = made[index]
            os.write(done, _MESSAGE.pack(index, slot))
        signal.pause()  # until it is killed, so that its CPU time is counted to the end
    finally:
        os._exit(1)


def ours(job: Job, *, workers: Any, processes: int | None) -> Measurement:
    import fitstream as fs

    facts: dict[str, Any] = {}
    made = Made(job.inputs["count"])
    stream = _peers.fitstream(
        lambda: fs.from_batches(made), facts, epochs=1, memory="1 GB", workers=workers, processes=processes
    )
    return measure(job, stream, _delivery(job), facts)


def sequence(job: Job) -> Measurement:
    """The way of old programs: batches of a Sequence from worker processes, by Keras 2's class for that."""
    from fitstream.legacy import OrderedEnqueuer

    count = job.inputs["count"]

    def stream() -> Iterator[Rows]:
        enqueuer = OrderedEnqueuer(Made(count), use_multiprocessing=True)
        enqueuer.start(workers=_peers.LANES, memory="1 GB")
        try:
            yield from itertools.islice(enqueuer.get(), count)
        finally:
            enqueuer.stop()

    return measure(job, stream, _delivery(job))


def _peer(key: str, title: str, make: Callable[..., _peers.Stream], *requires: str) -> Contender:
    def run(job: Job) -> Measurement:
        return measure(job, make(Made(job.inputs["count"]), epochs=1), _delivery(job))

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
    Contender("limit", "bare shared ring, 2 processes", shared_ring, ("own",)),
    _ours("fitstream-processes", "fitstream, 2 processes", 2, 2),
    Contender("fitstream-sequence", "fitstream, an old Sequence, 2 processes", sequence, ("own",), ("fitstream",)),
    _ours("fitstream-threads", "fitstream, 2 threads", 2, 0),
    _ours("fitstream-auto", "fitstream, auto", "auto", None),
    _peer("torch", "PyTorch DataLoader, 2 processes", _peers.torch_batches, "torch"),
    _peer("torchdata", "torchdata, 2 processes", _peers.torchdata_batches, "torchdata"),
    _peer("keras", "Keras PyDataset, 2 processes", partial(_peers.keras_batches, processes=True), "keras", "jax"),
    _peer("grain", "Grain, 2 processes", partial(_peers.grain, processes=True), "grain"),
    _peer("spdl", "SPDL, 2 processes", partial(_pipelines.spdl_batches, processes=True), "spdl.pipeline"),
    _peer(
        "spdl-ring",
        "SPDL, 1 process, shared ring",
        partial(_pipelines.spdl_ring, batch_bytes=_BATCH_BYTES),
        "spdl.pipeline",
    ),
    _peer("ray", "Ray Data, 2 processes", partial(_pipelines.ray_batches, samples=BATCH), "ray.data"),
    _peer("dali", "DALI, 2 processes", partial(_pipelines.dali_batches, batch=BATCH), "nvidia.dali"),
)


if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
