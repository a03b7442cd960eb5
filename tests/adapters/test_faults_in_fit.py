"""The callback row of the crash matrix (tests/faults) in `fs.fit`: whatever a Keras callback does, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorder import BACKEND, KERAS_WARNINGS, keras, recorder

import fitstream as fs
from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = KERAS_WARNINGS
SPLITS = [0, 1] if HAS_SHARED_MEMORY else [0]


class Trouble(keras.callbacks.Callback):  # type: ignore[misc]
    """Does something at the fourth batch."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            self.act()


def data() -> fs.Dataset:
    x = np.stack([np.arange(64), np.arange(64)], axis=1).astype(np.float32)
    return fs.from_arrays((x, np.arange(64) % 3)).map(lambda x, y: (x, y)).batch(8)


@pytest.mark.parametrize("processes", SPLITS)
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_what_a_callback_raises_comes_out_of_fit_as_it_is(kind: type[BaseException], processes: int) -> None:
    def act() -> None:
        raise kind("as it was told to")

    model = recorder(built=True)
    with pytest.raises(kind, match="as it was told to"):
        fs.fit(model, data(), callbacks=[Trouble(act)], workers=2, processes=processes, memory="500 MB", verbose=0)
    assert len(model.ids) == 32


@pytest.mark.parametrize("processes", SPLITS)
def test_a_callback_that_takes_longer_than_the_deadline_of_samples_harms_nothing(processes: int) -> None:
    model = recorder(built=True)
    fs.fit(model, data(), callbacks=[Trouble(lambda: time.sleep(2))], workers=2, processes=processes,
           memory="500 MB", verbose=0, sample_timeout_s=1.5)  # fmt: skip
    assert model.ids == list(range(64))


PROGRAM = """
import ctypes, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import test_faults_in_fit as own
import fitstream as fs

def act():
    children = " ".join(path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/children"))
    print(children, flush=True)
    {act}

fs.fit(own.recorder(built=True), own.data(), callbacks=[own.Trouble(act)], workers=2, processes=2, memory="500 MB",
       verbose=0)
"""


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
@pytest.mark.parametrize(("act", "code"), [("os._exit(7)", 7), ("ctypes.string_at(0)", -signal.SIGSEGV)])
def test_a_callback_that_ends_the_program_leaves_no_worker(act: str, code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(act=act), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "KERAS_BACKEND": BACKEND, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    workers = [Path("/proc", pid) for pid in done.stdout.split()]
    assert len(workers) >= 2
    end_s = time.monotonic() + 60
    while any("fitstream" in told(one) for one in workers) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert not any("fitstream" in told(one) for one in workers)


def told(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
