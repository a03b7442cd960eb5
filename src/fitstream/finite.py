"""NaN and infinity in arrays, which would make a whole model NaN: found in the first pass, when rows are at hand.

Rows that were just gathered are in the processor's cache, so that a look at them costs little. It is taken in pieces,
since it makes a truth value for each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.spec import Structure

__all__ = ["check_finite", "is_finite"]

_PIECE = 1 << 16
_ADVICE = "Correct or leave out what isn't finite, or pass allow_nan=True to the from_... function if it is meant."


def is_finite(array: npt.NDArray[Any]) -> bool:
    """Whether all numbers are; any dtype."""
    if array.dtype.kind not in "fc":
        return True
    numbers = array.reshape(-1)
    return all(bool(np.isfinite(numbers[first : first + _PIECE]).all()) for first in range(0, numbers.size, _PIECE))


def check_finite(sample: Any, names: Sequence[str] = ()) -> None:
    """Look at all arrays of a sample. What else is in it is passed over.

    Args:
        sample: A tree of arrays.
        names: What each of them is called in errors, such as "column 'x'"; else by its place in the tree.
    Raises:
        SourceError: Names the first array, and the place in it, that isn't finite.
    """
    structure = Structure(sample)
    for number, leaf in enumerate(structure.flatten(sample)):
        try:
            array = np.asarray(leaf)
        except ValueError:  # lists of differing lengths, which are for a function of the user's
            continue
        if is_finite(array):
            continue
        name = names[number] if number < len(names) else f"array{structure.names[number]}"
        odd = ~np.isfinite(array)
        place = tuple(map(int, np.unravel_index(int(np.argmax(odd)), array.shape)))
        where = f" at {list(place)}" if place else ""
        raise SourceError(
            f"its {name} holds {array[place]}{where} ({int(odd.sum()):,} of {array.size:,} numbers aren't "
            f"finite). {_ADVICE}"
        )
