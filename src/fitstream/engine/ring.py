"""The ring: a fixed number of slots, each the memory of one batch, and the leases of the batches handed out.

A slot goes round through four states. Who moves it is in brackets:

    free ─[lane: open]─> filling ─[lane with the last chunk]─> ready ─[consumer: take]─> leased ─> free
                            │                                    │     [the last array of it is dropped]
                            └────[its run was abandoned]─────────┴──────────────────────────────> free

A lease is one plain NumPy array, the root, over the slot's bytes; every leaf of the batch is a view of it, and NumPy
lets all views of views refer to that root. So the root dies exactly when the consumer holds no array of the batch any
more, and its weak reference's callback frees the slot. The callback may run in any thread, inside garbage collection
too: it does nothing but put the slot on a `SimpleQueue`, whose `put` is reentrant.

Leaves start at multiples of 64 bytes, so that frameworks can alias them, which the lease survives.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import LoaderClosed
from fitstream.spec import Layout

__all__ = ["Slot", "make_ring", "make_spare"]


@final
@dataclass(slots=True, eq=False)
class Slot:
    """The memory of one batch and what is being done with it.

    Attributes:
        buffer: The memory that holds it.
        leaves: Arrays that lanes write, `(rows, ...)` each.
        spare: Memory beyond the ring, made for a consumer that holds every slot; it serves one batch.
        run: The run (see `board`) that the content belongs to, or None.
        number: The batch's place in that run, from 0.
        rows: Rows that the batch has.
        pending: Parts still to be finished before the slot is ready.
        failure: The failure in the lowest row, and that row.
        lease: The handed-out root, while it lives.
    """

    buffer: Any
    layout: Layout
    spare: bool
    leaves: list[npt.NDArray[Any]]
    run: Any = None
    number: int = -1
    pass_index: int = 0
    step: int = 0
    rows: int = 0
    sample_count: int = 0
    last_of_pass: bool = False
    pending: int = 0
    failure: tuple[int, BaseException] | None = None
    lease: weakref.ref[Any] | None = None

    @property
    def leased(self) -> bool:
        return self.lease is not None and self.lease() is not None

    def let_go(self) -> None:
        """Drop the memory now, and not when the collector finds the cycles through callback and traceback."""
        self.buffer, self.leaves, self.lease, self.failure = None, [], None, None

    def hand_out(self, on_end: Callable[[Slot], None]) -> list[npt.NDArray[Any]]:
        """Start a lease.

        Args:
            on_end: Called with this slot when the consumer has dropped every array of the batch; must not block.
        Returns:
            The batch's leaves, views of one root.
        """
        buffer = self.buffer
        if buffer is None:
            raise LoaderClosed("the loader was closed while a batch was awaited.")
        root = np.frombuffer(buffer, np.uint8, self.layout.slot_bytes)
        self.lease = weakref.ref(root, lambda _: on_end(self))
        return self.layout.leaves(root, self.rows)


def make_ring(layout: Layout, slot_count: int) -> list[Slot]:
    """Allocate the ring: anonymous memory, each slot's freed when its last lease and the slot are gone."""
    return [_make_slot(layout, spare=False) for _ in range(slot_count)]


def make_spare(layout: Layout) -> Slot:
    """Allocate a slot beyond the ring."""
    return _make_slot(layout, spare=True)


def _map(count_bytes: int) -> mmap.mmap:
    """Page-aligned memory, so that leaves are 64-byte aligned. Never closed by hand: leases may outlive the loader."""
    if hasattr(mmap, "MAP_PRIVATE"):
        # Private, so that a forked child keeps the batches that it held, whatever is written here later.
        return mmap.mmap(-1, count_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, count_bytes)


def _make_slot(layout: Layout, *, spare: bool) -> Slot:
    # A mapping for each slot, so that a batch that is kept beyond the loader's end keeps no other slot's memory.
    buffer = _map(layout.slot_bytes)
    root = np.frombuffer(buffer, np.uint8, layout.slot_bytes)
    return Slot(buffer, layout, spare, layout.leaves(root, layout.rows))
