"""Labels put to use in choosing samples: positions by class, and a division that keeps the classes' shares.

What depends on labels can't be computed from a seed alone, so positions are kept: four bytes a sample (eight from 2^32
on), in memory that worker processes map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.draws import Chunks, Places, Strata
from fitstream.memory import shared_copy
from fitstream.permutation import Indices, Permutation
from fitstream.states.plain import blake

__all__ = ["chunks_of", "divided", "strata_of"]


def strata_of(labels: npt.NDArray[np.generic]) -> Strata:
    """Positions by class.

    Args:
        labels: `(count,)`, whole numbers.
    """
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = _narrow(np.argsort(codes, kind="stable"))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Strata(shared_copy(members), starts, _digest(members, starts))


def divided(strata: Strata, fraction: float, seed: int) -> tuple[Places, Places]:
    """Divide so that each class has about the same share on both sides.

    Whole samples are rounded by the largest remainder, so that the sides have the sizes that `fraction` says; a class
    of two or more has one at least on each side, one of a single sample is on the larger side.

    Args:
        fraction: Share of the first side.
        seed: Which samples go where.
    Returns:
        Positions of the two sides, each in an order of its own.
    """
    sizes = np.diff(strata.starts)
    ideal = sizes * fraction
    least = np.where(sizes > 1, 1, int(fraction >= 0.5))
    most = np.where(sizes > 1, sizes - 1, least)
    counts = np.clip(np.floor(ideal).astype(np.int64), least, most)
    short = round(int(sizes.sum()) * fraction) - int(counts.sum())
    by_remainder = np.argsort(counts - ideal, kind="stable")
    open_classes = by_remainder[counts[by_remainder] < most[by_remainder]]
    counts[open_classes[: max(0, short)]] += 1
    sides: tuple[list[Indices], list[Indices]] = ([], [])
    for place, (start, size, count) in enumerate(
        zip(strata.starts[:-1].tolist(), sizes.tolist(), counts.tolist(), strict=True)
    ):
        shuffled = strata.members[start + Permutation(size, ("stratum", seed, place))(np.arange(size))]
        sides[0].append(shuffled[:count])
        sides[1].append(shuffled[count:])
    first, rest = (_mixed(np.concatenate(side), seed, number) for number, side in enumerate(sides))
    return first, rest


def _mixed(values: npt.NDArray[Any], seed: int, side: int) -> Places:
    mixed = values[Permutation(len(values), ("stratified", seed, side))(np.arange(len(values)))]
    return Places(shared_copy(_narrow(mixed)), _digest(mixed))


def chunks_of(edges: Indices, indices: Indices | None, window_blocks: int) -> Chunks:
    """Blocks of the samples that were chosen from a source.

    Args:
        edges: Where each block of the source starts, and where the last one ends.
        indices: Of the samples, `(count,)`; None for all, in the order of the source.
        window_blocks: As in `Chunks`.
    """
    places = None
    if indices is not None:
        rising = np.argsort(indices, kind="stable")
        edges = np.unique(np.searchsorted(indices[rising], edges))
        places = shared_copy(_narrow(rising))
    edges = shared_copy(edges)
    return Chunks(edges, window_blocks, places, _digest(edges, *([] if places is None else [places])))


def _narrow(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(np.uint32 if len(values) < 2**32 else np.int64)


def _digest(*arrays: npt.NDArray[Any]) -> str:
    return blake(*(np.ascontiguousarray(array).view(np.uint8).data for array in arrays)).hex()[:8]
