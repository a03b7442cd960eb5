"""The Keras callback that shows how training goes.

It must not slow training. It declares itself safe for asynchronous dispatch, so that Keras needn't wait for the device
after each step to turn metrics into floats; then its batch hooks run in Keras's own threads, late and out of order,
and a lock and the highest step seen keep them straight. The line is drawn at most eight times a second, by whichever
thread ends a step then: there is no thread of ours.

Speed and time left are taken from the end of the epoch's first step on, which on some backends compiles for seconds.
Waiting counts from the epoch's begin to the end of its training steps, so validation doesn't blur it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import keras
from rich.console import Console
from rich.live import Live

from fitstream.loader import Loader
from fitstream.reporting.line import Snapshot, live_line, plain_line, record_line

__all__ = ["Progress", "make_callback"]

_REDRAW_S = 0.125


def make_callback(
    loader: Loader,
    epochs: int,
    steps: int | None,
    initial_epoch: int = 0,
    verbose: Literal["auto", 0, 1, 2] = "auto",
    others: Sequence[Loader] = (),
    console: Console | None = None,
    initial_step: int = 0,
) -> Progress:
    """Make the callback that shows progress, as Keras's `verbose` asks for it.

    Args:
        loader: What training reads from; its `stats()` are shown.
        epochs: The last epoch, counted from 1.
        steps: Steps of an epoch, or None to learn them from the first.
        initial_epoch: Epochs that were done before.
        verbose: 0 shows nothing; 1 a line that moves where the output is a terminal, and otherwise what 2 shows: one
            plain line at each epoch's end; "auto" is 1 on a terminal, 2 in a notebook, and 0 elsewhere.
        others: Loaders that live beside it within the same budget, such as that of validation.
        console: Where to; None for standard output.
        initial_step: Steps of the first epoch that were done before.
    Returns:
        A callback. Whoever calls `model.fit` calls its `close()` when that ends, however it ends: Keras doesn't say
        `on_train_end` after an error, and a hidden cursor would stay hidden.
    """
    console = console or Console()
    shows = verbose in (1, 2) or (verbose == "auto" and console.is_jupyter)
    moves = verbose in (1, "auto") and console.is_interactive and console.file.isatty()
    progress = Progress((loader, *others), epochs, steps, initial_epoch, console, moves=moves, shows=shows)
    progress.first_step = initial_step
    return progress


@final
class Progress(keras.callbacks.Callback):
    """Shows one line for the epoch that runs, and leaves one for each that has ended. Made by `make_callback`.

    Attributes:
        first_step: Steps of the first epoch that were done before.
    """

    async_safe = True

    def __init__(
        self,
        loaders: Sequence[Loader],
        epochs: int,
        steps: int | None,
        initial_epoch: int,
        console: Console,
        *,
        moves: bool,
        shows: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self._loader, *self._others = loaders
        self._epochs = epochs
        self._steps = steps
        self._epoch = initial_epoch
        self._console = console
        self._moves = moves
        self._shows = shows
        self._clock = clock
        self.first_step = 0
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._began_s = self._clock()
        self._waited_before_s = self._loader.stats().waited_s
        self._step = self.first_step
        self._metrics: dict[str, float] = {}
        #: Step and time from which speed is taken.
        self._steady: tuple[int, float] | None = None
        #: Time and seconds waited at the end of training, once validation has begun.
        self._trained: tuple[float, float] | None = None
        self._validated: int | None = None
        self._next_draw_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            self._stop_live()
            self._epoch = epoch
            self._start_epoch()
            if self._moves:
                # Not refreshed by rich's own thread; what others print appears above the line.
                self._live = Live(console=self._console, auto_refresh=False, transient=True)
                self._live.start()
                self._draw()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            if batch < self._step:
                return
            self._step = batch + 1
            self._metrics = dict(logs or {})
            if self._steady is None:
                self._steady = (self._step, self._clock())
            self._draw()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            self._end_training()
            self._validated = 0

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            if self._validated is not None:
                self._validated = max(self._validated, batch + 1)
                self._draw()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            self._validated = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            self._stop_live()
            self._end_training()
            self.first_step = 0
            if self._steps is None:
                self._steps = self._step
            self._metrics = dict(logs or {})
            now = self._snapshot()
            if self._moves:
                self._console.print(record_line(now, self._console.width), no_wrap=True, crop=False)
            elif self._shows:
                self._console.print(plain_line(now), soft_wrap=True, markup=False, highlight=False)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Take the moving line away and show the cursor again. May be called twice, and from any thread."""
        with self._lock:
            self._stop_live()

    def _stop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _end_training(self) -> None:
        if self._trained is None:
            self._trained = (self._clock(), self._loader.stats().waited_s)

    def _draw(self) -> None:
        if self._live is None:
            return
        now_s = self._clock()
        if now_s >= self._next_draw_s:
            self._next_draw_s = now_s + _REDRAW_S
            self._live.update(live_line(self._snapshot(), self._console.width), refresh=True)

    def _snapshot(self) -> Snapshot:
        stats = self._loader.stats()
        now_s = self._clock()
        trained_s, waited_s = self._trained or (now_s, stats.waited_s)
        training_s = trained_s - self._began_s
        step_s = self._step_s(trained_s)
        samples = stats.sample_count / stats.batch_count if stats.batch_count else 0.0
        validating = self._validated is not None
        return Snapshot(
            epoch=self._epoch + 1,
            epochs=self._epochs,
            step=self._step if self._validated is None else self._validated,
            steps=None if validating else self._steps,
            metrics=self._metrics,
            elapsed_s=now_s - self._began_s,
            left_s=None if not step_s or self._steps is None else max(0, self._steps - self._step) * step_s,
            samples_per_s=samples / step_s if step_s else None,
            waited_share=min(1.0, (waited_s - self._waited_before_s) / training_s) if training_s > 0 else 0.0,
            peak_bytes=stats.peak_bytes + sum(other.stats().peak_bytes for other in self._others),
            # Where one budget is divided, the loader's own is what the others' plans have left of it.
            budget_bytes=stats.budget_bytes + sum(other.plan.projected_bytes for other in self._others),
            validating=validating,
        )

    def _step_s(self, now_s: float) -> float | None:
        """Seconds a step takes; of the first one alone where there is no other."""
        if self._steady is None:
            return None
        step, since_s = self._steady
        if self._step > step:
            return (now_s - since_s) / (self._step - step)
        return (since_s - self._began_s) / (step - self.first_step)
