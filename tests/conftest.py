"""What all tests share: small pictures, and the rule that a test leaves nothing behind."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

import leaks

# An example may take long on a machine that does other work: how fast things are is for the benchmarks to say. Each run
# has the same examples, so that what fails here fails for everybody, and what passed once isn't refused by a draw.
settings.register_profile("fitstream", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
# New ones each time are for `make soak`, by --hypothesis-profile=soak.
settings.register_profile("soak", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fitstream")

# A shell that runs the tests in the background has them ignore Ctrl-C, and so the programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakePictures = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary and kept files of the tests, and of the programs that they start, go where no other puts its own."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("TMPDIR", folder)
        patch.setenv("FITSTREAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def nothing_left(own_temporary_folder: None) -> Iterator[None]:
    """Fail the test that leaves a thread, process, descriptor, shared memory or temporary file; see `leaks.py`."""
    before = leaks.take()
    yield
    found = leaks.left_for_good(before)
    assert not found, "left by the test: " + "; ".join(found)


@pytest.fixture
def make_pictures() -> MakePictures:
    """A function that writes `root/<class>/<number>.<suffix>`: each class in a colour of its own, with noise.

    A model can learn to tell the classes apart within a few steps, and no two pictures are the same.
    """

    def make(root: Path, count: int = 12, classes: tuple[str, ...] = ("cats", "dogs"), side: int = 24) -> Path:
        rng = np.random.default_rng(0)
        for label, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (side, side + 8, 3))
                pixels[..., label % 3] += 120
                suffix = "png" if number % 3 == 0 else "jpg"
                Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:03}.{suffix}")
        return root

    return make
