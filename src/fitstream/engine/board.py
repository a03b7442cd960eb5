"""The board: which batch is where. All bookkeeping between lanes and consumer, and nothing that waits.

One run is one stream of batches numbered from 0; a new run abandons the older. Work travels as tokens in two queues:
free slots (`open_queue`) and chunks of rows (`work_queue`); for random access they are one queue, read by all lanes, so
that all lanes work on the first batch. A sequential source has a reading lane, which alone takes free slots. Work ahead
is bounded because a batch needs a slot, and a slot comes back only when its lease ends.

What a lane finishes for an abandoned run is thrown away by comparing run identities, so nothing must be awaited when a
loop is left early. Of several failures in one batch the lowest row's counts, so that errors are as reproducible as
batches. The lock guards the run's counters and each slot's `pending`; no code of the user's runs in it.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import final

import numpy as np
import numpy.typing as npt

from fitstream.engine.job import Job
from fitstream.engine.ring import Slot, make_slot
from fitstream.engine.tokens import FINE, Chunk, Outcome, Run, TokenQueue
from fitstream.errors import LoaderClosed, PlanError
from fitstream.padding import trim
from fitstream.plan import Plan

__all__ = ["Board"]


@final
class Board:
    """The state that lanes and consumer share.

    Args:
        plan: What runs.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.job = Job.of(plan)
        self.run: Run | None = None
        self.closed = False
        self.next_number = 0
        #: Shared with worker processes: the serial number of the current run, 0 if there is none.
        self.mark: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._serial = 0
        #: The consumer held every slot, and waiting didn't help.
        self.extended = False
        #: Batches handed out as copies.
        self.copy_count = 0
        self.work_queue = TokenQueue()
        self.open_queue = self.work_queue if plan.order is not None else TokenQueue()
        #: Slots that are ready, and None where the consumer should look again.
        self.ready_queue: SimpleQueue[Slot | None] = SimpleQueue()
        #: Bounds the raw samples of a sequential source that wait for a lane.
        self.room = threading.Semaphore(plan.room_count)
        #: Whether worker processes write to the ring. Slots that are private yet are shared when they are used next.
        self.shared = plan.process_count > 0 and not plan.auto_processes
        #: What a slot may take; of free form, half of the ring until the first batch tells how large batches are.
        self.limit_bytes = plan.ring_bytes // 128 * 64 if plan.free_form else plan.layout.slot_bytes
        self._sized = not plan.free_form
        self._first_layout = plan.layout
        self.slots = [make_slot(plan.layout, index, shared=self.shared) for index in range(plan.slot_count)]
        for slot in self.slots:
            self.free(slot)
        # Reentrant: a collection inside it may end another loader, and through a cycle this one.
        self._lock = threading.RLock()
        self._parked: list[Slot] = []
        self._done: dict[int, Slot] = {}

    def current(self, run: Run) -> bool:
        """Whether work for a run still counts."""
        return self.run is run and not self.closed

    # What lanes call.

    def begin(self, slot: Slot) -> tuple[Run, int] | None:
        """Give a free slot the next number of the run; or keep it until the next run, if there is nothing to do.

        The caller holds one part of the batch until it calls `finish_part`.
        """
        if self.shared and slot.block is None:
            with contextlib.suppress(PlanError):  # then the main process goes on filling it
                slot.share()
        with self._lock:
            run = self.run
            if run is None or self.closed or (run.total is not None and self.next_number >= run.total):
                self._parked.append(slot)
                return None
            number = self.next_number
            self.next_number = number + 1
            slot.run, slot.number, slot.failure, slot.bad, slot.lease, slot.pending = run, number, None, [], (), 1
            slot.kept = None
            return run, number

    def add_chunk(self, chunk: Chunk) -> None:
        """Hand out one more part of a batch."""
        with self._lock:
            chunk.slot.pending += 1
        self.work_queue.put(chunk)

    def finish_chunk(self, chunk: Chunk, outcome: Outcome = FINE) -> None:
        """Report that a chunk is finished."""
        if chunk.given is not None and (chunk.stake is None or chunk.stake.pop() == 0):
            self.room.release()
        self.finish_part(chunk.slot, outcome)

    def add_parts(self, slot: Slot, count: int) -> None:
        """Take in that a part of a batch was divided, into so many more."""
        with self._lock:
            slot.pending += count

    def set_rows(self, slot: Slot, real: int, count: int) -> None:
        """Fix how many rows a batch has; zero its padding and write its mask."""
        slot.rows, slot.sample_count = count, real
        for leaf in slot.leaves:
            leaf[real:count] = 0
        if self.plan.mask and not self.plan.padded:
            slot.leaves[-1][:real] = 1

    def finish_part(self, slot: Slot, outcome: Outcome = FINE) -> None:
        """Report that one part of a batch is finished; the last one lets the slot go on."""
        with self._lock:
            failure = outcome.failure
            slot.bad.extend(outcome.bad)
            if failure is not None and (slot.failure is None or failure[0] < slot.failure[0]):
                slot.failure = failure
            slot.pending -= 1
            if slot.pending:
                return
            current = slot.run is not None and slot.run is self.run
        if not self._sized and slot.failure is None and slot.rows:
            self._size_ring(slot)
        if current:
            if slot.bad and not self.plan.whole_batches:
                self._leave_out(slot)
            if self.plan.padded:
                slot.lengths = trim(slot.leaves, slot.rows, self.plan.padded, mask=self.plan.mask)
            self.ready_queue.put(slot)
        else:
            self.free(slot)

    def _size_ring(self, slot: Slot) -> None:
        """Give the ring the slots that it may have, now that one batch of free form is there. They grow when used."""
        self._sized = True
        count = max(2, min(self.plan.most_slots, self.plan.ring_bytes // slot.layout.slot_bytes))
        self.limit_bytes = self.plan.ring_bytes // (64 * count) * 64
        added = [make_slot(self._first_layout, index, shared=self.shared) for index in range(1, count)]
        self.slots += added
        self.grown(slot)
        for one in added:
            self.free(one)

    def grown(self, slot: Slot) -> None:
        """Take in that a slot grew, or that there are more."""
        with self._lock:
            layout = max(self.plan.layout, slot.layout, key=lambda one: one.slot_bytes)
            self.plan = replace(self.plan, layout=layout, slot_count=len(self.slots))

    def _leave_out(self, slot: Slot) -> None:
        """Close the gaps that skipped samples left, so that no batch memory is needed for it."""
        skipped = {one.row for one in slot.bad if one.donor_index is None}
        kept = [row for row in range(slot.sample_count) if row not in skipped]
        for leaf in slot.leaves:
            for place, row in enumerate(kept):
                if place != row:
                    leaf[place] = leaf[row]
        self.set_rows(slot, len(kept), slot.rows if self.plan.last == "pad" else len(kept))

    def give_back(self, run: Run, number: int) -> None:
        """Let the next slot have a number whose batch was not made. Called by the only lane that takes slots."""
        with self._lock:
            if self.run is run:
                self.next_number = number

    def end_run(self, run: Run, total: int) -> None:
        """Tell the consumer how many batches a run turned out to have."""
        run.total = total
        self.ready_queue.put(None)

    def free(self, slot: Slot) -> None:
        """Put a slot back to be filled again."""
        self.open_queue.put(slot)

    # What the consumer calls.

    def start_run(self, run: Run) -> None:
        """Abandon the current run and begin another."""
        with self._lock:
            if self.closed:
                raise LoaderClosed("the loader is closed. Make a new one with ds.loader(...).")
            self._serial += 1
            run.serial = self._serial
            self.run = run
            self.mark[0] = run.serial
            self.next_number = 0
            idle = [*self._parked, *self._done.values()]
            self._parked.clear()
            self._done.clear()
        for slot in idle:
            self.free(slot)
        self.ready_queue.put(None)

    def abandon(self, run: Run) -> None:
        """Throw away what was made for a run, if it is still the current one."""
        with self._lock:
            if self.run is not run:
                return
            self.run = None
            self.mark[0] = 0
            idle = list(self._done.values())
            self._done.clear()
        for slot in idle:
            self.free(slot)
        self.ready_queue.put(None)

    def file(self, slot: Slot | None) -> None:
        """Keep a ready slot until its batch is asked for, or free it if its run was abandoned."""
        if slot is None:
            return
        with self._lock:
            current = slot.run is self.run
            if current:
                self._done[slot.number] = slot
        if not current:
            self.free(slot)

    def claim(self, run: Run, number: int) -> Slot | None:
        """The ready slot of a batch, if it is there. None once it is closed: what lanes left then lacks rows."""
        with self._lock:
            return self._done.pop(number, None) if self.current(run) else None

    def all_leased(self, but: Slot | None = None) -> bool:
        """Whether the consumer holds all slots, or all but one."""
        return all(slot.leased for slot in self.slots if slot is not but)

    def share_mark(self, mark: npt.NDArray[np.int64]) -> None:
        """Keep the current run's serial number where worker processes see it."""
        with self._lock:
            mark[0] = self.mark[0]
            self.mark = mark

    def extend(self) -> Slot | None:
        """Add a slot for a consumer that keeps all others, once; from then on it may get copies."""
        with self._lock:
            if self.extended:
                return None
            self.extended = True
        slot = make_slot(self._first_layout, len(self.slots), shared=self.shared)
        self.slots.append(slot)
        plan = replace(self.plan, slot_count=len(self.slots))
        if plan.projected_bytes <= plan.budget_bytes:  # else it counts as the consumer's, as copies do
            self.plan = plan
        self.free(slot)
        return slot

    def close(self) -> bool:
        """Stop handing out work. Returns False if that was done before."""
        with self._lock:
            was_open, self.closed = not self.closed, True
            self.mark[0] = 0
            self._parked.clear()
            self._done.clear()
        self.ready_queue.put(None)
        return was_open

    def let_go(self) -> None:
        """Drop the ring's memory, once no lane works any more. What is leased lives on in its lease alone."""
        self.open_queue.bell = self.work_queue.bell = None
        for take in (self.open_queue.get_nowait, self.work_queue.get_nowait, self.ready_queue.get_nowait):
            with contextlib.suppress(Empty):
                while True:
                    take()
        for slot in self.slots:
            slot.let_go()
        self.slots = []
