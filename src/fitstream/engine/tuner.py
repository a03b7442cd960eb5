"""The tuner: moves lanes while they run, by what is measured. It changes who fills a batch, never its bytes.

Two questions, asked anew for each short window of deliveries:

- *Where?* Threads are the start: they cost nothing. What a lane spends on chunks without running, it spends blocked.
  Much of that means that functions hold the interpreter lock, against each other or against the training loop; or that
  files are slow, or other programs busy. Many page faults mean that functions allocate much, and worker processes keep
  their heap. Which it is, trying tells: worker processes are started in the background, the lanes move there, and they
  stay only if batches are then delivered faster. A starved consumer waits less, a disturbed one steps faster: both show
  in that one number.
- *How many?* As few as keep the consumer from waiting: one less when the others would have time to spare, one more when
  the consumer waits and all are busy. A step down that made the consumer wait is not tried again.

All work is done in the consumer's thread at the end of a window; between, it is an addition for each batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from fitstream.engine.board import Board
from fitstream.engine.crew import Crew
from fitstream.engine.pool import Pool, split_lanes
from fitstream.engine.tokens import Run
from fitstream.errors import PlanError
from fitstream.events import Event, LanesChanged
from fitstream.machine import module_being_imported
from fitstream.spec import format_bytes

__all__ = ["Tuner"]

#: A window has at least so many batches and lasts at least so long.
_WINDOW_BATCHES, _WINDOW_S = 4, 0.25
#: Share of a lane's time that is spent blocked, or on page faults, from which on processes are tried.
_HARMED = 0.25
#: What a page fault takes, about: more on virtual machines, and more where several threads have some at once.
_FAULT_NS = 1000
#: How much faster batches must come from processes for their memory to be worth it.
_WORTH = 1.05
#: How long no lane works while workers start.
_PAUSE_S = 0.5
#: Windows that a trial compares; and that must agree before a lane is taken away.
_TRIAL_WINDOWS, _CALM_WINDOWS = 3, 4
#: The consumer's share of waiting that counts as none, and as being starved.
_FED, _STARVED = 0.01, 0.05
#: How busy lanes may be when there is one less; how busy they are when one more helps.
_EASY, _BUSY = 0.7, 0.8


@final
@dataclass(frozen=True, slots=True)
class _Window:
    """What was measured.

    Attributes:
        rate: Batches delivered in a second.
        waited: Share of the time that the consumer waited.
        busy: Share of the time that a lane worked on chunks.
        blocked: Share of its work that a lane in a thread did not run.
        faulting: Share of its work that page faults took, about.
    """

    rate: float
    waited: float
    busy: float
    blocked: float = 0.0
    faulting: float = 0.0


def _median(rates: list[float]) -> float:
    return sorted(rates)[len(rates) // 2]  # the library's loads arithmetic of all kinds


def _harm(window: _Window) -> str | None:
    """What slows lanes in threads so much that processes are worth a trial, or None."""
    if window.blocked > _HARMED:
        return f"lanes spent {window.blocked:.0%} of their time blocked"
    if window.faulting > _HARMED:
        return f"lanes spent about {window.faulting:.0%} of their time on page faults, as functions allocated memory"
    return None


@final
class Tuner:
    """Decides for one pipeline.

    Args:
        board: Whose batches are delivered.
        crew: The lanes.
        emit: Called with each decision.
        on_crash: Passed on to a pool.

    Attributes:
        decision: The last one, or None.
    """

    def __init__(
        self, board: Board, crew: Crew, emit: Callable[[Event], None], on_crash: Callable[[BaseException], None]
    ) -> None:
        self._board = board
        self._crew = crew
        self._emit = emit
        self._on_crash = on_crash
        self.decision: LanesChanged | None = None
        plan = board.plan
        self._may_move = plan.auto_processes
        self._may_change = plan.auto_lanes and plan.lane_count > 1 and crew.here is None
        self._least = 1
        self._calm = self._suspicious = 0
        self._rates: list[float] = []
        self._before = 0.0
        self._why = ""
        self._phase = "watching"
        self._starter: threading.Thread | None = None
        #: Set when workers that are started are ready, and when nobody waits for them any more.
        self._ready = threading.Event()
        self._closed = False
        # Held while lanes move, so that nothing moves once it is closed.
        self._lock = threading.RLock()
        self._run: Run | None = None
        self._last_s = 0.0
        self._reset()

    def _reset(self) -> None:
        self._batches = 0
        self._elapsed_s = self._waited_s = 0.0
        self._wall_ns = self._crew.wall_ns
        self._use = self._crew.thread_use

    def delivered(self, run: Run, asked_s: float) -> None:
        """Take in that a batch is there.

        Args:
            run: Whose batch it is.
            asked_s: When the consumer asked for it, by `perf_counter`.
        """
        pool = self._crew.pool
        if pool is not None and pool.differs:
            with self._lock:
                if not self._closed:
                    self._distrust()
            return
        if not (self._may_move or self._may_change):
            return
        now_s = time.perf_counter()
        if run is self._run:
            self._batches += 1
            self._elapsed_s += now_s - self._last_s
            self._waited_s += now_s - asked_s
        self._run, self._last_s = run, now_s
        if self._batches < _WINDOW_BATCHES or self._elapsed_s < _WINDOW_S:
            return
        window = self._window()
        with self._lock:
            if not self._closed:
                self._judge(window)
        self._reset()

    def _window(self) -> _Window:
        wall_ns = self._crew.wall_ns - self._wall_ns
        lanes_s = self._elapsed_s * max(1, self._crew.lane_count)
        blocked = faulting = 0.0
        use = self._crew.thread_use
        threads_ns, cpu_ns, fault_count = (now - then for now, then in zip(use, self._use, strict=True))
        if threads_ns > 0:
            blocked = max(0.0, 1 - cpu_ns / threads_ns)
            faulting = fault_count * _FAULT_NS / threads_ns
        waited = self._waited_s / self._elapsed_s
        return _Window(self._batches / self._elapsed_s, waited, wall_ns / lanes_s / 1e9, blocked, faulting)

    def _judge(self, window: _Window) -> None:
        if self._phase == "starting":
            # Workers that import compete with the lanes: such windows tell nothing.
            return
        if self._phase == "settling":
            # This window still has batches that were made before, or work that was done twice.
            pool = self._crew.pool
            if pool is None or not pool.checking:
                self._phase, self._rates = "trying", []
            return
        self._rates = [*self._rates[1 - _TRIAL_WINDOWS :], window.rate]
        if self._phase == "trying":
            if len(self._rates) >= _TRIAL_WINDOWS:
                self._conclude()
        elif self._may_move and (why := _harm(window)) is not None:
            self._suspicious += 1
            if self._suspicious > 1:
                self._start(why)
        else:
            self._suspicious = 0
            if self._may_change:
                self._count(window)

    # Where?

    def _start(self, why: str) -> None:
        self._why, self._before = why, _median(self._rates)
        importing = module_being_imported()
        if importing is not None:
            self._may_move = False
            self._decide(
                f"{why}, but worker processes can't be had while the module {importing} is being imported: they would "
                'import it too. Put what it runs under `if __name__ == "__main__":`'
            )
            return
        self._phase = "starting"
        count = self._crew.lane_count
        self._starter = threading.Thread(target=self._bring, args=(count,), name="fitstream-starter", daemon=True)
        self._starter.start()

    def _bring(self, count: int) -> None:
        """Start worker processes and move the lanes there; in a thread of its own, since imports may take long."""
        plan = self._board.plan
        found: Pool | BaseException
        # Functions that hold the interpreter lock would slow the start tenfold; the ring has batches meanwhile.
        self._let_work(0 if plan.calls_functions else count)
        timer = threading.Timer(_PAUSE_S, self._let_work, (count,))
        timer.name = "fitstream-timer"
        timer.start()
        try:
            found = Pool(plan, split_lanes(plan.lane_count, plan.process_count), self._emit, ready=self._ready)
        except BaseException as error:  # noqa: BLE001  then it is threads; and says why
            found = error
        finally:
            timer.cancel()
            timer.join()
        with self._lock:
            if not self._closed:
                try:
                    self._move(found, count)
                except BaseException as error:  # noqa: BLE001  handed over to the consumer, whatever it is
                    self._on_crash(error)
                return
        if isinstance(found, Pool):
            found.close(patient=False)  # they have done nothing yet, and may be in long imports

    def _let_work(self, count: int) -> None:
        """Let so many lanes work while workers start."""
        with self._lock:
            if not self._closed:
                self._crew.set_lanes(count)

    def _move(self, found: Pool | BaseException, count: int) -> None:
        try:
            if not isinstance(found, Pool):
                raise found
            self._admit(found)
        except Exception as error:  # noqa: BLE001  whatever it is, threads go on
            self._phase, self._may_move = "watching", False
            self._crew.set_lanes(count)
            self._decide(f"{self._why}, but worker processes can't be had: {error}")
            return
        self._crew.move_to(found, count)
        self._phase = "settling"
        self._decide(f"{self._why}: trying worker processes")

    def _admit(self, pool: Pool) -> None:
        """Give the ring to a pool, if the budget allows what it was found to cost."""
        plan = self._board.plan
        costing = plan.costing(pool.worker_bytes, pool.shared_bytes)
        try:
            if costing.projected_bytes > plan.budget_bytes:
                need, budget = format_bytes(costing.projected_bytes), format_bytes(plan.budget_bytes)
                raise PlanError(f"with them {need} would be needed of {budget}")
            pool.attach(self._board, self._on_crash)
        except BaseException:
            pool.close()
            raise
        self._board.plan = costing

    def _distrust(self) -> None:
        """Move back, because a sample was not the same from a worker as from here."""
        self._phase, self._may_move = "watching", False
        self._crew.move_back()
        self._reset()
        self._decide(
            "threads again: worker processes made something else of the same samples. A function depends on what only "
            "this process has, such as a variable of a module that the program changed"
        )

    def _conclude(self) -> None:
        self._phase, self._may_move = "watching", False
        gain = _median(self._rates) / self._before
        told = f"from processes batches came {gain:.2f} times as fast as from threads"
        pool = self._crew.pool
        if gain >= _WORTH:
            self._decide(f"worker processes: {told}")
        elif pool is not None and pool.lost_count:
            # In a thread the same would end the program.
            self._decide(f"worker processes, since some of them died: {told}")
        else:
            self._crew.move_back()
            self._decide(f"threads again: {told}")

    # How many?

    def _count(self, window: _Window) -> None:
        lanes, plan = self._crew.lane_count, self._board.plan
        if window.waited > _STARVED and window.busy > _BUSY and lanes < plan.lane_count:
            self._least = lanes + 1
            self._calm = 0
            self._crew.set_lanes(lanes + 1)
            self._decide(f"the consumer waited {window.waited:.0%} of the time, and all lanes were busy")
        elif window.waited < _FED and lanes > self._least and window.busy * lanes / (lanes - 1) < _EASY:
            self._calm += 1
            if self._calm >= _CALM_WINDOWS:
                self._calm = 0
                self._crew.set_lanes(lanes - 1)
                self._decide(f"lanes were busy {window.busy:.0%} of the time, and the consumer did not wait")
        else:
            self._calm = 0

    def _decide(self, reason: str) -> None:
        pool = self._crew.pool
        self.decision = LanesChanged(self._crew.lane_count, 0 if pool is None else len(pool.lane_counts), reason)
        self._emit(self.decision)

    def close(self, *, patient: bool = True) -> None:
        """Change nothing any more. Worker processes that are just starting are ended where they come from."""
        with self._lock:
            self._closed = True
            self._may_move = self._may_change = False
        self._ready.set()
        if self._starter is not None and self._starter is not threading.current_thread():
            self._starter.join(5 if patient else 0.1)
