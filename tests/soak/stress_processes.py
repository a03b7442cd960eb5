"""Random datasets, splits, kills, early exits and moves of lanes: bytes must not change, and nothing may hang.

Run as a program: `python tests/soak/stress_processes.py 300 [seed]` works for 300 seconds. It tells what each round
was, so that a failure can be run again by its seed, and ends with a traceback of all threads if a round takes too long.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from kinds import KINDS, SPLITS, write_files
from loops import Mover, epochs, told, worker_pids

import fitstream as fs

#: A round that takes longer hangs.
_ROUND_S = 60


def one_round(seed: int, root: Path) -> str:
    """Some epochs of one dataset with disturbances; compared with the calling thread's. Returns what was done."""
    rng = random.Random(seed)
    kind = rng.choice(sorted(KINDS))
    dataset = KINDS[kind](root)
    expected = epochs(dataset, 0, 0, count=3)
    moving = rng.random() < 0.4
    kill, leave, change = rng.choice([0, 0, 0.05]), rng.choice([0, 0.02]), rng.choice([0.1, 0.4])
    workers, processes = (3, None) if moving else rng.choice(SPLITS)
    what = f"seed {seed}: {kind}, {workers} over {processes}, kill {kill}, leave {leave}, change {change}"
    done: list[str] = []
    with dataset.loader("900 MB", workers=workers, processes=processes) as loader:
        plan_has_processes = bool(loader.plan.process_count)
        mover = Mover(loader, 2) if moving and plan_has_processes else None
        for _ in range(4):
            epoch = rng.randrange(3)
            loader.set_epoch(epoch)
            seen = []
            held = []
            for batch in loader:
                seen.append(told(batch))
                held.append(batch)
                if rng.random() < 0.3:
                    held.clear()
                if mover is not None and rng.random() < change:
                    mover.turn(rng)
                elif processes and rng.random() < change:
                    loader._pipeline.crew.set_lanes(rng.randint(1, workers))  # type: ignore[union-attr]
                if kill and rng.random() < kill and (pids := worker_pids()):
                    os.kill(rng.choice(pids), signal.SIGKILL)
                    done.append("killed")
                if leave and rng.random() < leave:
                    done.append("left")
                    break
            if seen != expected[epoch][: len(seen)] or (len(seen) != len(expected[epoch]) and done[-1:] != ["left"]):
                raise AssertionError(f"{what}: batches of epoch {epoch} differ, or {len(seen)} came")
    if worker_pids():
        raise AssertionError(f"{what}: workers outlived the loader")
    return f"{what} {' '.join(done)}"


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(seconds: float, seed: int) -> int:
    warnings.simplefilter("error")
    end, rounds, failures = time.monotonic() + seconds, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = write_files(Path(folder))
        while time.monotonic() < end:
            faulthandler.dump_traceback_later(_ROUND_S, exit=True)
            started = time.monotonic()
            try:
                told_round = one_round(seed, root)
            except (fs.FitstreamError, AssertionError, OSError, Warning):
                failures += 1
                tell(f"FAILED round with seed {seed}")
                traceback.print_exc()
            else:
                took_s = time.monotonic() - started
                tell(f"{told_round}: {took_s:.1f} s")
            seed, rounds = seed + 1, rounds + 1
    faulthandler.cancel_dump_traceback_later()
    gc.collect()
    tell(f"{rounds} rounds, {failures} failed; {len(os.listdir('/proc/self/fd'))} descriptors")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
