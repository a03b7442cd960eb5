"""The loader: iterates a plan, tells what it measured, and closes.

Lanes start with the first stream and live until `close()`, an error, or the end of the program. One stream runs at a
time; a new one ends the older. An error closes the lanes before it is raised; the next stream starts new ones.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from fitstream.batching import BatchOrder
from fitstream.chain import Tally
from fitstream.errors import LoaderClosed, PlanError, Stalled, StateError
from fitstream.events import LanesChanged, Observer
from fitstream.finishing import finish
from fitstream.measures import Delivered, Meter, Stats
from fitstream.plan import Plan
from fitstream.sampling import MAX_COUNT
from fitstream.spec import format_bytes, row_count

if TYPE_CHECKING:
    from fitstream.adapters.keras import KerasDataset
    from fitstream.engine.pipeline import Pipeline
    from fitstream.engine.tokens import Run

__all__ = ["Loader", "Stream"]


@final
class Stream:
    """Batches from one position on, passes laid end to end. Made by `loader.stream()`; usable from any thread."""

    def __init__(self, loader: Loader, pipeline: Pipeline, run: Run) -> None:
        self._loader = loader
        self._pipeline = pipeline
        self._run = run
        self._number = 0
        self._lock = threading.Lock()
        self._closed = False
        self.position = (run.first_pass, run.first_step)

    @property
    def ended(self) -> bool:
        """Whether no batch can come any more."""
        return self._closed or (self._run.total is not None and self._number >= self._run.total)

    def take(self) -> Delivered:
        """Wait for the next batch.

        Raises:
            StopIteration: After the last one.
            FitstreamError: If a sample failed; or `LoaderClosed` after `close()`, or when a newer stream replaced this.
        """
        with self._lock:
            if self._closed:
                raise LoaderClosed("this stream of batches is closed.")
            meter = self._loader._meter
            asked = meter.asked()
            try:
                delivered = self._deliver()
            except LoaderClosed:
                raise
            except BaseException as error:
                # Ctrl-C doesn't wait for a function of the user's that takes long, nor does who waited too long.
                self._loader._stop(patient=isinstance(error, Exception) and not isinstance(error, Stalled))
                raise
            if delivered is None:
                meter.pause()
                raise StopIteration
            meter.got(delivered, asked)
            return delivered

    def _deliver(self) -> Delivered | None:
        """The next batch that has samples; None after the last."""
        meter, plan = self._loader._meter, self._loader.plan
        while (got := self._pipeline.take(self._run, self._number)) is not None:
            slot, leaves = got
            del got
            meter.begin(slot.pass_index, slot.step)
            if slot.bad:
                try:
                    meter.found_bad(slot.bad, slot.rows, plan)
                except BaseException:
                    del leaves  # who keeps the error keeps this frame, which must not keep the batch's memory
                    raise
            finish(plan, leaves, slot.sample_count, slot.pass_index, slot.step)
            self._number += 1
            self.position = (slot.pass_index + 1, 0) if slot.last_of_pass else (slot.pass_index, slot.step + 1)
            self._loader._next = self.position
            self._loader._bookmark.moved(self.position, slot.replay)
            if slot.last_of_pass:
                meter.tell(self._pipeline.crew.tally, self._pipeline.peak_bytes, plan)
            if slot.bad and slot.sample_count == 0 and (slot.rows == 0 or plan.needs.ranks == 1):
                meter.end(last_of_pass=slot.last_of_pass)
                del leaves
                continue
            batch = plan.build(leaves, slot.kept)
            count = row_count(batch) if plan.free_form else slot.sample_count
            return Delivered(batch, slot.pass_index, slot.step, count, slot.last_of_pass)
        return None

    def close(self) -> None:
        """End the stream; a `take()` that waits in another thread raises `LoaderClosed`. The lanes stay."""
        if not self._closed:
            self._closed = True
            self._loader._meter.pause()
            self._pipeline.board.abandon(self._run)


@final
class Loader:
    """Runs a plan. Made by `ds.loader(...)`.

    Iterate it for one epoch at a time; each `iter(loader)` starts the next epoch and ends an iterator that is still
    open. Batches are trees of NumPy arrays that stay valid, and are never overwritten, as long as they are held.

    Attributes:
        plan: The plan that it runs.
    """

    def __init__(self, plan: Plan, observers: Sequence[Observer] = ()) -> None:
        if plan.policy.on_bad_sample == "replace" and plan.order is None:
            raise PlanError(
                'on_bad_sample="replace" needs samples that can be read in any order, but these come from a generator. '
                'Use "skip".'
            )
        self.plan = plan
        self._meter = Meter(observers)
        self._lock = threading.Lock()
        self._pipeline: Pipeline | None = None
        self._finalizer: weakref.finalize[[], Loader] | None = None
        self._next = (0, 0)
        #: What `set_epoch` asked for, until a stream begins there.
        self._wish: int | None = None
        # Late, because only a loader needs it and all that it imports.
        from fitstream.states.bookmark import Bookmark

        self._bookmark = Bookmark(plan)
        self._live: weakref.ref[Stream] | None = None
        self._peak_bytes = self._copy_count = 0
        self._tally, self._closed = Tally(), False
        processes = 0 if plan.auto_processes else plan.process_count
        self._lanes = LanesChanged(plan.lane_count, processes, plan.lane_reason)
        if plan.process_count and not plan.auto_processes:
            # What can't be sent or doesn't fit is refused here, and not in mid-epoch.
            self._start()

    @property
    def epoch(self) -> int:
        """The epoch in progress, or the next one to start if none is."""
        return self._next[0]

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter(loader)` start this epoch, counted from 0."""
        if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or not 0 <= epoch < MAX_COUNT:
            raise PlanError(f"epoch={epoch!r} must be a whole number from 0 to 2^60.")
        self._next = (int(epoch), 0)
        self._wish = int(epoch)
        self._bookmark.loaded = None

    @property
    def resumed(self) -> bool:
        """Whether a loaded state begins in mid-pass, and no batch was taken since."""
        loaded = self._bookmark.loaded
        return loaded is not None and loaded.step > 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is, of which data: JSON data of less than 1 kB.

        The position is that of the batches *delivered* so far; after the last one of an epoch, it is the start of the
        next. Batches that lanes have read ahead don't count.

        Returns:
            A dict for `load_state_dict`, of this loader or another one of the same dataset.
        """
        return self.state_at(*self._next)

    def state_at(self, pass_index: int, step: int) -> dict[str, Any]:
        """The state as it is, or would be, where a given batch comes next.

        Args:
            pass_index: The batch's pass (epoch), from 0.
            step: Its place there, from 0; the number of steps of a pass means the start of the next.
        Raises:
            PlanError: If there is no such batch.
        """
        return self._bookmark.state_at(self.plan.steps, pass_index, step)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state says, with the very next batch.

        The next `iter(loader)` gives the rest of that epoch, the one after it the next epoch. Lanes, processes and
        memory may differ from those of the loader that the state is of, and so may the number of ranks, if the global
        batch is the same. Nothing is read again, but what a generator gave before.

        Args:
            state: What `state_dict()` returned, perhaps by way of JSON.
        Raises:
            StateError: If the state is damaged, of another dataset (with what changed), or an iterator is still open.
        """
        if self._closed:
            raise LoaderClosed("the loader is closed. Make a new one with ds.loader(...).")
        stream = self._live() if self._live is not None else None
        if stream is not None and not stream.ended and self._pipeline is not None:
            raise StateError(
                "a state can't be loaded under an iterator that is still open: the batches that it gives next would be "
                "of another place. Let it end, drop it, or make a new loader."
            )
        self._next, self._wish = self._bookmark.load(state, self.plan.steps), None
        self._live = None  # what ended before moves the place no more

    def __len__(self) -> int:
        """Batches of an epoch.

        Raises:
            TypeError: If the source doesn't know its length.
        """
        if self.plan.steps is None:
            raise TypeError("this loader's source doesn't know its length; give it as from_generator(fn, length=...).")
        return self.plan.steps

    def __iter__(self) -> Iterator[Any]:
        if self._bookmark.loaded is not None:
            return _Epoch(self, self.stream(single_pass=True))
        pass_index, step = self._next
        # A pass that was left in mid-way is over: the next epoch starts.
        first = pass_index + (step > 0) if self._wish is None else self._wish
        return _Epoch(self, self.stream(first_pass=first, single_pass=True))

    def stream(
        self,
        *,
        first_pass: int | None = None,
        first_step: int = 0,
        steps: int | None = None,
        single_pass: bool = False,
    ) -> Stream:
        """Start batches from a position on, passes laid end to end, and end an older stream.

        Args:
            first_pass: Where to start; None for where the last stream stopped.
            first_step: Step of that pass to start with.
            steps: Batches in all; None for endless, or until the pass ends.
            single_pass: End with the pass.
        """
        if first_pass is None:
            first_pass, first_step = self._next if self._wish is None else (self._wish, 0)
        self._wish = None
        if single_pass and self.plan.steps is not None:
            steps = self.plan.steps - first_step
        with self._lock:
            if self._closed:
                raise LoaderClosed("the loader is closed. Make a new one with ds.loader(...).")
            if self._pipeline is None or self._pipeline.board.closed:
                self._start()
            pipeline = self._pipeline
            assert pipeline is not None
            replay = self._bookmark.replay_at(first_pass, first_step)
            from fitstream.engine.tokens import Run  # late, as in `_start`

            run = Run(first_pass, first_step, steps, single_pass, replay=replay)
            self._next = (first_pass, first_step)
            self._meter.pause()
            pipeline.board.start_run(run)
            stream = Stream(self, pipeline, run)
            self._live = weakref.ref(stream)
            return stream

    def renew(self, order: BatchOrder) -> None:
        """Go on with a source that changed, from the next stream on: another order, of batches of free form."""
        with self._lock:
            if self._pipeline is not None and not self._pipeline.board.closed:
                self._pipeline.renew(order)
                self.plan = self._pipeline.plan
            else:
                self.plan = replace(self.plan, order=order, steps=order.steps)

    def _start(self) -> None:
        # The engine is half of what importing fitstream would take, and whoever only plans doesn't need it.
        from fitstream.engine.pipeline import Pipeline

        pipeline = Pipeline(self.plan, self._meter.emit, owner=self._meter)
        self._pipeline = pipeline
        self.plan = pipeline.plan
        # Ends the lanes when the loader is collected, or the program ends, without close().
        self._finalizer = weakref.finalize(self, pipeline.close)

    def _stop(self, *, patient: bool = True) -> None:
        """End the lanes; the next stream starts new ones."""
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
            if pipeline is None:
                return
            self._peak_bytes = max(self._peak_bytes, pipeline.peak_bytes)
            self._tally = Tally.sum((self._tally, pipeline.crew.tally))
            tally = self._tally
            self._copy_count += pipeline.board.copy_count
            self._lanes, self.plan = pipeline.decision or self._lanes, pipeline.plan
            finalizer = self._finalizer
        pipeline.close(patient=patient)
        if finalizer is not None:  # only now: if Ctrl-C came before, it still ends the lanes
            finalizer.detach()
        self._meter.tell(tally, self._peak_bytes, self.plan)

    def stats(self) -> Stats:
        """What was measured so far, over all epochs."""
        meter, pipeline, plan = self._meter, self._pipeline, self.plan
        peak, tally, copies, lanes = self._peak_bytes, self._tally, self._copy_count, self._lanes
        if pipeline is not None:
            peak = max(peak, pipeline.peak_bytes)
            tally = Tally.sum((tally, pipeline.crew.tally))
            copies += pipeline.board.copy_count
            lanes, plan = pipeline.decision or lanes, pipeline.plan
        held = plan.index_bytes + plan.queue_bytes
        if lanes.process_count == 0:  # of workers all was measured
            held += max(1, plan.lane_count) * plan.hand_bytes
        return Stats(
            pass_index=meter.pass_index,
            step=meter.step,
            batch_count=meter.batch_count,
            sample_count=meter.sample_count,
            elapsed_s=meter.elapsed_s,
            waited_s=meter.waited_s,
            peak_bytes=peak + held if peak else 0,
            projected_bytes=plan.projected_bytes,
            budget_bytes=plan.budget_bytes,
            lane_count=lanes.lane_count,
            process_count=lanes.process_count,
            reason=lanes.reason,
            fallback_count=tally.fallback_count,
            changed_count=tally.changed_count,
            copy_count=copies,
            bad_samples=meter.bad_samples,
        )

    def keras(self, steps_per_epoch: int | None = None) -> KerasDataset:
        """A `keras.utils.PyDataset` for `model.fit`, `evaluate` and `predict`.

        Args:
            steps_per_epoch: Its length; passes are laid end to end. None for a pass an epoch.
        Raises:
            PlanError: If the source doesn't know its length and `steps_per_epoch` isn't given.
        """
        # Loads Keras and its backend, which `import fitstream` must not.
        from fitstream.adapters.keras import KerasDataset

        return KerasDataset(self, steps_per_epoch)

    def close(self) -> None:
        """End the lanes and give the ring back. Batches that are still held stay valid."""
        self._closed = True
        self._stop()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._closed = True
        # Ctrl-C doesn't wait for a function of the user's that takes long.
        self._stop(patient=kind is None or issubclass(kind, Exception))

    def __repr__(self) -> str:
        plan = self.plan
        steps = "?" if plan.steps is None else f"{plan.steps:,}"
        state = "closed" if self._closed else f"epoch {self.epoch}"
        return (
            f"Loader({state}, {steps} batches of {plan.batch_size}, {plan.lane_count} lanes, "
            f"{format_bytes(plan.projected_bytes)} of {format_bytes(plan.budget_bytes)})"
        )


@final
class _Epoch(Iterator[Any]):
    """One epoch of a loader, as `for batch in loader` sees it."""

    def __init__(self, loader: Loader, stream: Stream) -> None:
        self._stream = stream
        self._loader = loader
        self._over = False

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        try:
            return self._stream.take().batch
        except StopIteration:
            self._over = True
            loader = self._loader
            # Where the length wasn't known, only now is the pass known to be over. A state may have been loaded since.
            if loader._live is not None and loader._live() is self._stream and loader._next[1] > 0:
                loader._next = (loader._next[0] + 1, 0)
            raise
