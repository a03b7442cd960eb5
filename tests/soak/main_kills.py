"""The main process killed, or interrupted by Ctrl-C, at random moments: nothing is left, and the next one starts.

`python tests/soak/main_kills.py [KILLS] [SEED]`: so many of `kill -9` and as many of Ctrl-C, some minutes for 100. The
victim opens a loader, takes some batches, leaves the epoch in the middle, closes, and starts again; it tells where it
is. It is met a few milliseconds after a random one of these words: while it starts workers, works, or closes. With
Keras and PyTorch installed, each tenth one trains by `fs.fit`. After Ctrl-C, PyTorch takes seconds to end the program;
what counts there is the time until the exception has come out of `fit`, and no worker is left.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from herding import MARK, processes_of
from report import report

LIMIT_S = 2.0
MODES = ("threads", "processes", "generator", "workers=0")

_HEAD = """
import os, signal, sys, time
import numpy as np
import fitstream as fs

mode = sys.argv[1]
kept = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPIPE)
before = [signal.getsignal(one) for one in kept]

def say(word):
    if [signal.getsignal(one) for one in kept] != before:
        print("a signal handler was changed at", word, file=sys.stderr, flush=True)
    print(word, flush=True)

def tell_error(*error):
    sys.__excepthook__(*error)
    print("raised", flush=True)

sys.excepthook = tell_error

def slowly(x):
    time.sleep(0.0005)
    return x * 2
"""
VICTIM = (
    _HEAD
    + """
source = fs.from_arrays(np.arange(2000)) if mode != "generator" else fs.from_generator(lambda: iter(range(2000)))
dataset = source.map(slowly).batch(8)
options = {"threads": (2, 0), "processes": (2, 2), "generator": (2, 1), "workers=0": (0, 0)}[mode]
say("imported")
while True:
    with dataset.loader("400 MB", workers=options[0], processes=options[1]) as loader:
        say("opened")
        for number, batch in enumerate(loader):
            assert batch.tolist() == list(range(number * 16, number * 16 + 16, 2))
            say("batch")
            if number == 9:
                break
        say("closing")
    say("closed")
"""
)
TRAINING = (
    _HEAD
    + """
sys.modules["jax"] = None  # it calls Python in each collection, where Python loses a Ctrl-C
import keras
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")

class Tell(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        say("batch")

data = fs.from_arrays((np.ones((400, 4), np.float32), np.ones((400, 1), np.float32)))
data = data.map(lambda x, y: (x * 2, y)).batch(16)
say("imported")
while True:
    fs.fit(model, data, epochs=1, workers=2, processes=1, memory="600 MB", callbacks=[Tell()], verbose=0)
    say("closed")
"""
)


@dataclass
class Found:
    """What came of one way to end the victim.

    Attributes:
        count: How often.
        problems: What was wrong, in words.
        gone_s: From the signal to the end of all processes of ours; in `fit` after Ctrl-C, of all but the main one.
        met: After which words it was met.
    """

    count: int = 0
    problems: list[str] = field(default_factory=list)
    gone_s: list[float] = field(default_factory=list)
    met: dict[str, int] = field(default_factory=dict)

    def told(self, what: str) -> str:
        """In words."""
        longest = max(self.gone_s, default=0.0)
        lines = [f"{self.count} of {what}: {len(self.problems)} problems; all gone after {longest:.2f} s at most"]
        return "\n".join([*lines, f"  met after: {self.met}", *self.problems])


def end_one(
    mode: str, how: signal.Signals, rng: random.Random, folder: Path, found: Found, limit_s: float = LIMIT_S
) -> None:
    """Start a victim, end it at a random moment, and look what is left after `limit_s`."""
    name, named = uuid.uuid4().hex, set(os.listdir("/dev/shm"))
    temporary = folder / name
    temporary.mkdir()
    least = 1 if how == signal.SIGINT else 0  # before that, it is Python that imports
    words, delay_s = rng.randint(least, 30), rng.choice([0, 0.002, 0.01, 0.05, 0.15]) * rng.random()
    environ = {**os.environ, MARK: name, "TMPDIR": str(temporary), "KERAS_BACKEND": "torch"}
    program = TRAINING if mode == "fit" else VICTIM
    with subprocess.Popen(
        [sys.executable, "-c", program, mode],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    ) as victim:  # fmt: skip
        assert victim.stdout is not None
        word = "nothing"
        for _ in range(words):
            word = victim.stdout.readline().strip()
        if not words:
            delay_s = rng.random()
        time.sleep(delay_s)
        begun = time.monotonic()
        os.killpg(victim.pid, how)
        raised_s = None
        deadline = threading.Timer(30, victim.kill)  # one whose Ctrl-C was lost goes on for ever
        deadline.start()
        if mode == "fit" and how == signal.SIGINT:
            for line in victim.stdout:
                if line == "raised\n":
                    raised_s = time.monotonic() - begun
                    break
        # Ctrl-C that meets the end of a loader doesn't wait for workers that end by themselves.
        while left_then := [pid for pid in processes_of(name) if pid != victim.pid]:
            if victim.poll() is not None or time.monotonic() - begun > limit_s:
                break
            time.sleep(0.002)
        errors = victim.communicate()[1]
        deadline.cancel()
    while (left := processes_of(name)) and time.monotonic() - begun < 10 * limit_s:
        time.sleep(0.002)
    gone_s = time.monotonic() - begun if raised_s is None else raised_s
    found.count += 1
    found.gone_s.append(gone_s)
    found.met[word] = found.met.get(word, 0) + 1
    wrong = []
    if victim.returncode != -how:
        wrong.append(f"exit code {victim.returncode}")
    if raised_s is not None and left_then:
        wrong.append(f"workers outlived fit: {left_then}")
    if gone_s > limit_s:
        wrong.append(f"gone after {gone_s:.2f} s, left then: {left}")
    wrong += [f"/dev/shm/{one}" for one in set(os.listdir("/dev/shm")) - named if "fitstream" in one]
    wrong += [f"temporary file {one}" for one in os.listdir(temporary) if not one.startswith("torchinductor")]
    tracebacks = errors.count("Traceback (most recent call last)")
    if how == signal.SIGINT and (tracebacks != 1 or not errors.rstrip().endswith("KeyboardInterrupt")):
        wrong.append(f"{tracebacks} tracebacks: {errors}")
    elif how == signal.SIGKILL and errors:
        wrong.append(errors)
    if "a signal handler was changed" in errors:
        wrong.append(errors)
    if wrong:
        found.problems.append(f"  {mode}, {delay_s * 1000:.0f} ms after {word!r}: {'; '.join(wrong)}")


def soak(count: int, seed: int, folder: Path, *, training: bool) -> dict[str, Found]:
    """So many victims of each way."""
    rng, all_found = random.Random(seed), {}
    for what, how in (("kill -9", signal.SIGKILL), ("Ctrl-C", signal.SIGINT)):
        all_found[what] = found = Found()
        for number in range(count):
            mode = "fit" if training and number % 10 == 9 else MODES[number % len(MODES)]
            end_one(mode, how, rng, folder, found)
    return all_found


def main(count: int = 100, seed: int = 0) -> int:
    training = all(importlib.util.find_spec(name) for name in ("keras", "torch"))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        all_found = soak(count, seed, Path(folder), training=training)
    took_s = time.monotonic() - begun
    told = [found.told(what) for what, found in all_found.items()]
    head = f"main_kills, seed {seed}, {took_s:.0f} s, load {os.getloadavg()[0]:.1f}, fs.fit on torch: {training}"
    report("\n".join([head, *told]))
    return int(any(found.problems for found in all_found.values()))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
