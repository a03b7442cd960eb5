"""Lanes: who does the work. All kinds take the same tokens from the same queues and report to the same pipeline.

A token is a free `Slot`, to be opened for the next batch, or a `Chunk`, rows to be filled. A lane in a thread waits for
tokens; the calling thread works on tokens until the batch that it wants is ready. A worker process is a third kind: a
thread of ours that hands chunks over to it and reports what comes back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol, final

__all__ = ["STOP", "ThreadLane", "Token", "Worker", "work_here"]

#: Told to a lane to end.
STOP = object()

Token = Any


class Worker(Protocol):
    """What does one token's work; owned by one lane."""

    def work(self, token: Token) -> None: ...

    def close(self) -> None: ...


@final
class ThreadLane:
    """A thread that works on tokens until it is told to stop.

    Args:
        name: The thread's name.
        queue: Where tokens come from.
        open_worker: Makes the worker, in the thread itself.
        on_crash: Called with what escaped from the worker; the lane ends.
    """

    def __init__(
        self,
        name: str,
        queue: SimpleQueue[Token],
        open_worker: Callable[[], Worker],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._queue = queue
        self._open_worker = open_worker
        self._on_crash = on_crash
        # A daemon, because a function of the user's that never returns must not keep the interpreter alive.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            worker = self._open_worker()
            try:
                while (token := self._queue.get()) is not STOP:
                    worker.work(token)
                    token = None
            finally:
                worker.close()
        except BaseException as error:  # noqa: BLE001  handed over to the consumer, whatever it is
            self._on_crash(error)


def work_here(queues: tuple[SimpleQueue[Token], ...], worker: Worker) -> bool:
    """Work on one token in the calling thread.

    Returns:
        False if there was none.
    """
    for queue in queues:
        try:
            token = queue.get_nowait()
        except Empty:
            continue
        worker.work(token)
        return True
    return False
