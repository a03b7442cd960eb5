"""A loader as a `keras.utils.PyDataset`, right under whatever Keras does with one.

Keras asks a PyDataset for batches by index, in shuffled order by default, and from a new iterator each epoch. Before it
trains it asks for a batch or two to learn their shapes. A loader has one order of its own, so the index is not used:
the n-th request of an iterator gets the n-th batch of its epoch.

What an epoch is, then, follows from two questions about who asks, answered by looking at the calling frame, because
Keras's hooks alone can't tell them apart:

- Does an iterator ask, or someone else? Keras's iterator is a generator that reads the length when it starts. So a
  generator that reads the length begins the epoch anew, a request from a generator that began earlier is stale
  (TensorFlow's look-ahead of a fit that was stopped), and any other request is a peek.
- Did an epoch end, or was it only tried out? Keras calls `on_epoch_end` for both. The call that resets its iterator,
  after the batch that builds a model, isn't an end. With one batch an epoch nothing else differs.

An epoch that Keras didn't take to its end starts again, from its first batch. After a state that begins in mid-pass,
epochs of a pass's length follow each other from there on. The first `KEPT` batches are held until
the one after them is asked for, so that peeks cost no second reading. All state changes under one lock, because
TensorFlow asks from its own threads.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, final

import numpy as np

try:
    import keras
except ImportError as error:
    raise ImportError(
        "Keras is not installed. Install it together with a backend: fitstream[tensorflow], fitstream[torch] or "
        "fitstream[jax]."
    ) from error

from fitstream.adapters.class_weights import map_tree
from fitstream.errors import FitstreamError, LoaderClosed, PlanError
from fitstream.loader import Loader, Stream
from fitstream.operations import whole_number
from fitstream.plan import Plan
from fitstream.spec import ArraySpec

__all__ = ["KEPT", "KerasDataset", "blank_length", "check_batch", "keras", "next_pass", "runs_once", "too_short"]

#: Keras looks at no more than this many batches before it trains: TensorFlow at two, the others at one.
KEPT = 2
#: Of an axis that batches differ in, where only shapes count: long enough for what a model is built with.
_BLANK_LENGTH = 64


@final
class KerasDataset(keras.utils.PyDataset):
    """Batches of a loader for `model.fit`, `model.evaluate` and `model.predict`.

    Args:
        loader: Stays the caller's: closing it is not done here.
        steps_per_epoch: Batches of an epoch; passes are laid end to end. None makes an epoch of each pass.
    Raises:
        PlanError: If neither the length of a pass nor `steps_per_epoch` is known, or Keras can't take the batches.
    """

    def __init__(self, loader: Loader, steps_per_epoch: int | None = None) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        check_batch(loader.plan.batch_spec)
        self._passes = steps_per_epoch is None
        self._length = _epoch_length(loader.plan.steps, steps_per_epoch)
        self._goes_on = steps_per_epoch is not None and runs_once(loader)
        self._loader = loader
        self._stream: Stream | None = None
        self._start: tuple[int, int] | None = None
        self._kept: list[Any] = []
        self._read = 0
        self._given = 0
        self._iterator: tuple[Any, int] | None = None
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return self._length

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        caller = sys._getframe(1)
        if _is_generator(caller):
            self._begin()
            self._iterator = _identity(caller)
        return self._length

    @property
    def workers(self) -> int:
        """Always 1: Keras's own workers lose the order, and the loader's lanes do the work."""
        if sys._getframe(1).f_code.co_name == "__init__":
            # An adapter is being made: a fit, evaluate or predict begins, and on TensorFlow peeks come next.
            self._begin()
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        raise PlanError(f"workers={value} is not for Keras to set: lanes read ahead. Use ds.loader(workers={value}).")

    def __getitem__(self, index: int) -> Any:
        """Get the next batch, whatever the index; outside an iterator, look at one of the first `KEPT` batches.

        Returns:
            A batch as the dataset makes it. Its arrays stay valid as long as one of them is held.
        Raises:
            LoaderClosed: If the loader was closed or serves another iterator now.
            PlanError: If an earlier or a far batch is asked for outside an iterator.
        """
        caller = sys._getframe(1)
        with self._turn:
            if self._iterator is not None and _is_generator(caller) and caller.f_code is self._iterator[0]:
                if _identity(caller) != self._iterator:
                    raise LoaderClosed("a newer iterator of this KerasDataset has begun, so this one gives no more.")
                self._given += 1
                return self._batch(self._given - 1)
            return self._peek(index)

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.num_batches):
            yield self[index]
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Move on to the next epoch, if this one was given in full."""
        asked_by = sys._getframe(1).f_back  # Keras's adapter stands between
        only_reset = asked_by is not None and asked_by.f_code.co_name == "reset"
        if only_reset or self._given < self._length:
            return
        with self._turn:
            stream = self._stream
            self._start = None if self._passes or stream is None else stream.position
            if self._passes:
                self._stream = None
            self._kept, self._read, self._given = [], 0, 0

    def _begin(self) -> None:
        """Start the epoch again if Keras left it unfinished.

        Of a generator that can run only once nothing can be read again, so that it goes on from where it is.
        """
        unfinished = self._given > self._read or self._read > len(self._kept)
        if unfinished and self._stream is not None and not self._goes_on:
            # Closed before the lock is asked for: an abandoned iterator may be waiting for a batch while it holds it.
            self._stream.close()
        with self._turn:
            if unfinished or self._read > len(self._kept):
                self._kept, self._read = [], 0
                if not self._goes_on:
                    self._stream = None
            self._given = 0

    def _batch(self, place: int) -> Any:
        if place < len(self._kept):
            return self._kept[place]
        if place >= KEPT:
            self._kept = []  # now, because the ring may have no other slot
        try:
            batch = self._open().take().batch
        except StopIteration:
            raise too_short(place, self._length) from None
        self._read += 1
        if place < KEPT:
            self._kept.append(batch)
        return batch

    def _peek(self, index: int) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(f"batch {index} is outside an epoch of {self._length} batches")
        if self._loader.plan.padded and keras.backend.backend() == "tensorflow":
            return self._shape_alone(index)
        if index >= KEPT or self._read > len(self._kept):
            raise PlanError(
                f"batch {index} can't be picked out: batches come in order, and only the first {KEPT} can be looked "
                "at, before training goes past them. Use ds[i] of the Dataset, or a loader of its own."
            )
        while len(self._kept) <= index:
            self._batch(len(self._kept))
        return self._kept[index]

    def _shape_alone(self, index: int) -> Any:
        """A blank batch of a length of its own: TensorFlow fixes the axes that the first two have in common."""
        length = max(1, blank_length(self._loader.plan) - index)
        return map_tree(
            lambda leaf: np.zeros([length if n is None else n for n in leaf.shape], leaf.dtype),
            self._loader.plan.batch_spec,
        )

    def _open(self) -> Stream:
        if self._stream is None:
            if self._start is None and self._passes:
                first = next_pass(self._loader)
                # Keras can't be given a shorter first epoch: passes are laid end to end from here on, so that of the
                # rest of a resumed pass nothing is lost.
                self._passes, self._start = first is not None, None if first is None else (first, 0)
            first_pass, first_step = self._start or (None, 0)
            steps = self._length if self._passes else None
            self._stream = self._loader.stream(first_pass=first_pass, first_step=first_step, steps=steps)
            self._start = self._stream.position
        return self._stream


def blank_length(plan: Plan) -> int:
    """Of a padded axis in a batch that only shows shapes: no longer than batches get, as a model may have no room."""
    longest = (plan.layout.specs[number].shape[0] for number in plan.padded)
    return min([_BLANK_LENGTH, *(length for length in longest if length is not None)])


def too_short(given: int, planned: int) -> FitstreamError:
    """The error of an epoch that ends before the last batch that Keras was told of."""
    return FitstreamError(
        f"{planned - given} of {planned} batches had bad samples alone and were skipped, so that Keras would get fewer "
        'than it was told. Use on_bad_sample="replace", or larger batches.'
    )


def next_pass(loader: Loader) -> int | None:
    """The pass after the last one that a loader began; None where it goes on in mid-pass, as a loaded state says."""
    if loader.resumed:
        return None
    pass_index, step = loader.stream(steps=0).position
    return pass_index + (step > 0)


def runs_once(loader: Loader) -> bool:
    """Whether a loader's source is a generator that runs already, so that nothing can be read again."""
    return bool(getattr(loader.plan.source, "one_shot", False))


def _epoch_length(pass_steps: int | None, steps_per_epoch: int | None) -> int:
    """Batches of an epoch.

    Raises:
        PlanError: If neither number is known, or it isn't positive.
    """
    if steps_per_epoch is not None:
        return whole_number(steps_per_epoch, "steps_per_epoch", 1, ", or None for a pass")
    if pass_steps is None:
        raise PlanError(
            "the source doesn't tell its length, and Keras needs one. Use loader.keras(steps_per_epoch=n), give the "
            "source length=, or use fs.fit, which learns the length in the first pass."
        )
    return pass_steps


def check_batch(spec: Any) -> None:
    """Refuse batches that Keras can't take.

    Raises:
        PlanError: If a batch is a tuple of more than `(x, y, sample_weight)`, or a mask of places weighs targets that
            have none.
    """
    if isinstance(spec, tuple) and not 1 <= len(spec) <= 3:
        raise PlanError(
            f"a batch has {len(spec)} parts, but Keras takes x, (x, y) or (x, y, sample_weight). "
            "Use .map(lambda *parts: ((parts[0], parts[1]), parts[2])) or dicts to join several inputs into one part."
        )
    parts = spec[1:] if isinstance(spec, tuple) else ()
    arrays = len(parts) == 2 and all(isinstance(part, ArraySpec) for part in parts)
    if arrays and _varies(parts[1]) and not _varies(parts[0]):
        raise PlanError(
            f"batch(mask=True) weighs each place of a sequence, {parts[1]!r}, but targets are {parts[0]!r}, one "
            "a sample. Leave mask=True out, and hide padding in the model: Embedding(..., mask_zero=True)."
        )


def _varies(spec: ArraySpec) -> bool:
    """Whether batches differ in length along the second axis."""
    return len(spec.shape) > 1 and spec.shape[1] is None


def _is_generator(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & inspect.CO_GENERATOR)


def _identity(frame: FrameType) -> tuple[Any, int]:
    """Name a running generator: its code, and its frame's address, which is its own as long as it can ask."""
    return frame.f_code, id(frame)
