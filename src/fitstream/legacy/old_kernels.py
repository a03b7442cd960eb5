"""Convolutions, pooling, padding, normalisation and losses of `keras.backend` in Keras 1 and 2, over `keras.ops`."""

from __future__ import annotations

from typing import Any

from fitstream.adapters.keras import keras
from fitstream.legacy.program import calls_itself, program

__all__ = [
    "batch_dot",
    "batch_normalization",
    "bias_add",
    "binary_crossentropy",
    "categorical_crossentropy",
    "conv1d",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "ctc_batch_cost",
    "ctc_decode",
    "depthwise_conv2d",
    "in_top_k",
    "normalize_batch_in_training",
    "pool2d",
    "pool3d",
    "resize_images",
    "separable_conv2d",
    "sparse_categorical_crossentropy",
    "spatial_2d_padding",
    "temporal_padding",
]

ops = keras.ops
# The names of Keras 2, and after them those of Keras 1.
_PADDINGS = {"border_mode": "padding", "dim_ordering": "data_format", "filter_dilation": "dilation_rate"}
_FORMATS = {"th": "channels_first", "tf": "channels_last", "default": None}


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    told = {_PADDINGS.get(name, name): value for name, value in given.items()}
    told["data_format"] = _FORMATS.get(told.get("data_format") or "default", told.get("data_format"))
    return told


def conv1d(x: Any, kernel: Any, strides: Any = 1, padding: str = "valid", **given: Any) -> Any:  # noqa: D103  as Keras 2
    return ops.conv(x, kernel, **_settings({"strides": strides, "padding": padding, **given}))


def conv2d(x: Any, kernel: Any, strides: Any = (1, 1), padding: str = "valid", **given: Any) -> Any:  # noqa: D103
    return ops.conv(x, kernel, **_settings({"strides": strides, "padding": padding, **given}))


def conv3d(x: Any, kernel: Any, strides: Any = (1, 1, 1), padding: str = "valid", **given: Any) -> Any:  # noqa: D103
    return ops.conv(x, kernel, **_settings({"strides": strides, "padding": padding, **given}))


def depthwise_conv2d(  # noqa: D103
    x: Any, depthwise_kernel: Any, strides: Any = (1, 1), padding: str = "valid", **given: Any
) -> Any:
    return ops.depthwise_conv(x, depthwise_kernel, **_settings({"strides": strides, "padding": padding, **given}))


def separable_conv2d(  # noqa: D103
    x: Any, depthwise_kernel: Any, pointwise_kernel: Any, strides: Any = (1, 1), padding: str = "valid", **given: Any
) -> Any:
    settings = _settings({"strides": strides, "padding": padding, **given})
    return ops.separable_conv(x, depthwise_kernel, pointwise_kernel, **settings)


def conv2d_transpose(  # noqa: D103
    x: Any, kernel: Any, output_shape: Any, strides: Any = (1, 1), padding: str = "valid", **given: Any
) -> Any:
    return ops.conv_transpose(x, kernel, **_settings({"strides": strides, "padding": padding, **given}))


def pool2d(  # noqa: D103
    x: Any, pool_size: Any, strides: Any = (1, 1), padding: str = "valid", data_format: Any = None,
    pool_mode: str = "max", **given: Any
) -> Any:  # fmt: skip
    pool = ops.max_pool if pool_mode == "max" else ops.average_pool
    return pool(
        x, pool_size, **_settings({"strides": strides, "padding": padding, "data_format": data_format, **given})
    )


def pool3d(  # noqa: D103
    x: Any, pool_size: Any, strides: Any = (1, 1, 1), padding: str = "valid", data_format: Any = None,
    pool_mode: str = "max", **given: Any
) -> Any:  # fmt: skip
    return pool2d(x, pool_size, strides, padding, data_format, pool_mode, **given)


def bias_add(x: Any, bias: Any, data_format: str | None = None) -> Any:  # noqa: D103
    first = (data_format or keras.config.image_data_format()) == "channels_first" and len(x.shape) > 2
    if first and len(bias.shape) == 1:
        bias = ops.reshape(bias, (1, -1, *[1] * (len(x.shape) - 2)))
    return ops.add(x, bias)


def spatial_2d_padding(  # noqa: D103
    x: Any, padding: Any = ((1, 1), (1, 1)), data_format: str | None = None
) -> Any:
    first = (data_format or keras.config.image_data_format()) == "channels_first"
    sides = [tuple(side) if isinstance(side, (list, tuple)) else (side, side) for side in padding]
    return ops.pad(x, [(0, 0), (0, 0), *sides] if first else [(0, 0), *sides, (0, 0)])


def temporal_padding(x: Any, padding: Any = (1, 1)) -> Any:  # noqa: D103
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    return ops.pad(x, [(0, 0), sides, (0, 0)])


def resize_images(  # noqa: D103
    x: Any, height_factor: int, width_factor: int, data_format: str, interpolation: str = "nearest"
) -> Any:
    data_format = _FORMATS.get(data_format) or data_format
    return keras.layers.UpSampling2D((height_factor, width_factor), data_format, interpolation)(x)


def batch_normalization(  # noqa: D103
    x: Any, mean: Any, var: Any, beta: Any, gamma: Any, axis: int = -1, epsilon: float = 1e-3
) -> Any:
    mean, var, beta, gamma = (None if one is None else ops.reshape(one, (-1,)) for one in (mean, var, beta, gamma))
    return ops.batch_normalization(x, mean, var, axis, offset=beta, scale=gamma, epsilon=epsilon)


def normalize_batch_in_training(  # noqa: D103
    x: Any, gamma: Any, beta: Any, reduction_axes: Any, epsilon: float = 1e-3
) -> tuple[Any, Any, Any]:
    mean, var = ops.moments(x, axes=tuple(reduction_axes), keepdims=True)
    scale = 1.0 if gamma is None else ops.reshape(gamma, mean.shape)
    offset = 0.0 if beta is None else ops.reshape(beta, mean.shape)
    normed = (x - mean) / ops.sqrt(var + epsilon) * scale + offset
    return normed, ops.squeeze(mean, reduction_axes), ops.squeeze(var, reduction_axes)


def _targets_first(target: Any, output: Any) -> tuple[Any, Any]:
    """Keras 1 took the model's output first."""
    return (output, target) if program.keras == 1 and calls_itself(2) else (target, output)


def categorical_crossentropy(target: Any, output: Any, from_logits: bool = False, axis: int = -1) -> Any:  # noqa: D103
    target, output = _targets_first(target, output)
    return ops.categorical_crossentropy(target, output, from_logits=from_logits, axis=axis)


def sparse_categorical_crossentropy(  # noqa: D103
    target: Any, output: Any, from_logits: bool = False, axis: int = -1
) -> Any:
    target, output = _targets_first(target, output)
    return ops.sparse_categorical_crossentropy(ops.cast(target, "int32"), output, from_logits=from_logits, axis=axis)


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Any:  # noqa: D103
    target, output = _targets_first(target, output)
    return ops.binary_crossentropy(target, output, from_logits=from_logits)


def in_top_k(predictions: Any, targets: Any, k: int) -> Any:  # noqa: D103
    return ops.in_top_k(targets, predictions, k)


def batch_dot(x: Any, y: Any, axes: Any = None) -> Any:  # noqa: D103
    if axes is None:
        axes = (len(x.shape) - 1, len(y.shape) - 2 if len(y.shape) > 2 else 1)
    return keras.layers.Dot(axes=tuple(axes) if isinstance(axes, list) else axes)([x, y])


def ctc_batch_cost(y_true: Any, y_pred: Any, input_length: Any, label_length: Any) -> Any:
    """The CTC loss of each sample, `(samples, 1)`.

    Args:
        y_true: Labels, `(samples, longest)`.
        y_pred: What a softmax gave, `(samples, time, classes)`; the last class is the blank.
        input_length: Steps of each sample, `(samples, 1)`.
        label_length: Labels of each sample, `(samples, 1)`.
    """
    lengths = [ops.cast(ops.reshape(length, (-1,)), "int32") for length in (label_length, input_length)]
    scores = ops.log(y_pred + keras.config.epsilon())
    cost = ops.ctc_loss(ops.cast(y_true, "int32"), scores, *lengths, mask_index=y_pred.shape[-1] - 1)
    return ops.expand_dims(cost, 1)


def ctc_decode(
    y_pred: Any, input_length: Any, greedy: bool = True, beam_width: int = 100, top_paths: int = 1
) -> tuple[list[Any], Any]:
    """Labels that a CTC model read: a list of `(samples, longest)` with -1 behind the last, and their scores."""
    decoded, scores = ops.ctc_decode(
        ops.log(y_pred + keras.config.epsilon()),
        ops.cast(input_length, "int32"),
        strategy="greedy" if greedy else "beam_search",
        beam_width=beam_width,
        top_paths=top_paths,
        mask_index=y_pred.shape[-1] - 1,
    )
    return [decoded[path] for path in range(1 if greedy else top_paths)], scores
