"""Old arguments made into new ones, as the table of renames says.

Classes are translated where they are: their `__init__` is wrapped, so that subclasses, `isinstance` and saved models go
on as they were. Positions of arguments are translated only where the program itself calls. Keywords are translated
whoever calls: Keras never uses the old ones.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fitstream.legacy.program import OldName, calls_itself, program
from fitstream.legacy.renames import Call, Renames

__all__ = ["arguments", "definer", "install_calls", "wrap_init", "wrapped"]


def install_calls(keras: Any, renames: Renames) -> None:
    """Translate the arguments of all classes, methods and functions that the table names and this Keras has."""
    for dotted, rules in renames.calls.items():
        *owners, name = dotted.split(".")[1:]
        owner = functools.reduce(lambda one, part: getattr(one, part, None), owners, keras)
        target = getattr(owner, name, None)
        if inspect.isclass(target):
            wrap_init(target, _translator(name, target.__init__, rules, renames.values))
        elif inspect.isclass(owner):
            setattr(definer(owner, name), name, wrapped(target, _translator(name, target, rules, renames.values)))
        elif target is not None:
            _replace(name, target, wrapped(target, _translator(name, target, rules, renames.values, skip=0)))


def definer(cls: Any, name: str) -> Any:
    """The class that a method comes from. Keras compares methods with its own, so they change there."""
    return next(each for each in cls.__mro__ if name in vars(each))


def _replace(name: str, old: Any, new: Any) -> None:
    """Put a function in another one's place, in every module of Keras that offers it."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "keras" and vars(module).get(name) is old:
            setattr(module, name, new)


Translate = Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def wrap_init(cls: Any, translate: Translate) -> None:
    """Translate what a class is made with."""
    original = cls.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        (self, *args), kwargs = translate((self, *args), kwargs)  # type: ignore[assignment]
        original(self, *args, **kwargs)

    # Keras reads the signature to learn what to save, and by a way that doesn't follow __wrapped__.
    __init__.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    cls.__init__ = __init__


def wrapped(original: Any, translate: Translate) -> Any:
    """A function or method that translates its arguments."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = translate(args, kwargs)
        return original(*args, **kwargs)

    return call


def _translator(
    name: str, original: Any, rules: Call, values: Mapping[str, Mapping[str, str]], skip: int = 1
) -> Translate:
    positions = list(inspect.signature(original).parameters)[skip:]

    def translate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        left, kwargs = arguments(name, rules, values, args[skip:], kwargs, itself=calls_itself(2), positions=positions)
        return args[:skip] + left, kwargs

    return translate


def arguments(
    name: str,
    rules: Call,
    values: Mapping[str, Mapping[str, str]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    itself: bool = True,
    positions: Sequence[str] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Translate the arguments of one call.

    Args:
        name: What is called, for what is told of it.
        rules: What becomes of its arguments.
        values: What becomes of values, by the arguments' new names.
        args: Positional arguments, without `self`.
        kwargs: Keyword arguments.
        itself: Whether the program calls, and not a library.
        positions: Names of Keras 3's positional arguments.
    Raises:
        OldName: If an argument has no equal in Keras 3.
        TypeError: If an argument is given twice, by its old name and its new one.
    """
    kwargs = dict(kwargs)
    if itself:
        args, placed = _by_position(name, rules, args)
        for argument in placed.keys() & kwargs.keys():
            raise TypeError(f"{name}() got multiple values for argument {argument!r}")
        given = {**placed, **kwargs}
        args = tuple(map(_plain, args))
        given = {argument: _plain(value) for argument, value in given.items()}
    else:
        placed, given = {}, kwargs
    _drop(name, rules, given)
    new: dict[str, Any] = {}
    for old, value in given.items():
        to = rules.rename.get(old, old)
        if to in new:
            raise TypeError(f"{name}() got both {to}= and what it was called before")
        if to != old and old not in placed:
            program.tell(f"{old}= -> {to}=")
        new[to] = value
    _join(name, rules, new, told=not placed)
    for argument, mapping in values.items():
        if isinstance(new.get(argument), str) and new[argument] in mapping:
            program.tell(f"{argument}={new[argument]!r} -> {mapping[new[argument]]!r}".replace("-> '-'", "left out"))
            new[argument] = mapping[new[argument]]
            if new[argument] == "-":
                del new[argument]
    if itself:
        _shape(rules, new)
    defaults = dict(rules.always)
    if not program.tensorflow:
        defaults |= {**rules.default, **(rules.default1 if program.keras == 1 and itself else {})}
    taken = positions[: len(args)]
    return args, {**{argument: value for argument, value in defaults.items() if argument not in taken}, **new}


def _plain(value: Any) -> Any:
    """NumPy's integers, as `np.prod(shape)` gives them, are refused by layers of Keras 3."""
    return int(value) if isinstance(value, np.integer) else value


def _by_position(name: str, rules: Call, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments of old orders as keywords, by their old names."""
    order = rules.order
    if not program.tensorflow:
        order = order or (rules.keras1 if program.keras == 1 else rules.keras2)
        last = 1 + rules.sides
        if rules.sides and len(args) >= last and all(isinstance(side, int) for side in args[1:last]):
            if not (order and program.keras == 1):
                told = ", ".join(map(str, args[1:last]))
                program.tell(f"{name}({args[0]}, {told}) -> {name}({args[0]}, ({told}))")
                return (args[0], args[1:last], *args[last:]), {}
        elif rules.sides:
            order = ()  # not what Keras 1 had: it is given as Keras 2 and 3 take it
    if len(args) > len(order):
        return args, {}
    return (), dict(zip(order, args, strict=False))


def _drop(name: str, rules: Call, given: dict[str, Any]) -> None:
    for one in rules.drop:
        argument, only, value = one.partition("=")
        unwanted = argument in given and (not only or str(given[argument]) == value)
        if unwanted and given.pop(argument) is not None:
            program.tell(f"{name}({argument}=) left out: Keras 3 has no such argument")
    for argument, way in rules.gone.items():
        if given.get(argument) is None:
            given.pop(argument, None)
        elif not (isinstance(given[argument], (int, float)) and not given[argument]):
            raise OldName(f"{name}({argument}={given[argument]!r})", way, "can't be translated")
        else:
            del given[argument]


def _join(name: str, rules: Call, new: dict[str, Any], *, told: bool) -> None:
    for to, parts in rules.join.items():
        if all(part in new for part in parts):
            if told:
                program.tell(f"{'=, '.join(parts)}= -> {to}=({', '.join(parts)})")
            new[to] = tuple(new.pop(part) for part in parts)


def _shape(rules: Call, new: dict[str, Any]) -> None:
    """The shape that the first layer of a Sequential model tells, where a single number told it."""
    if not rules.sequence or "input_shape" in new or "batch_input_shape" in new:
        return
    if rules.sequence == "indices":
        length = new.pop("input_length", None)
        new["input_shape"] = tuple(length) if isinstance(length, (tuple, list)) else (length,)
    elif "input_dim" in new:
        new["input_shape"] = (new.pop("input_length", None), new.pop("input_dim"))
    else:
        new.pop("input_length", None)
