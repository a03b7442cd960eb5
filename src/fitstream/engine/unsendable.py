"""Why something can't be sent to a worker process: the smallest part that fails by itself, by its name in the program.

The walk goes from a thing to the parts that pickle would store for it: attributes (as __getstate__ gives them), closure
variables, defaults and globals of functions, members. At each level the parts are halved until one is left, so that a
search costs a few times what pickling costs. Things that it has passed through count as sendable: that ends cycles, and
no way back up is blamed.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["explain"]

#: Makes a pickler that writes nothing and leaves out the things whose ids it is given.
Trial = Callable[[dict[int, Any]], Any]

#: The search goes this many parts deep.
_DEEPEST = 60
_ADVICE = (
    "Open it inside the function, when it is first called; or define __getstate__ or __reduce__ that leave it out; "
    "or use processes=0."
)


class _Step(NamedTuple):
    """From a thing to one of its parts. A step of a kind starts a new name, others add to the name so far."""

    part: Any
    name: str = ""
    kind: str = ""
    owner: str = ""


def explain(tree: dict[str, Any], error: Exception, trial: Trial) -> str:
    """Why pickling failed, for people: the part, the way to it, and what to do."""
    passed: dict[int, Any] = {}
    steps = [_Step(part, key) for key, part in tree.items()]
    found = _first_failing(steps, passed, trial)
    if found is None:
        return f"{', '.join(tree)}: can't be sent to a worker process ({error}). {_ADVICE}"
    key, thing = found[0].name, found[0].part
    way: list[_Step] = []
    while found is not None:
        step, error = found
        thing = step.part
        passed[id(thing)] = thing
        if isinstance(error.__cause__, RecursionError) or len(way) == _DEEPEST:
            return f"{key}: {_told(way)} is nested too deeply to be sent to a worker process. Use processes=0."
        found = _first_failing(_parts(thing, trial), passed, trial)
        if found is not None:
            way.append(found[0])
    reason = "" if str(error).lower().startswith("cannot pickle") else f" ({type(error).__name__}: {error})"
    return f"{key}: {_told(way)} is {_kind(thing)}, which can't be sent to a worker process{reason}. {_ADVICE}"


def _first_failing(steps: list[_Step], passed: dict[int, Any], trial: Trial) -> tuple[_Step, Exception] | None:
    """The first part that can't be pickled by itself, found by halving, and its error."""
    error = _failure(steps, passed, trial)
    while error is not None and len(steps) > 1:
        half = len(steps) // 2
        first = _failure(steps[:half], passed, trial)
        steps = steps[half:] if first is None else steps[:half]
        error = first if first is not None else _failure(steps, passed, trial)
    return None if error is None else (steps[0], error)


def _failure(steps: list[_Step], passed: dict[int, Any], trial: Trial) -> Exception | None:
    try:
        trial(passed).dump([step.part for step in steps])
    except Exception as error:  # noqa: BLE001  a class of the user's may raise anything
        return error
    return None


def _parts(thing: Any, trial: Trial) -> list[_Step]:
    """What pickle would take next, with names."""
    kind, owner = type(thing), _name(thing)
    if kind is dict:
        return [_Step(part, f"[{key!r}]") for key, part in thing.items()] + [_Step(key, ".keys()") for key in thing]
    if kind in (list, tuple, set, frozenset):
        return [_Step(part, f"[{i}]" if kind in (list, tuple) else "{}") for i, part in enumerate(thing)]
    if isinstance(thing, np.ndarray):
        return [_Step(part, f".flat[{i}]") for i, part in enumerate(thing.flat)]
    if kind is types.MethodType:
        return [_Step(thing.__self__), _Step(thing.__func__)]
    if kind is functools.partial:
        given = [*enumerate(thing.args), *thing.keywords.items()]
        partial = f"partial({_name(thing.func)})"
        return [_Step(thing.func), *(_Step(part, str(name), "argument", partial) for name, part in given)]
    try:
        args, state, *rest = _reduced(thing, trial)
    except Exception:  # noqa: BLE001  then the thing itself is at fault
        return []
    if kind is types.FunctionType:
        return _parts_of_function(thing, state)
    steps = []
    for name, part in state.items():
        if isinstance(thing, type):
            steps.append(_Step(part, name, "class attribute", owner))
        else:
            # Objects of ours stand between the name of a part and what the user wrote, who knows nothing of them.
            ours = kind.__module__.partition(".")[0] == "fitstream"
            steps.append(_Step(part, "" if ours else f".{name}", "", "" if ours else owner))
    steps += [
        _Step(part, "" if isinstance(part, (type, tuple)) else f".__reduce__()[1][{i}]") for i, part in enumerate(args)
    ]
    steps += [_Step(part, f"[{i}]") for i, part in enumerate(rest[0] or ())]
    return steps + [_Step(part, f"[{key!r}]") for key, part in rest[1] or ()]


def _parts_of_function(function: types.FunctionType, state: dict[str, Any]) -> list[_Step]:
    owner, code = _name(function), function.__code__
    steps = []
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            steps.append(_Step(cell.cell_contents, name, "closure variable", owner))
        except ValueError:  # not assigned yet
            continue
    defaults = function.__defaults__ or ()
    positional = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    named = [*zip(positional, defaults, strict=True), *(function.__kwdefaults__ or {}).items()]
    steps += [_Step(part, name, "default argument", owner) for name, part in named]
    steps += [_Step(part, name, "global", owner) for name, part in state.get("__globals__", {}).items()]
    return steps + [_Step(part, name, "attribute", owner) for name, part in vars(function).items()]


def _reduced(thing: Any, trial: Trial) -> tuple[Any, dict[str, Any], Any, Any]:
    """Arguments, attributes, members and pairs that pickle would store for a thing."""
    pickler = trial({})
    made = pickler.reducer_override(thing)
    if made is NotImplemented:
        by_type = pickler.dispatch_table.get(type(thing))
        made = by_type(thing) if by_type is not None else thing.__reduce_ex__(5)
    if isinstance(made, str):
        return (), {}, None, None
    _, args, state, members, pairs = (*made, None, None, None)[:5]
    attributes: dict[str, Any] = {}
    for each in state if isinstance(state, tuple) else (state,):
        if isinstance(each, dict):
            attributes.update({str(name): part for name, part in each.items()})
        elif isinstance(each, list) and dataclasses.is_dataclass(thing):  # one with slots
            attributes.update(zip((field.name for field in dataclasses.fields(thing)), each, strict=False))
        elif each is not None:
            attributes["__getstate__()"] = each
    return args, attributes, members, pairs


def _told(way: list[_Step]) -> str:
    """The way to a part: "closure variable 'lock' of flip (attribute 'self.flip' of Augment)"."""
    names: list[list[str]] = []
    for step in way:
        if step.kind:
            names.append([step.kind, step.name, step.owner])
        elif names:
            names[-1][1] += step.name
        elif step.name:
            names.append(["attribute", "self" + step.name, step.owner] if step.owner else ["part", step.name, ""])
    told = [f"{kind} '{name}'" + (f" of {owner}" if owner else "") for kind, name, owner in reversed(names)]
    return "it" if not told else told[0] + (f" ({', in '.join(told[1:4])})" if told[1:] else "")


def _name(thing: Any) -> str:
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _kind(thing: Any) -> str:
    cls = type(thing)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
