"""How a plan is made: one sample is read, the needs are put together, and the budget is divided or the plan refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fitstream.batching import BatchOrder
from fitstream.budget import SHARE_OF_PROCESSES, Fitted, Needs
from fitstream.chain import Recipe
from fitstream.errors import PlanError
from fitstream.machine import available_cores, available_memory_bytes, is_opening, why_no_processes
from fitstream.operations import Batch, MapBatch, Operation, ToldBefore, finishes_of
from fitstream.padding import lengthened, lengths_spec, padded_leaves
from fitstream.plan import Plan
from fitstream.policy import DEFAULT, Policy
from fitstream.probe import Probe, batch_order, probe, recipe_of, sample_order
from fitstream.sampling import Draw, Shard
from fitstream.sources.base import Sequential, Source
from fitstream.spec import ArraySpec, Layout, Structure, format_bytes, parse_bytes

__all__ = ["make_free_plan", "make_plan"]

_AUTO_LIMIT_BYTES = 2 * 2**30
_CHUNK_ROWS = 16
_WAITING_BYTES = 1 << 20
#: A slot for batches of free form, before one is there.
_FIRST_BYTES = 1 << 16
_MOST_LANES = 256
#: How many samples are looked at for one that can be made, where bad ones are skipped or replaced.
_MOST_TRIES = 100
#: An interpreter with NumPy and ours, and what the picture decoders add.
_WORKER_BYTES, _CODEC_BYTES = 28_000_000, 8_000_000


def make_plan(
    source: Source | Sequential,
    operations: Sequence[Operation],
    *,
    whole_batch_size: int | None,
    memory: int | str,
    workers: int | str,
    processes: int | None = None,
    policy: Policy = DEFAULT,
) -> Plan:
    """Work out the memory, or refuse.

    Args:
        source: Where samples come from.
        operations: What is done to them.
        whole_batch_size: For finished batches their largest size, 0 for the first one's; None for samples.
        memory: Budget, in bytes, text or "auto".
        workers: Lanes, or "auto".
        processes: Worker processes, or None for as many as measurements will call for, if the budget has room.
        policy: What becomes of samples that can't be made.
    Raises:
        PlanError: If two slots and one lane cannot fit, or a setting is impossible.
        SampleError: If the first sample can't be made.
    """
    if is_opening():
        raise PlanError(
            "a worker process imported the module that holds a function, and the module opened a loader at once. Put "
            'what the module does when it runs as a program under `if __name__ == "__main__":`.'
        )
    whole = whole_batch_size is not None
    budget = _budget(memory)
    batch = Batch(1, "keep", False) if whole else _batch(operations)
    shard = None if whole else _shard_of_batches(operations)
    order = None
    if isinstance(source, Source):
        order = batch_order(source, operations, batch, shard)
    some_only = batch.last == "drop" or any(isinstance(one, Draw) for one in operations)
    recipe = replace(recipe_of(source, operations), checks_each_pass=some_only or policy.on_bad_sample != "raise")
    _check_processes(processes)
    lane_count, reason = _lanes(workers, processes or 0)
    if order is None and lane_count > 1 and not recipe.stages:
        lane_count, reason = 1, "a generator runs in one, and nothing is mapped over it"
    tries = 1 if policy.on_bad_sample == "raise" else _MOST_TRIES
    first = probe(source, operations, whole=whole, limit_bytes=max(budget, 2**30), tries=tries)
    if whole_batch_size is not None:
        rows = max(whole_batch_size, first.rows)
    else:
        rows = batch.size if order is None else order.capacity
    first, padded = _lengthened(first, batch, order)
    layout, batch_structure = _layout(first, rows, batch.mask, padded)
    steps = order.steps if order is not None else _steps(source, batch, whole)
    chunk_rows = 1 if whole else _chunk_rows(rows, lane_count, recipe, first)
    wanted, where = _processes(processes, lane_count, source, recipe, first)
    # fmt: off
    needs = Needs(
        layout=layout, budget_bytes=budget, memory=budget if memory == "auto" else memory, steps=steps, whole=whole,
        ranks=1 if shard is None else shard.count, lane_count=lane_count, process_count=wanted,
        fixed_lanes=workers != "auto", fixed_processes=processes is not None,
        **_sizes(source, recipe, first, chunk_rows, order),
    )
    fitted = needs.divide()
    reason += _divided(needs, fitted, where)
    return Plan(
        source=source, recipe=recipe, order=order, sample_count=_sample_count(source, operations, whole), steps=steps,
        batch_size=rows, last=batch.last, mask=batch.mask, whole_batches=whole, structure=first.structure,
        specs=first.specs, batch_structure=batch_structure, layout=layout, chunk_rows=chunk_rows,
        lane_count=fitted.lane_count, auto_lanes=workers == "auto", process_count=fitted.process_count,
        auto_processes=processes is None and fitted.process_count > 0, lane_reason=reason,
        slot_count=fitted.slot_count, lane_bytes=fitted.lane_bytes, hand_bytes=needs.hand_bytes,
        large_bytes=fitted.large_bytes, queue_bytes=needs.queue_bytes(fitted.lane_count, fitted.process_count),
        process_bytes=needs.process_bytes(fitted.lane_count, fitted.process_count), area_bytes=needs.area_bytes,
        room_count=needs.room_count(fitted.lane_count, fitted.process_count), index_bytes=needs.index_bytes,
        budget_bytes=budget, needs=needs, policy=policy, finishes=_finishes(operations, first), padded=padded,
    )
    # fmt: on


def make_free_plan(
    source: Source | Sequential,
    order: BatchOrder | None,
    *,
    most_slots: int,
    memory: int | str,
    workers: int,
    processes: int,
    seed: int = 0,
    policy: Policy = DEFAULT,
) -> Plan:
    """Work out the memory for finished batches of any form, as far as it is known before one is made. Reads nothing.

    Args:
        source: Of batches.
        order: Their order, or None where the source is sequential.
        most_slots: Batches in flight, at most.
        memory: Budget, in bytes, text or "auto".
        workers: Lanes.
        processes: Worker processes.
        seed: Of the random numbers that batches draw in worker processes.
        policy: What becomes of batches that can't be made.
    Raises:
        PlanError: If nothing would fit beside the worker processes, or a setting is impossible.
    """
    budget = _budget(memory)
    lane_count, reason = _lanes(workers, processes)
    if order is None:
        lane_count, processes = min(1, lane_count), 0
    processes = min(processes, lane_count)
    layout = Layout.of_bytes(_FIRST_BYTES)
    recipe = Recipe(source if isinstance(source, Source) else None, (), seed, "batch")
    # fmt: off
    needs = Needs(
        layout=layout, budget_bytes=budget, memory=memory, scratch_bytes=0, large_wanted_bytes=0, hand_bytes=0,
        waiting_bytes=0, hands_on=False, index_bytes=0, steps=None, whole=True, worker_bytes=_WORKER_BYTES,
        lane_count=lane_count, process_count=processes, functions=True,
    )
    plan = Plan(
        source=source, recipe=recipe, order=order, sample_count=None, steps=None if order is None else order.steps,
        batch_size=1, last="keep", mask=False, whole_batches=True, structure=Structure(0), specs=layout.specs,
        batch_structure=Structure(0), layout=layout, chunk_rows=1, lane_count=lane_count, auto_lanes=False,
        process_count=processes, auto_processes=False, lane_reason=reason, slot_count=1, lane_bytes=0, hand_bytes=0,
        large_bytes=0, queue_bytes=0, process_bytes=needs.process_bytes(lane_count, processes), area_bytes=0,
        room_count=1, index_bytes=0, budget_bytes=budget, needs=needs, policy=policy, most_slots=max(2, most_slots),
    )
    # fmt: on
    plan.check_ring()
    return plan


def _finishes(operations: Sequence[Operation], first: Probe) -> tuple[tuple[int, MapBatch], ...]:
    """Functions over batches, of which none says that it can't work on these samples."""
    tree = first.structure.build(first.specs)
    finishes = finishes_of(operations)
    for _, stage in finishes:
        fn: Any = stage.fn
        if isinstance(fn, ToldBefore):
            why = fn.unfit(*(tree if isinstance(tree, tuple) else (tree,)))
            if why is not None:
                raise PlanError(f"{stage.name} can't work on batches of {tree!r}: {why}.")
    return finishes


def _budget(memory: int | str) -> int:
    return min(_AUTO_LIMIT_BYTES, available_memory_bytes() // 4) if memory == "auto" else parse_bytes(memory)


def _sizes(
    source: Source | Sequential, recipe: Recipe, first: Probe, chunk_rows: int, order: BatchOrder | None
) -> dict[str, Any]:
    """What the first sample and the source say of memory."""
    lengths_bytes = 0 if order is None or order.buckets is None else order.buckets.index_bytes
    index_bytes, memory_bytes = (source.index_bytes, source.memory_bytes) if isinstance(source, Source) else (0, 0)
    return {
        "scratch_bytes": first.scratch_bytes,
        "large_wanted_bytes": _large_wanted_bytes(source, recipe),
        "hand_bytes": first.hand_bytes
        + _together_bytes(source, chunk_rows, first)
        + (source.block_bytes if isinstance(source, Source) else 0),
        "waiting_bytes": chunk_rows * first.raw_bytes,
        "hands_on": bool(recipe.stages),
        "index_bytes": index_bytes + lengths_bytes + (0 if order is None else order.index_bytes),
        "worker_bytes": _WORKER_BYTES + (_CODEC_BYTES if recipe.image_options is not None else 0),
        "result_bytes": first.result_bytes,
        "shared_bytes": memory_bytes,
        "functions": recipe.calls_functions,
    }


def _divided(needs: Needs, fitted: Fitted, where: str) -> str:
    """What became of the lanes that were wanted, in words."""
    told = ""
    if fitted.lane_count < needs.lane_count:
        told += f", cut to {fitted.lane_count} by the budget"
    if needs.process_count and not fitted.process_count:
        where = "threads, because the budget has no room for worker processes"
        if needs.functions:
            where += f", which get a third of it ({format_bytes(needs.budget_bytes // SHARE_OF_PROCESSES)}) at most"
    return told + (f"; {where}" if where else "")


def _lanes(workers: int | str, processes: int) -> tuple[int, str]:
    if workers == "auto":
        cores = min(available_cores(), _MOST_LANES)
        if processes > cores:
            return processes, f"one for each of {processes} processes"
        return cores, f"one for each of {cores} cores" if cores > 1 else "one core"
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)) or not 0 <= workers <= _MOST_LANES:
        raise PlanError(f'workers={workers!r} must be "auto" or a number of lanes from 0 to {_MOST_LANES}.')
    return int(workers), f"workers={workers}" + ("" if workers else ": the calling thread does the work")


def _check_processes(processes: int | None) -> None:
    if processes is None:
        return
    if isinstance(processes, bool) or not isinstance(processes, (int, np.integer)) or not 0 <= processes <= _MOST_LANES:
        raise PlanError(f"processes={processes!r} must be None or a number from 0 to {_MOST_LANES}.")


def _processes(
    processes: int | None, lane_count: int, source: Source | Sequential, recipe: Recipe, first: Probe
) -> tuple[int, str]:
    """How many worker processes are wanted, and why not more, in words."""
    if processes == 0 or lane_count == 0:
        return 0, ""
    nothing_mapped = isinstance(source, Sequential) and not recipe.stages
    if nothing_mapped:
        return 0, "nothing is left to do for worker processes" if processes else ""
    if processes and first.unsendable:
        raise PlanError(f"processes={processes}: {first.unsendable}. Use processes=0 for threads.")
    why_not = why_no_processes() or first.unsendable
    if why_not is not None:
        return 0, f"threads, because {why_not}"
    if processes is not None:
        count = min(int(processes), lane_count)
        return count, "in one worker process" if count == 1 else f"in {count} worker processes"
    # Code of ours lets go of the interpreter lock. If it disturbs the training loop all the same, one process will do.
    return lane_count if recipe.calls_functions else 1, "threads, or worker processes if that is measured to be better"


def _batch(operations: Sequence[Operation]) -> Batch:
    for operation in operations:
        if isinstance(operation, Batch):
            return operation
    raise PlanError("the dataset has no batch size. Call .batch(64), or another size, before .plan() or .loader().")


def _shard_of_batches(operations: Sequence[Operation]) -> Shard | None:
    return operations[-1] if isinstance(operations[-1], Shard) else None


def _lengthened(first: Probe, batch: Batch, order: BatchOrder | None) -> tuple[Probe, tuple[int, ...]]:
    """The first sample with room for the longest, and the numbers of its padded leaves."""
    padded = padded_leaves(first.structure, first.specs, batch)
    if not padded:
        return first, padded
    longest = batch.max_length
    if longest is None:
        assert order is not None
        assert order.buckets is not None
        longest = int(order.buckets.lengths.max(initial=1))
        # Arrays of another length than the one that was told of: the first sample's is all that is known of theirs.
        longest = max(longest, *(first.specs[number].shape[0] or 0 for number in padded))
    return replace(first, specs=lengthened(first.specs, padded, longest)), padded


def _layout(first: Probe, rows: int, mask: bool, padded: Sequence[int]) -> tuple[Layout, Structure]:
    """Layout and tree of a batch; a mask is one more part, and the lengths of padded leaves come last."""
    noted = (lengths_spec(padded),) if padded else ()
    if not mask:
        return Layout((*first.specs, *noted), rows), first.structure
    sample = first.structure.build([0] * first.structure.leaf_count)
    if isinstance(sample, dict):
        if "mask" in sample:
            raise PlanError(
                "batch(mask=True) adds a part named 'mask', but samples have one already. Rename it in a map."
            )
        tree: Any = {**sample, "mask": 0}
    else:
        tree = (*(sample if isinstance(sample, tuple) else (sample,)), 0)
    masked = ArraySpec(first.specs[padded[0]].shape[:1] if padded else (), np.dtype(np.float32))
    return Layout((*first.specs, masked, *noted), rows), Structure(tree)


def _chunk_rows(rows: int, lane_count: int, recipe: Recipe, first: Probe) -> int:
    """Rows that a lane takes at a time: few, so that all lanes work on the first batch; many where rows are cheap."""
    share = -(-rows // max(1, lane_count))
    if recipe.source is not None and not recipe.stages and not first.scratch_bytes:
        # Arrays are gathered by one call, which must not be cut so small that the call itself costs more than the rows.
        worth = max(1, (1 << 18) // max(1, sum(spec.nbytes for spec in first.specs)))
        return min(rows, max(share, worth))
    if recipe.source is None:
        # What a generator gave waits in memory of its own until a lane takes it.
        return min(share, _CHUNK_ROWS, max(1, _WAITING_BYTES // max(1, first.raw_bytes)))
    return min(share, _CHUNK_ROWS)


def _together_bytes(source: Source | Sequential, chunk_rows: int, first: Probe) -> int:
    """Raw samples of a chunk, where a lane reads them in one call."""
    if not isinstance(source, Source) or not (source.fetches_many or source.copies_many):
        return 0
    return chunk_rows * max(first.hand_bytes, sum(spec.nbytes for spec in first.specs))


def _large_wanted_bytes(source: Source | Sequential, recipe: Recipe) -> int:
    options = recipe.image_options
    if options is None:
        return source.most_scratch_bytes if isinstance(source, Source) else 0
    # The file itself is in scratch too; it takes at most about a tenth of the picture that it holds.
    return options.scratch_bytes(options.max_pixels) * 11 // 10


def _steps(source: Source | Sequential, batch: Batch, whole: bool) -> int | None:
    length = source.length if isinstance(source, Sequential) else len(source)
    if length is None or whole:
        return length
    steps = length // batch.size if batch.last == "drop" else -(-length // batch.size)
    if steps == 0:
        raise PlanError(f'last="drop" leaves no batch of {batch.size}: a pass has {length} samples.')
    return steps


def _sample_count(source: Source | Sequential, operations: Sequence[Operation], whole: bool) -> int | None:
    if whole:
        return None
    return source.length if isinstance(source, Sequential) else sample_order(source, operations).count
