"""What is said about samples and workers that died or hung: errors for those who raise, records for those who don't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fitstream.engine.process import Overdue, Process
from fitstream.engine.tokens import Chunk
from fitstream.errors import FitstreamError, PlanError, Stalled, WorkerDied
from fitstream.plan import Plan
from fitstream.policy import BadSample
from fitstream.sources.base import Source

__all__ = ["could_not_open", "dead_workers", "hung_lane", "verdict"]

_MEND = "Leave it out, or mend what makes it"
_SKIP = f'{_MEND}, or use on_bad_sample="skip" or "replace".'


def _sample_of(plan: Plan, chunk: Chunk, row: int) -> tuple[int, str | None]:
    """The index of the sample in a row of a chunk, and the file that holds it, if one does."""
    if plan.order is None or plan.free_form or not isinstance(plan.source, Source):
        return chunk.first_index + row - chunk.start, None
    index = int(plan.order.rows(chunk.pass_index, chunk.step).indices[row])
    return index, plan.source.path(index)


def _told_sample(plan: Plan, chunk: Chunk, row: int) -> str:
    """The same in words: "sample 3 (photos/a.jpg), row 1 of batch 0, pass 0"."""
    index, path = _sample_of(plan, chunk, row)
    what = "batch" if plan.whole_batches else "sample"
    place = "" if plan.whole_batches else f", row {row} of batch {chunk.step}"
    return f"{what} {index}{f' ({path})' if path else ''}{place}, pass {chunk.pass_index}"


def _advice(plan: Plan) -> str:
    return f"{_MEND}." if plan.free_form else _SKIP


def _dead_sample(plan: Plan, chunk: Chunk, process: Process, how: str) -> WorkerDied:
    """The error of a sample that ends its worker whenever it is made."""
    index, path = _sample_of(plan, chunk, chunk.start)
    told = _told_sample(plan, chunk, chunk.start)
    return WorkerDied(
        f"Two worker processes died with this one alone in hand: {told}. The last one was process {process.pid}: "
        f"{how}. {_advice(plan)}",
        pid=process.pid,
        exit_code=process.exit_code,
        index=index,
        path=path,
    )


def _hung_sample(plan: Plan, chunk: Chunk, process: Process, overdue: Overdue) -> Stalled:
    """The error of a sample that takes longer than the deadline in a worker."""
    told = _told_sample(plan, chunk, chunk.start)
    where = f" It was at:\n{overdue.stack}" if overdue.stack else " It could not tell where it was: it was stopped."
    return Stalled(
        f"Worker process {process.pid} was at {told} for {overdue.after_s:.1f} s, longer than "
        f"sample_timeout_s={plan.policy.sample_timeout_s:g}, and was ended. Raise sample_timeout_s if that may take so "
        f"long. {_advice(plan)}{where}"
    )


def hung_lane(plan: Plan, chunk: Chunk | None, row: int, after_s: float, name: str, stack: str) -> Stalled:
    """The error of a lane in a thread that takes longer than the deadline for one sample."""
    what = f"a generator's next {plan.recipe.unit}, or an observer" if chunk is None else _told_sample(plan, chunk, row)
    instead = "with processes=1 or more the worker would be replaced, and on_bad_sample decide."
    if plan.free_form:
        instead = "with a Sequence and use_multiprocessing=True a worker process is."
    return Stalled(
        f"{name} has been at {what} for {after_s:.1f} s, longer than sample_timeout_s="
        f"{plan.policy.sample_timeout_s:g}. Raise sample_timeout_s if that may take so long. A thread can't be ended "
        f"from outside: {instead} It is at:\n{stack}"
    )


def verdict(plan: Plan, chunk: Chunk, process: Process, how: str) -> tuple[FitstreamError, BadSample]:
    """What is said of a sample that its worker died or hung at, as an error and as a record."""
    error: FitstreamError = _dead_sample(plan, chunk, process, how)
    if process.overdue is not None:
        error = _hung_sample(plan, chunk, process, process.overdue)
    return error, _bad_sample(plan, chunk, error, how)


def could_not_open(how: str, broken: dict[str, Any] | None, *, again: bool) -> FitstreamError:
    """The error of workers that end before they are ready.

    Args:
        how: How the last one ended.
        broken: What it told, or None.
        again: Whether others of them were ready before.
    """
    told = f"\n{broken['traceback']}" if broken else ""
    reason = (broken["reason"] if broken else how).rstrip(".")
    if again:
        return FitstreamError(
            f"A worker process was started anew, and could not open the dataset any more: {reason}. Look for what "
            f"changed since it was opened first.{told}"
        )
    return PlanError(
        f"A worker process could not open the dataset: {reason}. "
        f"What it needs must be there to import, or be made in the function itself; or use processes=0.{told}"
    )


def _bad_sample(plan: Plan, chunk: Chunk, error: FitstreamError, how: str) -> BadSample:
    """The record of a sample that died or hung."""
    index, path = _sample_of(plan, chunk, chunk.start)
    if isinstance(error, Stalled):
        reason = f"it took longer than sample_timeout_s={plan.policy.sample_timeout_s:g}"
    else:
        reason = f"two worker processes died with it alone in hand; of the last one, {how}"
    return BadSample(index, path, reason, None, chunk.pass_index, chunk.step, chunk.start)


def dead_workers(count: int, process: Process, how: str, chunks: Sequence[Chunk], plan: Plan) -> WorkerDied:
    """The error of workers that die again and again without anything being finished."""
    index: int | None = None
    path: str | None = None
    where = "nothing"
    if chunks:
        index, path = _sample_of(plan, chunks[0], chunks[0].start)
        where = f"{chunks[0].row_count} rows from {_told_sample(plan, chunks[0], chunks[0].start)} on"
    return WorkerDied(
        f"Worker processes died {count} times in a row before anything was finished; the last one, process "
        f"{process.pid}, worked on {where}: {how}. Look for the function or file that ends a process, with workers=0.",
        pid=process.pid,
        exit_code=process.exit_code,
        index=index,
        path=path,
    )
