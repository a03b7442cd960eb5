"""Lanes: who does the work. All kinds take the same tokens from the same queues and report to the same board.

A token is a free `Slot`, to be opened for the next batch, or a `Chunk`, rows to be filled, or None, which means only to
look up. A lane in a thread waits for tokens; the calling thread works on tokens until the batch that it wants is ready;
lanes in worker processes get chunks from the pool, which takes tokens for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty
from typing import Any, Protocol, final

from fitstream.engine.tokens import TokenQueue

__all__ = ["ThreadLane", "TokenWork", "work_here"]


class TokenWork(Protocol):
    """What does one token's work; owned by one lane."""

    def work(self, token: Any) -> None: ...

    def close(self) -> None: ...


@final
class ThreadLane:
    """A thread that works on tokens until it is told to stop.

    Args:
        name: The thread's name.
        queue: Where tokens come from.
        open_work: Makes what works on tokens, in the thread itself.
        on_crash: Called with what escaped from it; the lane ends.

    Attributes:
        thread: The thread.
        stopping: Set to let it end at its next token. A token that it still takes goes back for others.
    """

    def __init__(
        self,
        name: str,
        queue: TokenQueue,
        open_work: Callable[[], TokenWork],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._queue = queue
        self._open_work = open_work
        self._on_crash = on_crash
        self.stopping = False
        # A daemon, because a function of the user's that never returns must not keep the interpreter alive.
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def nudge(self) -> None:
        """Wake it, or another that waits for the same queue, to see whether it should stop."""
        self._queue.put(None)

    def _run(self) -> None:
        try:
            duty = self._open_work()
            try:
                while True:
                    token = self._queue.get()
                    if self.stopping:
                        if token is not None:
                            self._queue.put(token)
                        break
                    if token is not None:
                        duty.work(token)
                        token = None
            finally:
                duty.close()
        except BaseException as error:  # noqa: BLE001  handed over to the consumer, whatever it is
            self._on_crash(error)


def work_here(queues: tuple[TokenQueue, ...], duty: TokenWork) -> bool:
    """Work on one token in the calling thread.

    Returns:
        False if there was none.
    """
    for queue in queues:
        try:
            token = queue.get_nowait()
        except Empty:
            continue
        duty.work(token)
        return True
    return False
