"""How near does each loader come to the bare limit, from a million small rows to shuffled batches?

Question. A million rows of 100 float32, 400 MB in one .npy file that is mapped, become shuffled batches of 64, 25.6 KB
each. A batch is copied in some ten microseconds, so that everything that a loader does for each sample shows, and much
of what it does for each batch. The bare limit is `np.take` of permuted indices into a kept buffer in one thread; two
such threads are given beside it. A second table has batches of 1,024, for the fixed cost of a batch.

Method. Each loader runs in a process of its own on the same two cores with two lanes (threads or processes), in rounds
that are interleaved; `_harness.py` says how, and `_peers.py` how each peer is set up. Epochs follow on each other until
time is up; what a loader does between two epochs counts. The page cache is warm: before each run the file is read once.
The consumer touches the first value of each row, which is the row's number: each row must come once an epoch. In one
whole epoch, which is also the run for memory, the last value is compared too.

How to read. "of the limit" is a loader's rate divided by that of the bare limit of the same round. Peak memory is what
no file backs: the mapped pages of the array belong to the page cache.

    python benchmarks/tiny_samples.py              # five rounds, about 8 minutes
    python benchmarks/tiny_samples.py --quick      # does everything work?
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _array_loaders
import _program
import _report
import _rows

ROWS, QUICK_ROWS, SHAPE = 1_000_000, 50_000, (100,)


def _inputs(quick: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    path = _rows.prepare_rows(QUICK_ROWS if quick else ROWS, SHAPE)
    timed = {"path": str(path), "epochs": 100_000, "fits": True, "check": False}
    return timed, {**timed, "epochs": 1, "check": True}


BENCHMARK = _program.Benchmark(
    name="tiny_samples",
    title="A million rows of 100 float32 to shuffled batches, on two cores",
    unit="rows",
    script=Path(_array_loaders.__file__),
    contenders=_array_loaders.CONTENDERS,
    panels={"64": "Batches of 64", str(_array_loaders.LARGE_BATCH): f"Batches of {_array_loaders.LARGE_BATCH:,}"},
    inputs=_inputs,
    warm_up=64,
    limit="limit-one",
    cpu_units=1_000_000,
    memory="unbacked",
    before=lambda inputs: _rows.read_through(Path(inputs["path"])),
    comparisons=[("fitstream-threads", "torch"), ("fitstream-threads", _report.BEST_PEER)],
)


if __name__ == "__main__":
    _program.run(BENCHMARK, (__doc__ or "").partition("\n")[0], sys.argv[1:])
