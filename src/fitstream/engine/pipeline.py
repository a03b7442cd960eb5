"""The pipeline: starts the lanes, waits for batches in order, and ends everything.

The board keeps the books; here is what waits and what has a life. A consumer that waits looks once a second whether the
lanes live. `workers=0` is the same machine: the calling thread works on tokens until its batch is ready.
"""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, final

from fitstream.chain import Chain, Filler
from fitstream.engine.board import Board, Run
from fitstream.engine.codecs import codec_threads
from fitstream.engine.filling import Filling
from fitstream.engine.lane import STOP, ThreadLane, Worker, work_here
from fitstream.engine.reading import Reading
from fitstream.engine.ring import Slot
from fitstream.errors import FitstreamError, LoaderClosed
from fitstream.events import Event, LanesStarted, LanesStopped, RingExtended
from fitstream.plan import Plan
from fitstream.scratch import Allowance, Arena

__all__ = ["Pipeline"]

#: What a consumer that lets go of batches late (JAX, at its next call) gets before a batch is made beyond the ring.
_GRACE_S = 0.1
#: How often a waiting consumer looks whether the lanes live.
_WATCH_S = 1.0
#: How long `close` waits for a function of the user's to return, and how long after Ctrl-C.
_JOIN_S, _HASTY_JOIN_S = 10.0, 1.0


@final
class Pipeline:
    """The ring, the lanes and the current run of one loader.

    Args:
        plan: What to run.
        emit: Called with each event.
        owner: The loader's identity, for generators that can run only once.
    """

    def __init__(self, plan: Plan, emit: Callable[[Event], None], owner: object) -> None:
        self.plan = plan
        self.board = Board(plan)
        self._emit = emit
        self._owner = owner
        self._allowance = Allowance(plan.lane_bytes, plan.large_bytes, plan.budget_bytes)
        self._chains: list[Chain] = []
        self._crash: BaseException | None = None
        self._lanes: list[tuple[ThreadLane, SimpleQueue[Any]]] = []
        self._here: Worker | None = None
        #: Streams may be used from several threads, but the worker of the calling thread is one.
        self._here_lock = threading.Lock()
        self._idle_turns = 0
        self._decodes = plan.recipe.image_options is not None
        if self._decodes:
            codec_threads.hold()
        self._start_lanes()
        ring_bytes = plan.slot_count * plan.layout.slot_bytes
        try:
            emit(LanesStarted(plan.lane_count, plan.slot_count, ring_bytes, plan.lane_reason))
        except BaseException:
            self.close()
            raise

    def _start_lanes(self) -> None:
        plan, board = self.plan, self.board
        sequential = plan.order is None
        if plan.lane_count == 0:
            self._here = self._reading(False) if sequential else self._filling()
            return
        # Without stages nothing is left to do for other lanes: the reading lane fills the rows.
        hands_on = bool(plan.recipe.stages)
        if sequential:
            self._lane("fitstream-reader", board.open_queue, lambda: self._reading(hands_on))
        for i in range(plan.lane_count if hands_on or not sequential else 0):
            self._lane(f"fitstream-lane-{i}", board.work_queue, self._filling)

    def _lane(self, name: str, queue: SimpleQueue[Any], open_worker: Callable[[], Worker]) -> None:
        self._lanes.append((ThreadLane(name, queue, open_worker, self._crashed), queue))

    def _filling(self) -> Worker:
        return Filling(self.board, self._filler())

    def _reading(self, hands_on: bool) -> Worker:
        return Reading(self.board, self._filler(), hands_on, self._owner)

    def _filler(self) -> Filler:
        chain = Chain(self.plan.recipe, Arena(self._allowance))
        self._chains.append(chain)
        return Filler(chain, self.plan.structure, self.plan.specs)

    def _crashed(self, error: BaseException) -> None:
        self._crash = error
        self.board.ready_queue.put(None)

    def take(self, run: Run, number: int) -> tuple[Slot, list[Any]] | None:
        """Wait for a batch and lease it.

        Returns:
            The slot and the batch's leaves, or None after the last batch of the run.
        Raises:
            FitstreamError: The failure of a sample of the batch, or `LoaderClosed` if the run was abandoned.
        """
        board = self.board
        while (slot := board.claim(run, number)) is None:
            if board.closed:
                raise LoaderClosed("the loader was closed while a batch was awaited.")
            if board.run is not run:
                board.ready_queue.put(None)  # what woke this one up may have been meant for the newer iteration
                raise LoaderClosed("this iterator ended because a newer iteration of the same loader began.")
            if self._crash is not None:
                raise self._crash_error()
            if run.total is not None and number >= run.total:
                return None
            self._make_room(run, number)
            self._advance()
        if slot.failure is not None:
            raise slot.failure[1]
        leaves = slot.hand_out(board.free)
        if board.hoarding and self._lanes and board.next_number <= number + 1 and board.all_leased():
            self._add_spare(run)
        return slot, leaves

    def _advance(self) -> None:
        """Wait for news, or work for it where there are no lanes."""
        board = self.board
        if self._here is not None:
            with self._here_lock:
                self._work(self._here)
            return
        try:
            board.file(board.ready_queue.get(timeout=_WATCH_S))
        except Empty:
            dead = [lane.thread.name for lane, _ in self._lanes if not lane.thread.is_alive()]
            if dead:
                why = f"{', '.join(dead)} is gone; a process that was forked must make a loader of its own"
                self._crash = self._crash or RuntimeError(why)

    def _work(self, worker: Worker) -> None:
        board = self.board
        try:
            board.file(board.ready_queue.get_nowait())
        except Empty:
            if work_here((board.work_queue, board.open_queue), worker):
                self._idle_turns = 0
                return
            # Another thread's stream has the slot in hand, and lets it go or leases it in a moment.
            self._idle_turns += 1
            if self._idle_turns > 10_000:
                raise RuntimeError("a bug in fitstream: no work is left, but a batch is missing") from None
            time.sleep(0.001)

    def _make_room(self, run: Run, number: int) -> None:
        """Have a batch made beyond the ring if the consumer holds every slot."""
        board = self.board
        if number < board.next_number or board.spares_waiting or not board.all_leased():
            return
        deadline = time.monotonic() + _GRACE_S
        while True:
            # JAX lets go of what it has consumed in a young collection; a full one would cost too much.
            gc.collect(0)
            if not board.all_leased():
                return
            if board.hoarding or time.monotonic() > deadline:
                break
            time.sleep(0.001)
        board.hoarding = True
        self._add_spare(run)

    def _add_spare(self, run: Run) -> None:
        if self.board.add_spare(run):
            self._emit(RingExtended(len(self.board.slots), self.plan.layout.slot_bytes))

    def _crash_error(self) -> BaseException:
        error = self._crash
        if isinstance(error, FitstreamError):
            return error
        crash = FitstreamError(f"a lane ended unexpectedly by {type(error).__name__}: {error}")
        crash.__cause__ = error
        return crash

    @property
    def fallback_count(self) -> int:
        """JPEG files that the fast decoder refused and Pillow read."""
        return sum(chain.fallback_count for chain in list(self._chains))

    @property
    def peak_bytes(self) -> int:
        """The ring and the most scratch that was in use."""
        scratch = sum(chain.arena.peak_bytes for chain in list(self._chains)) + self._allowance.large_peak_bytes
        return self.plan.slot_count * self.plan.layout.slot_bytes + scratch

    def close(self, *, patient: bool = True) -> None:
        """End the lanes and let the ring go. Batches that the consumer holds stay valid."""
        join_s = _JOIN_S if patient else _HASTY_JOIN_S
        if not self.board.close():
            return
        for _, queue in self._lanes:
            queue.put(STOP)
        if self._here is not None:
            self._here.close()
        deadline = time.monotonic() + join_s
        try:
            for lane, _ in self._lanes:
                if lane.thread is not threading.current_thread():
                    lane.thread.join(max(0.0, deadline - time.monotonic()))
        finally:
            # Also when Ctrl-C comes a second time.
            if self._decodes:
                codec_threads.release()
        stuck = [lane.thread.name for lane, _ in self._lanes if lane.thread.is_alive()]
        if not stuck:
            self.board.let_go()
        self._emit(LanesStopped())
        if stuck and threading.current_thread().name not in stuck:
            warnings.warn(
                f"{', '.join(stuck)} did not end within {join_s:.0f} s of close(): a function given to map(), or the "
                "generator, has not returned. The thread ends when it does, or with the program.",
                RuntimeWarning,
                stacklevel=3,
            )
