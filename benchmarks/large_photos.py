"""How fast does each loader turn large photos into small batches, and how good are they?

Question. Pictures of 4 to 15 megapixels become shuffled batches `(16, 224, 224, 3)` uint8 with labels, on two
cores. Nearly all of such a picture is thrown away, so what counts is how much of it is decoded at all: a JPEG's cosine
transform gives the picture at 1/2, 1/4 or 1/8 of its size for less than the whole. The bare limit is two plain threads
that do this and resize bilinearly straight into a row of a reused batch; a second one resizes by area instead.

Pictures. Any folder of large photos: `--folder`. By default that of Debian's package plasma-workspace-wallpapers, where
a third are photographs, of 4 megapixels, and the others, among them all larger ones, are drawn:

    apt-get install plasma-workspace-wallpapers

Method. As in `jpeg_feed.py`, with the same peers. fitstream is measured with both ways of resizing: "bilinear", its
default, and "area".

Quality. In the run for memory each image is compared with what Pillow makes of the picture, decoded in full and resized
with antialiasing (what PyTorch's users usually do): the mean absolute difference, of 255. A loader that only picks a
few pixels of each picture is fast, and shows patterns that are not there.

    python benchmarks/large_photos.py              # three rounds, about 9 minutes
    python benchmarks/large_photos.py --decoder both   # also with the same decoder in every loader
    python benchmarks/large_photos.py --quick      # does everything work?
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
import _large_photos
import _loaders
import _report

HERE = Path(__file__).resolve().parent
BATCH = 16
PANELS = {"usual": "Each loader's usual decoder", "same": "The bare limit's decoder in every loader"}


def main(arguments: Sequence[str]) -> None:
    """Measure, then write `large_photos.json`, `.md` and `.png`."""
    options = _parse(arguments)
    photos = _large_photos.prepare(options.folder, 16 if options.quick else None)
    print(
        f"{photos.count} pictures of {photos.least_pixels / 1e6:.1f} to {photos.most_pixels / 1e6:.1f} megapixels, "
        f"{photos.mean_pixels / 1e6:.1f} in the mean, {photos.mean_bytes / 1e6:.2f} MB each",
        flush=True,
    )
    settings = ("own", *(("usual", "same") if options.decoder == "both" else (options.decoder,)))
    contenders = [one for one in _large_photos.CONTENDERS if one.key in options.contenders]
    # Enough of them that a loader at 400 images/s does not come to the end while it is timed.
    passes = 2 + int(options.seconds * 400 / photos.count)
    outcomes = _harness.run_rounds(
        Path(_large_photos.__file__),
        contenders,
        settings,
        rounds=options.rounds,
        timed=_job(photos, passes, options.seconds),
        whole=_job(photos, 2, None),
        timeout_s=options.timeout,
        log=lambda line: print(line, flush=True),
    )
    report = _report.Report(
        title="Pictures of 4 to 15 megapixels to batches of 16 x 224x224x3 uint8, two lanes",
        unit="images",
        limit=_large_photos.LIMIT.key,
        ours=_large_photos.FITSTREAM.key,
        panels={name: title for name, title in PANELS.items() if name in settings},
        contenders=contenders,
        outcomes=outcomes,
        facts={
            "photos": {**dataclasses.asdict(photos), "folder": None},
            "rounds": options.rounds,
            "seconds": options.seconds,
            "packages": _report.versions(_loaders.PACKAGES),
        },
        comparisons=[(one.key, "torch") for one in contenders if one.key.startswith("fitstream")],
    )
    stem = options.out / "large_photos"
    report.write(stem)
    with stem.with_suffix(".md").open("a", encoding="utf-8") as table:
        table.write(_quality(report))
    print(f"\n{stem.with_suffix('.md').read_text(encoding='utf-8')}\nWritten to {options.out}.")


def _quality(report: _report.Report) -> str:
    """How far each contender's images are from Pillow's; one column a panel."""
    panels = {name: {row.key: row for row in report.rows(name)} for name in report.panels}
    lines = [
        "\n**Mean absolute difference from Pillow's full decode and antialiased resize, of 255**",
        "",
        f"| | {' | '.join(report.panels.values())} |",
        f"| --- |{' ---: |' * len(panels)}",
    ]
    for one in report.contenders:
        rows = [panel.get(one.key) for panel in panels.values()]
        found = [row.facts.get("mean_difference") if row else None for row in rows]
        if any(value is not None for value in found):
            cells = ["-" if value is None else f"{value:.2f}" for value in found]
            lines.append(f"| {one.title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _job(photos: _large_photos.LargePhotos, passes: int, seconds: float | None) -> _harness.Job:
    cores = sorted(os.sched_getaffinity(0))[: _loaders.LANES]
    inputs = {
        "folder": photos.folder,
        "count": photos.count,
        "passes": passes,
        "batch": BATCH,
        "mean_rgb": photos.mean_rgb,
        "large": True,
        "reference": photos.reference,
    }
    # One batch of each lane: more would only take time, since there is nothing here that gets faster.
    return _harness.Job("", "", 2 * BATCH if seconds is not None else 1, seconds, inputs, cores)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    keys = [one.key for one in _large_photos.CONTENDERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path("/usr/share/wallpapers"), help="where the pictures are")
    parser.add_argument("--rounds", type=int, default=3, help="how often each loader is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (default: 2)")
    parser.add_argument("--contenders", nargs="+", choices=keys, default=keys, metavar="NAME", help=", ".join(keys))
    parser.add_argument("--decoder", choices=("usual", "same", "both"), default="usual", help="default: usual")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds after which a run hangs (default: 120)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="16 pictures, one round of half a second, nothing kept")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    if options.out is None:
        options.out = Path(tempfile.gettempdir(), "fitstream-bench-quick") if options.quick else HERE / "results"
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
