"""Which sample comes at which place: pure functions of (seed, pass, count), nothing stored.

The order of a pass is a keyed permutation of `range(count)` that is evaluated where it is needed, so a billion samples
cost no memory and resuming needs no replay (law 6). The permutation is a balanced Feistel network over the smallest
even number of bits that holds `count`, with cycle walking: a value that falls outside the range is sent through the
network again until it falls inside. Both are textbook constructions (Luby and Rackoff, "How to construct pseudorandom
permutations from pseudorandom functions", 1988; Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
The domain is less than four times `count`, so a value walks fewer than four steps on average.

The round function is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014) over the half word xor a round key.
Round keys come from BLAKE2b of (seed, pass, purpose), so any two passes have unrelated orders, on every machine.

Random transforms draw from Philox, a counter-based generator: its key is (seed, place in the chain), its counter starts
at (pass, occurrence, index), so each sample's stream is its own, whichever lane computes it and however often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_COUNT",
    "Indices",
    "Order",
    "Permutation",
    "Selection",
    "Shard",
    "Shuffle",
    "Split",
    "Take",
    "sample_rng",
]

Indices = npt.NDArray[np.int64]

#: The largest count that a permutation takes: the domain must stay inside 62 bits.
MAX_COUNT = 1 << 60

_ROUNDS = 6
_BLOCK, _KEPT_BLOCKS = 4096, 4


def _derive(words: int, *parts: object) -> tuple[int, ...]:
    """Derive `words` independent 64-bit integers from a tuple of integers and strings."""
    import hashlib  # loads OpenSSL, which is slow, and nothing needs it before an order is computed

    text = "\x1f".join(str(part) for part in parts).encode()
    out: list[int] = []
    block = 0
    while len(out) < words:
        digest = hashlib.blake2b(text, digest_size=64, salt=block.to_bytes(16, "little")).digest()
        out += [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]
        block += 1
    return tuple(out[:words])


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@final
class Permutation:
    """A bijection of `range(count)` chosen by its keys, computed on demand.

    Args:
        count: Size of the range, from 0 to 2**60.
        keys: Integers and strings that name this permutation; equal keys give equal permutations.
    """

    __slots__ = ("_half_bits", "_half_mask", "_keys", "count")

    def __init__(self, count: int, keys: Sequence[int | str]) -> None:
        if not 0 <= count <= MAX_COUNT:
            raise ValueError(f"count must be from 0 to 2**60, not {count}")
        self.count = count
        bits = max(2, (count - 1).bit_length())
        self._half_bits = (bits + 1) // 2
        self._half_mask = np.uint64((1 << self._half_bits) - 1)
        self._keys = tuple(np.uint64(key) for key in _derive(_ROUNDS, "order", *keys))

    def __call__(self, positions: npt.ArrayLike) -> Indices:
        """Map positions to indices, elementwise.

        Args:
            positions: Integers in `range(count)`, any shape.
        Returns:
            int64 array of the same shape.
        Raises:
            IndexError: If a position is outside the range.
        """
        where = np.asarray(positions, dtype=np.int64)
        if where.size == 0:
            return where.copy()
        if int(where.min()) < 0 or int(where.max()) >= self.count:
            raise IndexError(f"positions must be in range({self.count})")
        out = self._network(where.astype(np.uint64).ravel())
        limit = np.uint64(self.count)
        outside = np.flatnonzero(out >= limit)
        while outside.size:
            walked = self._network(out[outside])
            out[outside] = walked
            outside = outside[walked >= limit]
        return out.astype(np.int64).reshape(where.shape)

    def _network(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        shift = np.uint64(self._half_bits)
        left, right = values >> shift, values & self._half_mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._half_mask)
        return (left << shift) | right


@final
@dataclass(frozen=True, slots=True)
class Take:
    """The first `count` samples."""

    count: int


@final
@dataclass(frozen=True, slots=True)
class Split:
    """`count` samples from place `first` on of a permutation keyed by `seed`."""

    first: int
    count: int
    seed: int


@final
@dataclass(frozen=True, slots=True)
class Shard:
    """Rank `index` of `count`: every `count`-th sample from the `index`-th on; after a batch, its `index`-th part."""

    index: int
    count: int


@final
@dataclass(frozen=True, slots=True)
class Shuffle:
    """Another order each pass, keyed by `seed`."""

    seed: int


Selection: TypeAlias = Take | Split | Shard | Shuffle


@final
class Order:
    """Which source index stands at which position of a pass.

    Args:
        count: Samples in the source.
        selections: What chooses and orders them, first to last.
    """

    __slots__ = ("_blocks", "_counts", "_permutations", "count", "selections")

    def __init__(self, count: int, selections: Sequence[Selection] = ()) -> None:
        self.selections = tuple(selections)
        self._counts: list[int] = []
        for selection in self.selections:
            self._counts.append(count)
            match selection:
                case Take(wanted):
                    count = min(count, wanted)
                case Split(_, wanted, _):
                    count = wanted
                case Shard(index, ranks):
                    count = max(0, -(-(count - index) // ranks))
                case Shuffle():
                    pass
        self.count = count
        self._permutations: dict[tuple[int, int], Permutation] = {}
        self._blocks: dict[tuple[int, int], Indices] = {}

    def indices(self, pass_index: int, positions: npt.ArrayLike) -> Indices:
        """Source indices `(positions,)` int64 of positions in `range(count)` of a pass."""
        where = np.asarray(positions, dtype=np.int64)
        for place in range(len(self.selections) - 1, -1, -1):
            match self.selections[place]:
                case Take():
                    pass
                case Split(first, _, seed):
                    where = self._permutation(place, 0, seed, "split")(where + first)
                case Shard(index, ranks):
                    where = where * ranks + index
                case Shuffle(seed):
                    where = self._permutation(place, pass_index, seed, "shuffle")(where)
        return where

    def drawn(self, pass_index: int, *keys: int) -> int:
        """A source index drawn at random from a pass; equal keys draw equal ones."""
        position = _derive(1, "drawn", pass_index, *keys)[0] % self.count
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
        occurrence: How often the index came before in the same pass (sampling with replacement).
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
        key = _KEYS[seed, place] = np.array(_derive(2, "transform", seed, place), dtype=np.uint64)
    return key


# Derived keys only: two calls with the same arguments always agree, so sharing it between threads is harmless.
_KEYS: dict[tuple[int, int], npt.NDArray[np.uint64]] = {}
