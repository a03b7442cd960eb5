"""Models for the command line: one of ours, those of `keras.applications`, and the user's own.

All take pictures as they come from fitstream, uint8 from 0 to 255, and scale them in a layer of their own, so that the
saved model can be used on pictures without anything else. They start from random weights.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras

from fitstream.errors import PlanError
from fitstream.sources.labels import LabelMode

__all__ = ["Head", "build_model", "small_cnn"]

Shape: TypeAlias = tuple[int, int, int]

_LEARNING_RATE = 1e-3
#: (activation, loss, metric) by kind of label.
_HEADS = {
    "int": ("softmax", "sparse_categorical_crossentropy", "accuracy"),
    "categorical": ("softmax", "categorical_crossentropy", "accuracy"),
    "binary": ("sigmoid", "binary_crossentropy", "accuracy"),
    "raw": ("linear", "mean_squared_error", "mean_absolute_error"),
}


@dataclass(frozen=True, slots=True)
class Head:
    """What a model's outputs are to be.

    Attributes:
        kind: "int": class numbers `(batch,)`; "categorical": one-hot `(batch, width)`; "binary": 0 or 1 `(batch, 1)`;
            "raw": numbers to be met `(batch, width)`.
        width: Outputs of the model: classes, 1, or numbers.
    """

    kind: LabelMode
    width: int

    @property
    def activation(self) -> str:
        """Name of the last layer's activation."""
        return _HEADS[self.kind][0]


def build_model(name: str, input_shape: Shape, head: Head) -> keras.Model:
    """Build and compile a model.

    Args:
        name: "small-cnn", a name in `keras.applications` in any case, or "file.py:function". The function is called
            with the input shape and the number of outputs; a model that it has compiled is taken as it is.
        input_shape: `(height, width, channels)`.
        head: What its outputs are to be.
    Returns:
        A compiled model from `(batch, height, width, channels)`, 0 to 255, to `(batch, width)`.
    Raises:
        PlanError: If there is no such model, or it can't be built for pictures of this size.
    """
    if ":" in name:
        model = _from_file(name, input_shape, head)
    elif name == "small-cnn":
        model = small_cnn(input_shape, head)
    else:
        model = _from_applications(name, input_shape, head)
    if not getattr(model, "compiled", False):
        _, loss, metric = _HEADS[head.kind]
        model.compile(optimizer=keras.optimizers.Adam(_LEARNING_RATE), loss=loss, metrics=[metric])
    return model


def small_cnn(input_shape: Shape, head: Head) -> keras.Model:
    """Make a small convolutional network that trains well on a CPU, on pictures from 8 to a few hundred pixels.

    Blocks of convolution, batch normalisation and pooling halve the picture until no side is longer than 4, with 32,
    64, then 128 channels. A picture longer than 64 is halved at once by the first convolution's stride: three times as
    fast at 128x128, and no worse. Batch statistics adapt within tens of steps (momentum 0.9), since small data has few.

    Args:
        input_shape: `(height, width, channels)`.
        head: What its outputs are to be.
    """
    sides = list(input_shape[:2])
    layers = [keras.layers.Input(input_shape), keras.layers.Rescaling(1 / 255)]
    channels = 32
    if min(sides) > 64:
        layers += _convolution(channels, strides=2)
        sides = [-(-side // 2) for side in sides]
    while max(sides) > 4:
        pool = [2 if side > 4 else 1 for side in sides]
        layers += [*_convolution(channels), keras.layers.MaxPooling2D(pool, padding="same")]
        sides = [-(-side // by) for side, by in zip(sides, pool, strict=True)]
        channels = min(2 * channels, 128)
    layers += _convolution(channels)
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(head.width, activation=head.activation),
    ]
    return keras.Sequential(layers, name="small-cnn")


def _convolution(channels: int, strides: int = 1) -> list[keras.layers.Layer]:
    return [
        keras.layers.Conv2D(channels, 3, strides=strides, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Activation("relu"),
    ]


def _from_applications(name: str, input_shape: Shape, head: Head) -> keras.Model:
    models = {key.lower(): value for key, value in vars(keras.applications).items() if inspect.isfunction(value)}
    make = models.get(name.lower())
    if make is None:
        near = difflib.get_close_matches(name.lower(), ["small-cnn", *models], n=3)
        advice = f"Did you mean {' or '.join(near)}?" if near else f"There are small-cnn, {', '.join(sorted(models))}."
        raise PlanError(f"--model {name!r} is no model that is known here. {advice} Your own: file.py:function.")
    try:
        inner = make(
            weights=None,
            include_top=True,
            input_shape=input_shape,
            classes=head.width,
            classifier_activation=head.activation,
        )
    except ValueError as error:
        height, width, channels = input_shape
        raise PlanError(f"{name} can't take pictures of {height}x{width} with {channels} channels: {error}") from error
    if any(isinstance(layer, (keras.layers.Rescaling, keras.layers.Normalization)) for layer in inner.layers):
        # EfficientNet, ConvNeXt and others scale their input themselves, and twice would be too much.
        return inner
    return keras.Sequential([keras.layers.Input(input_shape), keras.layers.Rescaling(1 / 255), inner], name=inner.name)


def _from_file(name: str, input_shape: Shape, head: Head) -> keras.Model:
    file, _, function = name.rpartition(":")
    make = _load(Path(file), function, name)
    model = make(input_shape, head.width)
    if not isinstance(model, keras.Model):
        raise PlanError(f"--model {name}: {function}() gave a {type(model).__name__}, not a keras.Model.")
    if not model.built:
        _build(model, input_shape, f"--model {name}: the model that {function}() gave")
    return model


def _build(model: keras.Model, input_shape: Shape, what: str) -> None:
    try:
        model.build((None, *input_shape))
        model.count_params()
    except Exception as error:
        height, width, channels = input_shape
        raise PlanError(
            f"{what} can't be built for pictures of {height}x{width} with {channels} channels. "
            f"Build it in that function. Keras says: {error}"
        ) from error


def _load(file: Path, function: str, name: str) -> Callable[[Shape, int], Any]:
    if file.suffix != ".py" or not function:
        raise PlanError(f"--model {name!r} must be a name, or file.py:function.")
    if not file.is_file():
        raise PlanError(f"--model {name}: there is no file {file}.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its name while it runs: dataclasses and Keras's registry of custom layers look a class's module up.
    sys.modules.setdefault(file.stem, module)
    spec.loader.exec_module(module)
    make: Callable[[Shape, int], Any] | None = getattr(module, function, None)
    if not callable(make):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise PlanError(f"--model {name}: {file} has no function {function}. It has {', '.join(known) or 'none'}.")
    return make
