"""A worker process: lanes that fill rows of shared slots. Started by `pool`, which alone talks to it.

It imports what the functions and the source need, and no framework. Its life hangs on that of its parent twice: the
kernel kills it when the thread that started it ends, and its lanes end when the socket does. Ctrl-C is for the main
process to handle.

All lanes take messages from one socket, so that whoever is free works. Before each sample a lane marks in shared memory
what it is at (`marks`), and looks at the run's number there: what was abandoned is left at once.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.chain import Chain
from fitstream.engine.areas import BESIDE, NOWHERE
from fitstream.engine.ceiling import limit_memory, tell_limit
from fitstream.engine.filling import fill_rows
from fitstream.engine.free_form import reseed, room_for
from fitstream.engine.job import Job
from fitstream.engine.marks import Marks
from fitstream.engine.messages import (
    ASK_STACKS,
    ATTACH,
    ATTACHED,
    BROKEN,
    FILL,
    HELLO,
    MOST_BYTES,
    MOST_FDS,
    READY,
    RENEW,
    Done,
    Fill,
    failure_text,
    read_note,
    write_bad,
    write_note,
)
from fitstream.engine.sending import unpack
from fitstream.failures import RowError
from fitstream.filler import Filler
from fitstream.machine import opening_a_worker, private_bytes
from fitstream.memory import Block
from fitstream.packing import unpack_samples
from fitstream.scratch import Allowance, Arena
from fitstream.spec import Layout

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(fd: int, parent: int) -> None:
    """Serve until told to stop, or until nobody is left to serve.

    Args:
        fd: The worker's end of the socket.
        parent: Process id of who started it.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=fd) as sock:
        try:
            with opening_a_worker():
                worker = _Worker(sock)
        except BaseException as error:  # noqa: BLE001  told to the main process, whatever it is
            sock.send(write_note(BROKEN, reason=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()))
            return
        lanes = [threading.Thread(target=worker.serve, args=(i,), daemon=True) for i in range(1, worker.lane_count)]
        for lane in lanes:
            lane.start()
        worker.serve(0)
        for lane in lanes:
            lane.join()


@final
class _Worker:
    """What the lanes of this process share."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        message, fds, _, _ = socket.recv_fds(sock, MOST_BYTES, MOST_FDS)
        assert message[:1] == HELLO
        told = read_note(message)
        self.lane_count: int = told["lanes"]
        marks, stacks, *parcel = fds
        limit_memory(told["room_bytes"], parcel)
        self._marks = Marks(Block(marks))
        self._first_lane: int = told["first_lane"]
        # A lane that hangs is asked where by a signal, which is heard even inside code that holds the interpreter lock.
        faulthandler.register(ASK_STACKS, file=stacks, all_threads=True)
        self._job: Job = Job.joined(unpack(parcel))
        self._leaves: dict[int, list[Any]] = {}
        self._areas: Any = None
        self._limit_bytes = 0
        self._fillers: list[Filler] = []
        self._allowance = Allowance(0, 0, 0)
        # Opens and imports all that a lane will: what it costs is known then, and what can't be opened is told now.
        Chain(self._job.recipe, Arena(self._allowance)).close()
        if "cv2" in sys.modules:
            sys.modules["cv2"].setNumThreads(1)
        sock.send(write_note(READY, reserved_bytes=private_bytes(os.getpid())))

    def serve(self, lane: int) -> None:
        """Take messages until told to stop."""
        try:
            while True:
                message, fds, _, _ = socket.recv_fds(self._socket, MOST_BYTES, MOST_FDS)
                kind = message[:1]
                if kind == FILL:
                    self._fill(lane, Fill.read(message), fds)
                elif kind == ATTACH:
                    self._attach(read_note(message), fds)
                elif kind == RENEW:
                    self._renew(fds)
                else:  # told to stop, or the main process is gone
                    break
        except BaseException as error:  # noqa: BLE001  told to the main process, whatever it is
            reason = f"{type(error).__name__}: {error}"
            try:
                self._socket.send(write_note(BROKEN, reason=reason, traceback=traceback.format_exc()))
            finally:
                # Other lanes may be inside a function of the user's for long.
                os._exit(1)

    def _attach(self, told: dict[str, Any], fds: Sequence[int]) -> None:
        """Map slots; the first time, open the lanes too."""
        fds = list(fds)
        if not self._fillers:
            suggest = self._job.needs.suggest_bytes
            self._allowance = Allowance(told["lane_bytes"], told["large_bytes"], told["budget_bytes"], suggest)
            self._fillers = [self._job.filler(self._allowance) for _ in range(self.lane_count)]
            if told["area_bytes"]:
                areas = Block(fds.pop(0))
                self._areas = areas.bytes.reshape(-1, told["area_bytes"])
                areas.close()
        self._limit_bytes = told["limit_bytes"]
        for slot, fd in zip(told["slots"], fds, strict=True):
            self._map(slot, Block(fd))
        self._socket.send(ATTACHED)

    def _map(self, slot: int, block: Block) -> None:
        layout = Layout.of_bytes(block.count_bytes) if self._job.free_form else self._job.layout
        self._leaves[slot] = layout.leaves(block.bytes[: layout.slot_bytes], layout.rows)
        block.close()

    def _renew(self, fds: Sequence[int]) -> None:
        """Open another parcel. A lane that is still at what was abandoned ends that with what it has."""
        self._job = Job.joined(unpack(fds))
        self._fillers = [self._job.filler(self._allowance) for _ in range(self.lane_count)]
        self._socket.send(ATTACHED)

    def _given(self, area: int, fds: Sequence[int]) -> list[Any] | None:
        """The raw samples of a chunk, where there are some."""
        if area == NOWHERE:
            return None
        if area != BESIDE:
            # A copy, because functions may keep what they are given, and the area is used again.
            return unpack_samples(self._areas[area].copy())
        block = Block(fds[0])
        block.close()
        return unpack_samples(block.bytes)

    def _fill(self, lane: int, fill: Fill, fds: Sequence[int]) -> None:
        filler, marks, place = self._fillers[lane], self._marks, self._first_lane + lane
        leaves = self._leaves[fill.slot]
        room = _Room(leaves[0][0], self._limit_bytes) if self._job.free_form else None
        if room is not None:
            reseed(self._job.recipe.seed, fill.pass_index, fill.first_index)
        goes_on = marks.stepper(place, fill.run)
        started_ns = time.perf_counter_ns()
        rows, failed_row, text = 0, -1, b""
        marks.begin(place, fill.token, threading.get_ident())
        try:
            given = self._given(fill.area, fds)
            filled = fill_rows(self._job, filler, leaves, fill, given, goes_on, room)
            rows = filled.rows
            for bad in filled.bad:
                self._socket.send(write_bad(fill.token, bad))
        except RowError as failed:
            failed_row = failed.row
            told = "".join(traceback.format_exception(failed.error.__cause__ or failed.error))
            text = failure_text(tell_limit(failed.error), told)
        finally:
            marks.end(place)
        message = Done(
            token=fill.token,
            lane=lane,
            rows=rows,
            abandoned=int(not marks.is_run(fill.run)),
            failed_row=failed_row,
            wall_ns=time.perf_counter_ns() - started_ns,
            **filler.chain.tally._asdict(),
        ).write(text)
        if room is None or room.block is None:
            self._socket.send(message)
        else:
            socket.send_fds(self._socket, [message], [room.block.fd])
            self._map(fill.slot, room.block)


@final
class _Room:
    """Where a worker puts a batch of free form: the slot, or memory of its own that becomes the slot's."""

    def __init__(self, area: npt.NDArray[np.uint8], limit_bytes: int) -> None:
        self.area = area
        self.block: Block | None = None
        self._limit_bytes = limit_bytes

    def grow(self, need_bytes: int) -> None:
        self.block = Block.make(room_for(need_bytes, self._limit_bytes), "A batch")
        self.area = self.block.bytes

    def keep(self, batch: Any) -> bool:
        return False
