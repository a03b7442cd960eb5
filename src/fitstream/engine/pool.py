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
import time
import weakref
from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from fitstream.engine.board import Board
from fitstream.engine.dispatch import Dispatcher
from fitstream.engine.job import Job
from fitstream.engine.messages import ATTACHED, BROKEN, DONE, READY, Done, read_note
from fitstream.engine.process import Process, told_exit
from fitstream.engine.sending import Unsendable, pack
from fitstream.errors import FitstreamError, PlanError, Stalled, WorkerDied
from fitstream.events import Event, MemoryExceeded, WorkerLost, WorkerStarted
from fitstream.machine import private_bytes
from fitstream.memory import Block
from fitstream.plan import Plan

__all__ = ["Pool"]

#: How long a worker may take to import what it needs.
_START_S = 60.0
#: How often in a row workers may die before anything is finished.
_MOST_DEATHS = 5
#: How often memory is measured while there is work.
_MEASURE_S = 0.25
_SETTLING_BYTES = 4_000_000
#: How long a worker that was told to stop has.
_STOP_S = 2.0


@final
class _Bell:
    """Wakes the pool's thread. The descriptor lives as long as anyone may ring."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pid = os.getpid()

    def ring(self) -> None:
        # A forked child that drops a batch has no business here.
        if os.getpid() == self._pid:
            os.eventfd_write(self.fd, 1)

    def hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def __del__(self) -> None:
        os.close(self.fd)


@final
class Pool:
    """Worker processes for one plan. Starting it waits until all are ready.

    Args:
        plan: What will be run; slots and scratch are told later, by `attach`.
        lane_counts: Lanes of each process.
        emit: Called with each event, in the pool's thread.
    Raises:
        PlanError: If the source or a function can't be sent, or can't be opened in a worker.
    """

    def __init__(self, plan: Plan, lane_counts: Sequence[int], emit: Callable[[Event], None]) -> None:
        self.lane_counts = list(lane_counts)
        self._emit = emit
        self._kept_heap = plan.calls_functions and max(lane_counts) > 1
        self._bell = _Bell()
        self._pid = os.getpid()
        self._on_crash: Callable[[BaseException], None] = lambda error: None
        self._processes: list[Process] = []
        self._poll = select.poll()
        self._deaths = 0
        self._dispatcher: Dispatcher | None = None
        self._closing = self._retiring = False
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._measured_s = 0.0
        self._told_memory = False
        self._fallback_count = 0
        self.peak_bytes = self.wall_ns = 0
        try:
            self._parcel = pack(Job.of(plan).parts())
        except Unsendable as error:
            raise PlanError(f"{error}") from error.__cause__
        self.shared_bytes = self._parcel.count_bytes
        self._control = Block.make(4096, "A page of marks")
        self._mark = self._control.bytes[:8].view(np.int64)
        self.thread = threading.Thread(target=self._run, name="fitstream-workers", daemon=True)
        self.thread.start()
        _drop_in_children(self)
        self._wait()

    def _wait(self) -> None:
        if not self._ready.wait(_START_S):
            self.close()
            raise Stalled(f"worker processes were not ready within {_START_S:.0f} s. Use processes=0 for threads.")
        if self._failure is not None:
            self.close()
            raise self._failure

    @property
    def reserved_bytes(self) -> int:
        """The most that one worker cost before any data."""
        return max(process.reserved_bytes for process in self._processes)

    @property
    def worker_bytes(self) -> int:
        """What to plan for one worker: what it cost, and some room for its heap to settle."""
        return -(-(self.reserved_bytes * 9 // 8 + _SETTLING_BYTES) // _SETTLING_BYTES) * _SETTLING_BYTES

    def attach(self, board: Board, on_crash: Callable[[BaseException], None]) -> None:
        """Give the workers a ring. They take no token before `activate`."""
        self._on_crash = on_crash
        dispatcher = Dispatcher(board, self.lane_counts)
        board.share_mark(self._mark)
        self._dispatcher = dispatcher
        self._bell.ring()

    def activate(self) -> None:
        """Start taking tokens."""
        assert self._dispatcher is not None
        self._dispatcher.active = True
        self._dispatcher.board.work_queue.wake = self._bell.ring
        self._bell.ring()

    def set_lanes(self, count: int) -> None:
        """Let this many lanes work from now on."""
        processes = len(self.lane_counts)
        assert self._dispatcher is not None
        self._dispatcher.shares = [count // processes + (i < count % processes) for i in range(processes)]
        self._bell.ring()

    def retire(self) -> None:
        """Take no more tokens; end when what is in hand is finished."""
        assert self._dispatcher is not None
        self._dispatcher.board.work_queue.wake = None
        self._dispatcher.active, self._retiring = False, True
        self._bell.ring()

    def close(self, join_s: float = _STOP_S + 5) -> None:
        """End all workers: those that don't end by themselves in time are killed."""
        if os.getpid() != self._pid:
            for process in self._processes:
                process.drop()
            return
        self._closing = True
        self._mark[0] = 0
        self._bell.ring()
        if threading.current_thread() is not self.thread:
            self.thread.join(join_s)

    @property
    def fallback_count(self) -> int:
        """JPEG files that the fast decoder refused and Pillow read."""
        return self._fallback_count + sum(sum(one.fallback_counts.values()) for one in list(self._processes))

    # What follows runs in the pool's thread.

    def _run(self) -> None:
        try:
            self._poll.register(self._bell.fd, select.POLLIN)
            for lane_count in self.lane_counts:
                self._start(lane_count)
            while not self._closing:
                for fd, _ in self._poll.poll(1000 if self._busy() else None):
                    if fd == self._bell.fd:
                        self._bell.hush()
                    else:
                        self._hear(fd)
                if self._dispatcher is not None:
                    self._dispatcher.hand_out(self._processes)
                    self._measure(self._dispatcher)
                if self._retiring and not self._busy():
                    break
        except BaseException as error:  # noqa: BLE001  handed over to the consumer, whatever it is
            self._fail(error)
        finally:
            self._end()

    def _busy(self) -> bool:
        return any(process.in_flight for process in self._processes)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._ready.set()
        self._on_crash(error)

    def _start(self, lane_count: int) -> None:
        process = Process(lane_count, kept_heap=self._kept_heap)
        self._processes.append(process)
        self._poll.register(process.socket, select.POLLIN)
        self._poll.register(process.pidfd, select.POLLIN)
        process.greet([self._control.fd, *self._parcel.fds])

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
        while (message := process.receive()) is not None:
            kind = message[:1]
            if kind == DONE:
                self._take_in(process, *Done.read(message))
            elif kind == READY:
                process.state = "ready"
                process.reserved_bytes = read_note(message)["reserved_bytes"]
                self._emit(WorkerStarted(process.pid, process.lane_count, process.reserved_bytes))
                if all(one.state != "starting" for one in self._processes):
                    self._ready.set()
            elif kind == ATTACHED:
                process.state = "working"
            elif kind == BROKEN:
                process.broken = read_note(message)
            else:  # its end of the socket is closed: the process descriptor tells the rest
                with contextlib.suppress(KeyError, ValueError):
                    self._poll.unregister(process.socket)
                return

    def _take_in(self, process: Process, done: Done, text: bytes) -> None:
        assert self._dispatcher is not None
        self._deaths = 0
        self.wall_ns += done.wall_ns
        process.fallback_counts[done.lane] = done.fallback_count
        self._dispatcher.done(process, done, text)

    def _bury(self, process: Process) -> None:
        """Take in that a worker is gone."""
        self._poll.unregister(process.pidfd)
        with contextlib.suppress(KeyError, ValueError):
            self._poll.unregister(process.socket)
        self._processes.remove(process)
        self._fallback_count += sum(process.fallback_counts.values())
        how = told_exit(process.reap())
        broken = process.broken
        if process.state == "starting":
            told = f"\n{broken['traceback']}" if broken else ""
            raise PlanError(
                f"A worker process could not open the dataset: {broken['reason'] if broken else how}. "
                f"What it needs must be there to import, or be made in the function itself; or use processes=0.{told}"
            )
        if broken is not None:
            raise FitstreamError(f"a lane ended unexpectedly by {broken['reason']}\n{broken['traceback']}")
        self._deaths += 1
        chunks = self._dispatcher.recall(process) if self._dispatcher is not None else []
        if self._deaths > _MOST_DEATHS:
            where = f"batch {chunks[0].step} of pass {chunks[0].pass_index}" if chunks else "no batch"
            raise WorkerDied(
                f"Worker processes died {self._deaths} times in a row before anything was finished; the last one, "
                f"process {process.pid}, worked on {where}: {how}. Look for the function or file that ends a process, "
                "with workers=0.",
                pid=process.pid,
                exit_code=process.exit_code,
            )
        self._emit(WorkerLost(process.pid, how, len(chunks)))
        self._start(process.lane_count)

    def _measure(self, dispatcher: Dispatcher) -> None:
        """Add up the memory of the workers, and tell once if it is more than was planned."""
        now, plan = time.monotonic(), dispatcher.board.plan
        if now - self._measured_s < _MEASURE_S:
            return
        self._measured_s = now
        private = sum(private_bytes(process.pid) for process in self._processes)
        self.peak_bytes = max(self.peak_bytes, private + dispatcher.area_count_bytes + self.shared_bytes)
        measured = self.peak_bytes + plan.kept_bytes
        if measured > plan.projected_bytes and not self._told_memory:
            self._told_memory = True
            self._emit(MemoryExceeded(measured, plan.projected_bytes))

    def _end(self) -> None:
        for process in self._processes:
            process.stop()
        deadline = time.monotonic() + _STOP_S
        waiting = select.poll()
        left = {process.pidfd: process for process in self._processes}
        for pidfd in left:
            waiting.register(pidfd, select.POLLIN)
        while left and (rest := deadline - time.monotonic()) > 0:
            for pidfd, _ in waiting.poll(rest * 1000):
                waiting.unregister(pidfd)
                left.pop(pidfd).reap()
        for process in left.values():
            process.kill()
            process.reap()
        self._processes.clear()
        self._parcel.close()
        self._control.close()
        if self._dispatcher is not None:
            self._dispatcher.close()


def _drop_in_children(pool: Pool) -> None:
    """Let forked children close our descriptors, so that sockets end with the main process."""
    found = weakref.ref(pool)

    def drop() -> None:
        pool = found()
        if pool is not None:
            pool.close()

    os.register_at_fork(after_in_child=drop)
