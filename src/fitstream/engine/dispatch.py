"""Giving chunks to worker processes and taking in what they finished. Used by the pool's thread alone.

Each worker has two chunks a lane in hand, one that is worked on and one that waits, so that no lane waits for the main
process while the training loop holds the interpreter lock. What a worker had in hand when it died is given out again: a
chunk is finished when its `Done` was read, and doing one twice writes the same bytes.

Raw samples of a generator are placed in areas of shared memory, one a chunk in hand.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from queue import Empty
from typing import final

from fitstream.engine.board import Board, Chunk
from fitstream.engine.filling import open_slot
from fitstream.engine.messages import Done, Fill, read_failure
from fitstream.engine.process import Process
from fitstream.engine.ring import Slot
from fitstream.errors import SampleError
from fitstream.memory import Block
from fitstream.packing import TooBig, Unpackable, pack_samples
from fitstream.spec import format_bytes

__all__ = ["Dispatcher"]

#: Chunks that a worker has in hand, for each of its lanes.
_DEPTH = 2


@final
class Dispatcher:
    """The work of one board, for worker processes.

    Args:
        board: Where tokens come from.
        lane_counts: Lanes of each worker.

    Attributes:
        board: The same.
        active: Whether tokens are taken.
        shares: How many lanes of each process may work.
        area_count_bytes: Shared memory for raw samples.
    """

    def __init__(self, board: Board, lane_counts: Sequence[int]) -> None:
        plan = board.plan
        self.board = board
        self.active = False
        self.shares = list(lane_counts)
        self._returned: deque[Chunk] = deque()
        self._next_token = 0
        self._areas: Block | None = None
        self._free_areas: list[int] = []
        if plan.order is None:
            count = _DEPTH * sum(lane_counts)
            self._areas = Block.make(count * plan.area_bytes, "Room for a generator's samples")
            self._free_areas = list(range(count))

    @property
    def area_count_bytes(self) -> int:
        return 0 if self._areas is None else self._areas.count_bytes

    def close(self) -> None:
        """Close what was made here."""
        if self._areas is not None:
            self._areas.close()

    def recall(self, process: Process) -> list[Chunk]:
        """Take back what a worker that is gone had in hand."""
        chunks = [chunk for chunk, _ in process.in_flight.values()]
        self._free_areas += [area for _, area in process.in_flight.values() if area >= 0]
        self._returned.extend(chunks)
        process.in_flight.clear()
        return chunks

    def done(self, process: Process, done: Done, text: bytes) -> None:
        """Take in that a chunk is finished."""
        chunk, area = process.in_flight.pop(done.token)
        if area >= 0:
            self._free_areas.append(area)
        failure = None
        if done.failed_row >= 0:
            failure = (done.failed_row, read_failure(text))
        elif self.board.plan.whole_batches:
            self.board.set_rows(chunk.slot, done.rows, done.rows)
        self._finish(chunk, failure)

    def _finish(self, chunk: Chunk, failure: tuple[int, BaseException] | None = None) -> None:
        if chunk.given is not None:
            self.board.room.release()
        self.board.finish_part(chunk.slot, failure)

    def hand_out(self, processes: Sequence[Process]) -> None:
        """Give the ring to those that lack it, and work to those that have room for it."""
        board = self.board
        for each in processes:
            if each.state == "ready" or (each.state == "working" and each.slot_count < len(board.slots)):
                self._attach(each)
        while self._returned and not self.active:
            board.work_queue.put(self._returned.popleft())
        while self.active:
            process = self._freest(processes)
            chunk = self._next_chunk() if process is not None else None
            if process is None or chunk is None:
                break
            if not board.current(chunk.run):
                self._finish(chunk)
            else:
                self._send(process, chunk)

    def _attach(self, process: Process) -> None:
        plan = self.board.plan
        slots = self.board.slots[process.slot_count :]
        fds = [slot.block.fd for slot in slots if slot.block is not None]
        if self._areas is not None and process.slot_count == 0:
            fds.insert(0, self._areas.fd)
        process.slot_count += len(slots)
        # fmt: off
        process.attach(
            fds, lane_bytes=plan.lane_bytes, large_bytes=plan.large_bytes, budget_bytes=plan.budget_bytes,
            area_bytes=plan.area_bytes if self._areas is not None else 0,
        )
        # fmt: on

    def _freest(self, processes: Sequence[Process]) -> Process | None:
        """The worker with the most room, if any has some."""
        most, found = 0, None
        for process, share in zip(processes, self.shares, strict=False):
            room = _DEPTH * share - len(process.in_flight)
            if process.state == "working" and room > most:
                most, found = room, process
        return found

    def _next_chunk(self) -> Chunk | None:
        while True:
            if self._returned:
                return self._returned.popleft()
            try:
                token = self.board.work_queue.get_nowait()
            except Empty:
                return None
            if isinstance(token, Chunk):
                return token
            if isinstance(token, Slot):
                open_slot(self.board, token)

    def _send(self, process: Process, chunk: Chunk) -> None:
        area = -1
        if chunk.given is not None and self._areas is not None:
            area = self._free_areas.pop()
            try:
                pack_samples(chunk.given, self._areas.bytes.reshape(-1, self.board.plan.area_bytes)[area])
            except (TooBig, Unpackable) as error:
                self._free_areas.append(area)
                self._finish(chunk, (chunk.start, _unfit(error, chunk, self.board.plan.area_bytes)))
                return
        token, self._next_token = self._next_token, self._next_token + 1
        process.in_flight[token] = (chunk, area)
        # fmt: off
        fill = Fill(token, chunk.run.serial, chunk.slot.index, chunk.pass_index, chunk.step, chunk.start,
                    chunk.row_count, chunk.first_index, area)
        # fmt: on
        # A worker that is just dying takes no message; its end is heard next, and the chunk given out again.
        with contextlib.suppress(ConnectionError):
            process.socket.send(fill.write())


def _unfit(error: TooBig | Unpackable, chunk: Chunk, area_bytes: int) -> SampleError:
    """What to say of raw samples that can't be placed in shared memory."""
    if isinstance(error, TooBig):
        last = chunk.first_index + chunk.row_count - 1
        reason = (
            f"samples {chunk.first_index} to {last} of the generator take {format_bytes(error.need_bytes)}, but "
            f"{format_bytes(area_bytes)} were planned, twice what the first ones would take. Use processes=0 for "
            "threads, or yield what is needed to make the sample instead of the sample."
        )
    else:
        reason = f"{error}. Use processes=0 for threads."
    return SampleError(reason, index=chunk.first_index, stage="read")
