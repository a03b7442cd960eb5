"""What a program's batch means: its parts as Keras 3 takes them.

Keras 2 read a batch by its types: a tuple or list of up to three parts, lists and dicts of arrays inside for several
inputs or outputs. Keras 3 takes trees, in the structure that the model has. So lists of arrays become tuples,
dicts by name are put in the model's order, and floats have Keras's default precision, as arrays given to `fit` have.

All batches of a run have the tree of the first, and its dtypes where NumPy calls the cast safe or of the same kind.
TensorFlow is told their shapes before: the batch axis and the axes that the model leaves open may vary there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from fitstream.adapters.class_weights import map_tree
from fitstream.adapters.keras import keras
from fitstream.adapters.keras_arguments import needs_targets, output_names
from fitstream.legacy.errors import BadBatch
from fitstream.spec import ArraySpec

__all__ = ["BatchReader", "arrays_of"]


class _Ends(NamedTuple):
    """One side of a model: inputs or outputs. All None where the model doesn't know them yet.

    Attributes:
        names: Of inputs or outputs, in order.
        shapes: `(batch, ...)` of each, None where open.
        by_name: Whether the model itself takes or gives a dict.
    """

    names: list[str] | None = None
    shapes: list[tuple[int | None, ...]] | None = None
    by_name: bool = False


@final
class BatchReader:
    """Reads the batches that one generator or Sequence makes.

    Args:
        model: What they are for; may be unbuilt.
        name: What they come from, for errors.
        predicts: Whether a bare array, dict or list is the inputs alone.
    """

    def __init__(self, model: Any, name: str, *, predicts: bool = False) -> None:
        self._name = name
        self._predicts = predicts
        self._needs_targets = not predicts and needs_targets(model)
        self._inputs, self._outputs = _ends(model, "input"), _ends(model, "output")
        self._fixed_shapes = keras.backend.backend() == "tensorflow"
        self._spec: Any = None

    def read(self, raw: Any, index: int) -> Any:
        """A batch as a tuple of one to three parts: arrays, or tuples and dicts of arrays.

        Args:
            raw: What the program made.
            index: Its number among those taken, from 0.
        Raises:
            BadBatch: If it is no batch, or doesn't match the first one.
        """
        try:
            parts = self._parts(raw)
            rows = {len(leaf) for leaf in _leaves(parts)}
        except (TypeError, ValueError) as error:
            raise BadBatch(self._name, index, f"can't be read: {error}") from error
        if len(rows) > 1 or 0 in rows:
            why = "is empty" if rows == {0} else f"has parts of {', '.join(map(str, sorted(rows)))} rows"
            raise BadBatch(self._name, index, f"{why}: {_told(parts)}. All parts need the same samples, at least one.")
        if self._spec is None:
            return parts
        return self._matched(parts, index)

    def set_first(self, first: Any) -> Any:
        """Hold all later batches to the form of this one.

        Args:
            first: What `read` returned.
        Returns:
            Its spec, with None for axes that may vary.
        """
        ends = (self._inputs, self._outputs, self._outputs)
        self._spec = tuple(_spec(part, end) for part, end in zip(first, ends, strict=False))
        return self._spec

    def _parts(self, raw: Any) -> tuple[Any, ...]:
        if self._predicts and not isinstance(raw, tuple):
            given = [raw] if not isinstance(raw, list) or self._is_inputs(raw) else raw
        elif isinstance(raw, (tuple, list)):
            given = list(raw)
        else:
            given = [raw]
            if raw is None or not (isinstance(raw, Mapping) or hasattr(raw, "__array__")):
                given = []
        if not 1 <= len(given) <= 3:
            raise ValueError(_form(raw))
        x, y, weight = (*given, None, None)[:3]
        if self._predicts:
            y = weight = None
        if x is None:
            raise ValueError(_form(raw))
        x = self._inputs_of(_tree(x))
        if y is None or (isinstance(y, (list, tuple)) and not len(y)):
            if self._needs_targets:
                raise ValueError(f"it has inputs alone, but the model's loss needs targets: {_form(raw)}")
            return (x,)
        y = _in_order(_tree(y), self._outputs)
        if weight is None:
            return x, y
        return x, y, _weights(weight, y, self._outputs)

    def _inputs_of(self, x: Any) -> Any:
        return _in_order(x, self._inputs)

    def _is_inputs(self, raw: list[Any]) -> bool:
        """Whether a list is the inputs, and not parts of which the first is the inputs."""
        if not raw or not _has_parts(raw):
            return True
        return (self._inputs.names is None and len(raw) > 3) or len(raw) == len(self._inputs.names or raw[:1])

    def _matched(self, parts: Any, index: int) -> Any:
        try:
            return map_tree(self._cast, self._spec, _like(self._spec, parts))
        except ValueError as error:
            raise BadBatch(
                self._name,
                index,
                f"doesn't match the first one: {error}. It is {_told(parts)}, and the first was {self._spec!r}, where "
                "? may vary. Make all batches alike, or leave the axis open in the model (shape None).",
            ) from None

    def _cast(self, spec: ArraySpec, leaf: np.ndarray) -> np.ndarray:
        if self._fixed_shapes and (
            leaf.ndim != len(spec.shape)
            or any(wanted not in (None, length) for wanted, length in zip(spec.shape, leaf.shape, strict=True))
        ):
            raise ValueError(f"shape {leaf.shape} instead of {ArraySpec(spec.shape, spec.dtype)!r}")
        if leaf.dtype == spec.dtype:
            return leaf
        if not np.can_cast(leaf.dtype, spec.dtype, "same_kind"):
            if self._fixed_shapes:
                raise ValueError(f"dtype {leaf.dtype} can't become {spec.dtype} without losing values")
            return leaf
        return leaf.astype(spec.dtype)


def arrays_of(part: Any) -> Any:
    """A program's arrays as Keras 3 takes them: lists of arrays as tuples."""
    return _tree(part)


# Trees.


def _has_parts(values: Sequence[Any]) -> bool:
    """Whether a list holds arrays, and not numbers."""
    return all(isinstance(value, Mapping) or getattr(value, "shape", ()) != () for value in values)


def _tree(part: Any) -> Any:
    """Arrays of floats in Keras's precision, in tuples and dicts."""
    if isinstance(part, Mapping):
        return {name: _tree(value) for name, value in part.items()}
    if isinstance(part, (list, tuple)) and len(part) and _has_parts(part):
        return tuple(_tree(value) for value in part)
    array = np.asarray(part)
    if array.dtype.kind not in "biufcUS":
        raise ValueError(f"a {type(part).__name__} of dtype {array.dtype} has no numbers of one size")
    if array.ndim == 0:
        raise ValueError(f"{part!r} is a single number and not an array of samples")
    floatx = keras.config.floatx()
    return array.astype(floatx) if array.dtype.kind == "f" and array.dtype != floatx else array


def _in_order(tree: Any, ends: _Ends) -> Any:
    """Bring a tree by name or of one part into the model's own structure."""
    if isinstance(tree, tuple) and len(tree) == 1 and (ends.names is None or len(ends.names) == 1):
        return tree[0]
    if not isinstance(tree, dict) or ends.names is None or ends.by_name:
        return tree
    if len(tree) == len(ends.names) == 1:
        return next(iter(tree.values()))
    if not set(ends.names) <= set(tree):
        tree = _renamed(tree, ends.names)
    if not set(ends.names) <= set(tree):
        return tree
    ordered = tuple(tree[name] for name in ends.names)
    return ordered[0] if len(ordered) == 1 else ordered


def _renamed(tree: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Call inputs without names as Keras 3 does: input_1 and input_2 are the first and the second that were made."""
    if len(tree) != len(names) or not all(re.fullmatch(r"input_\d+", name) for name in tree):
        return tree
    if not all(re.fullmatch(r"(input_layer|keras_tensor)(_\d+)?", name) for name in names):
        return tree

    def number(name: str) -> int:
        found = re.search(r"\d+$", name)
        return int(found[0]) if found else 0

    return dict(zip(sorted(names, key=number), (tree[name] for name in sorted(tree, key=number)), strict=True))


def _weights(weight: Any, y: Any, outputs: _Ends) -> Any:
    """Sample weights in the tree of the targets; ones for an output that has none."""
    if isinstance(weight, Mapping):
        names = list(y) if isinstance(y, dict) else outputs.names or list(weight)
        given = {name: weight.get(name) for name in names}
        if isinstance(y, dict):
            return {name: _weights(value, y[name], outputs) for name, value in given.items()}
        weight = list(given.values())
    if isinstance(weight, (list, tuple)) and any(w is None or getattr(w, "shape", ()) != () for w in weight):
        if not isinstance(y, tuple):
            if len(weight) == 1:
                return _weights(weight[0], y, outputs)
            raise ValueError(f"{len(weight)} arrays of sample weights for one output")
        if len(weight) != len(y):
            raise ValueError(f"{len(weight)} arrays of sample weights for {len(y)} outputs")
        return tuple(_weights(each, one, outputs) for each, one in zip(weight, y, strict=True))
    if weight is None:
        return np.ones(len(next(_leaves(y))), keras.config.floatx())
    return _tree(weight)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (tuple, dict)):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(child)
    else:
        yield tree


def _like(spec: Any, tree: Any) -> Any:
    """The tree, if it has the branches of the spec."""
    if isinstance(spec, tuple):
        if not isinstance(tree, tuple) or len(tree) != len(spec):
            raise ValueError(f"{_told(tree)} instead of {len(spec)} parts")
        return tuple(_like(one, child) for one, child in zip(spec, tree, strict=True))
    if isinstance(spec, dict):
        if not isinstance(tree, dict) or set(tree) != set(spec):
            raise ValueError(f"{_told(tree)} instead of a dict of {', '.join(map(repr, spec))}")
        return {name: _like(one, tree[name]) for name, one in spec.items()}
    if isinstance(tree, (tuple, dict)):
        raise ValueError(f"{_told(tree)} instead of one array")
    return tree


def _told(tree: Any) -> str:
    return repr(map_tree(lambda leaf: ArraySpec(leaf.shape, leaf.dtype), tree))


def _form(raw: Any) -> str:
    if isinstance(raw, (tuple, list)):
        held = ", ".join(type(part).__name__ for part in raw[:4])
        what = f"a {type(raw).__name__} of {len(raw)} parts ({held})"
    else:
        what = "None" if raw is None else f"a {type(raw).__name__}"
    return f"it is {what}, but Keras takes (x, y), (x, y, sample_weight) or x alone. Look at what the program yields"


# Models.


def _ends(model: Any, side: str) -> _Ends:
    """Inputs or outputs of a model that was built from layers."""
    try:
        tensors, structure = list(getattr(model, f"{side}s")), getattr(model, side, None)
        names = [one.name for one in tensors] if side == "input" else output_names(model)
        shapes = [tuple(one.shape) for one in tensors]
    except (AttributeError, TypeError, ValueError):
        # A subclassed model, or one of layers that wasn't called yet.
        return _Ends()
    if isinstance(structure, dict):
        names = list(structure)
        shapes = [tuple(one.shape) for one in structure.values()]
    return _Ends(names, shapes, isinstance(structure, dict))


def _spec(part: Any, ends: _Ends) -> Any:
    if isinstance(part, dict):
        return {name: _spec(child, _one(ends, name)) for name, child in part.items()}
    if isinstance(part, tuple):
        return tuple(_spec(child, _one(ends, place)) for place, child in enumerate(part))
    shape = (ends.shapes[0] if ends.shapes and len(ends.shapes) == 1 else ())[1:]
    is_open = [axis < len(shape) and shape[axis] is None for axis in range(part.ndim - 1)]
    lengths = [None if free else length for free, length in zip(is_open, part.shape[1:], strict=True)]
    return ArraySpec((None, *lengths), part.dtype)


def _one(ends: _Ends, which: str | int) -> _Ends:
    """The end that stands at a place or has a name."""
    if ends.names is None or ends.shapes is None:
        return _Ends()
    try:
        place = ends.names.index(which) if isinstance(which, str) else which
        return _Ends([ends.names[place]], [ends.shapes[place]])
    except (ValueError, IndexError):
        return _Ends()
