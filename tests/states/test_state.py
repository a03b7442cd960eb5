"""The form of a state: its size, what it refuses, and how it says what changed."""

from __future__ import annotations

import functools
import json
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fitstream as fs
from fitstream.engine.replay import Replay
from fitstream.states import state as state_module
from fitstream.states.fingerprint import Fingerprint, Part
from fitstream.states.state import MOST_BYTES, Position, read_state, write_state


def double(x: Any) -> Any:
    return x * 2


def data(count: int = 40, size: int = 4, seed: int = 0, last: Any = "keep", fn: Any = double) -> fs.Dataset:
    return fs.from_arrays(np.arange(float(count))).shuffle(seed).map(fn).batch(size, last)


def state_of(dataset: fs.Dataset, pass_index: int = 0, step: int = 0) -> dict[str, Any]:
    with dataset.loader(memory="1 MB", workers=0) as loader:
        return loader.state_at(pass_index, step)


def load(dataset: fs.Dataset, state: Any) -> fs.Loader:
    with dataset.loader(memory="1 MB", workers=0) as loader:
        loader.load_state_dict(state)
    return loader


def changes(dataset: fs.Dataset, state: Any) -> tuple[str, ...]:
    with pytest.raises(fs.StateError) as caught:
        load(dataset, state)
    assert all(change in str(caught.value) for change in caught.value.changes)
    return caught.value.changes


def test_a_state_is_json() -> None:
    state = state_of(data(), 3, 2)
    assert json.loads(json.dumps(state)) == state
    assert (state["epoch"], state["step"], state["seed"], state["batch_size"]) == (3, 2, 0, 4)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (data(size=8), ("batch size 4 -> 8",)),
        (data(seed=1), ("seed 0 -> 1",)),
        (data(last="drop"), ("last='keep' -> 'drop'",)),
        (data(39), ("40 samples -> 39", "array changed")),
        (data(fn=lambda x: x + 1), ("map(double) -> map(<lambda>)",)),
        (fs.from_arrays(np.arange(40.0)).shuffle().batch(4), ("map(double) is gone",)),
        (
            fs.from_arrays(np.arange(40.0)).take(40).shuffle().map(double).batch(4),
            ("take(40) is new",),
        ),
        (
            fs.from_arrays(np.arange(40.0, dtype=np.float32)).shuffle().map(double).batch(4),
            ("array changed", "sample float64() -> sample float32()"),
        ),
    ],
)
def test_another_dataset_is_refused_with_what_changed(other: fs.Dataset, expected: tuple[str, ...]) -> None:
    assert changes(other, state_of(data())) == expected


def test_a_changed_function_is_named() -> None:
    def make(k: float) -> Any:
        def augment(x: Any) -> Any:
            return x * k

        augment.__qualname__ = "augment"
        return augment

    assert changes(data(fn=make(2)), state_of(data(fn=make(1)))) == ("map(augment): closure variable 'k' changed",)
    load(data(fn=make(1)), state_of(data(fn=make(1))))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 7, 2, 3), "closure variable 'b'"),
        ((7, 1, 2, 7), "closure variable 'a', closure variable 'd'"),
        ((7, 7, 7, 7), "closure variable 'a', closure variable 'b', closure variable 'c' and 1 more"),
    ],
)
def test_values_of_a_function_that_changed_are_named(values: Any, expected: str) -> None:
    def holding(a: int, b: int, c: int, d: int) -> Any:
        def augment(x: Any) -> Any:
            return x * (a + b + c + d)

        augment.__qualname__ = "augment"
        return augment

    before = state_of(data(fn=holding(0, 1, 2, 3)))
    assert changes(data(fn=holding(*values)), before) == (f"map(augment): {expected} changed",)


def test_where_a_state_has_no_room_for_its_values_the_function_alone_is_named() -> None:
    def partial(value: int) -> Any:
        return functools.partial(taking, **{f"argument {i}": value for i in range(300)})

    def taking(x: Any, **options: int) -> Any:
        return x

    state = state_of(data(fn=partial(1)))
    assert len(json.dumps(state)) <= MOST_BYTES
    (change,) = changes(data(fn=partial(2)), state)
    assert change.endswith(") changed")
    load(data(fn=partial(1)), state)


GOOD = state_of(data(), 1, 3)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        "state",
        json.dumps(GOOD),
        {"epoch": 0, "step": 3},
        {"format": "fitstream"},
        *({key: value for key, value in GOOD.items() if key != left_out} for left_out in GOOD),
        *(GOOD | {key: "other"} for key in GOOD),
        *(GOOD | {key: None} for key in GOOD if GOOD[key] is not None),
        *(GOOD | {key: value} for key in ("epoch", "step") for value in (-1, True, 1.0, "1", 2**70)),
        GOOD | {"version": 2},
        GOOD | {"version": True},
        GOOD | {"more": 1},
        GOOD | {"fingerprint": []},
        GOOD | {"generator": {"digest": None, "own": {"a": {1, 2}}}},
        GOOD | {"generator": {"digest": -1, "own": None}},
        GOOD | {"step": 2},
        GOOD | {1: 2},
    ],
)
def test_what_is_no_whole_state_is_refused(state: Any) -> None:
    with data().loader(memory="1 MB", workers=0) as loader:
        loader.set_epoch(2)
        with pytest.raises(fs.StateError) as caught:
            loader.load_state_dict(state)
        assert caught.value.changes == ()
        assert loader.epoch == 2


def forged(**changed: Any) -> dict[str, Any]:
    return state_module._checked({key: value for key, value in (GOOD | changed).items() if key != "check"})


def test_a_step_beyond_the_pass_is_refused_also_where_the_check_fits() -> None:
    load(data(), forged(step=9))
    for step in (10, 11):
        with pytest.raises(fs.StateError, match=rf"its step is {step}, but a pass has 10 batches"):
            load(data(), forged(step=step))


def test_a_state_of_a_newer_format_says_so() -> None:
    with pytest.raises(fs.StateError, match="Use a newer fitstream"):
        load(data(), forged(version=2))


def test_another_python_compares_all_but_functions_and_warns() -> None:
    state = forged(
        python="3.99", fingerprint=[one[:1] + ["0" * 10] * 2 if len(one) == 3 else one for one in GOOD["fingerprint"]]
    )
    with pytest.warns(UserWarning, match=r"Python 3\.99.*map\(double\)"):
        load(data(), state)
    with pytest.raises(fs.StateError, match="array changed"):
        load(data(39), state)
    with pytest.raises(fs.StateError, match=r"map\(double\) changed"):
        load(
            data(),
            state_module._checked({k: v for k, v in (state | {"python": GOOD["python"]}).items() if k != "check"}),
        )


def test_what_is_unknown_is_warned_about_once_and_named_in_the_state() -> None:
    lock = threading.Lock()

    def locked(x: Any) -> Any:
        with lock:
            return x

    locked.__qualname__ = "locked"
    with data(fn=locked).loader(memory="1 MB", workers=0) as loader:
        with pytest.warns(UserWarning, match=r"map\(locked\): closure variable 'lock' \(a _thread\.lock\)"):
            state = loader.state_dict()
        loader.state_dict()
    assert state["unknown"] == ["map(locked): closure variable 'lock' (a _thread.lock)"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(data(fn=locked), state)


def test_a_position_outside_the_pass_is_refused() -> None:
    with data().loader(memory="1 MB", workers=0) as loader:
        assert loader.state_at(2, 10)["epoch"] == 3
        assert loader.state_at(2, np.int64(10))["step"] == 0
        for place in ((0, 11), (-1, 0), (0, -1), (True, 0), (0, 1.5), (2**61, 0)):
            with pytest.raises(fs.PlanError):
                loader.state_at(*place)  # type: ignore[arg-type]


# Size.

texts = st.text(max_size=300)
digests = st.text("0123456789abcdef", min_size=10, max_size=10)
part_lists = st.lists(st.builds(Part, texts, digests, st.none() | digests | st.just("")), max_size=60)


@settings(max_examples=80)
@given(
    parts=part_lists,
    unknown=st.lists(texts, max_size=60),
    numbers=st.tuples(*[st.integers(0, 2**62 - 1)] * 4),
    seed=st.integers(0, 2**200),
    own=st.none() | st.dictionaries(texts, texts, max_size=4),
)
def test_a_state_takes_less_than_a_kilobyte(
    parts: list[Part], unknown: list[str], numbers: tuple[int, ...], seed: int, own: Any
) -> None:
    epoch, step, size, count = numbers
    found = Fingerprint(tuple(parts), tuple(unknown), seed, size, "keep", count)
    position = Position(epoch, step, Replay(2**32 - 1, None if own is None else json.dumps(own)))
    state = write_state(found, position)
    assert len(json.dumps(state)) <= MOST_BYTES < 1024
    back = read_state(json.loads(json.dumps(state)), found, None)
    assert (back.pass_index, back.step) == (epoch, step)


@settings(max_examples=80)
@given(parts=part_lists.filter(bool), which=st.integers(0, 10**6), data=st.data())
def test_each_part_counts_however_many_there_are(parts: list[Part], which: int, data: st.DataObject) -> None:
    found = Fingerprint(tuple(parts), (), 0, 1, "keep", 1)
    state = write_state(found, Position(0, 0))
    place = which % len(parts)
    part = parts[place]
    changed = data.draw(
        st.sampled_from(
            [
                Part(part.name + "x", part.code, part.values),
                Part(part.name, "-" * 10, part.values),
                *([Part(part.name, part.code, "-" * 10)] if part.values else []),
            ]
        )
    )
    other = Fingerprint((*parts[:place], changed, *parts[place + 1 :]), (), 0, 1, "keep", 1)
    hidden = any(one.values == "" for one in parts) and changed.values != part.values
    if not hidden:
        with pytest.raises(fs.StateError):
            read_state(state, other, None)
    # What began to change while it ran has no digest any more, whether in the state or here.
    varying = Fingerprint(
        tuple(Part(one.name, one.code, None if one.values is None else "") for one in parts), (), 0, 1, "keep", 1
    )
    read_state(state, varying, None)
    read_state(write_state(varying, Position(0, 0)), found, None)


def test_fifty_maps_and_long_names_fit() -> None:
    dataset = fs.from_arrays({"ключ" * 50: np.arange(40.0)})
    for number in range(50):

        def mapped(x: Any, number: int = number) -> Any:
            return x

        mapped.__qualname__ = f"функция_{number}_" + "x" * 100
        dataset = dataset.map(mapped)
    state = state_of(dataset.batch(4))
    assert len(json.dumps(state)) <= MOST_BYTES
    load(dataset.batch(4), state)
    with pytest.raises(fs.StateError, match="more"):
        load(dataset.map(lambda x: x).batch(4), state)
