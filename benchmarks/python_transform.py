"""What does each loader make of two cores when every sample takes 1 ms of pure Python?

Question. Rows of 32 float32 go through a Python loop of about 1 ms, which holds the interpreter lock, and become
shuffled batches of 64. Only processes can use the second core. The bare limit is two processes that do nothing but call
the function. Whatever a loader stays below that is what its machinery costs, and the lanes that the lock keeps idle.

Method. Each loader runs in a process of its own on the same two cores with two lanes, in rounds that are interleaved;
`_harness.py` says how, and `_peers.py` how each peer is set up. The length of the loop is found at the start, once for
all. The consumer, which shares the two cores, touches the first value of each sample, which is the sample's number;
each must come once, and in one whole epoch, which is also the run for memory, a sample of each batch is computed again.

How to read. "of the limit" is a loader's rate divided by that of the bare limit of the same round. Below the table:
fitstream with two processes by fitstream with one, and by the best peer. fitstream in two threads shows the lock.

    python benchmarks/python_transform.py              # five rounds, about 6 minutes
    python benchmarks/python_transform.py --quick      # does everything work?
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _program
import _report
import _transform_loaders


def _inputs(quick: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    turns = _transform_loaders.calibrate()
    print(f"{turns} turns of the loop take 1 ms", flush=True)
    # Enough of them that no loader comes to the end while it is timed.
    timed = {"count": 100_000, "turns": turns, "check": False}
    return timed, {**timed, "count": 512 if quick else 2048, "check": True}


BENCHMARK = _program.Benchmark(
    name="python_transform",
    title="A pure-Python transform of 1 ms a sample, two lanes on two cores",
    unit="samples",
    script=Path(_transform_loaders.__file__),
    contenders=_transform_loaders.CONTENDERS,
    panels={"own": "Rows of 32 float32, shuffled batches of 64"},
    inputs=_inputs,
    warm_up=256,
    seconds=2.5,
    comparisons=[("fitstream-processes", "fitstream-process"), ("fitstream-processes", _report.BEST_PEER)],
)


if __name__ == "__main__":
    _program.run(BENCHMARK, (__doc__ or "").partition("\n")[0], sys.argv[1:])
