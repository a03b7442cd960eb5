"""Raw samples of a generator in shared memory, on their way to the lane in a worker process that maps over them.

A chunk of samples is laid out in an area that is kept and used again:

    bytes of the header | header, JSON | array | array | ...     (arrays at multiples of 64 bytes)

The header holds the trees with Python's own values in them; in the place of an array stand its dtype and shape. Arrays
follow in the order in which the header names them, so that both sides work out the same places. Every node is a JSON
value or `[kind, ...]`: what JSON can't tell apart (tuples, large integers, text) has a kind. Nothing is pickled and
nothing is executed in reading.

Only exact types are taken. A subclass (a named tuple, an enumeration, a masked array) would come back as something
else, and a function that works in threads would fail in processes.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.spec import aligned, format_bytes

__all__ = ["Damaged", "TooBig", "Unpackable", "pack_samples", "unpack_samples"]

#: Booleans, numbers, times, and text of a fixed width.
_KINDS = frozenset("biufcmMSU")
#: The same as `dtype.str` writes them.
_DTYPE = re.compile(r"[<>|][biufcmMSU][0-9]+(\[[0-9A-Za-z]+\])?")
#: JSON takes these as they are.
_PLAIN = frozenset((str, float, bool, type(None)))
_SIZE = struct.Struct("<Q")
#: Deeper samples are refused, before Python's own limit makes it depend on who calls.
_DEEPEST = 50
# Text goes as it is: as escapes, two lone surrogates would come back as one character.
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))

Beside = list[npt.NDArray[Any]]


@final
class TooBig(Exception):
    """Samples need more than the area that was given.

    Attributes:
        need_bytes: The least area that holds them.
    """

    def __init__(self, need_bytes: int, area_bytes: int) -> None:
        super().__init__(f"the samples need {format_bytes(need_bytes)}, but the area has {format_bytes(area_bytes)}")
        self.need_bytes = need_bytes


@final
class Unpackable(Exception):
    """A sample holds something that has no fixed form in memory; the message names the part and its type."""


@final
class Damaged(Exception):
    """An area holds something else than `pack_samples` wrote."""


@final
class _Odd(Exception):
    """A leaf that can't be packed."""


def pack_samples(samples: Sequence[Any], area: npt.NDArray[np.uint8]) -> None:
    """Write samples into an area.

    Args:
        samples: Trees of tuples, lists and dicts (keys: str, int) of NumPy arrays and scalars (numbers, times, text)
            and of Python's bool, int, float, complex, str, bytes and None.
        area: uint8 `(area_bytes,)`, contiguous. Untouched if an error is raised.
    Raises:
        TooBig: If they need more.
        Unpackable: If a part is of another type.
    """
    beside: Beside = []
    try:
        nodes = [_node(sample, beside, 0) for sample in samples]
    except _Odd:
        raise Unpackable(_told(samples)) from None
    header = _ENCODER.encode(nodes).encode("utf-8", "surrogatepass")
    first = aligned(_SIZE.size + len(header))
    need_bytes = first + sum([aligned(array.nbytes) for array in beside])
    if need_bytes > area.size:
        raise TooBig(need_bytes, area.size)
    _SIZE.pack_into(area.data, 0, len(header))
    area.data[_SIZE.size : _SIZE.size + len(header)] = header
    for array in beside:
        np.ndarray(array.shape, array.dtype, area.data, first)[...] = array
        first += aligned(array.nbytes)


def unpack_samples(area: npt.NDArray[np.uint8]) -> list[Any]:
    """Read what `pack_samples` wrote.

    Returns:
        The same trees. Arrays are views of the area, writable if it is; a memmap comes back as a plain array.
    Raises:
        Damaged: If it is something else.
    """
    try:
        return _unpack(area.data)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise Damaged(f"the samples in shared memory can't be read ({type(error).__name__}: {error})") from error


def _unpack(memory: memoryview) -> list[Any]:
    (header_bytes,) = _SIZE.unpack_from(memory)
    header = str(memory[_SIZE.size : _SIZE.size + header_bytes], "utf-8", "surrogatepass")
    taker = _Taker(memory, aligned(_SIZE.size + header_bytes))
    nodes = json.loads(header)
    if type(nodes) is not list:
        raise TypeError(f"a {type(nodes).__name__} instead of samples")
    return [taker.part(node) if type(node) is list else node for node in nodes]


def _node(part: Any, beside: Beside, depth: int) -> Any:
    """What stands for a part in the header; its array, if it is one, goes beside."""
    kind = type(part)
    if kind is np.ndarray or kind is np.memmap:
        if part.dtype.kind not in _KINDS:
            raise _Odd
        beside.append(part)
        return "a", part.dtype.str, part.shape
    if kind is int:
        return part if -(1 << 63) <= part < 1 << 63 else ("i", hex(part))
    if kind in _PLAIN:
        return part
    if depth == _DEEPEST:
        raise _Odd
    if kind is tuple:
        return "t", *[_node(each, beside, depth + 1) for each in part]
    if kind is list:
        return "l", *[_node(each, beside, depth + 1) for each in part]
    if kind is dict:
        if not {type(key) for key in part} <= {str, int}:
            raise _Odd
        keys = [_node(key, beside, depth) for key in part]
        return "d", keys, *[_node(each, beside, depth + 1) for each in part.values()]
    return _rare_node(part, beside)


def _rare_node(part: Any, beside: Beside) -> Any:
    kind = type(part)
    if kind is bytes or kind is np.bytes_:
        beside.append(np.frombuffer(part, np.uint8))
        return "b" if kind is bytes else "B", len(part)
    if kind is np.str_:  # as an array, and by its own str(), it would lose trailing zeros
        return "U", str.__str__(part)
    if kind is complex:
        return "c", part.real, part.imag
    if isinstance(part, np.generic) and part.dtype.kind in _KINDS:
        beside.append(np.asarray(part))
        return "n", part.dtype.str
    raise _Odd


@final
class _Taker:
    """Takes parts out of an area, in the order in which they were put there."""

    def __init__(self, memory: memoryview, first: int) -> None:
        self._memory = memory
        self._first = first

    def part(self, node: Any) -> Any:
        if type(node) is not list:
            return node
        kind = node[0]
        if kind == "a":
            return self._array(node[2], node[1])
        if kind == "t":
            return tuple([self.part(each) if type(each) is list else each for each in node[1:]])
        if kind == "l":
            return [self.part(each) for each in node[1:]]
        if kind == "d":
            return dict(zip(map(self.part, node[1]), map(self.part, node[2:]), strict=True))
        return _RARE[kind](self, *node[1:])

    def _array(self, shape: Sequence[int], dtype: str) -> npt.NDArray[Any]:
        # NumPy would take an array of objects, that is, of addresses; parse a text with commas as Python; and take an
        # axis of -1 for the rest.
        if not _DTYPE.fullmatch(dtype) or (shape and min(shape) < 0):
            raise ValueError(f"an array of dtype {dtype} and shape {shape}")
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, self._memory, self._first)
        self._first += aligned(array.nbytes)
        return array

    def scalar(self, dtype: str) -> Any:
        return self._array((), dtype)[()]

    def text(self, count_bytes: int) -> bytes:
        return self._array((count_bytes,), "|u1").tobytes()


_RARE: dict[str, Callable[..., Any]] = {
    "b": _Taker.text,
    "B": lambda taker, count_bytes: np.bytes_(taker.text(count_bytes)),
    "U": lambda _, text: np.str_(text),
    "c": lambda _, real, imag: complex(real, imag),
    "i": lambda _, digits: int(digits, 16),
    "n": _Taker.scalar,
}


def _told(samples: Sequence[Any]) -> str:
    odd = next(found for sample in samples if (found := _odd_part(sample, "", 0)))
    return (
        f"{odd}, which has no fixed form in shared memory. Samples on their way to a worker process are tuples, lists "
        "and dicts (keys: str, int) of NumPy arrays (numbers, times, text), numbers, text, bytes and None. "
        "Convert it in the generator, for example with np.asarray, or use processes=0."
    )


def _odd_part(part: Any, name: str, depth: int) -> str | None:
    """The first part that can't be packed, and what it is."""
    where = f"the sample's part {name}" if name else "the sample"
    if depth == _DEEPEST and type(part) in (tuple, list, dict):
        return f"{where[:120]}... is nested more than {_DEEPEST} deep"
    children: list[tuple[Any, Any]] = []
    if type(part) in (tuple, list):
        children = list(enumerate(part))
    elif type(part) is dict:
        for key in part:
            if type(key) not in (str, int):
                return f"a key of {where}, {key!r}, is a {_type_name(key)}"
        children = list(part.items())
    else:
        try:
            _node(part, [], 0)
        except _Odd:
            of = f" of dtype {part.dtype}" if isinstance(part, (np.ndarray, np.generic)) else ""
            return f"{where} is a {_type_name(part)}{of}"
    found = (_odd_part(child, f"{name}[{key!r}]", depth + 1) for key, child in children)
    return next((each for each in found if each), None)


def _type_name(thing: Any) -> str:
    cls = type(thing)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
