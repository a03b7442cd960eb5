"""What goes with a picture: its label, labels, numbers or weight, found by the sample's place.

Everything is kept in arrays, so that worker processes share one copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError

__all__ = ["Labels", "Targets", "numbers"]


@final
@dataclass(frozen=True, slots=True)
class Labels:
    """One or more classes a sample, handed out as a row of zeros and ones.

    Attributes:
        codes: All samples' classes, one after the other.
        offsets: Where each sample's begin, and where the last one's end.
        count: Number of classes.
        dtype: Of a row.
    """

    codes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    count: int
    dtype: str

    @staticmethod
    def of(classes: Sequence[Any] | npt.NDArray[Any], count: int, dtype: str) -> Labels:
        """Labels of samples, each a class's index or a list of them."""
        each = [np.atleast_1d(np.asarray(one, np.int32)) for one in classes]
        offsets = np.zeros(len(each) + 1, np.int64)
        np.cumsum([len(one) for one in each], out=offsets[1:])
        return Labels(np.concatenate([np.empty(0, np.int32), *each]), offsets, count, dtype)

    def __getitem__(self, place: int) -> npt.NDArray[Any]:
        row = np.zeros(self.count, self.dtype)
        row[self.codes[self.offsets[place] : self.offsets[place + 1]]] = 1
        return row


@final
@dataclass(frozen=True, slots=True)
class Targets:
    """What is handed out with each picture.

    Attributes:
        beside: More inputs: one array each, by place.
        outputs: Arrays or labels, by place.
        several: Whether outputs are a tuple, of one too.
        weights: Sample weights, by place.
        copies_input: Whether the picture is its own target.
    """

    beside: tuple[npt.NDArray[Any], ...] = ()
    outputs: tuple[npt.NDArray[Any] | Labels, ...] = ()
    several: bool = False
    weights: npt.NDArray[Any] | None = None
    copies_input: bool = False

    def sample(self, picture: npt.NDArray[Any], place: int) -> Any:
        """The whole sample: `x`, `(x, y)` or `(x, y, weight)`."""
        x: Any = (picture, *(array[place] for array in self.beside)) if self.beside else picture
        if self.copies_input:
            y: Any = picture
        elif self.several:
            y = tuple(array[place] for array in self.outputs)
        elif self.outputs:
            y = self.outputs[0][place]
        else:
            return x
        return (x, y) if self.weights is None else (x, y, self.weights[place])

    def as_keras_had(self, batch: Any) -> Any:
        """A batch of such samples with lists where Keras gave lists: several inputs, several outputs."""
        parts = list(batch) if isinstance(batch, tuple) else [batch]
        if not (self.outputs or self.copies_input):
            return list(batch) if self.beside else batch
        parts[0] = list(parts[0]) if self.beside else parts[0]
        parts[1] = list(parts[1]) if self.several else parts[1]
        return tuple(parts)


def numbers(values: Any, what: str) -> npt.NDArray[Any]:
    """Values of samples as one array of numbers.

    Raises:
        PlanError: If they are none, or of several sizes.
    """
    try:
        array = np.asarray(values)
        array = np.array(array.tolist()) if array.dtype == object else array
    except ValueError:
        raise PlanError(f"{what} holds values of several sizes. Give each sample an array of one shape.") from None
    if array.dtype.kind not in "biufc":
        raise PlanError(f"{what} holds {array.dtype} values, where numbers are needed. Encode them first.")
    return array
