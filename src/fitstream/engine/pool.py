"""The pool: worker processes, and the one thread of the main process that serves them.

That thread starts them, hands chunks out, takes in what is finished, and sees at once when one dies: it sleeps in one
`poll` over their sockets, their process descriptors and a bell that rings when there is a token. To the board it is a
lane like others: it takes the same tokens and reports in the same way.

    starting ─[READY]─> ready ─[attach]─> attaching ─[ATTACHED]─> working ─[process ends]─> replaced, or WorkerDied
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from fitstream.chain import Tally
from fitstream.engine.bell import Bell
from fitstream.engine.board import Board
from fitstream.engine.dispatch import Dispatcher, Recalled
from fitstream.engine.filling import Progress
from fitstream.engine.job import packed_job
from fitstream.engine.marks import Marks
from fitstream.engine.messages import ATTACHED, BAD, BROKEN, DONE, READY, Done, read_bad, read_note
from fitstream.engine.process import Process, end_all
from fitstream.engine.usage import Usage
from fitstream.engine.verdicts import could_not_open, dead_workers, verdict
from fitstream.engine.watch import Watch
from fitstream.errors import FitstreamError, PlanError, Stalled
from fitstream.events import Event, WorkerLost, WorkerStarted
from fitstream.memory import Block
from fitstream.plan import Plan

__all__ = ["Pool", "split_lanes"]

#: How often in a row workers may die before anything is finished.
_MOST_DEATHS = 5
_SETTLING_BYTES = 4_000_000
#: How long a worker that was told to stop has, and how long after Ctrl-C.
_STOP_S, _HASTY_STOP_S = 2.0, 0.3


def split_lanes(lane_count: int, process_count: int) -> list[int]:
    """Lanes of each process, as even as can be."""
    return [lane_count // process_count + (i < lane_count % process_count) for i in range(process_count)]


@final
class Pool:
    """Worker processes for one plan. Starting it waits until all are ready.

    Args:
        plan: What will be run; slots and scratch are told later, by `attach`.
        lane_counts: Lanes of each process.
        emit: Called with each event, in the pool's thread.
        ready: Set when all are ready, or by another thread that wants them no more.
    Raises:
        PlanError: If the source or a function can't be sent, or can't be opened in a worker.

    Attributes:
        thread: The pool's thread.
        lane_counts: Lanes of each process.
        reserved_bytes: The most that one worker cost before any data.
        shared_bytes: What all share: functions, and arrays in memory.
        wall_ns: Time that lanes spent on chunks.
        lost_count: Workers that ended by themselves.
    """

    def __init__(
        self,
        plan: Plan,
        lane_counts: Sequence[int],
        emit: Callable[[Event], None],
        ready: threading.Event | None = None,
    ) -> None:
        self.lane_counts = list(lane_counts)
        self._plan = plan
        self._emit = emit
        self._kept_heap = plan.calls_functions
        self._bell = Bell()
        self._pid = os.getpid()
        self._on_crash: Callable[[BaseException], None] = lambda error: None
        self._processes: list[Process] = []
        self._poll = select.poll()
        #: Workers that died, and samples that were found guilty, since a chunk was finished.
        self._deaths = self._guilty = 0
        self._dispatcher: Dispatcher | None = None
        self._closing = self._retiring = False
        self._shares = list(lane_counts)
        self._stop_s = _STOP_S
        self._failure: BaseException | None = None
        self._ready = ready or threading.Event()
        self._usage = Usage()
        self._past_tally = Tally()
        self.wall_ns = self.reserved_bytes = self.lost_count = 0
        self._parcel = packed_job(plan)
        #: Held while workers are given a parcel, and while there is another one for them.
        self._renewing = threading.Lock()
        self.shared_bytes = self._parcel.count_bytes
        self._control: Block | None = Marks.block(sum(lane_counts))
        marks = Marks(self._control)
        self._mark = marks.run
        self._watch = Watch(plan.policy, marks)
        #: What the pool's thread is at that isn't ours: an observer, a function that works here.
        self.progress = Progress()
        self.thread = threading.Thread(target=self._run, name="fitstream-workers", daemon=True)
        try:
            self.thread.start()
            _POOLS.add(self)
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        if not self._ready.wait(self._watch.start_s):
            raise Stalled(
                f"worker processes were not ready within {self._watch.start_s:.0f} s: they import what functions and "
                "the source need. Import less there, allow more by sample_timeout_s, or use processes=0 for threads."
            )
        if self._failure is not None:
            raise self._failure

    @property
    def worker_bytes(self) -> int:
        """What to plan for one worker: what it cost, and some room for its heap to settle."""
        return -(-(self.reserved_bytes * 9 // 8 + _SETTLING_BYTES) // _SETTLING_BYTES) * _SETTLING_BYTES

    def attach(self, board: Board, on_crash: Callable[[BaseException], None]) -> None:
        """Give the workers a ring. They take no token before `activate`."""
        self._on_crash = on_crash
        dispatcher = Dispatcher(board, self.lane_counts, self.progress, self._parcel)
        board.share_mark(self._mark)
        self._dispatcher = dispatcher
        self._bell.ring()

    @property
    def peak_bytes(self) -> int:
        """The most memory that was measured, of all."""
        return self._usage.peak_bytes

    @property
    def checking(self) -> bool:
        """Whether some work is done twice to compare it, so that rates tell nothing."""
        return self._dispatcher is not None and self._dispatcher.checking

    @property
    def differs(self) -> bool:
        """Whether workers were found to make other bytes than this process."""
        return self._dispatcher is not None and self._dispatcher.differs

    def activate(self) -> None:
        """Start taking tokens."""
        assert self._dispatcher is not None
        self._dispatcher.active = True
        self._dispatcher.board.work_queue.bell = self._bell
        self._bell.ring()

    def renew(self, plan: Plan) -> None:
        """Let the workers open source and functions as they are now, before they work on, if these changed.

        Raises:
            PlanError: If they can't be sent any more.
        """
        parcel = packed_job(plan, self._parcel)
        if parcel is self._parcel:
            return
        with self._renewing:
            self._parcel, before = parcel, self._parcel
            if self._dispatcher is not None:
                self._dispatcher.parcel = parcel
            before.close()
        self.shared_bytes = parcel.count_bytes
        self._bell.ring()

    def set_lanes(self, count: int) -> None:
        """Let this many lanes work from now on."""
        self._shares = split_lanes(count, len(self.lane_counts))
        self._bell.ring()

    def retire(self) -> None:
        """Take no more tokens; end when what is in hand is finished."""
        assert self._dispatcher is not None
        self._dispatcher.board.work_queue.bell = None
        self._dispatcher.active, self._retiring = False, True
        self._bell.ring()

    def close(self, *, patient: bool = True) -> None:
        """End all workers: those that don't end by themselves in time are killed."""
        if os.getpid() != self._pid:
            return
        self._stop_s, self._closing = _STOP_S if patient else _HASTY_STOP_S, True
        self._mark[0] = 0
        self._bell.ring()
        # Ctrl-C may come before it is known to have started; then it finds that it is to end by itself.
        if threading.current_thread() is not self.thread and self.thread.is_alive():
            self.thread.join(self._stop_s + (5 if patient else 0.5))
            if self.thread.is_alive():  # it is in an observer, or in a function that works here
                for process in list(self._processes):
                    process.kill()

    def drop(self) -> None:
        """Let go of everything in a forked child, which must not disturb the workers of its parent."""
        for process in self._processes:
            process.drop()
        self._parcel.close()
        if self._dispatcher is not None:
            self._dispatcher.board.mark = np.zeros(1, np.int64)

    @property
    def tally(self) -> Tally:
        """What its lanes counted."""
        now = [tally for one in list(self._processes) for tally in list(one.tallies.values())]
        return Tally.sum((self._past_tally, *now))

    # What follows runs in the pool's thread.

    def _run(self) -> None:
        try:
            self._poll.register(self._bell.fd, select.POLLIN)
            for place in range(len(self.lane_counts)):
                self._processes.insert(place, self._start(place))
            while not self._closing:
                for fd, _ in self._poll.poll(self._watch.patience_ms(self._processes)):
                    if fd == self._bell.fd:
                        self._bell.hush()
                    else:
                        self._hear(fd)
                self._watch.look(self._processes)
                self._renew()
                if self._dispatcher is not None:
                    self._dispatcher.hand_out(self._processes, self._shares)
                    self._measure(self._dispatcher)
                if self._retiring and not self._busy():
                    if self._dispatcher is None or not self._dispatcher.holding:
                        break
                    if all(process.state == "working" for process in self._processes):
                        self._bell.ring()  # to give back what it holds
        except BaseException as error:  # noqa: BLE001  handed over to the consumer, whatever it is
            self._fail(error)
        finally:
            self._end()

    def _tell(self, event: Event) -> None:
        self.progress.begin()
        try:
            self._emit(event)
        finally:
            self.progress.end()

    def _measure(self, dispatcher: Dispatcher) -> None:
        shared_bytes = dispatcher.area_count_bytes + self.shared_bytes
        exceeded = self._usage.look(dispatcher.board.plan, self._processes, shared_bytes)
        if exceeded is not None:
            self._tell(exceeded)

    def _busy(self) -> bool:
        return any(process.in_flight for process in self._processes)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._ready.set()
        self._on_crash(error)

    def _start(self, place: int) -> Process:
        first_lane = sum(self.lane_counts[:place])
        self._watch.clear(first_lane, self.lane_counts[place])
        try:
            process = Process(self.lane_counts[place], first_lane, kept_heap=self._kept_heap)
        except OSError as error:
            raise PlanError(f"a worker process can't be started: {error}. Use processes=0 for threads.") from error
        self._poll.register(process.socket, select.POLLIN)
        self._poll.register(process.pidfd, select.POLLIN)
        assert self._control is not None
        with self._renewing:
            process.greet(self._control.fd, self._parcel)
        return process

    def _renew(self) -> None:
        """Give the parcel to workers that have an older one."""
        for process in self._processes:
            if process.parcel is not self._parcel and process.state == "working":
                with self._renewing:
                    process.renew(self._parcel)

    def _hear(self, fd: int) -> None:
        for process in self._processes:
            if process.socket.fileno() == fd:
                self._receive(process)
                return
            if process.pidfd == fd:
                self._receive(process)  # what it said before it died still counts
                self._bury(process)
                return

    def _receive(self, process: Process) -> None:
        while (received := process.receive()) is not None:
            message, fds = received
            kind = message[:1]
            if kind == DONE:
                self._take_in(process, *Done.read(message), Block(fds[0]) if fds else None)
            elif kind == READY:
                process.state = "ready"
                reserved_bytes = read_note(message)["reserved_bytes"]
                self.reserved_bytes = max(self.reserved_bytes, reserved_bytes)
                self._tell(WorkerStarted(process.pid, process.lane_count, reserved_bytes))
                if all(one.state != "starting" for one in self._processes):
                    self._ready.set()
            elif kind == BAD:
                token, bad = read_bad(message)
                process.bad.setdefault(token, []).append(bad)
            elif kind == ATTACHED:
                process.attached()
            elif kind == BROKEN:
                process.broken = read_note(message)
            else:  # the process descriptor tells the rest
                with contextlib.suppress(KeyError, ValueError):
                    self._poll.unregister(process.socket)
                process.hang_up()
                return

    def _take_in(self, process: Process, done: Done, text: bytes, grown: Block | None) -> None:
        assert self._dispatcher is not None
        self._deaths = self._guilty = 0
        self.wall_ns += done.wall_ns
        process.tallies[done.lane] = done.tally
        self._dispatcher.done(process, done, text, grown)

    def _keep_tally(self, process: Process) -> None:
        tallies = list(process.tallies.values())
        process.tallies.clear()
        self._past_tally = Tally.sum((self._past_tally, *tallies))

    def _bury(self, process: Process) -> None:
        """Take in that a worker is gone."""
        self._poll.unregister(process.pidfd)
        with contextlib.suppress(KeyError, ValueError):
            self._poll.unregister(process.socket)
        self._keep_tally(process)
        how = self._watch.how_it_ended(process)
        self.lost_count += 1
        place = self._processes.index(process)
        broken = process.broken
        self._deaths += process.state == "starting"
        if process.state == "starting" and (broken is not None or self._deaths >= _MOST_DEATHS):
            raise could_not_open(how, broken, again=self._ready.is_set())
        if broken is not None:
            raise FitstreamError(f"a lane ended unexpectedly by {broken['reason']}\n{broken['traceback']}")
        dispatcher = self._dispatcher
        begun = {mark.token: mark.row for mark in self._watch.marks_of(process)}
        recalled = dispatcher.recall(process, begun) if dispatcher is not None else Recalled()
        # A sample under suspicion that was at it again is about to be found out, and lanes may each meet one at once.
        self._deaths += not recalled.guilty and not recalled.suspect and process.state != "starting"
        most = max(_MOST_DEATHS, 2 * sum(self.lane_counts) + 1) if recalled.begun else _MOST_DEATHS
        self._guilty += len(recalled.guilty)
        allowed = self._plan.policy.allows(self._guilty, self._plan.pass_sample_count or 0)
        if self._deaths >= most or (not allowed and self._plan.policy.on_bad_sample != "raise"):
            raise dead_workers(max(self._deaths, 2 * self._guilty), process, how, recalled.chunks, self._plan)
        self._tell(WorkerLost(process.pid, how, len(recalled.chunks)))
        for chunk in recalled.guilty:
            self._deaths = 0
            assert dispatcher is not None
            dispatcher.court.convict(chunk, *verdict(self._plan, chunk, process, how))
        self._processes[place] = self._start(place)

    def _end(self) -> None:
        end_all(self._processes, self._stop_s)
        for process in self._processes:
            self._keep_tally(process)
        self._processes.clear()
        self._parcel.close()
        if self._control is not None:
            self._control.close()
        # What is shared goes now, and not when the collector finds the cycles.
        board = self._dispatcher.board if self._dispatcher is not None else None
        self._mark = np.zeros(1, np.int64)
        if board is not None:
            board.share_mark(self._mark)
        self._dispatcher = None
        self._control = None
        self._watch.forget()


#: Pools of this process, so that forked children close their descriptors, and sockets end with the main process.
_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def _drop_in_child() -> None:
    for pool in _POOLS:
        pool.drop()
    _POOLS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)
