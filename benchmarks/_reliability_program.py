"""The program of one cell of `reliability.py`: what a user would write around a loader, in a process of its own.

It writes what happens as lines of JSON, each with its time: `batch` (epoch, indices, digest, number of wrong rows),
`killed`, `error`, `state`, `skipped`, `not offered` and at last `done`. Everything else is seen from outside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _reliability_loaders import LOADERS, Loader, NotOffered, Options
from _reliability_work import Transform, make_bytes, worker_pids

__all__ = ["Script"]


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """What the program does.

    Attributes:
        loader: Key of the loader.
        workers: Of the loader.
        fault: What the transform does at a sample, as in `Transform`.
        sample: At which.
        epochs: How many to go through.
        kill_at: After this many batches it kills a worker, chosen at random, by SIGKILL.
        break_at: After this many batches it leaves the first epoch.
        state_at: After this many batches it writes the loader's state to `state` in its folder, and is through.
        restore: Whether it begins with that state.
        again: Whether it begins the next epoch after an error.
        close: Whether it closes the loader, and waits for nothing else, as its documentation says.
        catch: Whether it catches what the loader raises.
        timeout_s: Of the loader, where it has such an option.
        skip: Whether bad samples are to be left out.
        seed: Of what is chosen at random.
    """

    loader: str
    workers: int = 2
    fault: str | None = None
    sample: int = -1
    epochs: int = 1
    kill_at: int | None = None
    break_at: int | None = None
    state_at: int | None = None
    restore: bool = False
    again: bool = False
    close: bool = True
    catch: bool = True
    timeout_s: float | None = None
    skip: bool = False
    seed: int = 0


class _Program:
    def __init__(self, script: Script, folder: Path) -> None:
        self._script, self._folder = script, folder
        self._data = make_bytes()
        self._progress = (folder / "progress").open("a", buffering=1, encoding="utf-8")

    def tell(self, event: str, **facts: Any) -> None:
        self._progress.write(json.dumps({"event": event, "time_s": time.time(), **facts}) + "\n")

    def run(self) -> None:
        script = self._script
        transform = Transform(str(self._folder), script.fault, script.sample)
        options = Options(script.workers, script.timeout_s, script.skip)
        loader: Loader | None = None
        try:
            loader = LOADERS[script.loader].make(transform, self._data, options)
            if script.restore:
                loader.restore((self._folder / "state").read_bytes())
            for epoch in range(script.epochs):
                if not self._epoch(loader, epoch):
                    break
            if script.skip:
                self.tell("skipped", indices=[int(index) for index in loader.skipped()])
        except NotOffered as error:
            self.tell("not offered", text=str(error))
        except BaseException as error:
            if not script.catch:
                raise
            self._tell_error(error)
        finally:
            if loader is not None and script.close:
                loader.close()
        self.tell("done")
        # What the user's program holds at its end, it holds until the interpreter goes.
        globals()["_held"] = loader

    def _epoch(self, loader: Loader, epoch: int) -> bool:
        """Go through one epoch; False if the program is through."""
        script = self._script
        try:
            for count, (indices, pixels) in enumerate(loader.epoch(), 1):
                self._take(epoch, np.asarray(indices), np.asarray(pixels))
                if count == script.kill_at and epoch == 0:
                    self._kill_worker()
                if count == script.state_at:
                    state = loader.state()
                    (self._folder / "state").write_bytes(state)
                    self.tell("state", bytes=len(state))
                    return False
                if count == script.break_at and epoch == 0:
                    break
        except Exception as error:
            if not script.again:
                raise
            self._tell_error(error)
        return True

    def _take(self, epoch: int, indices: Any, pixels: Any) -> None:
        wrong = int((self._data[indices] != pixels).any(axis=1).sum())
        digest = hashlib.sha256(indices.astype(np.int64).tobytes() + pixels.tobytes()).hexdigest()[:16]
        self.tell("batch", epoch=epoch, indices=indices.tolist(), digest=digest, wrong=wrong)

    def _kill_worker(self) -> None:
        pids = worker_pids(self._folder)
        if not pids:
            raise NotOffered("no worker processes")
        os.kill(random.Random(self._script.seed).choice(pids), signal.SIGKILL)
        self.tell("killed")

    def _tell_error(self, error: BaseException) -> None:
        self.tell("error", type=type(error).__name__, message=str(error)[:600])


if __name__ == "__main__":
    _Program(Script(**json.loads(sys.argv[1])), Path(sys.argv[2])).run()
