"""How fast do finished batches of 38.5 MB come from two worker processes?

Question. Batches `(64, 224, 224, 3)` float32 are made in two worker processes by a function that only marks them with
their number, so that what is measured is moving them. The bare limit is a bare shared ring in the same round: two
processes call the same function and copy its result once into kept shared memory, the consumer reads views of it.
Whatever a loader stays below that is what it copies or allocates in addition: pickles through pipes, new shared memory
for each batch.

Method. Each loader runs in a process of its own with its workers on the same two cores, in rounds that are interleaved;
`_harness.py` says how, and `_peers.py` how each peer is set up. The function keeps a few finished batches in each
worker and hands them out in turn: fresh ones would cost as much as moving them. The consumer touches one value of each
sample, which is the sample's number; each must come once. One whole short epoch, which is also the run for memory, is
looked at more closely for batches that were overwritten on their way. The memory of every contender includes those kept
batches, 616 MB for two workers.

How to read. MB are 10^6 bytes. "of the limit" is a loader's rate divided by that of the bare ring of the same round.
fitstream in two threads moves nothing between processes and is there to compare. "An old Sequence" is the same through
`fitstream.legacy.OrderedEnqueuer`, which takes batches of any form; prediction: level with the other way.

    python benchmarks/transport.py              # five rounds, about 5 minutes
    python benchmarks/transport.py --quick      # does everything work?
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _made_loaders
import _program
import _report


def _inputs(quick: bool) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    # Enough of them that no loader comes to the end while it is timed.
    return {"count": 4_000, "check": False}, {"count": 12 if quick else 40, "check": True}


_SAMPLE_MB = 4 * 224 * 224 * 3 / 1e6
BENCHMARK = _program.Benchmark(
    name="transport",
    title="Finished batches of 38.5 MB from two worker processes, on two cores",
    unit="MB",
    script=Path(_made_loaders.__file__),
    contenders=_made_loaders.CONTENDERS,
    panels={"own": "Batches (64, 224, 224, 3) float32"},
    inputs=_inputs,
    warm_up=4 * _made_loaders.BATCH,
    units_per_sample=_SAMPLE_MB,
    comparisons=[("fitstream-processes", _report.BEST_PEER), ("fitstream-sequence", "keras")],
)


if __name__ == "__main__":
    _program.run(BENCHMARK, (__doc__ or "").partition("\n")[0], sys.argv[1:])
