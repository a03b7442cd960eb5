"""Digests of Python things by what they mean: equal in every process, whatever the hash seed, the address or the file.

Functions count by what they compute (`codes`): bytecode, the constants and names in it, defaults, captured values, and
the functions, classes and values that it finds as globals. Own code, that is code outside the standard library and
installed packages, is walked through; libraries count by name. Values count by type and content (`plain`), objects by
class and attributes as pickle would store them. Sets and dicts count without their order. For large arrays and
tables some rows stand (`sampled`), and 256 members for a sequence of more than 4,096.

What has no content that can be read (a lock, a connection, an open file), or one that running changes (a generator of
random numbers), counts by its type alone and is remembered by its name in the program.
"""

from __future__ import annotations

import enum
import functools
import heapq
import operator
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.states.codes import is_library, is_library_module, is_of_library, read_code, stores_global
from fitstream.states.plain import (
    IMMUTABLE,
    are_plain,
    are_texts,
    as_array,
    blake,
    immutable,
    is_random,
    named,
    reads_plainly,
    reduced,
    simple,
)
from fitstream.states.sampled import Arrays, table_content
from fitstream.states.visits import TooMany, Visits

__all__ = ["Digester", "Place", "Told"]

_MANY_MEMBERS, _MEMBERS = 4096, 256
_MANY_KEYS, _MOST_KEYS = 256, 100_000
_DEEPEST = 120
#: Attributes of a class that say nothing of what it does, or where it stands.
_NO_MEANING = {
    "__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__", "__annotations__",
    "__annotate__", "__annotate_func__", "__annotations_cache__", "__qualname__", "__abstractmethods__", "_abc_impl",
    "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__parameters__", "__orig_bases__", "__repr__",
    "__str__", "__slotnames__",
}  # fmt: skip


def _are_names(keys: Iterable[Any]) -> bool:
    return {type(key) for key in keys} in ({str}, {int})


@final
class Place(NamedTuple):
    """Where a thing was found, in words of the program: `closure variable 'x.file'`."""

    kind: str
    path: str

    def attribute(self, name: object) -> Place:
        """A part of it by name."""
        return Place(self.kind, f"{self.path}.{name}" if self.path else f"{name}")

    def member(self, key: object) -> Place:
        """A part of it by index or key."""
        return Place(self.kind, f"{self.path}[{key!r:.20}]")

    def __str__(self) -> str:
        return f"{self.kind} {self.path!r}" if self.path else self.kind


_SOMEWHERE = Place("it", "")


@final
class Told(NamedTuple):
    """Digests of a function or an object.

    Attributes:
        code: Of what it does.
        captured: Of each value that it holds, by where.
    """

    code: bytes
    captured: dict[str, bytes]


@final
class Digester:
    """Takes digests of things that may share parts.

    Args:
        arrays: Keeps the digests of large arrays, so that the next digester needn't read them again.

    Attributes:
        unknown: Names of what has no content to read.
    """

    def __init__(self, arrays: Arrays | None = None) -> None:
        self.unknown: list[str] = []
        self._arrays = arrays or Arrays()
        self._visits = Visits()
        self._stored: dict[tuple[int, str], bool] = {}
        #: Values that code finds and doesn't hold, of globals and of classes. Two modules may use one name.
        self._shared: dict[tuple[Place, int], Any] = {}

    def told(self, thing: Any) -> Told:
        """Take a function, or any object, apart into what it does and what it holds."""
        try:
            found = self._told(thing)
        except Exception:  # noqa: BLE001  an object's own code may raise anything
            found = Told(self._unknown(thing, _SOMEWHERE), {})
        shared: dict[str, list[bytes]] = {}
        read = 0
        while read < len(self._shared):  # code that these hold finds more
            for (place, _), value in list(self._shared.items())[read:]:
                shared.setdefault(str(place), []).append(self.value(value, place))
                read += 1
        return Told(found.code, found.captured | {name: blake(*sorted(each)) for name, each in shared.items()})

    def _told(self, thing: Any) -> Told:
        if isinstance(thing, functools.partial):
            inner = self._told(thing.func)
            held = {f"{i}": value for i, value in enumerate(thing.args)} | thing.keywords
            captured = {f"argument {name!r}": self.value(one, Place("argument", name)) for name, one in held.items()}
            return Told(blake(b"partial", inner.code), inner.captured | captured)
        if isinstance(thing, types.MethodType):
            inner, owner = self._told(thing.__func__), self._told(thing.__self__)
            return Told(blake(b"method", inner.code, owner.code), owner.captured | inner.captured)
        if isinstance(thing, types.FunctionType):
            return self._function(thing)
        if isinstance(thing, types.GeneratorType):
            return Told(self.value(thing.gi_code), {})  # what it is at is for its samples to tell
        if isinstance(thing, (type, types.BuiltinFunctionType, np.ufunc)):
            return Told(self.value(thing), {})
        plain = table_content(thing) is not None or reads_plainly(thing) or is_random(thing)
        parts = None if plain else reduced(thing)
        if parts is None:
            return Told(self.value(type(thing)), {"its content": self.value(thing, Place("its content", ""))})
        made, state, rest = parts
        code = blake(b"object", self.value(type(thing)), self.value(made))
        captured = {"its members": self.value(rest, Place("member", ""))}
        if isinstance(state, dict):
            places = [(Place("attribute", f"{name}"), value) for name, value in state.items()]
            return Told(code, captured | {str(place): self.value(value, place) for place, value in places})
        return Told(code, captured | {"its state": self.value(state, Place("its state", ""))})

    def value(self, thing: Any, place: Place = _SOMEWHERE) -> bytes:
        """The digest of a thing, 16 bytes."""
        if type(thing) in IMMUTABLE:
            return immutable(thing)
        known = self._visits.known(thing)
        if known is not None:
            return known
        if self._visits.depth > _DEEPEST:
            return self._unknown(thing, place, "too large")
        depth, unknown, shared = self._visits.depth, len(self.unknown), len(self._shared)
        try:
            visit = self._visits.begin(thing)
            found = self._read(thing, place)
        except TooMany:
            if depth:
                raise
            # How far it came may hang on the order of a set, so that nothing of it counts.
            self._visits.clear()
            del self.unknown[unknown:]
            self._shared = dict(list(self._shared.items())[:shared])
            return self._unknown(thing, place, "too large")
        except Exception:  # noqa: BLE001  an object's own code may raise anything
            found = self._unknown(thing, place)
        self._visits.end(visit, found)
        return found

    def _apart(self, things: Iterable[Any], place: Place) -> list[bytes]:
        """Digests of things that have no order, so that none may be read otherwise for those before it."""
        found, before = [], self._visits.mark()
        for thing in things:
            found.append(self.value(thing, place))
            self._visits.forget(before)
        return found

    def _unknown(self, thing: Any, place: Place, why: str = "") -> bytes:
        name = named(type(thing))
        told = f"{place} (a {'random generator' if is_random(thing) else name}{', ' + why if why else ''})"
        if told not in self.unknown:
            self.unknown.append(told)
        return blake(b"unknown", name.encode())

    def _read(self, thing: Any, place: Place) -> bytes:
        if isinstance(thing, np.ndarray):
            return self._array(thing, thing, place)
        content = simple(thing)
        if content is not None:
            return blake(named(type(thing)).encode(), *content)
        if is_random(thing):
            return self._unknown(thing, place)
        container = self._container(thing, place)
        if container is not None:
            return container
        code = self._program(thing, place)
        if code is not None:
            return code
        return self._object(thing, place)

    def _container(self, thing: Any, place: Place) -> bytes | None:
        kind = type(thing)
        if kind in (tuple, list):
            return blake(kind.__name__.encode(), str(len(thing)).encode(), *self._members(thing, place))
        if kind in (set, frozenset):
            if len(thing) > _MANY_KEYS:
                return self._many_keys(thing, None, place)
            return blake(b"set", *sorted(self._apart(thing, place)))
        if kind in (dict, types.MappingProxyType):
            if len(thing) > _MANY_KEYS:
                has_too_many = len(thing) > (_MANY_MEMBERS if _are_names(thing) else _MOST_KEYS)
                if has_too_many or are_plain(thing.values()):
                    return self._many_keys(thing, thing, place)
            keys = sorted(zip(self._apart(thing, place), thing.items(), strict=True), key=operator.itemgetter(0))
            items = ((found, self.value(value, place.member(key))) for found, (key, value) in keys)
            return blake(b"dict", *(part for item in items for part in item))
        return None

    def _members(self, thing: Any, place: Place) -> Iterator[bytes]:
        places: Iterable[int] = range(len(thing))
        if len(thing) > _MANY_MEMBERS:
            places = np.linspace(0, len(thing) - 1, _MEMBERS).astype(np.int64).tolist()
        return (self.value(thing[i], place.member(i)) for i in places)

    def _many_keys(self, keys: Any, values: Any, place: Place) -> bytes:
        """A large dict or set of text or numbers, such as a vocabulary. Beyond a limit, some stand for all."""
        if not _are_names(keys):
            return self._unknown(keys, place, "too large")
        some = sorted(keys) if len(keys) <= _MOST_KEYS else heapq.nsmallest(_MEMBERS, keys)
        held = [] if values is None else [values[key] for key in some]
        plain = repr(held).encode("utf-8", "surrogatepass") if are_plain(held) else blake(*self._members(held, place))
        return blake(b"many", str(len(keys)).encode(), repr(some).encode("utf-8", "surrogatepass"), plain)

    def _array(self, array: npt.NDArray[Any], owner: Any, place: Place) -> bytes:
        if array.dtype.hasobject:
            return blake(b"objects", str(array.shape).encode(), self.value(array.tolist(), place))
        return self._arrays.digest(array, owner)

    def _program(self, thing: Any, place: Place) -> bytes | None:
        """Functions, classes, modules: what is code."""
        if isinstance(thing, types.MethodType):
            return blake(b"method", self.value(thing.__func__, place), self.value(thing.__self__, place))
        if isinstance(thing, (types.FunctionType, functools.partial)):
            told = self._function(thing, place) if isinstance(thing, types.FunctionType) else self._told(thing)
            held = (part for name, found in sorted(told.captured.items()) for part in (name.encode(), found))
            return blake(b"callable", told.code, *held)
        if isinstance(thing, type):
            return self._class(thing)
        if isinstance(thing, types.ModuleType):
            return blake(b"module", thing.__name__.encode())
        if isinstance(thing, (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)):
            owner = getattr(thing, "__self__", None)
            if owner is None or isinstance(owner, (types.ModuleType, type)):
                return blake(b"builtin", named(thing).encode())
            return blake(b"builtin", thing.__qualname__.encode(), self.value(owner, place))
        if isinstance(thing, np.ufunc):
            return blake(b"ufunc", thing.__name__.encode())
        if isinstance(thing, types.CodeType):
            return self._code(thing)[0]
        if isinstance(thing, (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)):
            return self._unknown(thing, place)
        wrapped = getattr(thing, "__wrapped__", None)
        if isinstance(thing, functools._lru_cache_wrapper) and wrapped is not None:
            return blake(b"cached", self.value(wrapped, place))
        return None

    # Code.

    def _function(self, function: types.FunctionType, place: Place | None = None) -> Told:
        if is_library(function.__code__.co_filename) and "<locals>" not in function.__qualname__:
            return Told(blake(b"library", named(function).encode()), {})
        whole, used = self._code(function.__code__)
        held: dict[str, tuple[Any, Place]] = {}
        names = function.__code__.co_freevars
        for name, cell in zip(names, function.__closure__ or (), strict=True):
            try:
                held[f"closure variable {name!r}"] = cell.cell_contents, Place("closure variable", name)
            except ValueError:  # it has no value yet
                continue
        held |= {f"default {i}": (one, Place("default", str(i))) for i, one in enumerate(function.__defaults__ or ())}
        held |= {f"default {k!r}": (one, Place("default", k)) for k, one in (function.__kwdefaults__ or {}).items()}
        parts = [whole]
        for name, value in self._globals(function, used):
            if isinstance(value, (types.FunctionType, types.ModuleType, types.BuiltinFunctionType, type, *IMMUTABLE)):
                parts += [name.encode(), self.value(value, Place("global", name))]
            else:
                self._shared[Place("global", name), id(value)] = value
        # Further in, the way to the function tells more than its own names.
        captured = {n: self.value(v, at if place is None else place.attribute(at.path)) for n, (v, at) in held.items()}
        return Told(blake(*parts), captured)

    def _globals(self, function: types.FunctionType, used: set[tuple[str, ...]]) -> Iterator[tuple[str, Any]]:
        """Globals that a function reads, and what it reads of the user's own modules among them, by dotted name."""
        found: dict[str, Any] = {}
        for path in sorted(used):
            there = function.__globals__
            for length, name in enumerate(path, 1):
                if name not in there or name.startswith("__"):
                    break
                value = there[name]
                if isinstance(value, (types.FunctionType, types.ModuleType, type)) or not self._is_stored(there, name):
                    found[".".join(path[:length])] = value
                if not isinstance(value, types.ModuleType) or is_library_module(value):
                    break
                there = vars(value)
        yield from found.items()

    def _is_stored(self, there: dict[str, Any], name: str) -> bool:
        key = id(there), name
        if key not in self._stored:
            self._stored[key] = stores_global(there, name)
        return self._stored[key]

    def _code(self, code: types.CodeType) -> tuple[bytes, set[tuple[str, ...]]]:
        """The digest of a code object, and the globals that it and the functions in it use."""
        tokens, used = read_code(code)
        parts: list[bytes] = []
        for token in tokens:
            if isinstance(token, types.CodeType):
                inner, more = self._code(token)
                parts.append(inner)
                used |= more
            else:
                parts.append(self.value(token, Place("constant", "")))
        return blake(b"code", *parts), used

    def _class(self, cls: type) -> bytes:
        if is_of_library(cls) and "<locals>" not in cls.__qualname__:
            return blake(b"class", named(cls).encode())
        if issubclass(cls, enum.Enum):
            members = {name: member.value for name, member in cls.__members__.items()}
            return blake(b"enum", cls.__qualname__.encode(), self.value(members, Place("enum", cls.__name__)))
        parts = [self.value(base) for base in cls.__bases__]
        for name, value in sorted(vars(cls).items()):
            if name not in _NO_MEANING:
                parts += [
                    name.encode(),
                    self._class_attribute(value, Place("class attribute", f"{cls.__name__}.{name}")),
                ]
        return blake(b"class", cls.__qualname__.encode(), *parts)

    def _class_attribute(self, value: Any, place: Place) -> bytes:
        if isinstance(value, (staticmethod, classmethod)):
            return self.value(value.__func__, place)
        if isinstance(value, property):
            return blake(b"property", *(self.value(one, place) for one in (value.fget, value.fset)))
        if isinstance(value, functools.cached_property):
            return self.value(value.func, place)
        if isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            return b"slot"
        if callable(value):
            return self.value(value, place)
        self._shared[place, id(value)] = value
        return b"data"

    # Objects.

    def _object(self, thing: Any, place: Place) -> bytes:
        table = table_content(thing)
        if table is not None:
            return blake(b"table", named(type(thing)).encode(), self.value(table, place))
        array = as_array(thing)
        if array is not None:
            return blake(named(type(thing)).encode(), self._array(array, thing, place))
        parts = reduced(thing)
        if parts is None:
            return self._unknown(thing, place)
        made, state, rest = parts
        found = [b"object", self.value(type(thing)), self.value(made, place), self.value(rest, place)]
        if isinstance(state, dict):
            items = sorted((str(name), value) for name, value in state.items()) if are_texts(state) else []
            for name, value in items:
                found += [name.encode(), self.value(value, place.attribute(name))]
            if items or not state:
                return blake(*found)
        return blake(*found, self.value(state, place))
