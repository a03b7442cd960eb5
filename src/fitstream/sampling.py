"""Which sample comes at which place: pure functions of (seed, pass, count), nothing stored.

The order of a pass is a keyed permutation of `range(count)` that is evaluated where it is needed (`permutation`), so a
billion samples cost no memory and resuming needs no replay (law 6). Draws with replacement, balanced draws and the
shuffling of blocks are computed as well (`draws`); what depends on labels keeps the positions by class.

Random transforms draw from Philox, a counter-based generator: its key is (seed, place in the chain), its counter starts
at (pass, occurrence, index), so each sample's stream is its own, whichever lane computes it and however often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.draws import Chunks, Laid, Places, Strata, drawn_by_class, drawn_places
from fitstream.permutation import MAX_COUNT, Indices, Permutation, derive

__all__ = [
    "MAX_COUNT",
    "Chunks",
    "Draw",
    "Indices",
    "Order",
    "Permutation",
    "Places",
    "Selection",
    "Shard",
    "Shuffle",
    "Split",
    "Strata",
    "Take",
    "sample_rng",
]

_BLOCK, _KEPT_BLOCKS = 4096, 4
#: Passes whose order of blocks is kept: with `last="wrap"` a batch is of two.
_KEPT_PASSES = 2


@final
@dataclass(frozen=True, slots=True)
class Take:
    """The first `count` samples."""

    count: int


@final
@dataclass(frozen=True, slots=True)
class Split:
    """`count` samples from place `first` on of a permutation keyed by `seed`; or those at `places`."""

    first: int
    count: int
    seed: int
    places: Places | None = None


@final
@dataclass(frozen=True, slots=True)
class Draw:
    """`count` samples drawn anew each pass, keyed by `seed`; of all classes equally many with `strata`."""

    count: int
    seed: int
    replacement: bool
    strata: Strata | None = None


@final
@dataclass(frozen=True, slots=True)
class Shard:
    """Rank `index` of `count`: every `count`-th sample from the `index`-th on; after a batch, its `index`-th part."""

    index: int
    count: int


@final
@dataclass(frozen=True, slots=True)
class Shuffle:
    """Another order each pass, keyed by `seed`: of all samples, or of blocks and of samples within some of them."""

    seed: int
    chunks: Chunks | None = None


Selection: TypeAlias = Take | Split | Draw | Shard | Shuffle


@final
class Order:
    """Which source index stands at which position of a pass.

    Args:
        count: Samples in the source.
        selections: What chooses and orders them, first to last.
    """

    __slots__ = ("_blocks", "_counts", "_laid", "_permutations", "count", "selections")

    def __init__(self, count: int, selections: Sequence[Selection] = ()) -> None:
        self.selections = tuple(selections)
        self._counts: list[int] = []
        for selection in self.selections:
            self._counts.append(count)
            match selection:
                case Take(wanted):
                    count = min(count, wanted)
                case Split(_, wanted) | Draw(wanted):
                    count = wanted
                case Shard(index, ranks):
                    count = max(0, -(-(count - index) // ranks))
                case Shuffle():
                    pass
        self.count = count
        self._permutations: dict[tuple[int, int], Permutation] = {}
        self._blocks: dict[tuple[int, int], Indices] = {}
        self._laid: dict[tuple[int, int], Laid] = {}

    @property
    def repeats(self) -> bool:
        """Whether a sample may come more than once in a pass."""
        return any(isinstance(one, Draw) and one.replacement for one in self.selections)

    @property
    def index_bytes(self) -> int:
        """Memory of what is stored of the order: positions by class, edges of blocks."""
        held = 0
        for one in self.selections:
            match one:
                case Split(places=Places(values)):
                    held += values.nbytes
                case Draw(strata=Strata(members, starts)):
                    held += members.nbytes + starts.nbytes
                case Shuffle(chunks=Chunks(edges, _, places)):
                    held += (1 + 3 * _KEPT_PASSES) * edges.nbytes + (0 if places is None else places.nbytes)
        return held

    def indices(self, pass_index: int, positions: npt.ArrayLike) -> Indices:
        """Source indices `(positions,)` int64 of positions in `range(count)` of a pass."""
        where = np.asarray(positions, dtype=np.int64)
        for place in range(len(self.selections) - 1, -1, -1):
            match self.selections[place]:
                case Take():
                    pass
                case Split(_, _, _, Places(values)):
                    where = values[where].astype(np.int64)
                case Split(first, _, seed):
                    where = self._permutation(place, 0, seed, "split")(where + first)
                case Draw(_, seed, False, None):
                    where = self._permutation(place, pass_index, seed, "sample")(where)
                case Draw(_, seed, _, None):
                    where = drawn_places(where, self._counts[place], seed, pass_index)
                case Draw(count, seed, replacement, Strata() as strata):
                    where = drawn_by_class(where, count, strata, seed, pass_index, replacement=replacement)
                case Shard(index, ranks):
                    where = where * ranks + index
                case Shuffle(seed, Chunks() as chunks):
                    where = self._chunks(place, pass_index, seed, chunks)(where)
                case Shuffle(seed):
                    where = self._permutation(place, pass_index, seed, "shuffle")(where)
        return where

    def drawn(self, pass_index: int, *keys: int) -> int:
        """A source index drawn at random from a pass; equal keys draw equal ones."""
        position = derive(1, "drawn", pass_index, *keys)[0] % self.count
        return int(self.indices(pass_index, [position])[0])

    def span(self, pass_index: int, start: int, stop: int) -> Indices:
        """Source indices `(stop - start,)` int64 of neighbouring positions.

        Computed a block at a time, and the last few blocks are kept: thousands of positions cost hardly more than a
        few, because NumPy's calls cost more than its arithmetic there.
        """
        blocks = range(start // _BLOCK, -(-stop // _BLOCK))
        parts = [
            self._block(pass_index, block)[max(0, start - block * _BLOCK) : stop - block * _BLOCK] for block in blocks
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])

    def _block(self, pass_index: int, block: int) -> Indices:
        found = self._blocks.get((pass_index, block))
        if found is None:
            positions = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.count), dtype=np.int64)
            found = self.indices(pass_index, positions)
            if len(self._blocks) >= _KEPT_BLOCKS:
                self._blocks.clear()
            self._blocks[pass_index, block] = found
        return found

    def _chunks(self, place: int, pass_index: int, seed: int, chunks: Chunks) -> Laid:
        found = self._laid.get((place, pass_index))
        if found is None:
            if len(self._laid) >= _KEPT_PASSES:
                self._laid.clear()
            found = self._laid[place, pass_index] = Laid(chunks, seed, pass_index)
        return found

    def _permutation(self, place: int, pass_index: int, seed: int, purpose: str) -> Permutation:
        found = self._permutations.get((place, pass_index))
        if found is None:
            if len(self._permutations) >= 64:
                self._permutations.clear()
            found = Permutation(self._counts[place], (purpose, seed, pass_index))
            self._permutations[place, pass_index] = found
        return found


def sample_rng(seed: int, place: int, pass_index: int, index: int, occurrence: int = 0) -> np.random.Generator:
    """Make the random generator of one random transform of one sample.

    Args:
        seed: The dataset's shuffle seed, or 0 without shuffle.
        place: The operation's place in the chain, from 0.
        pass_index: The pass, from 0.
        index: The sample's index in its source.
        occurrence: With replacement, the sample's place in its pass: it may come several times; else 0.
    Returns:
        A generator over Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
    """
    counter = np.array([0, index, pass_index, occurrence], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=_philox_key(seed, place), counter=counter))


def _philox_key(seed: int, place: int) -> npt.NDArray[np.uint64]:
    key = _KEYS.get((seed, place))
    if key is None:
        if len(_KEYS) >= 1024:
            _KEYS.clear()
        key = _KEYS[seed, place] = np.array(derive(2, "transform", seed, place), dtype=np.uint64)
    return key


# Derived keys only: two calls with the same arguments always agree, so sharing it between threads is harmless.
_KEYS: dict[tuple[int, int], npt.NDArray[np.uint64]] = {}
