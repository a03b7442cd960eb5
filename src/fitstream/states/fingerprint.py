"""The fingerprint of what a loader delivers: named parts with a digest each, so that a difference has a name.

Parts are the source's own (`Source.fingerprint_parts`), the operations that choose and order samples, those that change
them, and the spec of a sample. What runs them has no part in it: lanes, processes, memory, and a shard after `batch`.

Functions, and objects of the user's, have two digests: of what they do, and of what they hold. They are taken when the
loader is made, before anything runs, and again with each state: what changed in between changes by running (a counter,
a cache, a random generator), so that it says nothing about the dataset. It is left out and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from fitstream.operations import Decode, told
from fitstream.plan import Plan
from fitstream.sampling import Shuffle
from fitstream.sources.base import Sequential
from fitstream.states.digests import Digester, Told
from fitstream.states.plain import digest
from fitstream.states.sampled import Arrays

__all__ = ["Fingerprint", "Identity", "Part"]


@final
@dataclass(frozen=True, slots=True)
class Part:
    """One part of a fingerprint.

    Attributes:
        name: For people.
        code: Its digest; of a function, of what it does.
        values: Of a function, the digest of what it holds; "" where that changes while it runs. Else None.
        held: Of each value that it holds, by name, four digits of its digest.
    """

    name: str
    code: str
    values: str | None = None
    held: tuple[tuple[str, str], ...] = ()

    def told(self, name: str) -> list[str]:
        """As JSON data, under a name that fits."""
        return [name, self.code] if self.values is None else [name, self.code, self.values]

    @property
    def details(self) -> str:
        """The digits of all that it holds, to be put behind `values` where there is room."""
        return "".join(digits for _, digits in self.held)

    def changed(self, details: str) -> list[str]:
        """Names of what it holds whose digits aren't those of other details; [] if these aren't of the same names."""
        if len(details) != len(self.details):
            return []
        places = range(0, len(details), 4)
        return [name for (name, digits), at in zip(self.held, places, strict=True) if details[at : at + 4] != digits]


@final
@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a loader delivers.

    Attributes:
        parts: In their order.
        unknown: What can't be fingerprinted, by name.
        seed: Of the order and of random transforms.
        batch_size: Samples of a global batch; None where batches come finished.
        last: What becomes of a pass's rest.
        sample_count: Samples of a pass (or batches that come finished), or None where unknown.
    """

    parts: tuple[Part, ...]
    unknown: tuple[str, ...]
    seed: int
    batch_size: int | None
    last: str
    sample_count: int | None


@final
class Identity:
    """Takes fingerprints of a plan.

    Args:
        plan: What runs. Functions and objects of the user's are read now and with each fingerprint, the rest with the
            first one.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._arrays = Arrays()
        self._unknown: list[str] = []
        self._varying: dict[str, None] = {}
        self._data: list[Part] | None = None
        self._first = [self._told(name, thing) for name, thing in self._programs()]

    def _programs(self) -> Iterator[tuple[str, Any]]:
        """What is the user's code: the source, if it is, and functions."""
        if self._is_program:
            yield from self._plan.source.fingerprint_parts().items()
        for _, stage in self._plan.recipe.stages:
            if not isinstance(stage, Decode):
                yield stage.name, stage.fn
        for _, finish in self._plan.finishes:
            yield finish.name, finish.fn

    @property
    def _is_program(self) -> bool:
        source = self._plan.source
        return isinstance(source, Sequential) or source.borrows

    def _told(self, name: str, thing: Any) -> Told:
        digester = Digester(self._arrays)
        found = digester.told(thing)
        self._unknown += [f"{name}: {one}" for one in digester.unknown if f"{name}: {one}" not in self._unknown]
        return found

    def now(self) -> Fingerprint:
        """The fingerprint, without what has changed by running."""
        plan, order = self._plan, self._plan.order
        programs = iter([self._part(*each) for each in zip(self._programs(), self._first, strict=True)])
        if self._data is None:
            self._data = [] if self._is_program else list(self._source_parts())
        source = [next(programs) for _ in plan.source.fingerprint_parts()] if self._is_program else self._data
        chosen = () if order is None else order.selections
        # The seed of a shuffle of all samples is told apart.
        names = ["shuffle" if isinstance(one, Shuffle) and one.chunks is None else told(one) for one in chosen]
        if order is not None and order.buckets is not None:
            names.append(f"bucket_by {digest(order.buckets.lengths.tobytes())}")
        stages = [
            Part(told(stage), _decoding(stage)) if isinstance(stage, Decode) else next(programs)
            for _, stage in plan.recipe.stages
        ]
        stages += [next(programs) for _ in plan.finishes]
        spec = f"{plan.batch_structure.names} {plan.layout.specs}"
        sample = Part(f"sample {plan.sample_spec!r}", digest(spec.encode("utf-8", "surrogatepass")))
        size = plan.batch_size if order is None else order.size
        return Fingerprint(
            parts=(*source, *(Part(name, digest(name.encode())) for name in names), *stages, sample),
            unknown=(*self._varying, *self._unknown),
            seed=plan.recipe.seed,
            batch_size=None if plan.whole_batches else size,
            last=plan.last,
            sample_count=order.sample_count if order is not None else plan.sample_count,
        )

    def _part(self, program: tuple[str, Any], first: Told) -> Part:
        name, thing = program
        now = Digester(self._arrays).told(thing).captured
        varying = [one for one, found in first.captured.items() if now.get(one) != found]
        self._varying.update((f"{name}: {one} changes while it runs", None) for one in varying)
        captured = sorted(first.captured.items())
        values = digest(*(part for one, found in captured for part in (one.encode("utf-8", "surrogatepass"), found)))
        held = tuple((one, found.hex()[:4]) for one, found in captured)
        return Part(name, first.code.hex()[:10], "" if varying else values, () if varying else held)

    def _source_parts(self) -> Iterator[Part]:
        for name, thing in self._plan.source.fingerprint_parts().items():
            digester = Digester(self._arrays)
            yield Part(name, digester.value(thing).hex()[:10])
            self._unknown += [f"{name}: {one}" for one in digester.unknown]


def _decoding(stage: Decode) -> str:
    drawn = "" if stage.crop is None else repr(stage.crop)
    return digest((repr(stage.options) + drawn).encode())
