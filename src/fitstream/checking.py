"""Looking for samples that can't be read, before anything runs: missing files, folders, empty ones, closed ones.

Nothing is read: a file costs a question or two to the system. On a drive across a network each question waits, so some
threads ask at once. What waits to be looked at and what was found are bounded; so a million files cost no memory.

All samples that any pass or rank of the dataset may take are looked at, in the order of the source: `shuffle` and
`shard` are passed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, TypeVar, final

from fitstream.errors import SourceError
from fitstream.operations import Operation
from fitstream.probe import sample_order
from fitstream.redaction import redacted
from fitstream.sampling import Draw, Indices, Shard, Shuffle
from fitstream.sources.base import Source

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Fault", "blocks_of", "check_samples", "find_faults", "in_threads"]

_THREADS = 8
_BLOCK_SAMPLES = 512
#: Faults that an error lists.
_SHOWN = 10

_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """A sample that can't be read.

    Attributes:
        index: In its source, from 0.
        path: The file that holds it, or None. Credentials of URLs are taken out, as of the reason.
        reason: Why, and what to do.
    """

    index: int
    path: str | None
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", None if self.path is None else redacted(self.path))
        object.__setattr__(self, "reason", redacted(self.reason))


def check_samples(source: Source, operations: Sequence[Operation]) -> None:
    """Look at all samples of a dataset.

    Raises:
        SourceError: If some can't be read: their count, and the first ten.
    """
    first: list[Fault] = []
    looked = count = 0
    for block, faults in find_faults(source, operations):
        looked += block
        count += len(faults)
        first += faults[: _SHOWN - len(first)]
    if not count:
        return
    lines = [f"{fault.path or f'sample {fault.index}'}: {fault.reason}" for fault in first]
    if count > len(first):
        lines.append(f"and {count - len(first):,} more; `fitstream inspect --csv FILE` lists all.")
    raise SourceError("\n  ".join([f"{count:,} of {looked:,} samples of {source!r} can't be read:", *lines]))


def find_faults(source: Source, operations: Sequence[Operation] = ()) -> Iterator[tuple[int, list[Fault]]]:
    """Look at the samples of a dataset block by block.

    Yields:
        How many more were looked at, and the faults among them; in the source's order.
    """

    def look(indices: Indices) -> tuple[int, list[Fault]]:
        reasons = [(index, source.fault(index)) for index in indices.tolist()]
        return len(reasons), [Fault(i, source.path(i), reason) for i, reason in reasons if reason is not None]

    return in_threads(look, blocks_of(source, operations, _BLOCK_SAMPLES), _THREADS)


def blocks_of(source: Source, operations: Sequence[Operation], block_samples: int) -> Iterator[Indices]:
    """Source indices `(block_samples,)` of all samples that a dataset may take; the last block may be shorter."""
    before_draws = takewhile(lambda one: not isinstance(one, Draw), operations)
    order = sample_order(source, [one for one in before_draws if not isinstance(one, (Shuffle, Shard))])
    for start in range(0, order.count, block_samples):
        yield order.span(0, start, min(start + block_samples, order.count))


def in_threads(function: Callable[[_Given], _Found], given: Iterator[_Given], thread_count: int) -> Iterator[_Found]:
    """Call a function in some threads; what it returns comes in the order of what it was given.

    Twice as many calls as threads are under way or waiting, so neither side runs ahead. Where the iterator is left
    early, or interrupted, nothing waits for the calls under way: a drive that hangs would hold up Ctrl-C.
    """
    from concurrent.futures import ThreadPoolExecutor  # takes its time to load, and few programs check

    pool = ThreadPoolExecutor(thread_count, "looking")
    try:
        waiting: deque[Future[_Found]] = deque(pool.submit(function, one) for one in islice(given, 2 * thread_count))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, one) for one in islice(given, 1))
        pool.shutdown()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
