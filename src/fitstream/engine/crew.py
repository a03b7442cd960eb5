"""The crew: which lanes run now, and where. Started once, changed by the tuner, ended by the pipeline.

Lanes that only fill chunks can be fewer or more from one moment to the next, and can be threads of this process or held
by worker processes: they all take tokens from the same queue, so nothing is lost or done twice when they change. The
reading lane of a generator is always one thread here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import final

from fitstream.chain import Chain, Tally
from fitstream.engine.board import Board
from fitstream.engine.filling import Filling, Progress
from fitstream.engine.lane import ThreadLane, TokenWork
from fitstream.engine.pool import Pool
from fitstream.engine.reading import Reading
from fitstream.engine.tokens import TokenQueue
from fitstream.engine.verdicts import hung_lane

__all__ = ["Crew"]


@final
class Crew:
    """The lanes of one pipeline.

    Args:
        board: Where tokens come from.
        owner: The loader's identity, for generators that can run only once.
        on_crash: Called with what escaped from a lane.
        pool: Worker processes that hold the lanes from the start, or None for threads.

    Attributes:
        here: What the calling thread works with, where there are no lanes.
        lane_count: Lanes that fill chunks now.
        pool: Worker processes, while they hold the lanes.
    """

    def __init__(
        self, board: Board, owner: object, on_crash: Callable[[BaseException], None], pool: Pool | None
    ) -> None:
        plan = board.plan
        self._board = board
        self._owner = owner
        self._on_crash = on_crash
        self._allowance = board.job.allowance()
        self._fillings: list[Filling] = []
        self._lanes: list[ThreadLane] = []
        self._ended: list[ThreadLane] = []
        self._lock = threading.Lock()
        self._past_tally = Tally()
        self._scratch_bytes = self._pool_bytes = 0
        self._past_use = (0, 0, 0)
        self._awake_ns = 0
        self._retired: list[Pool] = []
        self._read_chain: Chain | None = None
        self._reading: Reading | None = None
        self.reader: ThreadLane | None = None
        self.here: TokenWork | None = None
        self.pool: Pool | None = None
        self.lane_count = 0
        sequential = plan.order is None
        if plan.lane_count == 0:
            self.here = self._read(hands_on=False) if sequential else self._fill()
            return
        # Without stages nothing is left to do for other lanes: the reading lane fills the rows.
        hands_on = bool(plan.recipe.stages)
        if sequential:
            self.reader = self._lane("fitstream-reader", board.open_queue, lambda: self._read(hands_on=hands_on))
        if pool is not None:
            self.move_to(pool, plan.lane_count)
        elif hands_on or not sequential:
            self.set_lanes(plan.lane_count)

    def set_lanes(self, count: int) -> None:
        """Run this many lanes from now on, where they run now."""
        self.lane_count = count
        if self.pool is not None:
            self.pool.set_lanes(count)
            return
        while len(self._lanes) < count:
            number = len(self._lanes) + len(self._ended)
            self._lanes.append(self._lane(f"fitstream-lane-{number}", self._board.work_queue, self._fill))
        while len(self._lanes) > count:
            self._ended = [lane for lane in self._ended if lane.thread.is_alive()]
            lane = self._lanes.pop()
            lane.stopping = True
            lane.nudge()
            self._ended.append(lane)

    def move_to(self, pool: Pool, count: int) -> None:
        """Let worker processes hold so many lanes. The pool has been given the board's ring already."""
        self._board.shared = True
        self.set_lanes(0)
        self.pool = pool
        self.set_lanes(count)
        pool.activate()

    def move_back(self) -> None:
        """Let threads hold the lanes again. The pool finishes what it has in hand and then ends by itself."""
        pool, count = self.pool, self.lane_count
        assert pool is not None
        self.pool = None
        pool.retire()
        self._retired.append(pool)
        self.set_lanes(count)

    def _lane(self, name: str, queue: TokenQueue, open_work: Callable[[], TokenWork]) -> ThreadLane:
        return ThreadLane(name, queue, open_work, self._on_crash)

    def _read(self, *, hands_on: bool) -> TokenWork:
        filler = self._board.job.filler(self._allowance)
        self._read_chain = filler.chain
        self._reading = Reading(self._board, filler, hands_on, self._owner)
        return self._reading

    def _fill(self) -> TokenWork:
        filling = Filling(self._board, self._board.job.filler(self._allowance), self._left)
        with self._lock:
            self._fillings.append(filling)
        return filling

    def _left(self, filling: Filling) -> None:
        """Keep what a lane that ends has counted, and not the lane."""
        self._note()
        with self._lock:
            self._fillings.remove(filling)
            wall_ns, cpu_ns, fault_count = self._past_use
            # fmt: off
            self._past_use = (
                wall_ns + filling.wall_ns, cpu_ns + filling.cpu_ns, fault_count + filling.fault_count)
            # fmt: on
            self._past_tally = Tally.sum((self._past_tally, filling.filler.chain.tally))

    def _note(self) -> None:
        chains = [one.filler.chain for one in list(self._fillings)]
        if self._read_chain is not None:
            chains.append(self._read_chain)
        now = sum(chain.arena.peak_bytes for chain in chains) + self._allowance.large_peak_bytes
        self._scratch_bytes = max(self._scratch_bytes, now)

    @property
    def _pools(self) -> list[Pool]:
        pool = self.pool  # once, since another thread may close the loader
        return self._retired + ([pool] if pool is not None else [])

    @property
    def _threads(self) -> list[ThreadLane]:
        """All lanes in threads, with those that were told to end."""
        return [*self._lanes, *self._ended, *([self.reader] if self.reader is not None else [])]

    # What was measured.

    @property
    def wall_ns(self) -> int:
        """Time that lanes spent on chunks, all lanes since the start."""
        return self.thread_use[0] + sum(pool.wall_ns for pool in self._pools)

    @property
    def thread_use(self) -> tuple[int, int, int]:
        """Of lanes in threads since the start: time spent on chunks, CPU time of it, and page faults."""
        wall_ns, cpu_ns, fault_count = self._past_use
        for one in list(self._fillings):
            wall_ns, cpu_ns, fault_count = wall_ns + one.wall_ns, cpu_ns + one.cpu_ns, fault_count + one.fault_count
        return wall_ns, cpu_ns, fault_count

    @property
    def tally(self) -> Tally:
        """What lanes counted, wherever they are or were."""
        now = [one.filler.chain.tally for one in list(self._fillings)]
        if self._read_chain is not None:
            now.append(self._read_chain.tally)
        return Tally.sum((self._past_tally, *now, *(pool.tally for pool in self._pools)))

    @property
    def peak_bytes(self) -> int:
        """The most scratch that was in use here, or memory of worker processes."""
        self._note()
        return max(self._scratch_bytes, *(pool.peak_bytes for pool in self._pools), 0)

    def check_deadline(self, slept_s: float) -> None:
        """See whether a thread of ours has been at one sample for too long. Workers are looked after by their pool.

        Args:
            slept_s: How much longer than it meant to the caller slept.
        Raises:
            Stalled: If so.
        """
        plan = self._board.plan
        limit_s = plan.policy.sample_timeout_s
        if limit_s is None:
            return
        now_ns = time.monotonic_ns()
        if slept_s > limit_s / 2:
            self._awake_ns = now_ns  # all of the program was stopped, as by Ctrl-Z: no lane is to blame
        for name, thread, progress in self._at_work():
            since_ns, chunk = progress.since_ns, progress.work
            alone = chunk is None or chunk.row_count == 1 or progress.row is not None
            row = progress.row if progress.row is not None else 0 if chunk is None else chunk.start
            after_s = (now_ns - max(since_ns, self._awake_ns)) / 1e9
            if since_ns and after_s > (limit_s if alone or chunk is None else limit_s * chunk.row_count):
                raise hung_lane(plan, chunk, row, after_s, name, _stack(thread))

    def _at_work(self) -> Iterator[tuple[str, threading.Thread, Progress]]:
        for thread, progress in [(one.thread, one.progress) for one in list(self._fillings)]:
            yield f"lane {thread.name}", thread, progress
        if self.reader is not None and self._reading is not None:
            yield "the reading lane", self.reader.thread, self._reading.progress
        for pool in self._pools:
            yield "the thread that serves worker processes", pool.thread, pool.progress

    # The end.

    def dead(self) -> list[str]:
        """Names of the threads that should run and don't, as after a fork."""
        threads = [lane.thread for lane in self._lanes]
        threads += [one.thread for one in (self.reader, self.pool) if one is not None]
        return [thread.name for thread in threads if not thread.is_alive()]

    def stop(self, *, patient: bool) -> None:
        """Tell all lanes to end. Worker processes end first, so that they take no token meant for a thread."""
        for pool in self._pools:
            pool.close(patient=patient)
        # All are told before any is woken: a lane that isn't told would keep another's nudge.
        for lane in self._threads:
            lane.stopping = True
        for lane in self._threads:
            lane.nudge()
        if self.here is not None:
            self.here.close()

    def join(self, deadline: float) -> list[str]:
        """Wait until the threads ended, by the monotonic clock, and forget the worker processes.

        Returns:
            Names of those that did not.
        """
        self.pool, self._retired = None, []
        for lane in self._threads:
            if lane.thread is not threading.current_thread():
                lane.thread.join(max(0.0, deadline - time.monotonic()))
        return [lane.thread.name for lane in self._threads if lane.thread.is_alive()]


def _stack(thread: threading.Thread) -> str:
    """Where a thread is, as text, without our own frames above what it called."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return ""
    frames = traceback.extract_stack(frame)
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    last = max((at for at, one in enumerate(frames) if one.filename.startswith(ours)), default=-1)
    return "".join(traceback.format_list(frames[last + 1 :] or frames))
