"""`keras.backend` of Keras 1 and 2, over `keras.ops`: what losses, metrics and Lambda layers of old programs call.

Keras 3 keeps a handful of these functions. What is missing here too has no equal; the table of renames says what to do.
"""

from __future__ import annotations

import functools
import math
from builtins import any as any_of
from collections.abc import Callable
from typing import Any, final

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.legacy.old_kernels import (
    batch_dot,
    batch_normalization,
    bias_add,
    binary_crossentropy,
    categorical_crossentropy,
    conv1d,
    conv2d,
    conv2d_transpose,
    conv3d,
    ctc_batch_cost,
    ctc_decode,
    depthwise_conv2d,
    in_top_k,
    normalize_batch_in_training,
    pool2d,
    pool3d,
    resize_images,
    separable_conv2d,
    sparse_categorical_crossentropy,
    spatial_2d_padding,
    temporal_padding,
)
from fitstream.legacy.old_values import (
    batch_get_value,
    batch_set_value,
    constant,
    dropout,
    eval,  # noqa: A004
    eye,
    get_value,
    ones,
    random_binomial,
    random_normal,
    random_normal_variable,
    random_uniform,
    random_uniform_variable,
    set_value,
    shape,
    truncated_normal,
    update,
    update_add,
    update_sub,
    variable,
    zeros,
)
from fitstream.legacy.program import OldName, program

__all__ = [
    "argmax",
    "argmin",
    "batch_dot",
    "batch_flatten",
    "batch_get_value",
    "batch_normalization",
    "batch_set_value",
    "bias_add",
    "binary_crossentropy",
    "cast",
    "cast_to_floatx",
    "categorical_crossentropy",
    "clip",
    "concatenate",
    "constant",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "count_params",
    "ctc_batch_cost",
    "ctc_decode",
    "cumprod",
    "cumsum",
    "depthwise_conv2d",
    "dropout",
    "dtype",
    "eval",
    "expand_dims",
    "eye",
    "flatten",
    "foldl",
    "function",
    "gather",
    "get_value",
    "hard_sigmoid",
    "identity",
    "image_dim_ordering",
    "in_top_k",
    "int_shape",
    "is_nan",
    "is_sparse",
    "is_tensor",
    "l2_normalize",
    "learning_phase",
    "map_fn",
    "ndim",
    "normalize_batch_in_training",
    "one_hot",
    "ones",
    "permute_dimensions",
    "pool2d",
    "pool3d",
    "pow",
    "print_tensor",
    "random_binomial",
    "random_normal",
    "random_normal_variable",
    "random_uniform",
    "random_uniform_variable",
    "relu",
    "repeat",
    "repeat_elements",
    "resize_images",
    "reverse",
    "separable_conv2d",
    "set_image_dim_ordering",
    "set_value",
    "shape",
    "softmax",
    "sparse_categorical_crossentropy",
    "spatial_2d_padding",
    "switch",
    "temporal_padding",
    "to_dense",
    "transpose",
    "truncated_normal",
    "update",
    "update_add",
    "update_sub",
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
    if isinstance(x, (list, tuple)) and any_of(isinstance(one, keras.Variable) for one in x):
        return [_tensor(one) for one in x]
    return ops.convert_to_tensor(x.value) if isinstance(x, keras.Variable) else x


abs = _renamed("abs")  # noqa: A001
cos, sin, exp, log, sqrt, square, sign, round = (  # noqa: A001
    _renamed(name) for name in ("cos", "sin", "exp", "log", "sqrt", "square", "sign", "round")
)
elu, softplus, softsign, sigmoid, tanh = (_renamed(name) for name in ("elu", "softplus", "softsign", "sigmoid", "tanh"))
maximum, minimum, equal, not_equal, greater, greater_equal, less, less_equal = (
    _renamed(name)
    for name in ("maximum", "minimum", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
)
lesser, lesser_equal = less, less_equal
ones_like, zeros_like, squeeze, stack, dot, reshape, tile, where, arange, slice = (  # noqa: A001
    _renamed(name)
    for name in ("ones_like", "zeros_like", "squeeze", "stack", "dot", "reshape", "tile", "where", "arange", "slice")
)
stop_gradient, logsumexp = (_renamed(name) for name in ("stop_gradient", "logsumexp"))


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


def expand_dims(x: Any, axis: int = -1, dim: int | None = None) -> Any:  # noqa: D103
    return ops.expand_dims(_tensor(x), axis if dim is None else dim)


def cumsum(x: Any, axis: int = 0) -> Any:  # noqa: D103
    return ops.cumsum(_tensor(x), axis=axis)


def cumprod(x: Any, axis: int = 0) -> Any:  # noqa: D103
    return ops.cumprod(_tensor(x), axis=axis)


def identity(x: Any, name: str | None = None) -> Any:  # noqa: D103
    return ops.copy(_tensor(x))


def relu(x: Any, alpha: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Any:  # noqa: D103
    return keras.activations.relu(_tensor(x), negative_slope=alpha, max_value=max_value, threshold=threshold)


def hard_sigmoid(x: Any) -> Any:
    """Keras 2's, whose slope is 0.2. That of Keras 3 is 1/6."""
    return ops.clip(0.2 * _tensor(x) + 0.5, 0.0, 1.0)


def print_tensor(x: Any, message: str = "") -> Any:
    """The tensor itself. Its values are not printed."""
    program.tell("K.print_tensor prints nothing; in Keras 3, run eagerly and use print")
    return x


def foldl(fn: Any, elems: Any, initializer: Any = None, name: str | None = None) -> Any:  # noqa: D103
    first, rest = (elems[0], elems[1:]) if initializer is None else (initializer, elems)
    return functools.reduce(fn, [rest[index] for index in range(rest.shape[0])], first)


def is_tensor(x: Any) -> bool:  # noqa: D103
    return bool(keras.ops.is_tensor(x))


def is_sparse(tensor: Any) -> bool:  # noqa: D103
    return isinstance(tensor, keras.KerasTensor) and bool(tensor.sparse)


def to_dense(tensor: Any) -> Any:  # noqa: D103
    return ops.convert_to_tensor(tensor, sparse=False)


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
