"""What the first sample tells: its tree, shapes and dtypes, and the scratch memory that making it took.

Run once for a plan, in the calling thread, with nothing started. The sample of a generator is kept and delivered later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.batching import BatchOrder
from fitstream.buckets import Lengths
from fitstream.chain import Chain, Recipe
from fitstream.errors import FitstreamError, PlanError, SampleError
from fitstream.memory import shared_copy
from fitstream.operations import Batch, Operation, stages_of
from fitstream.packing import TooBig, Unpackable, pack_samples
from fitstream.sampling import Draw, Order, Shard, Shuffle, Split, Take
from fitstream.scratch import Allowance, Arena
from fitstream.sources.base import Sequential, Source
from fitstream.spec import ArraySpec, Structure, array_spec, copied, format_bytes, whole_rows

__all__ = ["Probe", "batch_order", "check_least", "probe", "recipe_of", "sample_order"]

#: Scratch for a sample whose length is asked for, and how many are asked for at a time.
_LENGTH_BYTES, _LENGTH_ROWS = 2**30, 4096


def recipe_of(source: Source | Sequential, operations: Sequence[Operation]) -> Recipe:
    """What a lane does to make samples of a dataset."""
    seed = next((operation.seed for operation in operations if isinstance(operation, Shuffle)), 0)
    return Recipe(source if isinstance(source, Source) else None, stages_of(operations), seed)


def sample_order(source: Source, operations: Sequence[Operation]) -> Order:
    """The order of a dataset's samples, before batching."""
    chosen = []
    for operation in operations:
        if isinstance(operation, Batch):
            break
        if isinstance(operation, (Take, Split, Draw, Shard, Shuffle)):
            chosen.append(operation)
    return Order(len(source), chosen)


def batch_order(
    source: Source, operations: Sequence[Operation], batch: Batch, shard: Shard | None = None
) -> BatchOrder:
    """The order of a dataset's batches. Where a function tells how long samples are, each is made once, the first time.

    Raises:
        PlanError: If no batch comes out.
        SampleError: If a sample can't be made.
    """
    order, lengths = sample_order(source, operations), None
    if batch.bucket_by is not None:
        # Each pass draws other samples.
        drawn_from = sample_order(source, list(takewhile(lambda one: not isinstance(one, Draw), operations)))
        lengths = batch.bucket_by.of(len(source), lambda: _lengths(source, operations, drawn_from, batch.bucket_by))
    return BatchOrder(order, batch.size, batch.last, shard, lengths)


def _lengths(
    source: Source, operations: Sequence[Operation], order: Order, bucket_by: Lengths | None
) -> npt.NDArray[np.int64]:
    """What the function says of each sample that any pass may have.

    0 for those that are never used, and for those that can't be made: they fail at their turn, as it was chosen there.
    """
    assert bucket_by is not None
    assert bucket_by.fn is not None
    fn, lengths = bucket_by.fn, np.zeros(len(source), np.int64)
    chain = Chain(recipe_of(source, operations), Arena(Allowance(0, _LENGTH_BYTES, _LENGTH_BYTES)))
    try:
        for first in range(0, order.count, _LENGTH_ROWS):
            for index in order.span(0, first, min(first + _LENGTH_ROWS, order.count)).tolist():
                with chain.arena:
                    try:
                        sample = chain.sample(index, 0)
                    except SampleError:
                        continue
                    lengths[index] = _length(chain, fn, sample, index)
    finally:
        chain.close()
    return shared_copy(lengths)


def _length(chain: Chain, fn: Callable[..., Any], sample: Any, index: int) -> int:
    try:
        length = fn(*sample) if isinstance(sample, tuple) else fn(sample)
        if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 0:
            raise TypeError(f"bucket_by= returned {length!r}, not a whole number from 0 on")
    except Exception as error:
        raise chain.failure(error, index, "bucket_by") from error
    return int(length)


@final
@dataclass(frozen=True, slots=True)
class Probe:
    """What one sample tells.

    Attributes:
        structure: Tree of a sample (or of a finished batch).
        specs: Spec of each leaf, without the batch axis.
        scratch_bytes: Scratch that making it took.
        hand_bytes: The sample that the first function of the user's was given.
        raw_bytes: What a generator gave, before any stage.
        result_bytes: What a function of the user's made.
        unsendable: Why what a generator gave can't be placed in shared memory, or None if it can.
        rows: Rows of a finished batch, else 1.
    """

    structure: Structure
    specs: tuple[ArraySpec, ...]
    scratch_bytes: int
    hand_bytes: int
    raw_bytes: int
    result_bytes: int
    unsendable: str | None
    rows: int


def probe(
    source: Source | Sequential, operations: Sequence[Operation], *, whole: bool, limit_bytes: int, tries: int = 1
) -> Probe:
    """Make the first sample of the first pass and describe it.

    Args:
        source: Where samples come from.
        operations: What is done to them.
        whole: Whether samples are finished batches.
        limit_bytes: Scratch for it.
        tries: How many of the first samples are tried until one can be made.
    Raises:
        SampleError: If none of these can be made.
        PlanError: If it isn't made of numbers, or there is none, or it needs more than `limit_bytes`.
    """
    check_least(source, limit_bytes)
    recipe = recipe_of(source, operations)
    allowance = Allowance(0, limit_bytes, limit_bytes)
    handed: list[int] = []
    chain = Chain(recipe, Arena(allowance), watch=lambda sample: handed.append(_tree_bytes(sample)))
    candidates, raw = [0], None
    if isinstance(source, Source):
        candidates = _candidates(source, operations, tries, whole=whole)
    else:
        try:
            raw = copied(source.first())
        except FitstreamError:
            raise
        except Exception as error:
            raise chain.failure(error, 0, "read") from error
    try:
        index, sample = _first_made(chain, candidates, raw)
        structure = Structure(sample)
        if any(isinstance(one, Batch) and one.pad is not False for one in operations):
            _check_known(chain, structure.flatten(sample), structure.names, index)
        leaves = [_as_numbers(chain, leaf, name, index) for leaf, name in
                  zip(structure.flatten(sample), structure.names, strict=True)]  # fmt: skip
        if not leaves:
            raise chain.failure(TypeError("the sample is empty: a tuple or dict without parts"), index, "batch")
        rows = 1
        specs = tuple(array_spec(leaf) for leaf in leaves)
        if whole:
            try:
                rows = whole_rows(leaves, structure.names)
            except ValueError as error:
                raise PlanError(f"the first batch can't be used: {error}.") from None
            specs = tuple(ArraySpec(spec.shape[1:], spec.dtype) for spec in specs)
    finally:
        chain.arena.reset()
        chain.close()
    hand_bytes = handed[0] if handed else 0
    raw_bytes = 0 if raw is None else _tree_bytes(raw)
    result_bytes = sum(leaf.nbytes for leaf in leaves) if recipe.calls_functions else 0
    return Probe(
        structure, specs, allowance.large_peak_bytes, hand_bytes, raw_bytes, result_bytes, _unsendable(raw), rows
    )


def _candidates(source: Source, operations: Sequence[Operation], tries: int, *, whole: bool) -> list[int]:
    """Indices of the first samples of the first pass."""
    order = sample_order(source, operations)
    if order.count == 0:
        raise PlanError(f"the dataset has no samples left of {source!r} after take, split and shard.")
    if whole:
        # The first as they are, since a shuffle may put a last, smaller one first.
        order = sample_order(source, [one for one in operations if not isinstance(one, Shuffle)])
    indices: list[int] = order.indices(0, np.arange(min(tries, order.count))).tolist()
    return indices


def _check_known(chain: Chain, leaves: Sequence[Any], names: Sequence[str], index: int) -> None:
    """Refuse an empty list, whose dtype would be that of all samples, and depend on the order."""
    for leaf, name in zip(leaves, names, strict=True):
        if isinstance(leaf, list) and not leaf:
            told = f"its array{name} is an empty list, which has no dtype. Return an array: np.asarray(x, dtype=...)"
            raise PlanError(str(chain.failure(TypeError(told), index, "batch")))


def _first_made(chain: Chain, candidates: Sequence[int], raw: Any) -> tuple[int, Any]:
    """The first sample that can be made; else the first one's error."""
    first: SampleError | None = None
    for index in candidates:
        try:
            return index, chain.sample(index, 0, raw)
        except SampleError as error:
            first = first or error
            chain.arena.reset()
    assert first is not None
    raise first


def check_least(source: Source | Sequential, limit_bytes: int) -> None:
    """Refuse to read samples that are known to need more than they may.

    Raises:
        PlanError: Says how much.
    """
    if isinstance(source, Source) and source.least_bytes > limit_bytes:
        blocks = f" ({format_bytes(source.block_bytes)} to unpack what it is stored in)" if source.block_bytes else ""
        raise PlanError(
            f"one sample of {source!r} takes {format_bytes(source.least_bytes)}{blocks}, and "
            f"{format_bytes(limit_bytes)} are allowed for it. Cut the samples, or store them in smaller blocks; or use "
            f'memory >= "{-(-4 * source.least_bytes // 10**6)} MB" if you trust the file.',
            needed_bytes=4 * source.least_bytes,
        )


def _unsendable(raw: Any) -> str | None:
    """Why a generator's sample can't be placed in shared memory, or None if it can."""
    if raw is None:
        return None
    try:
        pack_samples([raw], np.empty(2 * _tree_bytes(raw) + (1 << 16), np.uint8))
    except Unpackable as error:
        return f"{error}"
    except TooBig:
        return "the generator's samples hold more than arrays, numbers and text"
    return None


def _tree_bytes(sample: Any) -> int:
    """Bytes of a sample; what has no size in numbers counts as nothing."""
    return sum(getattr(leaf, "nbytes", 8) for leaf in Structure(sample).flatten(sample))


def _as_numbers(chain: Chain, leaf: Any, name: str, index: int) -> np.ndarray[Any, Any]:
    try:
        array_spec(leaf)
    except TypeError as error:
        where = f"its array{name} " if name else "it "
        raise PlanError(str(chain.failure(TypeError(where + str(error)), index, "batch"))) from None
    return np.asarray(leaf)
