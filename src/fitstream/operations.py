"""What is done to a source's samples, as data: frozen descriptions that the plan and the engine interpret.

`Take`, `Split`, `Shard` and `Shuffle` choose and order samples; `Decode` and `Map` change them; `Batch` joins them.
A `Shard` after `Batch` divides each global batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fitstream.transforms.images import ImageOptions

__all__ = ["Batch", "Decode", "Last", "Map", "Operation", "Shard", "Shuffle", "Split", "Take"]

Last: TypeAlias = Literal["keep", "drop", "pad", "wrap"]


@dataclass(frozen=True, slots=True)
class Take:
    """The first `count` samples."""

    count: int


@dataclass(frozen=True, slots=True)
class Split:
    """`count` samples from place `first` on of a permutation keyed by `seed`."""

    first: int
    count: int
    seed: int


@dataclass(frozen=True, slots=True)
class Shard:
    """Rank `index` of `count`."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Another order each pass, keyed by `seed`."""

    seed: int


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode the encoded image in the sample's first part (or the sample itself)."""

    options: ImageOptions


@dataclass(frozen=True, slots=True)
class Map:
    """Call a function of the user's for each sample: `fn(*parts)` for a tuple, `fn(sample)` otherwise."""

    fn: Callable[..., Any]
    takes_rng: bool

    @staticmethod
    def of(fn: Callable[..., Any]) -> Map:
        try:
            takes_rng = "rng" in inspect.signature(fn).parameters
        except (TypeError, ValueError):
            takes_rng = False
        return Map(fn, takes_rng)

    @property
    def name(self) -> str:
        return f"map({getattr(self.fn, '__qualname__', None) or type(self.fn).__name__})"


@dataclass(frozen=True, slots=True)
class Batch:
    """Join `size` samples; `last` says what becomes of a smaller rest; `mask` adds a part that tells padding apart."""

    size: int
    last: Last
    mask: bool


Operation: TypeAlias = Take | Split | Shard | Shuffle | Decode | Map | Batch
