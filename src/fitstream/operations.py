"""What is done to a source's samples, as data: frozen descriptions that the plan and the engine interpret.

`Take`, `Split`, `Draw`, `Shard` and `Shuffle` (from `sampling`) choose and order samples; `Decode` and `Map`
change them; `Batch` joins them. A `Shard` after `Batch` divides each global batch.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, final, runtime_checkable

import numpy as np

from fitstream.buckets import Lengths
from fitstream.errors import PlanError
from fitstream.sampling import Chunks, Draw, Places, Selection, Shard, Shuffle, Split, Strata, Take
from fitstream.transforms.images import DrawnRegion, ImageOptions

__all__ = [
    "Batch",
    "Decode",
    "Last",
    "Map",
    "MapBatch",
    "Operation",
    "ToldBefore",
    "finishes_of",
    "stages_of",
    "told",
    "whole_number",
    "with_map_batch",
]

Last: TypeAlias = Literal["keep", "drop", "pad", "wrap"]


@final
@dataclass(frozen=True, slots=True)
class Decode:
    """Decode the encoded image that is the sample, or its first part; `crop` draws the rectangle that is used."""

    options: ImageOptions
    crop: DrawnRegion | None = None

    name = "decode"


@final
@dataclass(frozen=True, slots=True)
class Map:
    """Call a function of the user's for each sample: `fn(*parts)` for a tuple, `fn(sample)` otherwise."""

    fn: Callable[..., Any]
    takes_rng: bool

    @staticmethod
    def of(fn: Callable[..., Any]) -> Map:
        """Describe a function; one whose signature names `rng` gets a seeded generator of its own for each sample."""
        return Map(fn, _takes_rng(fn))

    @property
    def name(self) -> str:
        return f"map({_name(self.fn)})"


@runtime_checkable
class ToldBefore(Protocol):
    """A function over batches that knows what it can't work on before there is a batch."""

    @abstractmethod
    def unfit(self, *parts: Any) -> str | None:
        """Why it can't work on batches of samples of these parts, trees of `ArraySpec`; None if it can."""


@final
@dataclass(frozen=True, slots=True)
class MapBatch:
    """Call a function of the user's for each finished batch, before it is delivered."""

    fn: Callable[..., Any]
    takes_rng: bool

    @staticmethod
    def of(fn: Callable[..., Any]) -> MapBatch:
        """As `Map.of`."""
        return MapBatch(fn, _takes_rng(fn))

    @property
    def name(self) -> str:
        return f"map_batch({_name(self.fn)})"


def _takes_rng(fn: Callable[..., Any]) -> bool:
    try:
        return "rng" in inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return False


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__name__


@final
@dataclass(frozen=True, slots=True)
class Batch:
    """Join `size` samples; `last` says what becomes of a smaller rest; `mask` adds a part that tells padding apart.

    Attributes:
        pad: Whether samples differ in length and are padded: all their arrays, or those of the parts that are named.
        max_length: How long they may be, where they are padded; None for what `bucket_by` says.
        bucket_by: How long each is, where samples of like length are joined.
    """

    size: int
    last: Last
    mask: bool
    pad: bool | tuple[int | str, ...] = False
    max_length: int | None = None
    bucket_by: Lengths | None = None

    @staticmethod
    def padding(
        size: int,
        last: Last,
        mask: bool,
        pad: bool | Sequence[int | str],
        max_length: int | None,
        bucket_by: Callable[..., int] | Sequence[int] | None,
    ) -> Batch:
        """Describe a batch, perhaps of samples that differ in length.

        Raises:
            PlanError: If settings don't go together.
        """
        if pad is False and (max_length is not None or bucket_by is not None):
            raise PlanError("batch(max_length=, bucket_by=) are for samples that are padded. Give pad=True.")
        if pad is not False and max_length is None and bucket_by is None:
            raise PlanError("batch(pad=...) needs max_length=, the longest that a sample may be, or bucket_by=.")
        if bucket_by is not None and last == "wrap":
            raise PlanError(
                'batch(bucket_by=) sorts within a pass, and can\'t join two. Use last="keep", "drop" or "pad".'
            )
        if not isinstance(pad, (bool, str, list, tuple)):
            raise PlanError(f'batch(pad={pad!r}) must be True, or the parts by key or place: ["tokens"] or [0].')
        parts = pad if isinstance(pad, bool) else (pad,) if isinstance(pad, str) else tuple(pad)
        return Batch(size, last, mask, parts, max_length, None if bucket_by is None else Lengths(bucket_by))


Operation: TypeAlias = Selection | Decode | Map | MapBatch | Batch


def stages_of(operations: Sequence[Operation]) -> tuple[tuple[int, Decode | Map], ...]:
    """What changes samples, each with its place in the chain.

    A crop that is drawn directly after decoding at a picture's own size is done by the decoder, which then decodes no
    more than it needs. The crop's place stays, so that it draws what it would draw alone.
    """
    stages = list(enumerate(one for one in operations if isinstance(one, (Decode, Map))))
    if len(stages) > 1:
        (_, first), (place, second), *rest = stages
        if isinstance(first, Decode) and isinstance(second, Map) and first.options.size is None:
            crop: Any = second.fn
            if isinstance(crop, DrawnRegion):
                options = replace(first.options, size=crop.out_size, interpolation=crop.interpolation)
                return ((place, Decode(options, crop)), *rest)
    return tuple(stages)


def with_map_batch(operations: Sequence[Operation], fn: Any, *, batched: bool) -> tuple[Operation, ...]:
    """Add a function over batches.

    Raises:
        PlanError: If it isn't callable, or there are no batches yet.
    """
    if not callable(fn):
        raise PlanError(f"map_batch() needs a function, not a {type(fn).__name__}.")
    if not batched:
        raise PlanError("map_batch() works on batches and must come after batch(): write .batch(64).map_batch(fn).")
    # A shard of batches stays last, where the order of batches looks for it.
    sharded = any(isinstance(one, Batch) for one in operations) and isinstance(operations[-1], Shard)
    at = len(operations) - sharded
    return (*operations[:at], MapBatch.of(fn), *operations[at:])


def finishes_of(operations: Sequence[Operation]) -> tuple[tuple[int, MapBatch], ...]:
    """What changes finished batches, each with its place in the chain, where places of samples' stages come first."""
    changes = [one for one in operations if isinstance(one, (Decode, Map, MapBatch))]
    return tuple((place, one) for place, one in enumerate(changes) if isinstance(one, MapBatch))


def told(operation: Operation) -> str:
    """One operation, for people."""
    match operation:
        case Take(count):
            return f"take({count})"
        case Split(first, count, seed, Places(_, digest)):
            return f"split({count} from {first} on, seed {seed}, stratified {digest})"
        case Split(first, count, seed):
            return f"split({count} from {first} on, seed {seed})"
        case Shard(index, count):
            return f"shard({index}, {count})"
        case Draw(count, seed, replacement, strata):
            how = "with" if replacement else "without"
            of = f", balanced {strata.digest}" if isinstance(strata, Strata) else ""
            return f"sample({count}, {how} replacement, seed {seed}{of})"
        case Shuffle(seed, Chunks(edges, blocks, _, digest)):
            return f"shuffle({seed}, {blocks} of {len(edges) - 1} chunks, {digest})"
        case Shuffle(seed):
            return f"shuffle({seed})"
        case Decode(options, crop):
            size = "own size" if options.size is None else f"{options.size[0]}x{options.size[1]}"
            return f"decode({size}, {options.dtype}{', cropped at random' if crop else ''})"
        case Map() | MapBatch():
            return operation.name
        case Batch(size, last):
            extra: list[str] = [] if last == "keep" else [last]
            extra += ["pad"] if operation.pad else []
            extra += [f"bucket_by={operation.bucket_by!r}"] if operation.bucket_by is not None else []
            return f"batch({', '.join([str(size), *extra])})"


def whole_number(value: Any, name: str, least: int, otherwise: str = "") -> int:
    """A whole number from `least` on.

    Args:
        value: What the user gave.
        name: The argument's name.
        least: The least number that is allowed.
        otherwise: What else is allowed, for the error.
    Raises:
        PlanError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise PlanError(f"{name}={value!r} must be a whole number from {least} on{otherwise}.")
    return int(value)
