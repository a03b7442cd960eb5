"""Checkpoints of a training run in a folder of files; each is whole, or not there.

    run/
      .lock                    held while a run uses the folder; names its process
      step-000000123/          after 123 steps
        arrays.npz             arrays as NumPy writes them, without pickle
        checkpoint.json        all else
        B2SUMS                 checksums of both: `b2sum --check B2SUMS`
      final-000000200/         the outcome, once training is complete
      .writing-…, .removing-…  what a run that died left half done; the next one removes it

A checkpoint is written beside the others under a hidden name, brought to the disk file by file, renamed, and the
renaming brought to the disk: only then is an older one removed, by renaming it first. So whatever fails, and whenever
the process dies, each visible checkpoint is one that was written to its end. What the disk did to it later is found by
its checksums: then it is passed over with a warning, and removed once there is a newer one.

Removing deletes files of these three names only, and folders that are empty then.

A checkpoint that can't be written is an error at once. Training that is taken to be safe and isn't would be worse
than training that stopped: what is there already stays, and the next call goes on from it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from fitstream.checkpoint_files import Broken, Stored, read_checkpoint, remove_checkpoint, sync_folder, write_checkpoint
from fitstream.errors import PlanError, StateError

try:
    import fcntl
except ImportError:  # Windows; two runs on one folder aren't told apart there
    fcntl = None  # type: ignore[assignment]

__all__ = ["Checkpoint", "CheckpointFolder"]

_NAME = re.compile(r"(step|final)-([0-9]{9,18})(?:\.([0-9]{1,9}))?")
_WRITING, _REMOVING, _LOCK = ".writing-", ".removing-", ".lock"


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where and when `fs.fit` writes checkpoints. One is written at the end of each epoch, and within it as said here.

    Args:
        path: A folder for this run alone; it is made if it isn't there.
        every_steps: Also after so many steps; None for no such rule.
        every_s: Also after so many seconds, at the end of a step; None for no such rule.
        keep: How many to keep, the newest ones.
    Raises:
        PlanError: If a number is out of range.
    """

    path: str | os.PathLike[str]
    every_steps: int | None = None
    every_s: float | None = 60.0
    keep: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)) or not os.fspath(self.path):
            raise PlanError(f"checkpoint={self.path!r} must be the path of a folder, or a fitstream.Checkpoint.")
        if self.every_steps is not None and not _is_count(self.every_steps):
            raise PlanError(f"every_steps={self.every_steps!r} must be a whole number from 1 on, or None.")
        if not _is_count(self.keep):
            raise PlanError(f"keep={self.keep!r} must be a whole number from 1 on.")
        if self.every_s is not None and not (isinstance(self.every_s, (int, float)) and 0 <= self.every_s < math.inf):
            raise PlanError(f"every_s={self.every_s!r} must be seconds, 0 or more, or None.")


@final
class CheckpointFolder:
    """The checkpoints of one run, for as long as this is open.

    Args:
        checkpoint: Where, and how many to keep.
    Raises:
        PlanError: If the folder can't be made or used, or another run uses it.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.path = Path(checkpoint.path)
        self._keep = checkpoint.keep
        self._broken: set[Path] = set()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take_lock()
                self._sweep()
            except BaseException:
                os.close(self._lock)
                raise
            _OPEN.add(self)
        except OSError as error:
            raise PlanError(
                f"checkpoints can't be kept in {self.path}: {error.strerror or error}. Give another folder."
            ) from error

    def _take_lock(self) -> None:
        if fcntl is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
                    raise PlanError(
                        f"process {holder or 'of another run'} writes its checkpoints into {self.path} already. Wait "
                        "until it ends, or give each run a folder of its own."
                    ) from error
                if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    raise
                told = f"the file system of {self.path} has no locks: see to it that no two runs use this folder."
                warnings.warn(told, stacklevel=2)
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Leave the folder to others."""
        if fcntl is not None and self._lock >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)  # also where a forked process has it open
        self.drop()

    def drop(self) -> None:
        """Close the descriptor, and nothing else: in a forked process, which would hold the lock for its parent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __enter__(self) -> CheckpointFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Writing.

    def write(
        self, step: int, content: dict[str, Any], arrays: Iterable[tuple[str, np.ndarray]], *, final: bool = False
    ) -> Path:
        """Write a checkpoint, bring it to the disk, and remove those that are too many.

        Args:
            step: Steps that were trained in all.
            content: JSON data.
            arrays: Names and arrays; taken one by one, so that they needn't be in memory together.
            final: Whether it is the outcome of a training that is complete. Only the newest one of these is kept.
        Raises:
            StateError: If it can't be written to the end. Those that were there before still are.
        """
        try:
            path = self._write(step, content, arrays, final)
        except OSError as error:
            raise StateError(
                f"the checkpoint after step {step:,} can't be written into {self.path}: {error.strerror or error}. "
                "Those before it are still there: mend that, and call fit again to go on from the newest."
            ) from error
        try:
            self._prune(path)
        except OSError as error:
            raise StateError(
                f"the checkpoint after step {step:,} is written, but an older one in {self.path} can't be removed: "
                f"{error.strerror or error}. Mend that, and call fit again to go on from it."
            ) from error
        return path

    def _write(self, step: int, content: dict[str, Any], arrays: Iterable[tuple[str, np.ndarray]], final: bool) -> Path:
        self._sweep()
        path = self._free_name(f"{'final' if final else 'step'}-{step:09d}")
        work = self.path / f"{_WRITING}{path.name}"
        try:
            write_checkpoint(work, {"step": step, "final": final, **content}, arrays)
            os.rename(work, path)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_checkpoint(work)
            raise
        sync_folder(self.path)
        return path

    def _free_name(self, name: str) -> Path:
        """A name that nothing has yet; that of a broken checkpoint is not used again before it is removed."""
        path, number = self.path / name, 0
        while os.path.lexists(path):
            number += 1
            path = self.path / f"{name}.{number}"
        return path

    def _prune(self, newest: Path) -> None:
        there = self._list()
        kept = [path for path in there if _is_step(path) and path not in self._broken][-self._keep :]
        if there and there[-1] == newest:
            kept.append(newest)
        for path in there:
            if path not in kept:
                hidden = self.path / f"{_REMOVING}{path.name}"
                os.rename(path, hidden)
                remove_checkpoint(hidden)
        self._broken.clear()

    def _sweep(self) -> None:
        """Remove what was left half done. Whoever holds the lock is the only one who writes here."""
        for name in os.listdir(self.path):
            if name.startswith((_WRITING, _REMOVING)):
                remove_checkpoint(self.path / name)

    def _list(self) -> list[Path]:
        """Checkpoints, the oldest first."""
        found = []
        for name in os.listdir(self.path):
            match = _NAME.fullmatch(name)
            if match is not None:
                found.append(((int(match[2]), match[1] == "final", int(match[3] or 0)), self.path / name))
        return [path for _, path in sorted(found)]

    # Reading.

    def newest(self, *, finals: bool = True) -> Stored | None:
        """Read the newest whole checkpoint; one that is broken is passed over with a warning.

        Args:
            finals: Whether outcomes of complete trainings count too.
        Returns:
            None if there is no checkpoint, whole or broken.
        Raises:
            StateError: If there are checkpoints, but none is whole; or the newest is of a later version of fitstream,
                or may not be read.
        """
        there = [path for path in reversed(self._list()) if finals or _is_step(path)]
        reasons = []
        for path in there:
            try:
                return read_checkpoint(path)
            except Broken as broken:
                self._broken.add(path)
                reasons.append(f"{path.name}: {broken}")
                if path is not there[-1]:
                    warnings.warn(f"{path} is broken: {broken}. The checkpoint before it is used.", stacklevel=2)
            except OSError as error:
                raise StateError(f"{path} can't be read: {error.strerror or error}.") from error
        if reasons:
            raise StateError(
                f"no checkpoint in {self.path} is whole: {'; '.join(reasons)}. Training would start anew: if that is "
                "what you want, remove the folder or give another one."
            )
        return None


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


def _is_step(path: Path) -> bool:
    return path.name.startswith("step-")


#: Folders of this process that are in use, so that forked processes let go of their locks.
_OPEN: weakref.WeakSet[CheckpointFolder] = weakref.WeakSet()


def _drop_in_child() -> None:
    for folder in list(_OPEN):
        folder.drop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)
