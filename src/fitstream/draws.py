"""Samples drawn anew each pass, and blocks shuffled: pure functions of (seed, pass, position).

A draw with replacement is a hash of its position, so that any one is computed alone. A balanced draw first permutes the
positions; their places there, modulo the classes, say which class, so that classes come equally often, to one.

Shuffling by chunk lays the blocks of a source end to end in a keyed order, and permutes the samples of each window of
some blocks among themselves. So a batch needs the blocks of one window, or of two neighbours, and no others. What is
lost: samples of one block stay within one window. The order of the blocks of a pass is the one thing that is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.permutation import Indices, Permutation, derive, mix

__all__ = ["Chunks", "Laid", "Places", "Strata", "drawn_by_class", "drawn_places"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Positions that were chosen by what samples hold, `(count,)`, and their digest, which tells them from others."""

    values: npt.NDArray[Any]
    digest: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Strata:
    """Positions by class.

    Attributes:
        members: All positions, those of the first class first, `(count,)`.
        starts: Where in `members` each class starts, and where the last one ends, `(classes + 1,)`.
        digest: Tells them from others.
    """

    members: npt.NDArray[Any]
    starts: Indices
    digest: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """The blocks that a source is read in.

    Attributes:
        edges: Where each block starts, and where the last one ends, `(blocks + 1,)`, rising from 0.
        window_blocks: How many of them are mixed with each other.
        places: The positions in the order of the source, where what comes before has another; else None.
        digest: Tells them from others.
    """

    edges: Indices
    window_blocks: int
    places: npt.NDArray[Any] | None
    digest: str


def _hashed(positions: Indices, *keys: object) -> npt.NDArray[np.uint64]:
    """A random number of 64 bits for each position."""
    first, second = (np.uint64(key) for key in derive(2, *keys))
    return mix(mix(positions.astype(np.uint64) ^ first) + second)


def drawn_places(positions: Indices, count: int, seed: int, pass_index: int) -> Indices:
    """Draw with replacement: a place in `range(count)` for each position of a pass.

    The remainder of 64 random bits prefers no place by more than `count / 2**64`.
    """
    return (_hashed(positions, "sample", seed, pass_index) % np.uint64(count)).astype(np.int64)


def drawn_by_class(
    positions: Indices, count: int, strata: Strata, seed: int, pass_index: int, *, replacement: bool
) -> Indices:
    """Draw classes equally often, and samples at random within them.

    Args:
        positions: In `range(count)`, `(n,)`.
        count: Draws of a pass; without replacement at most classes times samples of the smallest class.
        strata: Places by class.
    Returns:
        Places, `(n,)`.
    """
    keys = seed, pass_index
    turns, groups = np.divmod(Permutation(count, ("balance", *keys))(positions), len(strata.starts) - 1)
    groups = Permutation(len(strata.starts) - 1, ("classes", *keys))(groups)
    starts = strata.starts[groups]
    sizes = strata.starts[groups + 1] - starts
    if replacement:
        within = (_hashed(positions, "in class", *keys) % sizes.astype(np.uint64)).astype(np.int64)
    else:
        within = np.empty_like(turns)
        for group in np.unique(groups).tolist():
            rows = groups == group
            size = int(strata.starts[group + 1] - strata.starts[group])
            within[rows] = Permutation(size, ("in class", *keys, group))(turns[rows])
    found: Indices = strata.members[starts + within].astype(np.int64)
    return found


@final
class Laid:
    """The blocks of a source in the order of one pass, and the samples of each window permuted.

    Args:
        chunks: The blocks.
        seed: Of the shuffle.
        pass_index: The pass.
    """

    def __init__(self, chunks: Chunks, seed: int, pass_index: int) -> None:
        edges = chunks.edges
        blocks = Permutation(len(edges) - 1, ("blocks", seed, pass_index))(np.arange(len(edges) - 1))
        sizes = edges[blocks + 1] - edges[blocks]
        self._ends = np.cumsum(sizes)
        #: What to add to a position within the blocks that are laid end to end, to have a place in the source.
        self._shifts = edges[blocks] - (self._ends - sizes)
        self._window_blocks = chunks.window_blocks
        self._places = chunks.places
        self._keys = seed, pass_index

    def __call__(self, positions: Indices) -> Indices:
        """Places in the source, of the shape of the positions."""
        windows = np.searchsorted(self._ends, positions, "right") // self._window_blocks
        mixed = np.empty_like(positions)
        for window in np.unique(windows).tolist():
            first = window * self._window_blocks
            low = int(self._ends[first - 1]) if first else 0
            high = int(self._ends[min(first + self._window_blocks, len(self._ends)) - 1])
            rows = windows == window
            mixed[rows] = Permutation(high - low, ("window", *self._keys, window))(positions[rows] - low) + low
        found: Indices = mixed + self._shifts[np.searchsorted(self._ends, mixed, "right")]
        return found if self._places is None else np.asarray(self._places[found], np.int64)
