"""What the engine tells: frozen events, and the protocol of those who listen.

The engine emits events and never prints. An observer is called in the thread where the event happened, so it must be
quick and must not call back into the loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

__all__ = [
    "BatchDelivered",
    "Event",
    "LanesStarted",
    "LanesStopped",
    "Observer",
    "PassEnded",
    "PassStarted",
    "RingExtended",
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
    """The consumer holds every slot of the ring; the next batch is made in memory of its own."""

    held_count: int
    batch_bytes: int


@dataclass(frozen=True, slots=True)
class LanesStopped:
    """All lanes ended and the ring was let go."""


Event: TypeAlias = LanesStarted | PassStarted | BatchDelivered | PassEnded | RingExtended | LanesStopped


@runtime_checkable
class Observer(Protocol):
    """Anything with this method can be given to `ds.loader(observers=...)`."""

    def on_event(self, event: Event) -> None: ...
