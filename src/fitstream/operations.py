"""What is done to a source's samples, as data: frozen descriptions that the plan and the engine interpret.

`Take`, `Split`, `Shard` and `Shuffle` (from `sampling`) choose and order samples; `Decode` and `Map` change them;
`Batch` joins them. A `Shard` after `Batch` divides each global batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

from fitstream.buckets import Lengths
from fitstream.errors import PlanError
from fitstream.sampling import Selection, Shard, Shuffle, Split, Take
from fitstream.transforms.images import ImageOptions

__all__ = ["Batch", "Decode", "Last", "Map", "Operation", "told"]

Last: TypeAlias = Literal["keep", "drop", "pad", "wrap"]


@final
@dataclass(frozen=True, slots=True)
class Decode:
    """Decode the encoded image that is the sample, or its first part."""

    options: ImageOptions

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
        try:
            takes_rng = "rng" in inspect.signature(fn).parameters
        except (TypeError, ValueError):
            takes_rng = False
        return Map(fn, takes_rng)

    @property
    def name(self) -> str:
        return f"map({getattr(self.fn, '__qualname__', None) or type(self.fn).__name__})"


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
            raise PlanError('batch(bucket_by=) sorts within a pass, and can\'t join two. Use last="keep" or "drop".')
        parts = pad if isinstance(pad, bool) else (pad,) if isinstance(pad, str) else tuple(pad)
        return Batch(size, last, mask, parts, max_length, None if bucket_by is None else Lengths(bucket_by))


Operation: TypeAlias = Selection | Decode | Map | Batch


def told(operation: Operation) -> str:
    """One operation, for people."""
    match operation:
        case Take(count):
            return f"take({count})"
        case Split(first, count, seed):
            return f"split({count} from {first} on, seed {seed})"
        case Shard(index, count):
            return f"shard({index}, {count})"
        case Shuffle(seed):
            return f"shuffle({seed})"
        case Decode(options):
            size = "own size" if options.size is None else f"{options.size[0]}x{options.size[1]}"
            return f"decode({size}, {options.dtype})"
        case Map():
            return operation.name
        case Batch(size, last):
            extra: list[str] = [] if last == "keep" else [last]
            extra += ["pad"] if operation.pad else []
            extra += [f"bucket_by={operation.bucket_by!r}"] if operation.bucket_by is not None else []
            return f"batch({', '.join([str(size), *extra])})"
