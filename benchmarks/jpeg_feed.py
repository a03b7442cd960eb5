"""How near does each loader come to the bare limit, from JPEG files to batches that a model can take?

Question. 2,000 distinct JPEG photos of 500x375 (about 44 KB each) become shuffled batches `(64, 224, 224, 3)` uint8
with their labels, on two cores. The bare limit is what two plain threads reach that do nothing else: each reads a file
into a kept buffer, decodes it into kept scratch and resizes it straight into a row of a reused batch. Whatever a loader
stays below that is what its machinery costs: allocation, copies, messages, waiting.

Method. Each loader runs in a process of its own on the same two cores with two lanes (threads or processes), in rounds
that are interleaved; `_harness.py` says how. A long epoch lays the photos end to end; the first 2,000 samples warm up,
then whole batches are timed. The consumer looks at one byte of each image. Every batch is checked for shape and dtype,
no sample may come twice, and one whole epoch, which is also the run for memory, must bring each sample exactly once, in
shuffled order, with the right colours.

Two settings. "usual": each loader decodes as its own documentation does. "same": every loader calls the function that
the bare limit calls, into a fresh array where it must have one, so that only the machinery differs.

How to read. "of the limit" is a loader's rate divided by that of the bare limit of the same round: median, and smallest
to largest. Absolute rates depend on the machine; the ratio much less. Start is measured from the start of the process,
so with the imports, and from the creation of the loader.

    python benchmarks/jpeg_feed.py              # three rounds, both settings, about 10 minutes
    python benchmarks/jpeg_feed.py --rounds 5 --seconds 4     # about 20 minutes
    python benchmarks/jpeg_feed.py --quick      # does everything work?
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import _harness
import _loaders
import _photos
import _report

HERE = Path(__file__).resolve().parent
BATCH = 64


def main(arguments: Sequence[str]) -> None:
    """Measure, then write `jpeg_feed.json`, `.md` and `.png`."""
    options = _parse(arguments)
    photos = _photos.prepare(options.photos)
    print(f"{photos.count} photos, {photos.mean_bytes / 1000:.1f} KB each: {photos.origin}", flush=True)
    # Enough of them that a loader at 6,000 images/s does not come to the end while it is timed.
    passes = 2 + int(options.seconds * 6000 / photos.count)
    timed = _job(photos, passes, options.seconds)
    whole = _job(photos, 2, None)
    contenders = [one for one in _loaders.CONTENDERS if one.key in options.contenders]
    ours = [one.key for one in contenders if one.key.startswith(_loaders.FITSTREAM.key)]
    settings = ("own", *(("usual", "same") if options.decoder == "both" else (options.decoder,)))
    outcomes = _harness.run_rounds(
        Path(_loaders.__file__),
        contenders,
        settings,
        rounds=options.rounds,
        timed=timed,
        whole=whole,
        timeout_s=options.timeout,
        log=lambda line: print(line, flush=True),
    )
    panels = {"usual": "Each loader's usual decoder", "same": "The same decoder in every loader"}
    report = _report.Report(
        title="JPEG 500x375 to batches of 64 x 224x224x3 uint8, shuffled, two lanes on two cores",
        unit="images",
        limit=_loaders.LIMIT.key,
        ours=_loaders.FITSTREAM.key,
        panels={name: title for name, title in panels.items() if name in settings},
        contenders=contenders,
        outcomes=outcomes,
        facts={
            "photos": {**dataclasses.asdict(photos), "folder": None},
            "rounds": options.rounds,
            "seconds": options.seconds,
            "packages": _report.versions(_loaders.PACKAGES),
        },
        comparisons=[(key, other) for other in (_report.BEST_PEER, "torch") for key in ours],
    )
    report.write(options.out / "jpeg_feed")
    print(f"\n{report.markdown()}\nWritten to {options.out}.")


def _job(photos: _photos.PhotoSet, passes: int, seconds: float | None) -> _harness.Job:
    cores = sorted(os.sched_getaffinity(0))[: _loaders.LANES]
    inputs = {
        "folder": photos.folder,
        "count": photos.count,
        "passes": passes,
        "batch": BATCH,
        "mean_rgb": photos.mean_rgb,
        "large": False,
        "reference": None,
    }
    return _harness.Job("", "", photos.count, seconds, inputs, cores)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    keys = [one.key for one in _loaders.CONTENDERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="how often each loader is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (default: 2)")
    parser.add_argument("--contenders", nargs="+", choices=keys, default=keys, metavar="NAME", help=", ".join(keys))
    parser.add_argument("--decoder", choices=("usual", "same", "both"), default="both", help="default: both")
    parser.add_argument("--photos", type=int, default=2000, help="number of distinct photos (default: 2000)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds after which a run hangs (default: 120)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="256 photos, two rounds of one second, nothing kept")
    options = parser.parse_args(arguments)
    if options.quick:
        options.photos, options.rounds, options.seconds = 256, 2, 1.0
    if options.out is None:
        options.out = Path(tempfile.gettempdir(), "fitstream-bench-quick") if options.quick else HERE / "results"
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
