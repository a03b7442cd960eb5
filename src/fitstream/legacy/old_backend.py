"""`keras.backend` of Keras 1 and 2, over `keras.ops`: what losses, metrics and Lambda layers of old programs call.

Keras 3 keeps a handful of these functions. What is missing here too has no equal; the table of renames says what to do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, final

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.legacy.program import OldName, program

__all__ = [
    "argmax",
    "argmin",
    "batch_dot",
    "batch_flatten",
    "batch_get_value",
    "batch_set_value",
    "binary_crossentropy",
    "cast",
    "cast_to_floatx",
    "categorical_crossentropy",
    "clip",
    "concatenate",
    "constant",
    "count_params",
    "dropout",
    "dtype",
    "eval",
    "eye",
    "flatten",
    "function",
    "gather",
    "get_value",
    "image_dim_ordering",
    "in_top_k",
    "int_shape",
    "is_nan",
    "l2_normalize",
    "learning_phase",
    "map_fn",
    "ndim",
    "one_hot",
    "ones",
    "permute_dimensions",
    "pow",
    "random_normal",
    "random_uniform",
    "repeat",
    "repeat_elements",
    "reverse",
    "set_image_dim_ordering",
    "set_value",
    "softmax",
    "sparse_categorical_crossentropy",
    "switch",
    "transpose",
    "variable",
    "zeros",
]

ops = keras.ops


def _renamed(name: str) -> Callable[..., Any]:
    """One that is called otherwise, and means the same."""
    found: Callable[..., Any] = getattr(ops, name)

    @functools.wraps(found)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Some of Keras 3's functions don't take its variables on every backend.
        return found(*map(_tensor, args), **kwargs)

    return call


def _tensor(x: Any) -> Any:
    return ops.convert_to_tensor(x) if isinstance(x, keras.Variable) else x


abs = _renamed("abs")  # noqa: A001
cos, sin, exp, log, sqrt, square, sign, round = (  # noqa: A001
    _renamed(name) for name in ("cos", "sin", "exp", "log", "sqrt", "square", "sign", "round")
)
relu, elu, softplus, softsign, sigmoid, hard_sigmoid, tanh = (
    _renamed(name) for name in ("relu", "elu", "softplus", "softsign", "sigmoid", "hard_sigmoid", "tanh")
)
maximum, minimum, equal, not_equal, greater, greater_equal, less, less_equal = (
    _renamed(name)
    for name in ("maximum", "minimum", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
)
ones_like, zeros_like, identity, squeeze, expand_dims, stack, cumsum, cumprod, dot, reshape, tile, where = (
    _renamed(name)
    for name in (
        "ones_like",
        "zeros_like",
        "identity",
        "squeeze",
        "expand_dims",
        "stack",
        "cumsum",
        "cumprod",
        "dot",
        "reshape",
        "tile",
        "where",
    )
)
shape, stop_gradient, logsumexp = (_renamed(name) for name in ("shape", "stop_gradient", "logsumexp"))


def _reduction(name: str) -> Callable[..., Any]:
    def reduce(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        if name in ("any", "all"):
            x = ops.cast(x, "bool")
        elif name in ("mean", "std", "var") and keras.backend.standardize_dtype(x.dtype) == "bool":
            x = ops.cast(x, keras.config.floatx())
        return getattr(ops, name)(x, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=keepdims)

    reduce.__name__ = name
    return reduce


mean, sum, prod, max, min, std, var, any, all = (  # noqa: A001
    _reduction(name) for name in ("mean", "sum", "prod", "max", "min", "std", "var", "any", "all")
)


def argmax(x: Any, axis: int = -1) -> Any:  # noqa: D103  the functions below are Keras 2's, under their names
    return ops.argmax(x, axis=axis)


def argmin(x: Any, axis: int = -1) -> Any:  # noqa: D103
    return ops.argmin(x, axis=axis)


def softmax(x: Any, axis: int = -1) -> Any:  # noqa: D103
    return ops.softmax(x, axis=axis)


def pow(x: Any, a: Any) -> Any:  # noqa: A001, D103
    return ops.power(x, a)


def clip(x: Any, min_value: Any, max_value: Any) -> Any:  # noqa: D103
    return ops.clip(x, -math.inf if min_value is None else min_value, math.inf if max_value is None else max_value)


def concatenate(tensors: Any, axis: int = -1) -> Any:  # noqa: D103
    return ops.concatenate(tensors, axis=axis)


def transpose(x: Any) -> Any:  # noqa: D103
    return ops.transpose(x)


def permute_dimensions(x: Any, pattern: Any) -> Any:  # noqa: D103
    return ops.transpose(x, pattern)


def flatten(x: Any) -> Any:  # noqa: D103
    return ops.reshape(x, (-1,))


def batch_flatten(x: Any) -> Any:  # noqa: D103
    return ops.reshape(x, (-1, math.prod(x.shape[1:])))


def batch_dot(x: Any, y: Any, axes: Any = None) -> Any:  # noqa: D103
    if axes is None:
        axes = (len(x.shape) - 1, len(y.shape) - 2 if len(y.shape) > 2 else 1)
    return keras.layers.Dot(axes=tuple(axes) if isinstance(axes, list) else axes)([x, y])


def repeat(x: Any, n: int) -> Any:  # noqa: D103
    return ops.repeat(ops.expand_dims(x, 1), n, axis=1)


def repeat_elements(x: Any, rep: int, axis: int) -> Any:  # noqa: D103
    return ops.repeat(x, rep, axis=axis)


def reverse(x: Any, axes: Any) -> Any:  # noqa: D103
    return ops.flip(x, axis=axes)


def gather(reference: Any, indices: Any) -> Any:  # noqa: D103
    return ops.take(reference, indices, axis=0)


def one_hot(indices: Any, num_classes: int) -> Any:  # noqa: D103
    return ops.one_hot(indices, num_classes)


def l2_normalize(x: Any, axis: Any = None) -> Any:  # noqa: D103
    return x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=axis, keepdims=True), 1e-12))


def cast(x: Any, dtype: str) -> Any:  # noqa: D103
    return ops.cast(x, dtype)


def cast_to_floatx(x: Any) -> Any:  # noqa: D103
    return np.asarray(x, dtype=keras.config.floatx()) if not hasattr(x, "dtype") else cast(x, keras.config.floatx())


def switch(condition: Any, then_expression: Any, else_expression: Any) -> Any:  # noqa: D103
    first = then_expression() if callable(then_expression) else then_expression
    second = else_expression() if callable(else_expression) else else_expression
    return ops.where(ops.cast(condition, "bool"), _tensor(first), _tensor(second))


def map_fn(fn: Any, elems: Any, name: str | None = None, dtype: Any = None) -> Any:  # noqa: D103
    return ops.map(fn, elems)


def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:  # noqa: D103
    return ops.categorical_crossentropy(target, output, from_logits=from_logits, axis=axis)


def sparse_categorical_crossentropy(  # noqa: D103
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Any:
    return ops.sparse_categorical_crossentropy(ops.cast(target, "int32"), output, from_logits=from_logits, axis=axis)


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:  # noqa: D103
    return ops.binary_crossentropy(target, output, from_logits=from_logits)


def in_top_k(predictions: Any, targets: Any, k: int) -> Any:  # noqa: D103
    return ops.in_top_k(targets, predictions, k)


def is_nan(x: Any) -> Any:  # noqa: D103
    return ops.isnan(x)


def ndim(x: Any) -> int:  # noqa: D103
    return len(x.shape)


def int_shape(x: Any) -> Any:  # noqa: D103
    return tuple(None if side is None else int(side) for side in x.shape)


def dtype(x: Any) -> str:  # noqa: D103
    return str(keras.backend.standardize_dtype(x.dtype))


def count_params(x: Any) -> int:  # noqa: D103
    return math.prod(x.shape)


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
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    return keras.random.normal(shape, mean=mean, stddev=stddev, dtype=dtype, seed=seed)


def random_uniform(  # noqa: D103
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
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


def image_dim_ordering() -> str:
    """Keras 1's name for the data format: "tf" or "th"."""
    return "tf" if keras.config.image_data_format() == "channels_last" else "th"


def set_image_dim_ordering(dim_ordering: str) -> None:  # noqa: D103
    program.tell("K.set_image_dim_ordering -> keras.config.set_image_data_format")
    keras.config.set_image_data_format({"tf": "channels_last", "th": "channels_first"}[dim_ordering])


@final
class _LearningPhase:
    """What `K.learning_phase()` gives: it can be handed to `K.function` as an input, and nothing else."""

    def __bool__(self) -> bool:
        raise OldName("keras.backend.learning_phase()", "Give the layer's call a training argument, and ask that.")


_PHASE = _LearningPhase()


def learning_phase() -> Any:
    """A placeholder for whether a model trains, for `K.function([model.input, K.learning_phase()], ...)`."""
    return _PHASE


def function(inputs: Any, outputs: Any, updates: Any = None, **kwargs: Any) -> Callable[[Any], list[Any]]:
    """Keras 2's function of symbolic tensors: called with arrays, it gives a list of arrays.

    Raises:
        OldName: If it has updates, which only sessions had.
    """
    if updates:
        raise OldName("keras.backend.function(updates=)", "Write a train_step, or assign to variables yourself.")
    symbols = [one for one in inputs if one is not _PHASE]
    phases = [place for place, one in enumerate(inputs) if one is _PHASE]
    model = keras.Model(symbols, list(outputs) if isinstance(outputs, (list, tuple)) else [outputs])

    def call(values: Any) -> list[Any]:
        training = bool(values[phases[0]]) if phases else False
        arrays = [value for place, value in enumerate(values) if place not in phases]
        given = [ops.convert_to_tensor(value) for value in arrays]
        # A model of one output gives it bare.
        return [ops.convert_to_numpy(one) for one in keras.tree.flatten(model(given, training=training))]

    return call
