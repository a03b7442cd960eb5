"""Class weights as sample weights, for any tree of targets.

Keras refuses `class_weight` together with sample weights and with more than one output, so the weights are looked up
here and handed over as the third part of a batch. What a target's class is follows Keras: the last axis of a target of
two or more axes is one-hot, or has length 1; classes without a weight weigh 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.spec import ArraySpec

__all__ = ["ClassWeights", "Weights", "map_tree"]

#: One output: class -> weight. Several: a dict by output name, or a list in the outputs' order.
Weights: TypeAlias = Mapping[Any, Any] | Sequence[Mapping[int, float] | None]

#: Classes in order and the weight of each, `(classes,)`; None where all weigh 1.
_Table: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None


@final
class ClassWeights:
    """Adds class weights to batches.

    Args:
        weights: `{class: weight}` for one output, `{output: {class: weight}}` or a list of them for several.
        spec: The batches' tree: `(x, y)` or `(x, y, sample_weight)`.
        output_names: The model's outputs in order, where `y` is a tuple and `weights` goes by name.
    Raises:
        PlanError: If there is no target, or the weights don't match the targets' tree.

    Attributes:
        spec: The tree of the batches that `__call__` returns: `(x, y, sample_weight)`.
    """

    def __init__(self, weights: Weights, spec: Any, output_names: Sequence[str] = ()) -> None:
        if not isinstance(spec, tuple) or len(spec) not in (2, 3):
            raise PlanError(f"class_weight needs batches (x, y) or (x, y, sample_weight), but they are {spec!r}.")
        self._tables = _match(weights, spec[1], output_names)
        blank = map_tree(lambda leaf: np.zeros([1 if n is None else n for n in leaf.shape], leaf.dtype), spec)
        weighed = self(blank)[2]
        self.spec = (
            spec[0],
            spec[1],
            map_tree(lambda y, w: ArraySpec(_open_as(y.shape, w.shape), w.dtype), spec[1], weighed),
        )

    def __call__(self, batch: Any) -> tuple[Any, Any, Any]:
        """Multiply class weights into a batch's sample weights.

        Args:
            batch: `(x, y)` or `(x, y, sample_weight)` of arrays.
        Returns:
            `(x, y, sample_weight)`: float32 weights in the tree of `y`, each of the shape of its targets' classes, or
            of the sample weights where those have more axes.
        """
        x, y, *given = batch
        if not given:
            return x, y, map_tree(_weigh, y, self._tables)
        sample_weight = given[0]
        if not isinstance(sample_weight, (tuple, dict)):
            sample_weight = map_tree(lambda _: sample_weight, y)
        return x, y, map_tree(_combine, y, self._tables, sample_weight)


def _open_as(targets: tuple[int | None, ...], weights: tuple[int, ...]) -> tuple[int | None, ...]:
    """The axes of weights, open where the targets' are."""
    return tuple(
        targets[axis] if axis == 0 or (axis < len(targets) and targets[axis] is None) else length
        for axis, length in enumerate(weights)
    )


def _weigh(y: npt.NDArray[Any], table: _Table) -> npt.NDArray[np.float32]:
    classes = _classes_of(y)
    if table is None:
        return np.ones(classes.shape, np.float32)
    known, weights = table
    places = np.searchsorted(known, classes).clip(max=len(known) - 1)
    return np.where(known[places] == classes, weights[places], np.float32(1))


def _combine(y: npt.NDArray[Any], table: _Table, given: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    by_class = _weigh(y, table)
    axes = max(by_class.ndim, given.ndim)
    return _widened(by_class, axes) * _widened(given, axes).astype(np.float32)


def _widened(array: npt.NDArray[Any], axes: int) -> npt.NDArray[Any]:
    return array.reshape(array.shape + (1,) * (axes - array.ndim))


def _classes_of(y: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if y.ndim > 1:
        y = y[..., 0] if y.shape[-1] == 1 else np.argmax(y, axis=-1)
    return np.asarray(np.rint(y) if y.dtype.kind == "f" else y).astype(np.int64)


def _match(weights: Weights, y: Any, names: Sequence[str]) -> Any:
    """Bring weights into the tree of `y`, as tables."""
    if isinstance(y, ArraySpec):
        if isinstance(weights, Sequence) and len(weights) == 1:
            weights = weights[0] or {}
        elif isinstance(weights, Mapping) and any(isinstance(value, Mapping) for value in weights.values()):
            if list(weights) != list(names):
                raise PlanError(
                    f"class_weight names the outputs {_listed(weights)}, but there is one: {_listed(names)}."
                )
            weights = weights[names[0]]
        return _checked(weights)
    if isinstance(y, dict):
        unknown = [name for name in weights if name not in y] if isinstance(weights, Mapping) else ["a list"]
        if unknown:
            raise PlanError(f"class_weight has {_listed(unknown)}, but the targets are a dict of {_listed(y)}.")
        return {name: _checked(weights.get(name)) for name in y}  # type: ignore[union-attr]
    if isinstance(weights, Mapping):
        if len(names) != len(y) or any(name not in names for name in weights):
            raise PlanError(
                f"class_weight has {_listed(weights)}, but the outputs of the {len(y)} targets are {_listed(names)}. "
                "Give a list in the targets' order."
            )
        return tuple(_checked(weights.get(name)) for name in names)
    if len(weights) != len(y):
        raise PlanError(f"class_weight has {len(weights)} entries for {len(y)} targets. Use None where none apply.")
    return tuple(_checked(each) for each in weights)


def _checked(weights: Any) -> _Table:
    if weights is None or (isinstance(weights, Mapping) and not weights):
        return None
    try:
        pairs = sorted((int(label), float(weight)) for label, weight in weights.items())
    except (AttributeError, TypeError, ValueError):
        raise PlanError(
            f"class_weight={weights!r} is not a dict of class to weight, such as {{0: 1.0, 1: 2.5}}; of a weight for "
            "each class, dict(enumerate(weights)) makes one."
        ) from None
    return np.array([label for label, _ in pairs], np.int64), np.array([weight for _, weight in pairs], np.float32)


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "unnamed"


def map_tree(fn: Any, tree: Any, *others: Any) -> Any:
    """Apply `fn` to the leaves of `tree`, and to what stands at their places in `others`."""
    if isinstance(tree, tuple):
        return tuple(map_tree(fn, child, *(other[i] for other in others)) for i, child in enumerate(tree))
    if isinstance(tree, dict):
        return {key: map_tree(fn, child, *(other[key] for other in others)) for key, child in tree.items()}
    return fn(tree, *others)
