"""The contenders of `jpeg_feed.py`: the bare limit, fitstream in four ways, and its peers (`_photo_peers.py`).

This file is also the program of the child processes. Each is to pay for its own imports only, so there are next to none
at its top.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from _harness import Contender, Job, Measurement, child_main, cpu_seconds
from _photo_peers import PEERS
from _photo_work import LANES, SIDE, Decoder, Delivery, Listing, Stream, run

__all__ = ["CONTENDERS", "FITSTREAM", "LANES", "LIMIT", "PACKAGES", "bare_limit", "fitstream_contenders"]

PACKAGES = (
    *("numpy", "simplejpeg", "opencv-python-headless", "pillow", "fitstream"),
    *("torch", "torchdata", "keras", "jax", "grain", "tensorflow", "tensorflow-cpu", "spdl-core", "spdl-io"),
    *("ray", "nvidia-dali-cuda120", "turboloader"),
)
#: By whether photos are large: a progressive one of 15 megapixels takes 92 MB to decode, in each process.
_MEMORY = {False: "256 MB", True: "512 MB"}


def bare_limit(job: Job, *, area: bool = False) -> Measurement:
    """Two threads that take turns at the batches of the epoch, each into a batch of its own that it uses again."""
    created_s = time.monotonic()
    facts: dict[str, Any] = {}
    listing, decoder, delivery = Listing(job), Decoder(job, area=area), Delivery(job, facts)
    lock = threading.Lock()
    firsts: list[float] = []

    def lane(starts: Iterator[int], deadline_s: float) -> int:
        batch = np.empty((listing.batch, SIDE, SIDE, 3), np.uint8)
        samples = 0
        for start in starts:
            labels = listing.order[start : start + listing.batch]
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

    starts = iter(range(0, len(listing), listing.batch))
    lanes(itertools.islice(starts, math.ceil(job.warm_up / listing.batch)), float("inf"))
    cpu_s, start_s = cpu_seconds(), time.monotonic()
    samples = lanes(starts, float("inf") if job.seconds is None else start_s + job.seconds)
    end_s, cpu_s = time.monotonic(), cpu_seconds() - cpu_s
    delivery.finish(complete=job.seconds is None)
    return Measurement(samples, end_s - start_s, cpu_s, firsts[0] - job.spawned_s, firsts[0] - created_s, facts)


def fitstream(
    job: Job, facts: dict[str, Any], *, workers: int | str, processes: int | None, interpolation: Any
) -> Stream:
    import fitstream as fs

    listing = Listing(job)
    rows = [{"path": path, "label": label} for label, path in enumerate(listing.paths)]

    def stream() -> Iterator[Any]:
        photos = fs.from_table(rows, image_size=(SIDE, SIDE), interpolation=interpolation)
        dataset = photos.shuffle(0).batch(listing.batch)
        with dataset.loader(memory=_MEMORY[job.inputs["large"]], workers=workers, processes=processes) as loader:
            try:
                yield from loader
            finally:
                stats = loader.stats()
                facts.update(projected_bytes=stats.projected_bytes, peak_bytes=stats.peak_bytes)

    return stream


def fitstream_contenders(suffix: str = "", words: str = "", interpolation: str = "bilinear") -> tuple[Contender, ...]:
    """Make the four ways: lanes in threads, in one process, in two, and as it chooses by itself."""

    def one(key: str, title: str, workers: int | str, processes: int | None) -> Contender:
        prepare = partial(fitstream, workers=workers, processes=processes, interpolation=interpolation)
        name, shown = f"fitstream{key}{suffix}", f"fitstream{words}, {title}"
        return Contender(name, shown, partial(run, prepare), ("own",), ("fitstream",))

    return (
        one("", f"{LANES} threads", LANES, 0),
        one("-process", f"1 process of {LANES} lanes", LANES, 1),
        one("-processes", f"{LANES} processes", LANES, LANES),
        one("-auto", "auto", "auto", None),
    )


LIMIT = Contender("limit", "bare limit: two plain threads", bare_limit, ("own",), ("cv2", "simplejpeg"))
FITSTREAM, *_OTHERS = fitstream_contenders()
CONTENDERS = (LIMIT, FITSTREAM, *_OTHERS, *PEERS)


if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
