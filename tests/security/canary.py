"""What hostile files are held against: a trap that tells if it was run, a secret that must not be read, and limits."""

from __future__ import annotations

import contextlib
import pickle
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fitstream as fs

SECRET = "CANARY-7b1f"
#: What refusing a file may take. The hostile files here ask for gigabytes, and for ever.
MOST_S = 100.0
MOST_BYTES = 150_000_000


class Trap:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


class Hostile:
    """A folder that data come from, and what lies outside of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        self.root.mkdir()
        self.outside = tmp_path / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret.jpg"
        self.secret.write_text(SECRET * 100)
        self.mark = tmp_path / "was run"

    @property
    def trap(self) -> Any:
        return Trap(self.mark)

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(self.trap)

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Check that what is done meanwhile ends soon and takes little memory, whatever becomes of it."""
        before = _peak_bytes(anew=True)
        begun = time.monotonic()
        try:
            yield
        finally:
            assert time.monotonic() - begun < MOST_S
            assert _peak_bytes() - before < MOST_BYTES

    def refused(self, make: Callable[[], Any], *words: str) -> fs.FitstreamError:
        """Check that this ends in a typed error with these words, soon, in little memory, and that nothing escaped.

        Args:
            make: Makes a dataset, all of which is then read; or does all by itself and returns None.
        """
        with pytest.raises(fs.FitstreamError) as caught, self.bounded():
            read(make())
        told = "".join(map(str, _chain(caught.value)))
        assert not self.mark.exists(), "something was run"
        assert SECRET not in told
        assert [word for word in words if not re.search(word, str(caught.value))] == [], str(caught.value)
        return caught.value


def read(dataset: Any) -> list[Any]:
    """All batches, read in this thread."""
    if dataset is None:
        return []
    with dataset.batch(1).loader(memory="48 MB", workers=0) as loader:
        return list(loader)


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those that a traceback shows with it."""
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _peak_bytes(*, anew: bool = False) -> int:
    """The most memory that was resident, counted anew from now on where the system can; 0 where it doesn't tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if anew:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
    return int(found[1]) * 1024 if found else 0
