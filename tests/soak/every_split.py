"""Every kind of dataset on every split of lanes over processes, and across many changes of lanes while running.

`python -m pytest tests/soak/every_split.py`; about four minutes on two cores.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kinds import KINDS, SPLITS, write_files
from loops import Mover, epochs, told

THREADS = [(lanes, 0) for lanes in range(5)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[str, list[list[bytes]]]:
    return {kind: epochs(make(root), 0, 0, count=4) for kind, make in KINDS.items()}


@pytest.mark.parametrize("split", THREADS + SPLITS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "batches of a generator"])
def test_epochs_are_byte_identical_for_every_split(
    kind: str, split: tuple[int, int], root: Path, expected: dict[str, list[list[bytes]]]
) -> None:
    assert epochs(KINDS[kind](root), *split) == expected[kind][:2]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["a map with rng", "pictures, noised", "a generator, noised", "wrap", "a list"])
def test_epochs_are_byte_identical_while_lanes_change_and_move(
    kind: str, seed: int, root: Path, expected: dict[str, list[list[bytes]]]
) -> None:
    rng = random.Random(seed)
    with KINDS[kind](root).loader(memory="900 MB", workers=3) as loader:
        mover = Mover(loader, 2)
        for _ in range(3):
            loader.set_epoch(0)
            for epoch in range(4):
                seen = []
                for batch in loader:
                    if rng.random() < 0.2:
                        mover.turn(rng)
                    seen.append(told(batch))
                assert seen == expected[kind][epoch]
