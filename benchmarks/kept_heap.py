"""What does it gain that worker processes keep their heap, and how many page faults has a steady epoch?

Question. A function that allocates and frees arrays of some hundred kilobytes for each sample: glibc gives such blocks
back to the system, or maps them anew, at each turn, and every page is then faulted in again. fitstream starts workers
that call functions with higher thresholds (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`, `MALLOC_ARENA_MAX`).

Method. 4,000 rows are mapped by a function with four temporary arrays, for three sizes of them, in two processes of one
lane and in one process of two, with and without those settings: each case in a fresh process, cases interleaved, five
rounds. After one epoch, three are timed, and the workers' minor faults counted.

    python benchmarks/kept_heap.py              # about three minutes
    python benchmarks/kept_heap.py --quick
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPEATS = (350, 1000, 2000)
LANES = ((2, 2), (2, 1))


def child(repeats: int, lanes: int, processes: int, kept: bool) -> None:
    """Measure one case and print it."""
    import numpy as np

    import fitstream as fs
    from fitstream.engine import process
    from fitstream.events import WorkerStarted

    if not kept:
        process._MALLOC.clear()
    pids: list[int] = []

    class Watch:
        def on_event(self, event: Any) -> None:
            if isinstance(event, WorkerStarted):
                pids.append(event.pid)

    def allocating(row: Any) -> Any:
        wide = np.repeat(row, repeats).reshape(-1, 3).astype(np.float32)
        return (wide * 1.5 + 2).clip(0, 255).astype(np.uint8).reshape(-1)[:1000]

    def faults() -> int:
        return sum(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7]) for pid in pids)

    rows = np.random.default_rng(0).random((4000, 150), dtype=np.float32)
    dataset = fs.from_arrays(rows).map(allocating).shuffle(0).batch(64)
    with dataset.loader(memory="1 GB", workers=lanes, processes=processes, observers=[Watch()]) as loader:
        for _ in loader:
            pass
        before, start_s, samples = faults(), time.perf_counter(), 0
        for _ in range(3):
            samples += sum(len(batch) for batch in loader)
        seconds = time.perf_counter() - start_s
        print(json.dumps([samples / seconds, (faults() - before) / samples, loader.stats().peak_bytes]))


def main() -> None:
    """Measure all cases and write `kept_heap.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is measured (default: 5)")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="one round, nothing kept")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        child(*options.case)
        return
    cases = [(*one, *lanes, kept) for one, lanes, kept in itertools.product(zip(REPEATS), LANES, (True, False))]
    found: dict[tuple[Any, ...], list[list[float]]] = {case: [] for case in cases}
    for _ in range(1 if options.quick else options.rounds):
        for case in cases:
            command = [sys.executable, __file__, "--case", json.dumps(case)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            found[case].append(json.loads(done.stdout))
    lines = [
        "| temporaries | lanes | heap | samples/s | faults a sample | peak |",
        "| ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for (repeats, lanes, processes, kept), runs in found.items():
        rates, faults, peaks = zip(*runs, strict=True)
        where = f"{processes} processes of 1" if processes > 1 else f"1 process of {lanes}"
        size = f"{150 * repeats * 4 / 1e6:.1f} MB"
        lines.append(
            f"| {size} | {where} | {'kept' if kept else 'as glibc does'} | {statistics.median(rates):,.0f} "
            f"({min(rates):,.0f}-{max(rates):,.0f}) | {statistics.median(faults):,.1f} | {max(peaks) / 1e6:.0f} MB |"
        )
    print("\n".join(lines))
    if not options.quick:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "kept_heap.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        told = [{"case": list(case), "runs": runs} for case, runs in found.items()]
        (options.out / "kept_heap.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
