"""Variables, constants and random numbers of `keras.backend` in Keras 1 and 2: values instead of nodes of a graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, final

import numpy as np

from fitstream.adapters.keras import keras

__all__ = [
    "batch_get_value",
    "batch_set_value",
    "constant",
    "dropout",
    "eval",
    "eye",
    "get_value",
    "ones",
    "random_binomial",
    "random_normal",
    "random_normal_variable",
    "random_uniform",
    "random_uniform_variable",
    "set_value",
    "shape",
    "truncated_normal",
    "update",
    "update_add",
    "update_sub",
    "variable",
    "zeros",
]

ops = keras.ops


def _by_side(operation: Callable[[Any, Any], Any]) -> Any:
    def apply(self: _Shape, other: Any) -> Any:
        return operation(ops.convert_to_tensor(tuple(self), "int32"), other)

    return apply


@final
class _Shape(tuple[Any, ...]):
    """A shape to calculate with, as Keras 2's tensor was. Sides that are known stay integers, which a shape can be."""

    __slots__ = ()
    __mul__ = __rmul__ = _by_side(operator.mul)
    __truediv__, __floordiv__ = _by_side(operator.truediv), _by_side(operator.floordiv)
    __sub__, __mod__ = _by_side(operator.sub), _by_side(operator.mod)
    __rsub__ = _by_side(lambda sides, other: other - sides)

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return _Shape(found) if isinstance(place, slice) else found

    def __add__(self, other: Any) -> Any:
        return _Shape((*self, *other)) if isinstance(other, tuple) else _by_side(operator.add)(self, other)


def shape(x: Any) -> Any:  # noqa: D103
    return _Shape(ops.shape(x))


def update(x: Any, new_x: Any) -> Any:
    """Give a variable a value, at once: there is no graph to put it in."""
    x.assign(new_x)
    return x


def update_add(x: Any, increment: Any) -> Any:  # noqa: D103
    return update(x, x + increment)


def update_sub(x: Any, decrement: Any) -> Any:  # noqa: D103
    return update(x, x - decrement)


def constant(value: Any, dtype: Any = None, shape: Any = None, name: str | None = None) -> Any:  # noqa: D103
    tensor = ops.convert_to_tensor(value, dtype=dtype or keras.config.floatx())
    return tensor if shape is None else ops.broadcast_to(tensor, shape)


def variable(value: Any, dtype: Any = None, name: str | None = None, constraint: Any = None) -> Any:  # noqa: D103
    return keras.Variable(value, dtype=dtype or keras.config.floatx(), name=name)


def zeros(shape: Any, dtype: Any = None, name: str | None = None) -> Any:  # noqa: D103
    return ops.zeros(shape, dtype=dtype or keras.config.floatx())


def ones(shape: Any, dtype: Any = None, name: str | None = None) -> Any:  # noqa: D103
    return ops.ones(shape, dtype=dtype or keras.config.floatx())


def eye(size: int, dtype: Any = None, name: str | None = None) -> Any:  # noqa: D103
    return ops.eye(size, dtype=dtype or keras.config.floatx())


def random_normal(  # noqa: D103
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None, *, std: Any = None
) -> Any:
    return keras.random.normal(shape, mean=mean, stddev=stddev if std is None else std, dtype=dtype, seed=seed)


def truncated_normal(  # noqa: D103
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    return keras.random.truncated_normal(shape, mean=mean, stddev=stddev, dtype=dtype, seed=seed)


def random_binomial(shape: Any, p: float = 0.0, dtype: Any = None, seed: Any = None) -> Any:  # noqa: D103
    return ops.cast(keras.random.uniform(shape, seed=seed) < p, dtype or keras.config.floatx())


def random_normal_variable(  # noqa: D103
    shape: Any, mean: float = 0.0, scale: float = 1.0, dtype: Any = None, name: str | None = None, seed: Any = None
) -> Any:
    return variable(random_normal(shape, mean, scale, dtype, seed), dtype, name)


def random_uniform_variable(  # noqa: D103
    shape: Any, low: float = 0.0, high: float = 1.0, dtype: Any = None, name: str | None = None, seed: Any = None
) -> Any:
    return variable(random_uniform(shape, low, high, dtype, seed), dtype, name)


def random_uniform(  # noqa: D103
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None, **keras1: float
) -> Any:
    minval, maxval = keras1.get("low", minval), keras1.get("high", maxval)
    return keras.random.uniform(shape, minval=minval, maxval=maxval, dtype=dtype, seed=seed)


def dropout(x: Any, level: float, noise_shape: Any = None, seed: Any = None) -> Any:  # noqa: D103
    return keras.random.dropout(x, level, noise_shape=noise_shape, seed=seed)


def get_value(x: Any) -> Any:
    """A variable's value, as an array or a NumPy scalar."""
    return np.asarray(ops.convert_to_numpy(x))[()]


def batch_get_value(tensors: Iterable[Any]) -> list[Any]:  # noqa: D103
    return [get_value(each) for each in tensors]


def set_value(x: Any, value: Any) -> None:
    """Give a variable a value."""
    x.assign(value)


def batch_set_value(tuples: Iterable[tuple[Any, Any]]) -> None:  # noqa: D103
    for each, value in tuples:
        set_value(each, value)


def eval(x: Any) -> Any:  # noqa: A001, D103
    return get_value(x)
