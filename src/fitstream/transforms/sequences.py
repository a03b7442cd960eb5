"""What is done to sequences, as functions for `map`: numbers for words, vectors, one length, ones and zeros.

`pad` and `one_hot` work on some parts of a sample, by default on the first, and hand on the others as they are, so that
they fit samples such as `(words, tags)` without a function around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.transforms.vocabulary import Vocabulary
from fitstream.transforms.word_vectors import WordVectors

__all__ = ["OneHot", "Pad", "Vocabulary", "WordVectors", "one_hot", "pad"]

Side: TypeAlias = Literal["post", "pre"]


def pad(
    max_length: int,
    truncate: Side = "post",
    value: float = 0,
    *,
    side: Side = "post",
    parts: int | Sequence[int] = 0,
    mask: bool = False,
) -> Pad:
    """Make a function for `map` that brings sequences to one length.

    Args:
        max_length: The length of all of them.
        truncate: Where too long ones lose what is too much: "post" at their end, "pre" at their start.
        value: What fills short ones.
        side: Where it goes: "post" behind them, "pre" before them.
        parts: Which parts of a sample are sequences, of one length; the others stay as they are.
        mask: Add a last part, float32 `(max_length,)`, that is 1 for what was there and 0 for what was filled. Keras
            takes it as weights of the places where samples are `(x, y)`.
    Returns:
        `fn(*parts)`. A sequence `(length, ...)` becomes `(max_length, ...)` of the same dtype.
    Raises:
        PlanError: If an argument can't be used.
    Example:
        >>> pad(4, mask=True)([7, 8, 9])
        (array([7, 8, 9, 0]), array([1., 1., 1., 0.], dtype=float32))
        >>> pad(2, truncate="pre")([7, 8, 9])
        array([8, 9])
    """
    if isinstance(max_length, bool) or not isinstance(max_length, (int, np.integer)) or max_length < 1:
        raise PlanError(f"max_length={max_length!r} must be a whole number from 1 on.")
    for name, given in (("truncate", truncate), ("side", side)):
        if given not in ("post", "pre"):
            raise PlanError(f'{name}={given!r} must be "post" or "pre".')
    filler: Any = value
    if not isinstance(filler, Real):
        raise PlanError(f"value={filler!r} must be a number.")
    return Pad(int(max_length), truncate, value, side, _places(parts), mask)


def one_hot(count: int, *, parts: int | Sequence[int] = 0) -> OneHot:
    """Make a function for `map` that turns numbers into rows with a one.

    Args:
        count: Different numbers, from 0 to `count - 1`.
        parts: Which parts of a sample are numbers; -1 is the last one. The others stay as they are.
    Returns:
        `fn(*parts)`. Whole numbers `(...)` become float32 `(..., count)`. A number out of range is a `SourceError`.
    Raises:
        PlanError: If an argument can't be used.
    Example:
        >>> one_hot(3)([2, 0])
        array([[0., 0., 1.],
               [1., 0., 0.]], dtype=float32)
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise PlanError(f"count={count!r} must be a whole number from 1 on.")
    return OneHot(int(count), _places(parts))


def _places(parts: Any) -> tuple[int, ...]:
    places = (parts,) if isinstance(parts, (int, np.integer)) else tuple(parts)
    if not places or not all(isinstance(place, (int, np.integer)) and not isinstance(place, bool) for place in places):
        raise PlanError(f"parts={parts!r} must be the place of a part, such as 0, or several.")
    return tuple(int(place) for place in places)


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a dtype has such a number, but for the rounding of fractions."""
    if dtype.kind in "fc":
        return True
    with np.errstate(invalid="ignore"):
        return bool(np.array(value).astype(dtype) == value)


def _chosen(sample: Sequence[Any], places: Sequence[int]) -> list[int]:
    """Places from 0 of the parts that are meant.

    Raises:
        SourceError: If a sample has no such part.
    """
    count = len(sample)
    for place in places:
        if not -count <= place < count:
            raise SourceError(f"parts={tuple(places)} names part {place}, and the sample has {count}.")
    return [place % count for place in places]


@final
@dataclass(frozen=True)
class Pad:
    """What `pad` makes."""

    max_length: int
    truncate: Side
    value: float
    side: Side
    parts: tuple[int, ...]
    mask: bool

    def __call__(self, *sample: Any) -> Any:
        made = list(sample)
        lengths = set()
        for place in _chosen(sample, self.parts):
            sequence = np.asarray(sample[place])
            made[place] = self._padded(sequence)
            lengths.add(len(sequence))
        if len(lengths) > 1:
            raise SourceError(f"the parts {self.parts} of a sample need one length, and have {sorted(lengths)}.")
        if self.mask:
            made.append(self._placed(np.ones(min(lengths.pop(), self.max_length), np.float32), 0))
        return made[0] if len(made) == 1 else tuple(made)

    def _padded(self, sequence: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if sequence.ndim == 0:
            raise SourceError(f"pad({self.max_length}) needs a sequence, and got the single number {sequence}.")
        if sequence.dtype.kind not in "biufc":
            raise SourceError(f"pad({self.max_length}) needs numbers, and got {sequence.dtype}. Encode words before.")
        if self.value != 0 and not _holds(sequence.dtype, self.value):
            raise SourceError(f"pad(value={self.value}) can't fill an array of {sequence.dtype}. Convert it before.")
        cut = sequence[: self.max_length] if self.truncate == "post" else sequence[-self.max_length :]
        return self._placed(cut, self.value)

    def _placed(self, sequence: npt.NDArray[Any], value: float) -> npt.NDArray[Any]:
        made = np.full((self.max_length, *sequence.shape[1:]), value, sequence.dtype)
        start = self.max_length - len(sequence) if self.side == "pre" else 0
        made[start : start + len(sequence)] = sequence
        return made


@final
@dataclass(frozen=True)
class OneHot:
    """What `one_hot` makes."""

    count: int
    parts: tuple[int, ...]

    def __call__(self, *sample: Any) -> Any:
        made = list(sample)
        for place in _chosen(sample, self.parts):
            made[place] = self._ones(np.asarray(sample[place]))
        return made[0] if len(made) == 1 else tuple(made)

    def _ones(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if numbers.dtype.kind not in "biu" and numbers.size:
            raise SourceError(f"one_hot({self.count}) needs whole numbers, and got {numbers.dtype}.")
        wrong = np.flatnonzero((numbers < 0) | (numbers >= self.count))
        if len(wrong):
            found = numbers.reshape(-1)[wrong[0]]
            raise SourceError(f"the label {found} is out of range: one_hot({self.count}) has 0 to {self.count - 1}.")
        made = np.zeros((*numbers.shape, self.count), np.float32)
        np.put_along_axis(made, numbers.astype(np.int64)[..., None], 1, axis=-1)
        return made
