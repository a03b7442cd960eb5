"""Bytes that say all of a plain value: numbers, text, paths, patterns, states of random generators, tensors.

What `digests` takes apart ends here. The type is not in these bytes; who asks for them adds it.
"""

from __future__ import annotations

import enum
import pathlib
import random
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "IMMUTABLE",
    "are_plain",
    "are_texts",
    "as_array",
    "blake",
    "digest",
    "immutable",
    "named",
    "random_state",
    "reads_plainly",
    "sample_rows",
    "simple",
]

_ROWS, _ROWS_BYTES, _READ_BYTES = 64, 1 << 24, 1 << 24
IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))


def blake(*parts: bytes | memoryview) -> bytes:
    """The digest of parts in their order, 16 bytes."""
    import hashlib  # loads OpenSSL, which is slow, and only loaders need it

    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.digest()


def digest(*parts: bytes) -> str:
    """Ten hexadecimal digits."""
    return blake(*parts).hex()[:10]


def named(thing: Any) -> str:
    """The name of a class or function, with its module where it isn't the user's own program."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", "?")
    return str(name) if module in (None, "builtins", "__main__") else f"{module}.{name}"


def sample_rows(count: int, size_bytes: int) -> npt.NDArray[np.int64]:
    """Rows that stand for all of an array: evenly spaced, 64 or what 16 MiB hold."""
    row_bytes = max(1, size_bytes // max(1, count))
    rows = min(count, _ROWS, max(2, _ROWS_BYTES // row_bytes))
    return np.linspace(0, max(0, count - 1), rows).astype(np.int64)


def immutable(thing: Any) -> bytes:
    """The digest of a value of one of the `IMMUTABLE` types."""
    if isinstance(thing, int) and not isinstance(thing, bool):
        text = hex(thing)  # the decimal form of a long number takes long
    elif isinstance(thing, bytes):
        return blake(b"bytes", thing)
    else:
        text = thing if isinstance(thing, str) else repr(thing)
    return blake(type(thing).__name__.encode(), text.encode("utf-8", "surrogatepass"))


def simple(thing: Any) -> tuple[bytes, ...] | None:
    """Bytes that say all of some kinds of value, or None for other kinds."""
    if isinstance(thing, np.generic):
        return thing.dtype.str.encode(), thing.tobytes()
    if isinstance(thing, np.dtype):
        return (repr(thing.descr if thing.names else thing.str).encode(),)
    if isinstance(thing, enum.Enum):
        return (thing.name.encode(),)
    if isinstance(thing, re.Pattern):
        return repr(thing.pattern).encode(), str(thing.flags).encode()
    if isinstance(thing, pathlib.PurePath):
        return (str(thing).encode("utf-8", "surrogatepass"),)
    if isinstance(thing, (bytearray, memoryview)):
        return (bytes(thing),)
    if isinstance(thing, (range, slice)):
        return (repr(thing).encode(),)
    return None


def random_state(thing: Any) -> Any:
    """The state of a generator of random numbers, or None for anything else."""
    if isinstance(thing, np.random.Generator):
        return thing.bit_generator.state
    if isinstance(thing, np.random.BitGenerator):
        return thing.state
    if isinstance(thing, np.random.RandomState):
        return thing.get_state(legacy=False)
    return thing.getstate() if type(thing) is random.Random else None


def as_array(thing: Any) -> npt.NDArray[Any] | None:
    """A tensor of another library as an array, if that is what it is, and reading it costs little."""
    if not (hasattr(thing, "__array__") and hasattr(thing, "dtype") and hasattr(thing, "shape")):
        return None
    if getattr(thing, "nbytes", 0) > _READ_BYTES and type(thing).__module__ != "torch":
        return None  # it may lie in a file, or on a device
    try:
        array = np.asarray(thing)
    except Exception:  # noqa: BLE001  an object's own code may raise anything
        return None
    return None if array.dtype.hasobject else array


def are_plain(values: Iterable[Any]) -> bool:
    """Whether all are text, numbers or None."""
    return {type(value) for value in values} <= {str, int, float, bool, type(None)}


def are_texts(keys: Iterable[Any]) -> bool:
    """Whether all are text."""
    return all(isinstance(key, str) for key in keys)


def reads_plainly(thing: Any) -> bool:
    """Whether a thing is a value rather than an object with attributes."""
    kinds: tuple[type[Any], ...] = (np.ndarray, tuple, list, dict, set, frozenset, *IMMUTABLE)
    return type(thing) in kinds or as_array(thing) is not None
