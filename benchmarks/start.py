"""How long until a loader gives its first batch, and what does its list of samples cost?

Questions. (1) How long does an import take, over NumPy's? (2) A CSV table of 1.2 million rows `path,label` leads to
small photos: how long until the first shuffled batch of 64, and how many bytes a row are held then by all processes
together? (3) A synthetic set has 10 samples, or 1,000,000,000: does the first shuffled batch take longer?

Method. Each run is a process of its own on the same two cores: five of each, interleaved; medians, with the smallest
and largest. "From the loader" counts from the call that makes the loader, with the dataset open; "opening" is the
import of the loader and reading the table; "from the start" counts from the start of the process. Memory is the
proportional set size of the process tree without pages of files, just after the first batch. Bytes a row are what 1.2
million rows hold more than 1,000, divided by their number: an index that every process has a copy of counts as often.

The table's rows are distinct paths of 32 characters, as those of ImageNet; they lead through links to 256 photos of
96x72. Each peer lists them as its users do: pandas reads the table, then a list of tuples, a tensor or the table itself
is what is kept. A billion samples get at most 4 GB of memory, since loaders that list them take more than the machine
has. tf.data and Keras's PyDataset are not asked: they have no order of their own beyond a buffer and a list of batches.

    python benchmarks/start.py              # five rounds, about 8 minutes
    python benchmarks/start.py --quick      # does everything work?
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _fresh
import _loaders
import _photos
import _report
import _start_probes

HERE = Path(__file__).resolve().parent
PHOTOS, FEW_ROWS = 256, 1000
FEW, MANY = 10, 10**9
TITLE = "The start: imports, the first batch of a large table, the memory of its index"


def main(arguments: Sequence[str]) -> None:
    """Measure, then write `start.json`, `.md` and `.png`."""
    options = _parse(arguments)
    many, few = _table(options.rows), _table(FEW_ROWS)
    print(f"{options.rows:,} rows in {many.stat().st_size / 1e6:.1f} MB", flush=True)
    found = _fresh.run_fresh(
        Path(_start_probes.__file__),
        _runs(str(many), str(few), options.rounds),
        timeout_s=options.timeout,
        cores=sorted(os.sched_getaffinity(0))[:2],
        log=lambda line: print(line, flush=True),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / "start"
    table = _markdown(found, options.rows)
    stem.with_suffix(".md").write_text(table, encoding="utf-8")
    facts = {
        "title": TITLE,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "rows": options.rows,
        "rounds": options.rounds,
        "packages": {**_report.versions(_loaders.PACKAGES), **_report.versions(["pandas"])},
        "runs": {key: {"reason": one.reason, "results": one.results} for key, one in found.items()},
    }
    stem.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    _plot(stem.with_suffix(".png"), found, options.rows)
    print(f"\n{table}\nWritten to {options.out}.")


def _runs(many: str, few: str, rounds: int) -> list[_fresh.Run]:
    runs = [_fresh.Run(f"import {name}", [f"import {name}"], {}, rounds) for name in _start_probes.IMPORTS]
    for name in _start_probes.TABLES:
        runs.append(_fresh.Run(f"table {name}", [f"table {name}"], {"table": many}, rounds))
        # Only its memory is used, and that hardly varies.
        runs.append(_fresh.Run(f"few {name}", [f"table {name}"], {"table": few}, min(rounds, 2)))
    for name in _start_probes.SYNTHETIC:
        runs += [_fresh.Run(f"{count} {name}", [f"numbers {name}"], {"count": count}, rounds) for count in (FEW, MANY)]
    return runs


def _table(rows: int) -> Path:
    """The CSV table, beside the folders that its paths go through; made once."""
    photos = _photos.prepare(PHOTOS, width=96, height=72, target_bytes=3000)
    folder = Path(photos.folder).parent / f"table-{rows}-{Path(photos.folder).name}"
    if not folder.is_dir():
        building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            lines = ["path,label\n"]
            for row in range(rows):
                part, photo = divmod(row, PHOTOS)
                if photo == 0:
                    (building / f"n{part:08d}_train_images").symlink_to(photos.folder)
                lines.append(f"n{part:08d}_train_images/{photo:05d}.jpg,{part % 1000}\n")
            (building / "table.csv").write_text("".join(lines), encoding="utf-8")
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder / "table.csv"


def _markdown(found: Mapping[str, _fresh.Found], rows: int) -> str:
    lines = [f"# {TITLE}", "", "**Import, over NumPy's**", "", "| | s |", "| --- | ---: |"]
    for name in _start_probes.IMPORTS:
        one = found[f"import {name}"]
        lines.append(f"| {name} | {_text(one.spread('import_s'), '.2f') or one.reason} |")
    lines += [
        "",
        f"**The first batch of a CSV table of {rows:,} rows**",
        "",
        "| | from the loader, s | opening, s | from the start, s | held | bytes a row |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in _start_probes.TABLES:
        one = found[f"table {name}"]
        held, row_bytes = one.median("held_bytes"), _row_bytes(found, name, rows)
        cells = [
            name if not one.reason else f"{name}: {one.reason}",
            *(_text(one.spread(part), ".2f") or "-" for part in ("from_loader_s", "opening_s", "from_start_s")),
            f"{held / 1e6:,.0f} MB" if held else "-",
            "-" if row_bytes is None else f"{row_bytes:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "**The first batch of a synthetic set, seconds from the loader**",
        "",
        f"| | {FEW} samples | {MANY:,} samples | memory: the second over the first |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in _start_probes.SYNTHETIC:
        few, many = found[f"{FEW} {name}"], found[f"{MANY} {name}"]
        held_few, held_many = few.median("held_bytes"), many.median("held_bytes")
        more = f"{(held_many - held_few) / 1e6:+,.1f} MB" if held_few and held_many else "-"
        cells = [_text(one.spread("from_loader_s"), ".3f") or one.reason for one in (few, many)]
        lines.append(f"| {name} | {' | '.join(cells)} | {more} |")
    return "\n".join(lines) + "\n"


def _row_bytes(found: Mapping[str, _fresh.Found], name: str, rows: int) -> float | None:
    many, few = found[f"table {name}"].median("held_bytes"), found[f"few {name}"].median("held_bytes")
    return (many - few) / (rows - FEW_ROWS) if many and few else None


def _text(spread: _report.Spread | None, form: str) -> str:
    return spread.text(form) if spread else ""


def _plot(path: Path, found: Mapping[str, _fresh.Found], rows: int) -> None:
    panels: dict[str, dict[str, tuple[_report.Spread | None, str]]] = {
        "Import over NumPy's, seconds": {},
        f"First batch of {rows:,} rows, seconds from the call that makes the loader": {},
        f"First batch of {rows:,} rows, seconds from the start of the process": {},
        "Bytes a row, all processes together": {},
    }
    imports, loader, start, held = panels.values()

    def bar(one: _fresh.Found, part: str) -> tuple[_report.Spread | None, str]:
        spread = one.spread(part)
        return spread, f"{spread.median:.2f}" if spread else one.reason[:70]

    for name in _start_probes.IMPORTS:
        imports[name] = bar(found[f"import {name}"], "import_s")
    for name in _start_probes.TABLES:
        one = found[f"table {name}"]
        loader[name], start[name] = bar(one, "from_loader_s"), bar(one, "from_start_s")
        row_bytes = _row_bytes(found, name, rows)
        value = None if row_bytes is None else _report.Spread.of([row_bytes])
        held[name] = value, "" if row_bytes is None else f"{row_bytes:,.0f}"
    _fresh.bars(path, TITLE, panels)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each (default: 5)")
    parser.add_argument("--rows", type=int, default=1_200_000, help="rows of the table (default: 1,200,000)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds after which a run hangs (default: 120)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, one round, nothing kept")
    options: Any = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.rows = 1, 20_000
    if options.out is None:
        options.out = Path(tempfile.gettempdir(), "fitstream-bench-quick") if options.quick else HERE / "results"
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
