"""Shapes, dtypes and bytes of samples and batches, and text such as "512 MB".

A sample is a tree: an array, or a tuple or dict of trees. A `Structure` is the shape of such a tree without its leaves;
it takes samples apart into a flat list of leaves and puts them together again, so that all else deals with flat lists.
A list is not a branch: it is read as an array, as NumPy does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError

__all__ = [
    "ALIGNMENT",
    "ArraySpec",
    "Layout",
    "Structure",
    "aligned",
    "array_spec",
    "copied",
    "format_bytes",
    "parse_bytes",
    "row_count",
    "whole_rows",
]

#: JAX and TensorFlow take arrays without a copy when they start at a multiple of this many bytes.
ALIGNMENT = 64

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def aligned(count_bytes: int) -> int:
    """Round up to the next multiple of `ALIGNMENT` bytes."""
    return -(-count_bytes // ALIGNMENT) * ALIGNMENT


def parse_bytes(value: int | str, name: str = "memory") -> int:
    """Read a number of bytes.

    Args:
        value: Bytes, or text such as "512 MB" (10**6 each) or "1.5 GiB" (2**30 each).
        name: The argument's name, for the error.
    Raises:
        PlanError: If the text is not a positive size.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", value)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise PlanError(f'{name}={value!r} is not a size. Use bytes, or text such as "512 MB" or "1.5 GiB".')
        count = int(Decimal(match[1]) * unit)
    elif isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise PlanError(f'{name}={value!r} is not a size. Use bytes as an int, or text such as "512 MB".')
    else:
        count = int(value)
    if count <= 0:
        raise PlanError(f"{name}={value!r} must be more than 0 bytes.")
    if count >= 1 << 63:
        raise PlanError(f"{name}= must be below 2^63 bytes; no machine has more.")
    return count


def format_bytes(count: float) -> str:
    """Write a number of bytes for people, in decimal units: "999 B", "1.50 kB", "45.4 MB"."""
    size = float(count)
    units = ["B", "kB", "MB", "GB", "TB"]
    while abs(size) >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    unit = units[0]
    if unit == "B" or abs(size) >= 100:
        return f"{size:.0f} {unit}"
    return f"{size:.3g} {unit}"


@final
@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Shape and dtype of one leaf.

    Attributes:
        shape: Lengths of the axes; the first one of a batch's leaf is None where batches vary.
        dtype: NumPy dtype.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of one array; an unknown axis counts as 1."""
        return math.prod(1 if length is None else length for length in self.shape) * self.dtype.itemsize

    def batched(self, size: int | None) -> ArraySpec:
        """The spec of a batch of `size` such arrays."""
        return ArraySpec((size, *self.shape), self.dtype)

    def __repr__(self) -> str:
        return f"{self.dtype.name}({', '.join('?' if n is None else str(n) for n in self.shape)})"


def array_spec(leaf: Any) -> ArraySpec:
    """The spec of something that NumPy can read as numbers.

    Raises:
        TypeError: If it is text, an object or ragged: such things have no fixed size.
    """
    try:
        array = np.asarray(leaf)
    except ValueError as error:
        several = ". A list is read as one array; return a tuple for several parts" if isinstance(leaf, list) else ""
        raise TypeError(f"is ragged: {error}{several}") from None
    except Exception as error:  # noqa: BLE001  an array's own reading may raise anything
        raise TypeError(f"is a {type(leaf).__name__} that NumPy can't read: {error}") from None
    if array.dtype.kind not in "biufc":
        what = "None" if leaf is None else f"a {type(leaf).__name__} of dtype {array.dtype}"
        raise TypeError(f"is {what}; samples must be numbers of a fixed size")
    return ArraySpec(array.shape, array.dtype)


@final
class Layout:
    """Where each leaf of a batch lies in a slot.

    Args:
        specs: Spec of one sample's leaves.
        rows: Rows of the largest batch.
    """

    __slots__ = ("offsets", "rows", "slot_bytes", "specs")

    def __init__(self, specs: Sequence[ArraySpec], rows: int) -> None:
        self.specs = tuple(specs)
        self.rows = rows
        self.offsets: list[int] = []
        end = 0
        for spec in self.specs:
            self.offsets.append(end)
            end += aligned(rows * spec.nbytes)
        self.slot_bytes = max(end, 64)

    @staticmethod
    def of_bytes(count_bytes: int) -> Layout:
        """A slot that is nothing but bytes: one leaf, uint8 `(1, count_bytes)`."""
        return Layout([ArraySpec((aligned(count_bytes),), np.dtype(np.uint8))], 1)

    def leaves(
        self, root: npt.NDArray[np.uint8], rows: int, lengths: Sequence[int | None] = ()
    ) -> list[npt.NDArray[Any]]:
        """Views of a slot's bytes: one array `(rows, ...)` a leaf.

        Args:
            root: The bytes.
            rows: Rows of the batch.
            lengths: Of the second axis of each leaf, where batches differ in it; None for the spec's.
        """
        leaves = []
        for number, (spec, offset) in enumerate(zip(self.specs, self.offsets, strict=True)):
            shape = (rows, *cast("tuple[int, ...]", spec.shape))
            length = lengths[number] if lengths else None
            if length is not None:
                shape = (rows, length, *shape[2:])
            count_bytes = math.prod(shape) * spec.dtype.itemsize
            leaves.append(root[offset : offset + count_bytes].view(spec.dtype).reshape(shape))
        return leaves


@final
class Structure:
    """The shape of a sample's tree: nested tuples and dicts, leaves left out.

    Args:
        sample: Any sample that has this structure.
    """

    __slots__ = ("_flat_count", "_tree", "leaf_count", "names")

    def __init__(self, sample: Any) -> None:
        self.names: list[str] = []
        self._tree = self._describe(sample, "")
        self.leaf_count = len(self.names)
        flat = isinstance(sample, tuple) and len(sample) == self.leaf_count
        self._flat_count = self.leaf_count if flat and all(child is None for child in self._tree) else 0

    def _describe(self, node: Any, name: str) -> Any:
        if isinstance(node, tuple):
            return tuple(self._describe(child, f"{name}[{i}]") for i, child in enumerate(node))
        if isinstance(node, dict):
            return {key: self._describe(child, f"{name}[{key!r}]") for key, child in node.items()}
        self.names.append(name)
        return None

    def flatten(self, sample: Any) -> list[Any]:
        """Take a sample apart into leaves, in the order of `names`.

        Raises:
            TypeError: If the sample has another structure; says where.
        """
        if self._flat_count and type(sample) is tuple and len(sample) == self._flat_count:
            # By far the most common, and the walk below would cost more than a small sample itself.
            for leaf in sample:
                if isinstance(leaf, (tuple, dict)):
                    break
            else:
                return list(sample)
        leaves: list[Any] = []
        self._flatten(self._tree, sample, "", leaves)
        return leaves

    def _flatten(self, tree: Any, node: Any, name: str, leaves: list[Any]) -> None:
        if tree is None:
            if isinstance(node, (tuple, dict)):
                raise TypeError(f"the sample{name} is a {type(node).__name__}, but an array in the first sample")
            leaves.append(node)
        elif isinstance(tree, tuple):
            if not isinstance(node, tuple) or len(node) != len(tree):
                raise TypeError(f"the sample{name} is {_brief(node)}, but a tuple of {len(tree)} in the first sample")
            for i, child in enumerate(tree):
                self._flatten(child, node[i], f"{name}[{i}]", leaves)
        else:
            if not isinstance(node, dict) or node.keys() != tree.keys():
                raise TypeError(f"the sample{name} is {_brief(node)}, but {_brief(tree)} in the first sample")
            for key, child in tree.items():
                self._flatten(child, node[key], f"{name}[{key!r}]", leaves)

    def build(self, leaves: Sequence[Any]) -> Any:
        """Put leaves together into a tree; the reverse of `flatten`."""
        rest = iter(leaves)
        return self._build(self._tree, lambda: next(rest))

    def _build(self, tree: Any, take: Callable[[], Any]) -> Any:
        if tree is None:
            return take()
        if isinstance(tree, tuple):
            return tuple(self._build(child, take) for child in tree)
        return {key: self._build(child, take) for key, child in tree.items()}


def copied(sample: Any) -> Any:
    """The same tree with copies of its arrays."""
    if isinstance(sample, tuple):
        return tuple(copied(child) for child in sample)
    if isinstance(sample, dict):
        return {key: copied(child) for key, child in sample.items()}
    return np.array(sample) if isinstance(sample, np.ndarray) else sample


def whole_rows(values: Sequence[npt.NDArray[Any]], names: Sequence[str]) -> int:
    """The number of samples of a finished batch.

    Raises:
        ValueError: If its arrays have no rows, or differing numbers of them.
    """
    lengths = {value.shape[0] if value.ndim else -1 for value in values}
    if len(lengths) != 1 or min(lengths) <= 0:
        told = ", ".join(f"{name or 'array'}: {value.shape}" for name, value in zip(names, values, strict=True))
        raise ValueError(f"the arrays of a batch need first axes of one length above 0, but have the shapes {told}")
    return int(lengths.pop())


def row_count(batch: Any) -> int:
    """Samples of a batch: the first axis of its first array; 0 if it has none."""
    if isinstance(batch, (tuple, list)):
        return next((count for count in map(row_count, batch) if count), 0)
    if isinstance(batch, Mapping):
        return row_count(list(batch.values()))
    shape = getattr(batch, "shape", ())
    return int(shape[0]) if shape else 0


def _brief(node: Any) -> str:
    if isinstance(node, tuple):
        return f"a tuple of {len(node)}"
    if isinstance(node, dict):
        return f"a dict with the keys {sorted(map(str, node))}"
    return f"a {type(node).__name__}"
