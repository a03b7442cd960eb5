"""The ring: a fixed number of slots, each the memory of one batch, and the leases of the batches handed out.

A slot goes round through four states. Who moves it is in brackets:

    free ─[lane: open]─> filling ─[lane with the last chunk]─> ready ─[consumer: take]─> leased ─> free
                            │                                    │     [the last array of it is dropped]
                            └────[its run was abandoned]─────────┴──────────────────────────────> free

A lease is one plain NumPy array, the root, over the slot's bytes; every leaf of the batch is a view of it, and NumPy
lets all views of views refer to that root. So the root dies exactly when the consumer holds no array of the batch any
more, and its weak reference's callback frees the slot. The callback may run in any thread, inside garbage collection
too: it does nothing but put the slot on a queue whose `put` is reentrant, and no bytecode runs in it (`putters`).

A consumer that keeps more batches than there are slots gets copies, so that lanes always have a slot to fill. Leaves
start at multiples of 64 bytes, so that frameworks can alias them, which the lease survives.

Each slot has memory of its own, so that a batch that is kept beyond the loader's end keeps no other's. It is private
as long as only threads write to it (a forked child then keeps the batches that it held), and a `Block` where worker
processes do; a free slot changes from the one to the other.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import LoaderClosed
from fitstream.memory import Block
from fitstream.policy import BadSample
from fitstream.spec import Layout

__all__ = ["Slot", "make_slot"]


@final
@dataclass(slots=True, eq=False)
class Slot:
    """The memory of one batch and what is being done with it.

    Attributes:
        index: Its place in the ring.
        buffer: The memory that holds it.
        block: The same as shared memory, or None where it is private.
        leaves: Arrays that lanes write, `(rows, ...)` each.
        run: The run (see `board`) that the content belongs to, or None.
        number: The batch's place in that run, from 0.
        rows: Rows that the batch has.
        pending: Parts still to be finished before the slot is ready.
        failure: The failure in the lowest row, and that row.
        bad: Its samples that were skipped or replaced.
        lease: References to the handed-out root.
        replay: Where the source is sequential: what a pass has given up to the end of the batch (see `replay`).
        lengths: As `Layout.leaves` takes them.
        kept: A batch of free form that has no form in bytes, as it is; else None.
    """

    index: int
    buffer: Any
    block: Block | None
    layout: Layout
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
    bad: list[BadSample] = field(default_factory=list)
    lease: tuple[weakref.ref[Any], ...] = ()
    replay: Any = None
    lengths: tuple[int | None, ...] = ()
    kept: Any = None

    @property
    def leased(self) -> bool:
        return any(one() is not None for one in self.lease)

    def let_go(self) -> None:
        """Drop the memory now, and not when the collector finds the cycles through callback and traceback."""
        self.buffer, self.leaves, self.lease, self.failure, self.kept = None, [], (), None, None
        if self.block is not None:
            self.block.close()
            self.block = None

    def share(self) -> None:
        """Move a free slot to memory that worker processes can map.

        Raises:
            PlanError: If the machine has not that much memory free; then it stays as it is.
        """
        block = Block.make(self.layout.slot_bytes, "A batch")
        self.block, self.buffer = block, block.mapping
        self.leaves = self.layout.leaves(block.bytes[: self.layout.slot_bytes], self.layout.rows)

    def grow(self, slot_bytes: int) -> None:
        """Give a slot of plain bytes that is being filled more of them; what it holds is lost.

        Raises:
            PlanError: If the machine has not that much memory free; then it stays as it is.
        """
        if self.block is not None:
            self.adopt(Block.make(slot_bytes, "A batch"))
            return
        self.layout = Layout.of_bytes(slot_bytes)
        self.buffer = _map(self.layout.slot_bytes)
        self.leaves = self.layout.leaves(np.frombuffer(self.buffer, np.uint8), 1)

    def adopt(self, block: Block) -> None:
        """Take other shared memory in the place of a slot's own, with what is in it."""
        if self.block is not None:
            self.block.close()
        self.layout = Layout.of_bytes(block.count_bytes)
        self.block, self.buffer = block, block.mapping
        self.leaves = self.layout.leaves(block.bytes, 1)

    def hand_out(self, on_end: Iterable[Callable[[Any], object]]) -> list[npt.NDArray[Any]]:
        """Start a lease.

        Args:
            on_end: Called when the slot may be filled again, the last one first, with what is of no interest.
        Returns:
            The batch's leaves, views of one root.
        """
        root = np.frombuffer(self._open_buffer(), np.uint8, self.layout.slot_bytes)
        self.lease = tuple(weakref.ref(root, one) for one in on_end)
        return self.layout.leaves(root, self.rows, self.lengths)

    def _open_buffer(self) -> Any:
        """The memory, which another thread that closes the loader may let go of at any moment."""
        buffer = self.buffer
        if buffer is None:
            raise LoaderClosed("the loader was closed while a batch was awaited.")
        return buffer

    def copy_out(self, on_end: Callable[[Slot], None]) -> list[npt.NDArray[Any]]:
        """Copy the batch into memory that belongs to the consumer; as `hand_out` otherwise."""
        buffer = self._open_buffer()
        root = np.frombuffer(_map(self.layout.slot_bytes), np.uint8)
        leaves = self.layout.leaves(root, self.rows, self.lengths)
        ours = np.frombuffer(buffer, np.uint8, self.layout.slot_bytes)
        for mine, theirs in zip(self.layout.leaves(ours, self.rows, self.lengths), leaves, strict=True):
            theirs[...] = mine
        on_end(self)
        return leaves


def make_slot(layout: Layout, index: int, *, shared: bool) -> Slot:
    """Allocate one slot.

    Args:
        layout: Of a batch.
        index: Its place in the ring.
        shared: Whether worker processes write to it.
    Raises:
        PlanError: If the machine has not that much memory free.
    """
    if shared:
        slot = Slot(index, None, None, layout, [])
        slot.share()
        return slot
    buffer = _map(layout.slot_bytes)
    return Slot(index, buffer, None, layout, layout.leaves(np.frombuffer(buffer, np.uint8), layout.rows))


def _map(count_bytes: int) -> mmap.mmap:
    """Page-aligned memory, so that leaves are 64-byte aligned. Never closed by hand: leases may outlive the loader."""
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, count_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, count_bytes)
