"""A keyed permutation of `range(count)`, evaluated where it is needed.

It is a balanced Feistel network over the smallest even number of bits that holds `count`, with cycle walking: a value
that falls outside the range is sent through the network again until it falls inside. Both are textbook constructions
(Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988; Black and Rogaway,
"Ciphers with arbitrary finite domains", 2002). The domain is less than four times `count`, so a value walks fewer than
four steps on average.

The round function is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014) over the half word xor a round key.
Round keys come from BLAKE2b of (seed, pass, purpose), so any two passes have unrelated orders, on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_COUNT", "Indices", "Permutation", "derive", "mix"]

Indices = npt.NDArray[np.int64]

#: The largest count that a permutation takes: the domain must stay inside 62 bits.
MAX_COUNT = 1 << 60

_ROUNDS = 6


def derive(words: int, *parts: object) -> tuple[int, ...]:
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


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64."""
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
        self._keys = tuple(np.uint64(key) for key in derive(_ROUNDS, "order", *keys))

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
            left, right = right, left ^ (mix(right ^ key) & self._half_mask)
        return (left << shift) | right
