"""What the engine tells: frozen events, and the protocol of those who listen.

The engine emits events and never prints. An observer is called in the thread where the event happened, so it must be
quick and must not call back into the loader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from fitstream.errors import PlanError
from fitstream.policy import BadSample

__all__ = [
    "BadSampleFound",
    "BatchDelivered",
    "Event",
    "IndexProgress",
    "LanesChanged",
    "LanesStarted",
    "LanesStopped",
    "MemoryExceeded",
    "Observer",
    "PassEnded",
    "PassStarted",
    "RingExtended",
    "WorkerLost",
    "WorkerStarted",
    "checked_observers",
]


@dataclass(frozen=True, slots=True)
class LanesStarted:
    """The ring is allocated and the lanes run.

    Attributes:
        lane_count: 0 where the calling thread does the work.
        reason: Why this many, in words.
    """

    lane_count: int
    slot_count: int
    ring_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class PassStarted:
    """The first batch of a pass was asked for."""

    pass_index: int


@dataclass(frozen=True, slots=True)
class BatchDelivered:
    """One batch went to the consumer.

    Attributes:
        waited_s: Seconds that the consumer waited for it.
    """

    pass_index: int
    step: int
    sample_count: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class PassEnded:
    """The last batch of a pass was delivered."""

    pass_index: int
    batch_count: int
    sample_count: int


@dataclass(frozen=True, slots=True)
class RingExtended:
    """The consumer holds every slot of the ring: one was added, and as long as it does, it gets copies."""

    held_count: int
    batch_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker process is ready.

    Attributes:
        reserved_bytes: What it costs before any data, measured.
    """

    pid: int
    lane_count: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker process ended by itself; its work was given out again.

    Attributes:
        reason: How it ended, in words.
        chunk_count: Parts of batches that it worked on.
    """

    pid: int
    reason: str
    chunk_count: int


@dataclass(frozen=True, slots=True)
class LanesChanged:
    """The number of lanes changed while running, or where they run.

    Attributes:
        process_count: Worker processes that hold the lanes; 0 for threads of this process.
        reason: What was measured, in words.
    """

    lane_count: int
    process_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryExceeded:
    """More memory was measured than the plan allows, as by a function of the user's that allocates much. Told once."""

    measured_bytes: int
    projected_bytes: int


@dataclass(frozen=True, slots=True)
class BadSampleFound:
    """A sample was skipped or replaced. Comes with its batch's delivery, in the order of the rows."""

    bad: BadSample


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """A long file is read once, to find its lines, characters or words; told now and then, and at the end.

    Attributes:
        path: The file.
        done_bytes: Read so far.
        total_bytes: To be read.
    """

    path: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class LanesStopped:
    """All lanes ended and the ring was let go."""


Event: TypeAlias = (
    LanesStarted
    | WorkerStarted
    | WorkerLost
    | LanesChanged
    | PassStarted
    | BatchDelivered
    | PassEnded
    | RingExtended
    | MemoryExceeded
    | BadSampleFound
    | IndexProgress
    | LanesStopped
)


@runtime_checkable
class Observer(Protocol):
    """Anything with this method can be given to `ds.loader(observers=...)`."""

    def on_event(self, event: Event) -> None: ...


def checked_observers(observers: Any) -> tuple[Observer, ...]:
    """What a user gave as observers.

    Raises:
        PlanError: If it is no list, or something in it can't be told.
    """
    if isinstance(observers, Observer) or not isinstance(observers, Iterable):
        raise PlanError(f"observers={observers!r} must be a list: observers=[...].")
    checked = tuple(observers)
    for observer in checked:
        if not isinstance(observer, Observer):
            raise PlanError(f"an observer needs a method on_event(event); {type(observer).__name__} has none.")
    return checked
