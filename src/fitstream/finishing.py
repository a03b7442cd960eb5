"""Functions over whole batches (`ds.map_batch`): called in the consumer's thread, at a batch's turn.

Lanes fill rows, and no lane has all of them; filling may be done twice, where a worker process dies, so what works in
place must not be a lane's work. At delivery a batch is complete, is delivered once, and belongs to nobody else. The
price is that the training loop waits for the function, so it should be fast: a few passes over the batch at most.

A batch stays in its slot: a function works in place, or what it returns is copied there. So no batch memory is made,
and a batch is what the plan says it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.failures import is_ctrl_c, sample_error
from fitstream.operations import MapBatch
from fitstream.plan import Plan
from fitstream.sampling import sample_rng

__all__ = ["finish"]


def finish(plan: Plan, leaves: list[npt.NDArray[Any]], rows: int, pass_index: int, step: int) -> None:
    """Do to a batch what is to be done to whole batches.

    Args:
        plan: What runs.
        leaves: Arrays of the batch; emptied on an error, so that who keeps the error doesn't keep the memory.
        rows: How many of its rows are samples. Padding, and the mask of it, are not shown to functions.
        pass_index: The batch's pass.
        step: Its place there.
    Raises:
        SampleError: If a function fails, or returns what is no such batch.
    """
    if not rows or not plan.finishes:
        return
    shown = [leaf[:rows] for leaf in leaves[: len(plan.specs)]]
    for place, stage in plan.finishes:
        options = {"rng": sample_rng(plan.recipe.seed, place, pass_index, step)} if stage.takes_rng else {}
        try:
            _call(plan, stage, shown, options)
        except BaseException as error:
            leaves.clear()
            shown.clear()
            if is_ctrl_c(error):
                raise
            raise sample_error(error, step, None, stage.name, "batch") from error


def _call(plan: Plan, stage: MapBatch, shown: Sequence[npt.NDArray[Any]], options: dict[str, Any]) -> None:
    batch = plan.structure.build(shown)
    made = stage.fn(*batch, **options) if isinstance(batch, tuple) else stage.fn(batch, **options)
    if made is None:
        return
    values = [np.asarray(value) for value in plan.structure.flatten(made)]
    for number, (value, leaf) in enumerate(zip(values, shown, strict=True)):
        if value.shape != leaf.shape or not np.can_cast(value.dtype, leaf.dtype, "safe"):
            raise ValueError(
                f"it returned {value.dtype} {value.shape} as array{plan.structure.names[number]}, where the batch has "
                f"{leaf.dtype} {leaf.shape}. A function over batches keeps shapes and dtypes: change these in a map, "
                "before batch()"
            )
        # A function may return one array in another's place.
        if any(value is not leaf and np.may_share_memory(value, other) for other in shown):
            values[number] = value.copy()
    for value, leaf in zip(values, shown, strict=True):
        if value is not leaf:
            leaf[...] = value
