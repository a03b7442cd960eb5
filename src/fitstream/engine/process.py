"""One worker process as the main process sees it: how it is started, talked to, watched and ended.

Started by `subprocess` and not by multiprocessing: nothing is forked beside the threads of a framework, the user's main
module is not imported again, and no guard is needed in it. It must be started by a thread that lives as long as it
does, because its life is tied to that thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from fitstream.chain import Tally
from fitstream.engine.ceiling import room_bytes
from fitstream.engine.messages import ASK_STACKS, ATTACH, HELLO, MOST_BYTES, RENEW, STOP, write_note
from fitstream.engine.sending import Parcel
from fitstream.memory import Block
from fitstream.policy import BadSample

__all__ = ["Overdue", "Process", "end_all", "told_exit"]

#: How long a worker that hangs may take to tell where, and how often what it tells must be the same to be all of it.
_STACK_S, _STACK_LOOKS = 3.0, 10
#: How long one that closed its socket may take to end.
_LAST_S = 2.0

# The path comes first: nothing may be imported before from where the main process would not import it.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; from fitstream.engine.worker import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]))"
)
# Functions that allocate and free: glibc's defaults give larger blocks back to the system at each turn, and the page
# faults of getting them again cost more than the work (benchmarks/kept_heap.py).
_MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
}


class Overdue(NamedTuple):
    """What a worker hung at.

    Attributes:
        token: Of the chunk.
        row: The row that was in the making; or None where it isn't known to be at fault: rows were read together,
            several lanes stood still, all of the process did, or nothing was begun.
        after_s: For how long.
        stack: Where it was.
    """

    token: int
    row: int | None
    after_s: float
    stack: str


@final
class Process:
    """A worker process.

    Args:
        lane_count: Its lanes.
        first_lane: The number of its first one among those of all workers.
        kept_heap: Whether its functions allocate, so that the heap should be kept.

    Attributes:
        pid: Its process id.
        pidfd: Becomes readable when it ends.
        socket: Our end; never blocks.
        state: "starting", "ready" (opened, but without slots), "attaching" or "working".
        heard_s: When it was last heard of, or given something to do while it had nothing, by the monotonic clock.
        in_flight: What it was given, by token.
        bad: Samples that it skipped or replaced in chunks that aren't finished, by token.
        overdue: What it hung at, once it was ended for that.
        hung_up: Whether it was ended because it could be talked to no more.
        slots: Those that it has mapped, each with the memory that it mapped for it.
        parcel: What it was sent to open.
        tallies: What each lane counted.
        broken: What it told when it could not go on.
        exit_code: After `reap`.
    """

    def __init__(self, lane_count: int, first_lane: int, *, kept_heap: bool) -> None:
        self.lane_count = lane_count
        self.first_lane = first_lane
        self.state = "starting"
        self.heard_s = time.monotonic()
        self.bad: dict[int, list[BadSample]] = {}
        self.overdue: Overdue | None = None
        self.hung_up = False
        self.in_flight: dict[int, Any] = {}
        self.slots: dict[int, Block] = {}
        self._attaching: dict[int, Block] = {}
        self.parcel: Parcel | None = None
        self.exit_code: int | None = None
        self.tallies: dict[int, Tally] = {}
        self.broken: dict[str, Any] | None = None
        self._stacks = os.memfd_create("fitstream-stacks", os.MFD_CLOEXEC)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            command = [
                *[sys.executable, *_interpreter_flags(), "-c", _PROGRAM],
                *[str(theirs.fileno()), str(os.getpid()), *map(os.fsdecode, sys.path)],
            ]
            self._popen = subprocess.Popen(  # noqa: S603  this interpreter, with a program of ours
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # so that Ctrl-C in a terminal is for the main process alone
                env={**(_MALLOC if kept_heap else {}), **os.environ},
            )
        except BaseException:
            self.socket.close()
            os.close(self._stacks)
            raise
        finally:
            theirs.close()
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.socket.setblocking(False)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> bool:
        """Send a message. Returns False if the socket is full now.

        To a worker that is just dying all can be sent: its end is heard next, and what it had in hand is known.
        """
        try:
            if fds:
                socket.send_fds(self.socket, [message], fds)
            else:
                self.socket.send(message)
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True

    def greet(self, marks_fd: int, parcel: Parcel) -> None:
        """Send what it is to open."""
        note = write_note(HELLO, lanes=self.lane_count, first_lane=self.first_lane, room_bytes=room_bytes())
        self.send(note, [marks_fd, self._stacks, *parcel.fds])
        self.parcel = parcel

    def attach(self, slots: Mapping[int, Block], fds: Sequence[int], **limits: int) -> None:
        """Send slots to map, if the socket isn't full.

        Args:
            slots: The memory of each.
            fds: Other descriptors that go before theirs.
            limits: What else it is told.
        """
        note = write_note(ATTACH, slots=list(slots), **limits)
        if self.send(note, [*fds, *(block.fd for block in slots.values())]):
            self.state, self._attaching = "attaching", dict(slots)

    def renew(self, parcel: Parcel) -> None:
        """Send another parcel to open, if the socket isn't full."""
        if self.send(RENEW, parcel.fds):
            self.state, self._attaching, self.parcel = "attaching", {}, parcel

    def attached(self) -> None:
        """Take in that it has mapped them, or opened the parcel."""
        self.slots.update(self._attaching)
        self.state = "working"

    def receive(self) -> tuple[bytes, list[int]] | None:
        """The next message and its descriptors; None if there is none now, empty if there will be none any more."""
        try:
            message, fds, _, _ = socket.recv_fds(self.socket, MOST_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            self.heard_s = time.monotonic()
            return message, fds
        except BlockingIOError:
            return None
        except ConnectionError:
            return b"", []

    def stop(self) -> None:
        """Ask all lanes to end after what they are at."""
        with contextlib.suppress(OSError):  # such as a full socket: that nothing more comes is told below
            for _ in range(self.lane_count):
                self.socket.send(STOP)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def stack(self, thread: int) -> str:
        """Where a thread of it is, as text; asked for by a signal and waited for a moment. Empty if it can't tell."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, ASK_STACKS)
        deadline, text, looks = time.monotonic() + _STACK_S, b"", 0
        # It is written line by line, and the writer may lose its core between two of them.
        while time.monotonic() < deadline and looks < _STACK_LOOKS and not self.stopped:
            time.sleep(0.01)
            text, before = os.pread(self._stacks, 1 << 16, 0), text
            looks = looks + 1 if text and text == before else 0
        told = text.decode("utf-8", "replace")
        parts = re.split(r"(?m)^(?=(?:Current t|T)hread 0x)", told)
        return next((part for part in parts if f"0x{thread:016x}" in part[:60]), told).strip()

    @property
    def stopped(self) -> bool:
        """Whether it was stopped by a signal, and does nothing."""
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PIDFD, self.pidfd, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
        return False

    @property
    def gone(self) -> bool:
        """Whether it ended already."""
        end = select.poll()
        end.register(self.pidfd, select.POLLIN)
        return bool(end.poll(0))

    def hang_up(self) -> None:
        """Its end of the socket is closed: it is about to be gone, or else is ended, since it is of no use any more."""
        end = select.poll()
        end.register(self.pidfd, select.POLLIN)
        if not end.poll(1000 * _LAST_S):
            self.hung_up = True
            self.kill()

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it is gone, or was reaped meanwhile
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Wait for its end and close what belongs to it. Returns the exit code, or the signal's number, negative."""
        self.exit_code = code = self._popen.wait()
        self.drop()
        return code

    def drop(self) -> None:
        """Close our descriptors, and nothing else."""
        self.socket.close()
        fds, self.pidfd, self._stacks = (self.pidfd, self._stacks), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def end_all(processes: Sequence[Process], stop_s: float) -> None:
    """Ask processes to end, and end by force those that have not after so many seconds."""
    living = [process for process in processes if process.pidfd >= 0]
    for process in living:
        process.stop()
    deadline = time.monotonic() + stop_s
    waiting = select.poll()
    left = {process.pidfd: process for process in living}
    for pidfd in left:
        waiting.register(pidfd, select.POLLIN)
    while left and (rest := deadline - time.monotonic()) > 0:
        for pidfd, _ in waiting.poll(rest * 1000 + 1):
            waiting.unregister(pidfd)
            left.pop(pidfd).reap()
    for process in left.values():
        process.kill()
        process.reap()


def _interpreter_flags() -> list[str]:
    """The flags that Python was started with, such as -O and -X utf8; functions mean the same under the same ones."""
    # Not public, but what multiprocessing itself uses, and has for long.
    flags = getattr(subprocess, "_args_from_interpreter_flags", list)
    return list(flags())


def told_exit(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"it exited with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"it was ended by {name}" + (": out of memory, or killed from outside" if code == -signal.SIGKILL else "")
