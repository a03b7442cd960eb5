"""`fs.fit(checkpoint=)` is killed at 20 random moments; what comes of it is an unbroken training's, to the bit.

Run as a program: `python tests/soak/checkpoint_kills.py [kills] [seed]`, on the backend that KERAS_BACKEND names (or
each in BACKENDS, in processes of their own). A child trains; it is killed by SIGKILL after a random number of steps and
a random moment more, which hits steps, writes of checkpoints, validation and the beginning. Then it is started again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "adapters" / "resuming.py"
ENDED = 0


def run(folder: Path, result: Path, backend: str, kill: tuple[int, float] | None) -> int:
    """Train until the end or the kill.

    Args:
        kill: Steps of this run, and seconds after the last of them; None for no kill.
    Returns:
        The exit code.
    """
    command = [sys.executable, str(PROGRAM), str(folder), str(result), "1"]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        if kill is not None:
            for _ in range(kill[0]):
                process.stdout.readline()
            time.sleep(kill[1])
            process.kill()
        process.stdout.read()
    return process.returncode


def main(kills: int, seed: int, backend: str) -> None:
    rng = random.Random(seed)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        assert run(root / "unbroken", root / "unbroken.json", backend, None) == ENDED
        expected = json.loads((root / "unbroken.json").read_text())
        killed = rounds = 0
        while killed < kills:
            rounds += 1
            folder, result = root / f"run-{rounds}", root / f"result-{rounds}.json"
            places = []
            while killed < kills:
                kill = (rng.choice((1, 1, 2, 3, 5)), rng.random() * 0.2)
                code = run(folder, result, backend, kill)
                if code == ENDED:
                    break
                assert code == -signal.SIGKILL, code
                killed += 1
                places.append(max((entry.name for entry in folder.iterdir() if entry.name[0] != "."), default="none"))
            if not result.exists():
                assert run(folder, result, backend, None) == ENDED
            assert json.loads(result.read_text()) == expected, f"seed {seed}, round {rounds} on {backend}"
            debris = [entry.name for entry in folder.iterdir() if entry.name[0] == "." and entry.name != ".lock"]
            assert debris == [], debris
            print(f"{backend}: round {rounds} equal after kills at {', '.join(places)}", flush=True)  # noqa: T201
    print(f"{backend}: {killed} kills in {rounds} trainings, all equal, {time.monotonic() - began_s:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for each in os.environ.get("BACKENDS", os.environ.get("KERAS_BACKEND", "tensorflow")).split():
        main(count, int(sys.argv[2]) if len(sys.argv) > 2 else 0, each)
