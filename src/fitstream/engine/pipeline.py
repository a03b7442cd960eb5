"""The pipeline: starts the lanes, waits for batches in order, and ends everything.

The board keeps the books, the crew holds the lanes; here is what waits. A consumer that waits looks once a second
whether the lanes live. `workers=0` is the same machine: the calling thread works on tokens until its batch is ready.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from queue import Empty
from typing import Any, final

from fitstream.batching import BatchOrder
from fitstream.engine.board import Board
from fitstream.engine.codecs import codec_threads
from fitstream.engine.crew import Crew
from fitstream.engine.lane import TokenWork, work_here
from fitstream.engine.pool import Pool, split_lanes
from fitstream.engine.ring import Slot
from fitstream.engine.tokens import Run
from fitstream.engine.tuner import Tuner
from fitstream.errors import FitstreamError, LoaderClosed
from fitstream.events import Event, LanesChanged, LanesStarted, LanesStopped, RingExtended
from fitstream.plan import Plan

__all__ = ["Pipeline"]

#: What a consumer that lets go of batches late (JAX, at its next call) gets before the ring is extended.
_GRACE_S = 0.1
#: How often a waiting consumer looks whether the lanes live, at least.
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
    Raises:
        PlanError: If a source or function can't be sent to a worker process, or memory for the ring is not there.

    """

    def __init__(self, plan: Plan, emit: Callable[[Event], None], owner: object) -> None:
        self._emit = emit
        self._crash: BaseException | None = None
        #: Streams may be used from several threads, but the worker of the calling thread is one. Reentrant, because a
        #: function of the user's may close the loader.
        self._here_lock = threading.RLock()
        self._idle_turns = 0
        self._watch_s = min(_WATCH_S, (plan.policy.sample_timeout_s or _WATCH_S) / 4)
        self._pid = os.getpid()
        pool: Pool | None = None
        with contextlib.ExitStack() as undo:
            if plan.process_count and not plan.auto_processes:
                pool = Pool(plan, split_lanes(plan.lane_count, plan.process_count), emit)
                undo.callback(pool.close)
                plan = plan.refitted(pool.worker_bytes, pool.shared_bytes)
            self.board = Board(plan)
            if pool is not None:
                pool.attach(self.board, self._crashed)
            # Threads of ours decode, or may.
            self._holds_codecs = plan.recipe.image_options is not None and pool is None
            if self._holds_codecs:
                codec_threads.hold()
                undo.callback(codec_threads.release)
            self.crew = Crew(self.board, owner, self._crashed, pool)
            self._tuner = Tuner(self.board, self.crew, emit, self._crashed)
            undo.pop_all()
        ring_bytes = plan.slot_count * plan.layout.slot_bytes
        try:
            emit(LanesStarted(plan.lane_count, plan.slot_count, ring_bytes, plan.lane_reason))
        except BaseException:
            self.close()
            raise

    @property
    def plan(self) -> Plan:
        """What runs, with what worker processes were found to cost if there are some."""
        return self.board.plan

    def _crashed(self, error: BaseException) -> None:
        self._crash = self._crash or error
        self.board.ready_queue.put(None)

    def take(self, run: Run, number: int) -> tuple[Slot, list[Any]] | None:
        """Wait for a batch and lease it.

        Returns:
            The slot and the batch's leaves, or None after the last batch of the run.
        Raises:
            FitstreamError: The failure of a sample of the batch, or `LoaderClosed` if the run was abandoned.
        """
        board = self.board
        if os.getpid() != self._pid:
            # What a forked child has of the ring is its parent's.
            raise LoaderClosed(
                "the loader is of the process that this one was forked from. A forked process must make a loader "
                "of its own."
            )
        asked_s = time.perf_counter()
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
            self._make_room(number)
            self._advance()
        if slot.failure is not None:
            raise slot.failure[1]
        self._tuner.delivered(run, asked_s)
        if board.extended and board.all_leased(but=slot):
            board.copy_count += 1
            told = replace(slot)  # the slot itself may be opened for another batch as soon as it is free
            return told, slot.copy_out(board.free)
        return slot, slot.hand_out(board.open_queue.putters(slot))

    def _advance(self) -> None:
        """Wait for news, or work for it where there are no lanes."""
        board, here = self.board, self.crew.here
        if here is not None:
            with self._here_lock:
                self._work(here)
            return
        asked_s = time.monotonic()
        try:
            board.file(board.ready_queue.get(timeout=self._watch_s))
        except Empty:
            self.crew.check_deadline(time.monotonic() - asked_s - self._watch_s)
            dead = self.crew.dead()
            if dead:
                why = f"{', '.join(dead)} is gone; a process that was forked must make a loader of its own"
                self._crash = self._crash or RuntimeError(why)

    def _work(self, duty: TokenWork) -> None:
        board = self.board
        # Work is done outside of any handler: what it raises, such as Ctrl-C, has no other exception before it.
        with contextlib.suppress(Empty):
            board.file(board.ready_queue.get_nowait())
            return
        if work_here((board.work_queue, board.open_queue), duty):
            self._idle_turns = 0
            return
        # Another thread's stream has the slot in hand, and lets it go or leases it in a moment.
        self._idle_turns += 1
        if self._idle_turns > 10_000:
            raise RuntimeError("a bug in fitstream: no work is left, but a batch is missing")
        time.sleep(0.001)

    def _make_room(self, number: int) -> None:
        """Extend the ring if the consumer holds all of it."""
        board = self.board
        if number < board.next_number or not board.all_leased():
            return
        deadline = time.monotonic() + _GRACE_S
        while time.monotonic() < deadline:
            # JAX lets go of what it has consumed in a young collection; a full one would cost too much.
            gc.collect(0)
            if not board.all_leased():
                return
            time.sleep(0.001)
        slot = board.extend()
        if slot is not None:
            self._emit(RingExtended(slot.index, self.plan.layout.slot_bytes))

    def _crash_error(self) -> BaseException:
        error = self._crash
        if isinstance(error, FitstreamError):
            return error
        crash = FitstreamError(f"a lane ended unexpectedly by {type(error).__name__}: {error}")
        crash.__cause__ = error
        return crash

    def renew(self, order: BatchOrder) -> None:
        """Go on with another order, and let workers have the source as it is now. Before the run that it is for."""
        board = self.board
        board.plan = replace(board.plan, order=order, steps=order.steps)
        if self.crew.pool is not None:
            self.crew.pool.renew(board.plan)

    @property
    def decision(self) -> LanesChanged | None:
        """What was last decided about the lanes while running."""
        return self._tuner.decision

    @property
    def peak_bytes(self) -> int:
        """The ring and the most scratch that was in use, or memory of worker processes that was measured."""
        return self.plan.slot_count * self.plan.layout.slot_bytes + self.crew.peak_bytes

    def close(self, *, patient: bool = True) -> None:
        """End the lanes and let the ring go. Safe to call twice; called by a finalizer, too.

        Args:
            patient: Wait for functions of the user's to return; else only for a moment.
        """
        join_s = _JOIN_S if patient else _HASTY_JOIN_S
        if not self.board.close():
            return
        self._tuner.close(patient=patient)
        # Without lanes, another thread may be at work on a batch.
        at_rest = self.crew.here is not None and self._here_lock.acquire(timeout=join_s)
        stuck: list[str] = []
        try:
            self.crew.stop(patient=patient)
            stuck = self.crew.join(time.monotonic() + join_s)
        finally:
            # Also when Ctrl-C comes a second time.
            if at_rest:
                self._here_lock.release()
            if self._holds_codecs:
                codec_threads.release()
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
