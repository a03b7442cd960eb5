"""How near does each loader come to the bare limit, from a memory-mapped array larger than 2 GB to shuffled batches?

Question. 11,000 rows of 224x224 float32, 2.2 GB in one .npy file, become shuffled batches of 64 (12.8 MB each), on two
cores. The bare limit is two plain threads that do nothing but `np.take` of permuted indices, each into a buffer of its
own that it uses again; one such thread is given beside it. Whatever a loader stays below that is what its machinery
costs: fresh memory for each batch, a call for each row, copies between processes.

Method. Each loader runs in a process of its own on the same two cores with two lanes (threads or processes), in rounds
that are interleaved; `_harness.py` says how, and `_peers.py` how each peer is set up. Epochs follow on each other until
time is up, since the limit reads the whole file in less than a second; what a loader does between two epochs counts.
The page cache is warm: before each run the file is read once. The consumer touches the first value of each row, which
is the row's number: each row must come once an epoch, and in one whole epoch, which is also the run for memory, the
last value is compared too.

How to read. "of the limit" is a loader's rate divided by that of the bare limit of the same round. Peak memory is what
no file backs: the mapped pages of the array belong to the page cache.

    python benchmarks/arrays.py              # five rounds, about 7 minutes
    python benchmarks/arrays.py --quick      # does everything work?
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

ROWS, QUICK_ROWS, SHAPE = 11_000, 1_100, (224, 224)


def _inputs(quick: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    path = _rows.prepare_rows(QUICK_ROWS if quick else ROWS, SHAPE)
    print(f"{path.stat().st_size / 1e9:.2f} GB in {path}", flush=True)
    timed = {"path": str(path), "epochs": 100_000, "fits": False, "check": False}
    return timed, {**timed, "epochs": 1, "check": True}


BENCHMARK = _program.Benchmark(
    name="arrays",
    title="A mapped array of 2.2 GB, rows of 224x224 float32, to shuffled batches of 64, on two cores",
    unit="rows",
    script=Path(_array_loaders.__file__),
    contenders=_array_loaders.CONTENDERS,
    panels={"64": "Batches of 64, 12.8 MB each"},
    inputs=_inputs,
    warm_up=64,
    limit="limit-two",
    memory="unbacked",
    before=lambda inputs: _rows.read_through(Path(inputs["path"])),
    comparisons=[("fitstream-threads", "limit-one"), ("fitstream-threads", _report.BEST_PEER)],
)


if __name__ == "__main__":
    _program.run(BENCHMARK, (__doc__ or "").partition("\n")[0], sys.argv[1:])
