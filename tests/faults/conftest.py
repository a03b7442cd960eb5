"""Tests of faults share the helpers of tests/engine, the long forms in tests/soak, and one herd of child programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "soak"))

from herding import Herd


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Herd]:
    """Runs cells of the matrix, each in a process of its own."""
    with Herd(tmp_path_factory.mktemp("herd")) as herd:
        yield herd
