"""The part of a plan that a lane needs, in whichever process: how samples are made and where their rows lie.

It holds no open file and no memory, so that it can be sent to a worker process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from fitstream.batching import BatchOrder
from fitstream.budget import Needs
from fitstream.chain import Chain, Recipe
from fitstream.engine.sending import Parcel, Unsendable, pack
from fitstream.errors import PlanError
from fitstream.filler import Filler
from fitstream.plan import Plan
from fitstream.policy import Policy
from fitstream.scratch import Allowance, Arena
from fitstream.spec import ArraySpec, Layout, Structure

__all__ = ["Job", "packed_job"]

#: What functions and sources may always take.
_LEAST_BYTES = 4_000_000


@final
@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What lanes do; the attributes are those of `Plan`."""

    recipe: Recipe
    order: BatchOrder | None
    whole_batches: bool
    layout: Layout
    structure: Structure
    specs: tuple[ArraySpec, ...]
    lane_bytes: int
    large_bytes: int
    budget_bytes: int
    needs: Needs
    policy: Policy
    free_form: bool
    padded: tuple[int, ...]

    @staticmethod
    def of(plan: Plan) -> Job:
        """The lanes' part of a plan.

        Of free form, each pass has an order of its own length; lanes are told each batch's index.
        """
        job = Job(**{name: getattr(plan, name) for name in Job.__dataclass_fields__})
        return replace(job, order=None) if plan.free_form else job

    def parts(self) -> dict[str, Any]:
        """The same by names that mean something to users, for messages about what can't be sent."""
        parts: dict[str, Any] = {"source": self.recipe.source}
        for number, (_, stage) in enumerate(self.recipe.stages):
            name = stage.name if stage.name not in parts else f"{stage.name} (stage {number})"
            parts[name] = stage
        parts["plan"] = replace(self, recipe=replace(self.recipe, source=None, stages=()))
        parts["places"] = tuple(place for place, _ in self.recipe.stages)
        parts["settings"] = _decoder_settings() if self.recipe.image_options is not None else None
        return parts

    @staticmethod
    def joined(parts: dict[str, Any]) -> Job:
        """The reverse of `parts`."""
        source, *stages, rest, places, settings = parts.values()
        if settings is not None:
            _set_decoder(settings)
        assert isinstance(rest, Job)
        recipe = replace(rest.recipe, source=source, stages=tuple(zip(places, stages, strict=True)))
        return replace(rest, recipe=recipe)

    def allowance(self) -> Allowance:
        """The scratch of the lanes of one process."""
        return Allowance(self.lane_bytes, self.large_bytes, self.budget_bytes, self.needs.suggest_bytes)

    def filler(self, allowance: Allowance) -> Filler:
        """Open the source and the decoders for one lane."""
        return Filler(Chain(self.recipe, Arena(allowance)), self.structure, self.specs, self.padded)


def packed_job(plan: Plan, before: Parcel | None = None) -> Parcel:
    """What workers open; the one from before, if nothing changed.

    Raises:
        PlanError: If something can't be sent, or takes too much memory.
    """
    most_bytes = plan.budget_bytes  # divided anew for processes that were asked for, and not while running
    if plan.auto_processes:
        most_bytes = max(_LEAST_BYTES, plan.budget_bytes - plan.projected_bytes + plan.needs.shared_bytes)
    try:
        return pack(Job.of(plan).parts(), most_bytes, before)
    except Unsendable as error:
        raise PlanError(f"{error}") from error.__cause__


def _decoder_settings() -> dict[str, Any]:
    # Loads Pillow, and only pictures need it.
    from fitstream.transforms import pillow

    return pillow.settings()


def _set_decoder(settings: dict[str, Any]) -> None:
    from fitstream.transforms import pillow

    pillow.set_settings(settings)
