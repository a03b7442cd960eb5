"""What a generator has given in a pass, so that it can be brought to the same place again.

The reading lane keeps a rolling digest of the samples that the generator gave. It goes with each batch to where it is
delivered, and into a state. To resume, the generator is started anew and read up to there; other samples than before
show in the digest. Of a large array some bytes stand for all: what gives other numbers gives others everywhere. Tensors
and lists count as the arrays that the engine would make of them; what is no numbers counts by its type.

A generator with `state_dict()` and `load_state_dict(state)` of its own is asked for its state after each batch instead,
and read on from there.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any, final

import numpy as np

__all__ = ["OWN_BYTES", "Replay", "own_state", "rolled"]

#: Of a generator's own state as JSON text. A loader's state has no room for more.
OWN_BYTES = 900
#: Bytes of an array that are read, if it has more than twice as many.
_SOME_BYTES = 4096
_PLAIN = (int, float, bool, str, bytes, complex, type(None))
#: NumPy makes no array of more dimensions.
_MOST_DIMENSIONS = 64


@final
@dataclass(frozen=True, slots=True)
class Replay:
    """A place in a pass of a generator.

    Attributes:
        digest: Rolling digest of all samples before it; None where it isn't known.
        own: The generator's own state as JSON text, or None.
        why: Why a generator that has a state of its own could not tell it.
    """

    digest: int | None = None
    own: str | None = None
    why: str | None = None


def rolled(before: int, sample: Any) -> int:
    """The digest of what was given before and one sample more: 32 bits."""
    kind = type(sample)
    # The usual ones first: this runs for every sample of a generator.
    if kind is np.ndarray:
        return _rolled_array(before, sample)
    if kind is tuple:
        for part in sample:
            before = rolled(before, part)
        return before
    if kind is int:
        return zlib.crc32(b"%x" % sample, before)
    if isinstance(sample, np.ndarray):
        return _rolled_array(before, np.asarray(sample))
    if isinstance(sample, tuple):
        return rolled(before, tuple(sample))
    if isinstance(sample, dict):
        for key, part in sample.items():
            before = rolled(rolled(before, key), part)
        return before
    if isinstance(sample, np.generic):
        return zlib.crc32(sample.tobytes(), before)
    if isinstance(sample, _PLAIN):
        return zlib.crc32(repr(sample).encode("utf-8", "surrogatepass"), before)
    array = None if isinstance(sample, list) and not _is_of_numbers(sample) else _as_array(sample)
    if array is not None:
        return _rolled_array(before, array)
    if isinstance(sample, list):
        for part in sample:
            before = rolled(before, part)
        return before
    # The text of an object may hold an address.
    return zlib.crc32(kind.__name__.encode("utf-8", "surrogatepass"), before)


def _is_of_numbers(sample: Any) -> bool:
    """Whether a list, perhaps of lists, begins with a number: of tensors NumPy would make copies, and slowly."""
    for _ in range(_MOST_DIMENSIONS):
        if not isinstance(sample, list) or not sample:
            break
        sample = sample[0]
    return isinstance(sample, (int, float, complex, np.generic))


def _as_array(sample: Any) -> Any:
    """What the engine would make of it, or None if that is no array of plain values."""
    try:
        array = np.asarray(sample)
    except Exception:  # noqa: BLE001  an object's own code may raise anything
        return None
    return None if array.dtype.hasobject else array


def _rolled_array(before: int, array: Any) -> int:
    if array.dtype.hasobject:
        return zlib.crc32(str(array.shape).encode(), before)
    if array.nbytes > 2 * _SOME_BYTES:
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        array = np.ascontiguousarray(flat[:: max(1, array.nbytes // _SOME_BYTES)])
    try:
        return zlib.crc32(array, before)
    except (ValueError, BufferError):  # not contiguous, or of a dtype that exports no buffer
        return zlib.crc32(array.tobytes(), before)


def own_state(maker: Any) -> tuple[str | None, str | None]:
    """A generator's own state.

    Returns:
        The state as JSON text, and why there is none, where it can't be kept.
    """
    try:
        state = maker.state_dict()
        text = json.dumps(state, allow_nan=False)
        if json.loads(text) != state:
            return None, "its state_dict() gives something that JSON changes, such as tuples or numbers as keys"
    except Exception as error:  # noqa: BLE001  it is code of the user's
        return None, f"its state_dict() can't be had as JSON ({type(error).__name__}: {error})"
    if len(text) > OWN_BYTES:
        return None, f"its state_dict() takes {len(text):,} bytes, more than a state has room for"
    return text, None
