"""The whole crash matrix, once each, and every way that a bad sample is skipped in workers.

`python -m pytest tests/soak/every_fault.py`; about five minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from cells import SPLITS
from herding import Herd
from test_matrix import ALL, SKIPPED, Cell, check, check_skipped, run


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Herd]:
    with Herd(tmp_path_factory.mktemp("herd")) as herd:
        yield herd


@pytest.mark.parametrize("cell", ALL, ids="-".join)
def test_a_fault_ends_as_the_table_says_and_leaves_nothing(cell: Cell, herd: Herd) -> None:
    check(cell, run(herd, cell))


@pytest.mark.parametrize("split", list(SPLITS)[1:])
@pytest.mark.parametrize(("at", "fault"), SKIPPED)
def test_bad_samples_in_workers_are_skipped(at: tuple[int, ...], fault: str, split: str, herd: Herd) -> None:
    check_skipped(herd, at, fault, split, 60)
