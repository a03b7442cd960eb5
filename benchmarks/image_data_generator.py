"""What does an `ImageDataGenerator` give, fitstream's beside the one that Keras 3 keeps?

Question. 2,000 JPEG photos of 500x375 become shuffled batches of 64 x 224x224x3 float32 through
`ImageDataGenerator(rotation, shifts, zoom, flip, rescale).flow_from_directory`: the nearest pixels, as is Keras's
default, then each photo warped at random. fitstream's class goes through its dataset's loader, as `fit_generator` takes
it; Keras's through the adapter that `fit` reads from, with two workers. Both also by `next` without workers, as
programs call it themselves.

Method. Each contender runs in a process of its own on the same two cores, in rounds that are interleaved; `_harness.py`
says how, `_generator_loaders.py` how each is set up. Every batch is checked for form and range; a whole pass, which is
also the run for memory, must bring as many pictures as there are photos, in their mean colour.

How to read. "of the limit" is a contender's rate divided by that of the bare limit of the same round: two plain threads
that decode, warp and scale into a reused batch.

    python benchmarks/image_data_generator.py              # five rounds, about 8 minutes
    python benchmarks/image_data_generator.py --quick      # does everything work?
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _generator_loaders
import _photos
import _program


def _inputs(quick: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    photos = _photos.prepare(256 if quick else 2000)
    print(f"{photos.count} photos, {photos.mean_bytes / 1000:.1f} KB each: {photos.origin}", flush=True)
    inputs = {"folder": photos.folder, "count": photos.count, "mean_rgb": photos.mean_rgb, "check": False}
    # Enough of them that none comes to the end while it is timed.
    return {**inputs, "passes": 20}, {**inputs, "passes": 1, "check": True}


BENCHMARK = _program.Benchmark(
    name="image_data_generator",
    title="ImageDataGenerator over a folder, two lanes on two cores",
    unit="images",
    script=Path(_generator_loaders.__file__),
    contenders=_generator_loaders.CONTENDERS,
    panels={"own": "500x375 JPEG to 224x224 float32, warped at random, batches of 64"},
    inputs=_inputs,
    warm_up=2 * _generator_loaders.BATCH,
    seconds=3.0,
    comparisons=[("fitstream-auto", "keras-threads"), ("fitstream-next", "keras-next")],
)


if __name__ == "__main__":
    _program.run(BENCHMARK, (__doc__ or "").partition("\n")[0], sys.argv[1:])
