"""What a loader remembers in order to tell its state, and to go on from one.

The order of random access is computed, so that a position is two numbers. Of a generator it takes what led there too;
that is kept for the last positions, because frameworks pull batches ahead of what they have trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from fitstream.engine.replay import Replay
from fitstream.errors import PlanError, StateError
from fitstream.plan import Plan
from fitstream.sampling import MAX_COUNT
from fitstream.states.fingerprint import Fingerprint, Identity
from fitstream.states.state import Position, read_state, write_state

__all__ = ["Bookmark"]

#: Positions of a generator that `state_at` knows. JAX was seen to hold 35 batches.
_KEPT_REPLAYS = 256


@final
class Bookmark:
    """The places of one loader.

    Args:
        plan: What it runs.

    Attributes:
        loaded: The position that a state said, until a batch is delivered.
    """

    def __init__(self, plan: Plan) -> None:
        self.loaded: Position | None = None
        self._source = plan.source
        self._sequential = plan.order is None
        # Loaders of batches of free form are asked for no state.
        self._identity = None if plan.free_form else Identity(plan)
        self._replays: dict[tuple[int, int], Replay] = {}
        self._told = False

    def moved(self, position: tuple[int, int], replay: Replay | None) -> None:
        """Take in that a batch was delivered.

        Args:
            position: Pass and step of the next one.
            replay: Of a generator, what led there.
        """
        self.loaded = None
        if replay is not None:
            self._replays[position] = replay
            if len(self._replays) > _KEPT_REPLAYS:
                del self._replays[next(iter(self._replays))]

    def replay_at(self, pass_index: int, step: int) -> Replay | None:
        """What leads to the loaded position, if it is this one."""
        loaded = self.loaded
        return loaded.replay if loaded is not None and (loaded.pass_index, loaded.step) == (pass_index, step) else None

    def state_at(self, steps: int | None, pass_index: int, step: int) -> dict[str, Any]:
        """The state where a given batch comes next.

        Args:
            steps: Batches of a pass, if known.
            pass_index: As in `Loader.state_at`.
            step: As in `Loader.state_at`.
        Raises:
            PlanError: If there is no such batch.
        """
        for one in (pass_index, step):
            if isinstance(one, bool) or not isinstance(one, (int, np.integer)) or not 0 <= one < MAX_COUNT:
                raise PlanError(f"pass {pass_index!r} and step {step!r} must be whole numbers from 0 on.")
        if steps is not None and step >= steps:
            if step > steps:
                raise PlanError(f"step {step:,} is beyond the {steps:,} batches of a pass.")
            pass_index, step = pass_index + 1, 0
        position = Position(int(pass_index), int(step))
        if step and self._sequential:
            position = replace(position, replay=self._replays.get((position.pass_index, position.step), Replay()))
        found = self._now()
        state = write_state(found, position)
        self._warn(found.unknown, position.replay, state)
        return state

    def _now(self) -> Fingerprint:
        assert self._identity is not None
        return self._identity.now()

    def _warn(self, unknown: Sequence[str], replay: Replay | None, state: dict[str, Any]) -> None:
        """Tell once what a state doesn't hold."""
        told = [f"These can't be compared when it is loaded: {'; '.join(unknown)}."] if unknown else []
        if replay is not None and state["generator"]["own"] is None and (replay.own or replay.why):
            why = replay.why or "its state_dict() leaves no room in a state"
            told.append(f"The generator's own state is left out, and its samples will be read again: {why}.")
        if told and not self._told:
            self._told = True
            warnings.warn(f"The loader's state is not complete. {' '.join(told)}", stacklevel=4)

    def load(self, state: Any, steps: int | None) -> tuple[int, int]:
        """Take over the position of a state.

        Returns:
            Pass and step of the batch that comes next.
        Raises:
            StateError: If the state can't be used.
        """
        position = read_state(state, self._now(), steps)
        if position.pass_index > 0 and getattr(self._source, "one_shot", False):
            raise StateError(
                f"{self._source!r} can run only once, and in this state its only pass is over. Pass a function that "
                "makes a new generator for each pass."
            )
        self.loaded, place = position, (position.pass_index, position.step)
        self._replays = {} if position.replay is None else {place: position.replay}
        return place
