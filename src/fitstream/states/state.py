"""The state of a loader: where it is, and of which data, as JSON of less than 1,000 bytes.

    format, version     what this is
    python              version that function digests belong to, such as "3.12"
    fingerprint         [[name, digest], ...]; of functions [name, digest of code, digest of captured values]; and
                        behind the last, if there is room, four digits of each value, which serve to name what changed
    seed, batch_size, last, samples
    epoch, step         the batch that comes next
    unknown             what could not be fingerprinted, by name
    generator           of a generator only: {"digest": of the samples read, "own": the generator's own state}
    check               digest over all that

The batch size is the global one, so that a state goes from one number of ranks to another. A captured value that
changes while the dataset runs (a counter, a cache) has an empty digest and is named in `unknown`.

A state is data: it is checked key by key, and whatever is wrong with it is a `StateError`. None of it is executed.
Names that are too long, and parts that are too many, are collapsed by a rule that looks at names alone, so that equal
datasets collapse alike and are compared collapsed.
"""

from __future__ import annotations

import json
import reprlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, final

from fitstream.engine.replay import Replay
from fitstream.errors import StateError
from fitstream.states.fingerprint import Fingerprint, Part
from fitstream.states.plain import digest

__all__ = ["MOST_BYTES", "Position", "read_state", "write_state"]

#: Of a whole state.
MOST_BYTES = 1000
_FORMAT, _VERSION = "fitstream", 1
_PARTS_BYTES, _UNKNOWN_BYTES, _NAME_BYTES, _SHORT_NAME_BYTES = 420, 130, 60, 24
_LARGEST = 2**62
#: Of a digest, before details; and names of changed values in an error.
_DIGITS, _MOST_NAMED = 10, 3
_KEYS = {
    "format", "version", "python", "fingerprint", "seed", "batch_size", "last", "samples", "epoch", "step", "unknown",
    "generator", "check",
}  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Position:
    """The batch that comes next.

    Attributes:
        pass_index: Its pass, from 0.
        step: Its place there, from 0.
        replay: Of a generator in mid-pass, else None.
    """

    pass_index: int
    step: int
    replay: Replay | None = None


def write_state(found: Fingerprint, position: Position) -> dict[str, Any]:
    """The state at a position, as JSON data of at most `MOST_BYTES`.

    A generator's own state that has no room in it is left out: then its samples are read again.
    """
    state: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "python": _python(),
        "fingerprint": _packed(found.parts),
        "seed": _number(found.seed),
        "batch_size": found.batch_size,
        "last": found.last,
        "samples": found.sample_count,
        "epoch": position.pass_index,
        "step": position.step,
        "unknown": _cut(found.unknown),
        "generator": None,
    }
    replay = position.replay
    if replay is not None:
        state["generator"] = {"digest": replay.digest, "own": None}
        if replay.own is not None:
            with_own = state | {"generator": {"digest": replay.digest, "own": json.loads(replay.own)}}
            if _bytes(_checked(with_own)) <= MOST_BYTES:
                state = with_own
    return _checked(_detailed(state, found.parts))


def _detailed(state: dict[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """A state with the details of its first parts, as far as there is room."""
    for place, (told, part) in enumerate(zip(state["fingerprint"], parts, strict=False)):
        if part.details and told == part.told(told[0]):  # else it is of several parts, joined
            rows = list(state["fingerprint"])
            rows[place] = [*told[:2], told[2] + part.details]
            more = state | {"fingerprint": rows}
            if _bytes(_checked(more)) <= MOST_BYTES:
                state = more
    return state


def read_state(state: Any, found: Fingerprint, steps: int | None) -> Position:
    """Check a state against the dataset that it shall go on with.

    Args:
        state: What `write_state` made, perhaps by way of JSON.
        found: The fingerprint of the dataset here.
        steps: Batches of a pass, if known.
    Raises:
        StateError: If it is damaged, of another program, or of another dataset; with what changed.
    """
    _check_form(state)
    changed = _settings_changed(state, found) + _parts_changed(state, found.parts)
    if changed:
        raise StateError(
            f"this state belongs to another dataset: {'; '.join(changed)} (state -> here). Make the dataset as it was, "
            "or start anew without the state.",
            changes=changed,
        )
    epoch, step = state["epoch"], state["step"]
    if steps is not None and step >= steps:
        _refuse(f"its step is {step:,}, but a pass has {steps:,} batches")
    given = state["generator"]
    replay = None
    if step and given is not None:
        replay = Replay(given["digest"], None if given["own"] is None else json.dumps(given["own"]))
    return Position(epoch, step, replay)


def _check_form(state: Any) -> None:
    """Refuse what `write_state` didn't write in this form."""
    if not isinstance(state, dict):
        _refuse(f"it is of type {type(state).__name__}, not a dict")
    if state.get("format") != _FORMAT:
        _refuse('it has no "format": "fitstream"')
    version: Any = state.get("version")
    if not _is_count(version) or version < 1:
        _refuse(f"its version is {version!r}")
    if version > _VERSION:
        _refuse(f"its version is {version}, and this fitstream reads up to {_VERSION}", "Use a newer fitstream.")
    if state.keys() != _KEYS:
        missing, extra = sorted(_KEYS - state.keys()), sorted(map(str, state.keys() - _KEYS))
        _refuse(f"it lacks {', '.join(missing)}" if missing else f"it has keys of something else: {', '.join(extra)}")
    wrong = [key for key, good in _forms(state).items() if not good]
    if wrong:
        _refuse(f"{wrong[0]} is {_brief(state[wrong[0]])}")
    try:
        good = _checked({key: value for key, value in state.items() if key != "check"})["check"] == state["check"]
    except (TypeError, ValueError, RecursionError):
        good = False
    if not good:
        _refuse("its check digest is wrong, so that it was damaged or edited")


def _forms(state: dict[str, Any]) -> dict[str, bool]:
    generator = state["generator"]
    return {
        "python": isinstance(state["python"], str),
        "fingerprint": isinstance(state["fingerprint"], list) and all(map(_is_part, state["fingerprint"])),
        "seed": _is_count(state["seed"]) or isinstance(state["seed"], str),
        "batch_size": state["batch_size"] is None or _is_count(state["batch_size"]),
        "last": isinstance(state["last"], str),
        "samples": state["samples"] is None or _is_count(state["samples"]),
        "epoch": _is_count(state["epoch"]) and state["epoch"] < _LARGEST,
        "step": _is_count(state["step"]) and state["step"] < _LARGEST,
        "unknown": isinstance(state["unknown"], list) and all(isinstance(name, str) for name in state["unknown"]),
        "generator": generator is None
        or (
            isinstance(generator, dict)
            and generator.keys() == {"digest", "own"}
            and (generator["digest"] is None or _is_count(generator["digest"]))
        ),
    }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_part(part: Any) -> bool:
    return isinstance(part, list) and len(part) in (2, 3) and all(isinstance(each, str) for each in part)


def _refuse(reason: str, advice: str = "Use a state that loader.state_dict() gave, whole.") -> NoReturn:
    raise StateError(f"this is no state that can be loaded: {reason}. {advice}")


# What changed.


def _settings_changed(state: dict[str, Any], found: Fingerprint) -> tuple[str, ...]:
    changed = []
    if state["samples"] != found.sample_count:
        changed.append(f"{_samples(state['samples'])} -> {_samples(found.sample_count, brief=True)}")
    if state["batch_size"] != found.batch_size:
        changed.append(f"batch size {state['batch_size']} -> {found.batch_size}")
    if state["last"] != found.last:
        changed.append(f"last={state['last']!r} -> {found.last!r}")
    if state["seed"] != _number(found.seed):
        changed.append(f"seed {state['seed']} -> {_number(found.seed)}")
    return tuple(changed)


def _samples(count: int | None, *, brief: bool = False) -> str:
    told = "an unknown number of" if count is None else f"{count:,}"
    return told if brief and count is not None else f"{told} samples"


def _parts_changed(state: dict[str, Any], parts: Sequence[Part]) -> tuple[str, ...]:
    import difflib  # nothing else needs it

    saved, here = state["fingerprint"], _packed(parts)
    same_python = state["python"] == _python()
    skipped, changed = [], []
    matcher = difflib.SequenceMatcher(None, [one[0] for one in saved], [one[0] for one in here], autojunk=False)
    for kind, first, end, start, stop in matcher.get_opcodes():
        if kind != "equal":
            old = ", ".join(one[0] for one in saved[first:end])
            new = ", ".join(one[0] for one in here[start:stop])
            changed.append(f"{old} -> {new}" if old and new else f"{old} is gone" if old else f"{new} is new")
            continue
        for place, one, other in zip(range(start, stop), saved[first:end], here[start:stop], strict=True):
            if len(one) == len(other) == 3 and not same_python:
                skipped.append(one[0])
            elif not _alike(one, other):
                changed.append(f"{one[0]}{_which_changed(one, other, parts[place])} changed")
    if skipped and not changed:
        warnings.warn(
            f"this state was taken on Python {state['python']}, and functions can't be compared with those of Python "
            f"{_python()}: {', '.join(skipped)}. Make sure that they do the same.",
            stacklevel=4,
        )
    return tuple(changed)


def _alike(one: list[str], other: list[str]) -> bool:
    # What changes while it runs has no digest to compare, and details may have found no room.
    pairs = zip(one[1:], other[1:], strict=False)
    return len(one) == len(other) and all(a[:_DIGITS] == b[:_DIGITS] or not a or not b for a, b in pairs)


def _which_changed(one: list[str], other: list[str], part: Part) -> str:
    """Which values that a function holds have changed, if its code hasn't and that is known."""
    names = part.changed(one[2][_DIGITS:]) if len(one) == 3 and one[1] == other[1] else []
    told = ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )
    return f": {told}" if told else ""


# Fitting into the size.


def _packed(parts: Sequence[Part]) -> list[list[str]]:
    """Parts as JSON data within `_PARTS_BYTES`: long names are cut, and the last parts joined to one."""
    long, short = ([_shortened(part.name, most) for part in parts] for most in (_NAME_BYTES, _SHORT_NAME_BYTES))
    if _parts_bytes(parts, long) <= _PARTS_BYTES:
        return [part.told(name) for part, name in zip(parts, long, strict=True)]
    kept = len(parts)
    while _parts_bytes(parts[:kept], short[:kept], joined=kept < len(parts)) > _PARTS_BYTES:
        kept -= 1
    told = [part.told(name) for part, name in zip(parts[:kept], short[:kept], strict=True)]
    return told + ([_join(parts[kept:])] if kept < len(parts) else [])


def _parts_bytes(parts: Sequence[Part], names: Sequence[str], *, joined: bool = False) -> int:
    """Bytes of their JSON text, if no digest is missing: what varies must not change what is joined."""
    full = "0" * 10
    told = [[name, full, *([] if part.values is None else [full])] for part, name in zip(parts, names, strict=True)]
    return _bytes(told + ([["10000 more", full, full]] if joined else []))


def _join(rest: Sequence[Part]) -> list[str]:
    values = [part.values for part in rest if part.values is not None]
    varies = "" in values
    # With their whole names, which `_shortened` may have cut to the same.
    code = digest(json.dumps([[part.name, part.code] for part in rest]).encode())
    return [f"{len(rest)} more", code, "" if varies else digest(json.dumps(values).encode())]


def _shortened(name: str, most: int) -> str:
    """A name whose JSON text has at most so many bytes, and that differs where the whole name does."""
    if _bytes(name) <= most + 2:
        return name
    mark = f"..{digest(name.encode('utf-8', 'surrogatepass'))[:4]}"
    kept = name
    while _bytes(kept) + len(mark) > most + 2:
        kept = kept[:-1]
    return kept + mark


def _cut(names: Sequence[str]) -> list[str]:
    told: list[str] = []
    for number, name in enumerate(names):
        more = [*told, _shortened(name, _NAME_BYTES)]
        if _bytes([*more, f"{len(names)} more"]) > _UNKNOWN_BYTES:
            return [*told, f"{len(names) - number} more"]
        told = more
    return told


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return state | {"check": digest(text.encode())}


def _bytes(value: Any) -> int:
    return len(json.dumps(value))


def _number(seed: int) -> int | str:
    """A seed as it is, or the digest of one that would fill pages."""
    return seed if seed < _LARGEST else f"~{digest(hex(seed).encode())}"


def _brief(value: Any) -> str:
    text = reprlib.repr(value)  # a foreign state may hold anything, nested as deeply as it likes
    return text if len(text) <= 40 else f"{text[:37]}..."


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
