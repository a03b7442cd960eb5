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
    "is_random",
    "named",
    "reads_plainly",
    "reduced",
    "simple",
]

_READ_BYTES = 1 << 24
#: Text and bytes that are read whole; of longer ones so many pieces of so many characters stand for all.
_WHOLE_BYTES, _PIECES, _PIECE = 1 << 26, 256, 4096
#: What would save a whole model or table when it is asked what it holds.
_HEAVY = ("keras.", "tensorflow.", "polars.lazyframe.", "pyarrow.lib.Buffer")
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


def immutable(thing: Any) -> bytes:
    """The digest of a value of one of the `IMMUTABLE` types."""
    if isinstance(thing, int) and not isinstance(thing, bool):
        text = hex(thing)  # the decimal form of a long number takes long
    elif isinstance(thing, bytes):
        return blake(b"bytes", _pieces(thing))
    else:
        text = _pieces(thing) if isinstance(thing, str) else repr(thing)
    return blake(type(thing).__name__.encode(), text.encode("utf-8", "surrogatepass"))


def _pieces(whole: Any) -> Any:
    """Text or bytes as they are; of long ones their length and pieces, evenly spaced."""
    if len(whole) <= _WHOLE_BYTES:
        return whole
    places = [i * (len(whole) - _PIECE) // (_PIECES - 1) for i in range(_PIECES)]
    some = [whole[at : at + _PIECE] for at in places]
    if isinstance(whole, str):
        return f"{len(whole)} {''.join(some)}"
    return b"%d %b" % (len(whole), b"".join(some))


def simple(thing: Any) -> tuple[bytes | memoryview, ...] | None:
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
        view = memoryview(thing)
        return (_pieces(view.cast("B") if view.c_contiguous and view.nbytes else bytes(view)),)
    if isinstance(thing, (range, slice)):
        return (repr(thing).encode(),)
    return None


def is_random(thing: Any) -> bool:
    """Whether it is a generator of random numbers: those of NumPy, Python and PyTorch."""
    kinds = (np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
    return isinstance(thing, kinds) or all(hasattr(type(thing), name) for name in ("manual_seed", "get_state"))


def as_array(thing: Any) -> npt.NDArray[Any] | None:
    """A tensor of another library as an array, if that is what it is, and reading it costs little."""
    if not (hasattr(thing, "__array__") and hasattr(thing, "dtype") and hasattr(thing, "shape")):
        return None
    is_torch = _library(thing) == "torch"
    if _is_too_large(thing) and not is_torch:
        return None  # it may lie in a file, or on a device
    try:
        array = np.asarray(thing.detach() if is_torch else thing)
    except Exception:  # noqa: BLE001  an object's own code may raise anything
        return None
    return None if array.dtype.hasobject else array


def _is_too_large(thing: Any) -> bool:
    """Whether an object says that it holds more than may be copied to be read."""
    size_bytes = getattr(thing, "nbytes", 0)
    return isinstance(size_bytes, int) and size_bytes > _READ_BYTES


def _library(thing: Any) -> str:
    return type(thing).__module__.partition(".")[0]


def reduced(thing: Any) -> tuple[Any, Any, Any] | None:
    """How pickle would make an object again: from what, its attributes, its members. None if it can't or costs much."""
    if any(f"{cls.__module__}.{cls.__qualname__}".startswith(_HEAVY) for cls in type(thing).__mro__):
        return None
    try:
        whole = None if _is_too_large(thing) else thing.__reduce_ex__(4)
    except Exception:  # noqa: BLE001  an object's own code may raise anything
        return None
    if whole is None or isinstance(whole, str):
        return None if whole is None else (whole, None, None)
    made, args, state, members, items = (*whole, None, None, None)[:5]
    # The class itself is no argument: the digest of the object has it already.
    args = tuple(one for one in args if one is not type(thing))
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state = (state[0] or {}) | state[1]  # attributes, and slots
    return (made, args), state or {}, (list(members or ()), dict(items or ()))


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
