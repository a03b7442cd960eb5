"""What all tests share: small pictures, and the rule that no lane outlives its test."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# An example may take long on a machine that does other work: how fast things are is for the benchmarks to say.
settings.register_profile("fitstream", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=10_000)
settings.load_profile("fitstream")

MakePictures = Callable[..., Path]


def _lanes() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fitstream")]


@pytest.fixture(autouse=True)
def no_lanes_left() -> Iterator[None]:
    """Fail the test that leaves a lane running."""
    yield
    if _lanes():
        # A loader that only a failed test's frames, or a cycle, still hold ends with its collection.
        gc.collect()
        deadline = time.monotonic() + 5
        while _lanes() and time.monotonic() < deadline:
            for thread in threading.enumerate():
                if thread.name.startswith("fitstream"):
                    thread.join(timeout=0.1)
    assert not _lanes(), "lanes outlived the test"


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
