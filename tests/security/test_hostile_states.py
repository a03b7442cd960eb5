"""States that were made to do something else than to say a position."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from canary import Hostile

import fitstream as fs


def genuine() -> dict[str, Any]:
    with fs.from_arrays(np.arange(40.0)).shuffle(1).batch(4).loader(memory="1 MB", workers=0) as loader:
        next(iter(loader))
        return json.loads(json.dumps(loader.state_dict()))


def nested(depth: int) -> Any:
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


STATES: dict[str, Any] = {
    "a pickle": lambda h: h.pickled,
    "an object": lambda h: h.trap,
    "a pickle as text": lambda h: pickle.dumps(h.trap, 0).decode("latin1"),
    "a list": lambda h: [1, 2],
    "nothing": lambda h: {},
    "an object in a part": lambda h: genuine() | {"fingerprint": [[h.trap, "x"]]},
    "an object as position": lambda h: genuine() | {"step": h.trap},
    "a negative position": lambda h: genuine() | {"step": -1},
    "a position beyond all": lambda h: genuine() | {"epoch": 2**80},
    "a fraction": lambda h: genuine() | {"step": 1.5},
    "not a number": lambda h: genuine() | {"step": float("nan")},
    "nested lists": lambda h: genuine() | {"unknown": nested(100_000)},
    "10 MB of text": lambda h: genuine() | {"python": "x" * 10_000_000},
    "a name of a class": lambda h: genuine() | {"__class__": "os.system", "__reduce__": ["os.system", ["x"]]},
    "another step with the old check": lambda h: genuine() | {"step": 3},
    "a URL": lambda h: genuine() | {"format": "https://me:hunter2@host"},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_hostile_state_is_refused(hostile: Hostile, kind: str) -> None:
    state = STATES[kind](hostile)

    def load() -> None:
        with fs.from_arrays(np.arange(40.0)).shuffle(1).batch(4).loader(memory="1 MB", workers=0) as loader:
            loader.load_state_dict(state)

    error = hostile.refused(load)
    assert isinstance(error, fs.StateError)
    assert "hunter2" not in str(error)
    assert len(str(error)) < 10_000
