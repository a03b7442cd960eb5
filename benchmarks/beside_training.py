"""What does the feeder cost the training beside it?

Question. 1,000 JPEG photos of 500x375 train Keras's MobileNetV2 (96x96, random weights, batches of 32) for five epochs
on two cores. The network needs the same two cores as the feeder, so the feeder slows it. How long does training take,
how much memory does it need, and how much slower is a step than with everything in memory?

Method. Each way of feeding trains in a process of its own, in two interleaved rounds; a third run of one epoch samples
the memory of the process tree, since that disturbs it. Total is from opening the photos to the end of the last epoch,
so with everything in memory it includes reading the photos, once; imports and building the network are left out, the
first steps, which TensorFlow traces, are not. A step is from the end of a batch to the end of the next, waiting
included: the median of all epochs but the first. "Slower" is the step by that of everything in memory, in the same
round.

Everything in memory and both PyDatasets decode by Keras's own `load_img`, that is, by Pillow. PyDataset with processes
forks after TensorFlow has started its threads, which may hang; a run that hangs keeps its line.

    python benchmarks/beside_training.py              # about 9 minutes
    python benchmarks/beside_training.py --quick      # does everything work?
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _fresh
import _photos
import _report
import _training_probes

HERE = Path(__file__).resolve().parent
PACKAGES = ("numpy", "fitstream", "keras", "tensorflow", "tensorflow-cpu", "torch", "jax", "pillow", "simplejpeg")
BASE = "memory"


def main(arguments: Sequence[str]) -> None:
    """Measure, then write `beside_training.json`, `.md` and `.png`."""
    options = _parse(arguments)
    photos = _photos.prepare(256 if options.quick else 2000)
    settings = {
        "folder": photos.folder,
        "count": options.photos,
        "side": options.side,
        "batch": 32,
        "epochs": options.epochs,
        "backend": options.backend,
    }
    runs = [_fresh.Run(f"memory of {way}", [way], {**settings, "epochs": 1}, 1, memory=True) for way in options.ways]
    found = {}
    for group in (runs, [_fresh.Run(way, [way], settings, options.rounds) for way in options.ways]):
        found |= _fresh.run_fresh(
            Path(_training_probes.__file__),
            group,
            timeout_s=options.timeout,
            cores=sorted(os.sched_getaffinity(0))[:2],
            log=lambda line: print(line, flush=True),
        )
    title = (
        f"{options.photos:,} photos, MobileNetV2 {options.side}x{options.side}, {options.epochs} epochs, Keras on "
        f"{options.backend}, two cores"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / "beside_training"
    table = _markdown(title, found, options.ways)
    stem.with_suffix(".md").write_text(table, encoding="utf-8")
    facts = {
        "title": title,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "settings": {**settings, "folder": None},
        "rounds": options.rounds,
        "packages": _report.versions(PACKAGES),
        "runs": {key: {"reason": one.reason, "results": one.results} for key, one in found.items()},
    }
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    _plot(stem.with_suffix(".png"), title, found, options.ways)
    print(f"\n{table}\nWritten to {options.out}.")


def _markdown(title: str, found: Mapping[str, _fresh.Found], ways: Sequence[str]) -> str:
    lines = [
        f"# {title}",
        "",
        "| | total, s | an epoch, s | a step, ms | slower | peak memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way in ways:
        one, sampled, name = found[way], found[f"memory of {way}"], _training_probes.WAYS[way][0]
        step_s, peak_bytes, slower = one.median("step_s"), sampled.median("peak_tree_bytes"), _slower(found, way)
        cells = [
            name if not one.reason else f"{name}: {one.reason}",
            *(spread.text(".1f") if spread else "-" for spread in (one.spread("total_s"), one.spread("epoch_s"))),
            f"{step_s * 1000:.0f}" if step_s else "-",
            slower.text(".2f") if slower else "-",
            f"{peak_bytes / 1e6:,.0f} MB" if peak_bytes else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _slower(found: Mapping[str, _fresh.Found], way: str) -> _report.Spread | None:
    """How many times as long a step takes as with everything in memory, within each round."""
    if BASE not in found:
        return None
    ratios = [
        ours["step_s"] / base["step_s"]
        for ours, base in zip(found[way].results, found[BASE].results, strict=False)  # a failure ends the shorter one
    ]
    return _report.Spread.of(ratios) if ratios else None


def _plot(path: Path, title: str, found: Mapping[str, _fresh.Found], ways: Sequence[str]) -> None:
    panels: dict[str, dict[str, tuple[_report.Spread | None, str]]] = {
        "Total, seconds": {},
        "A step, times that with everything in memory": {},
        "Peak memory of the process tree, MB": {},
    }
    total, step, memory = panels.values()
    for way in ways:
        name, one = _training_probes.WAYS[way][0], found[way]
        seconds, slower = one.spread("total_s"), _slower(found, way)
        peak_bytes = found[f"memory of {way}"].median("peak_tree_bytes")
        held = _report.Spread.of([peak_bytes / 1e6]) if peak_bytes else None
        total[name] = seconds, f"{seconds.median:.1f}" if seconds else one.reason[:70]
        step[name] = slower, f"{slower.median:.2f}" if slower else ""
        memory[name] = held, f"{held.median:,.0f}" if held else ""
    _fresh.bars(path, title, panels)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    ways = list(_training_probes.WAYS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backend", choices=("tensorflow", "torch", "jax"), default="tensorflow", help="of Keras")
    parser.add_argument("--rounds", type=int, default=2, help="how often each way trains (default: 2)")
    parser.add_argument("--epochs", type=int, default=5, help="default: 5")
    parser.add_argument("--photos", type=int, default=1000, help="default: 1000; at most 2000")
    parser.add_argument("--side", type=int, default=96, help="of the pictures, in pixels (default: 96)")
    parser.add_argument("--ways", nargs="+", choices=ways, default=ways, metavar="NAME", help=", ".join(ways))
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds after which a run hangs (default: 240)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="128 photos, two epochs, one round, nothing kept")
    options: Any = parser.parse_args(arguments)
    if options.quick:
        options.photos, options.epochs, options.rounds, options.timeout = 128, 2, 1, 60.0
    if options.out is None:
        options.out = Path(tempfile.gettempdir(), "fitstream-bench-quick") if options.quick else HERE / "results"
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
