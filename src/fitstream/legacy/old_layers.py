"""What every layer of Keras 1 and 2 understood, and the few whose translation is more than other names."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from fitstream.adapters.keras import keras
from fitstream.legacy.program import OldName, program

__all__ = ["Merge", "ThresholdedReLU", "install", "merge"]

_MERGES = {"sum": "add", "mul": "multiply", "ave": "average", "max": "maximum", "concat": "concatenate", "dot": "dot"}


def install() -> None:
    """Let layers take `weights=`, `batch_input_shape=` and `batch_size=`, and tell `input_shape` and `output_shape`."""
    layer = keras.layers.Layer
    make, add_weight = layer.__init__, layer.add_weight

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        weights = kwargs.pop("weights", None)
        batch_shape = kwargs.pop("batch_input_shape", None)
        size = kwargs.pop("batch_size", None)
        if size is not None and "input_shape" in kwargs:
            batch_shape = (size, *kwargs.pop("input_shape"))
        make(self, *args, **kwargs)
        if batch_shape is not None:
            self._old_batch_shape = tuple(batch_shape)
        if weights is not None:
            _set_once_built(self, weights)

    @functools.wraps(add_weight)
    def adding(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], str):  # Keras 2: add_weight(name, shape, ...)
            name, *args = args  # type: ignore[assignment]
            kwargs["name"] = name
        _check_initializer(kwargs.get("initializer"))
        return add_weight(self, *args, **kwargs)

    __init__.__signature__ = inspect.signature(make)  # type: ignore[attr-defined]
    layer.__init__ = __init__
    layer.add_weight = adding
    for name in ("input_shape", "output_shape"):
        if not hasattr(layer, name):
            setattr(layer, name, property(functools.partial(_shape, tensor=name.partition("_")[0])))
    layer.get_input_at, layer.get_output_at = _input_at, _output_at
    layer.trainable_weights = property(layer.trainable_weights.fget, _set_weights)
    # In Keras 3 the input of an input layer is an empty list.
    keras.layers.InputLayer.input = property(lambda self: self.output)
    _add_batch_shapes()


def _input_at(layer: Any, node_index: int) -> Any:
    """What a shared layer was called with, by the number of the call."""
    found = layer._inbound_nodes[node_index].input_tensors
    return found[0] if len(found) == 1 else found


def _output_at(layer: Any, node_index: int) -> Any:
    found = layer._inbound_nodes[node_index].output_tensors
    return found[0] if len(found) == 1 else found


def _add_batch_shapes() -> None:
    add = keras.Sequential.add

    @functools.wraps(add)
    def adding(self: Any, layer: Any, *args: Any, **kwargs: Any) -> None:
        shape = vars(layer).get("_old_batch_shape") if hasattr(layer, "__dict__") else None
        if shape is not None and not self._layers:
            program.tell("batch_input_shape= -> keras.Input(batch_shape=) as the first layer")
            add(self, keras.layers.InputLayer(batch_shape=shape))
        add(self, layer, *args, **kwargs)

    keras.Sequential.add = adding


def _check_initializer(initializer: Any) -> None:
    """Keras 1 called functions with a name, and they made the variable."""
    if inspect.isfunction(initializer):
        takes = inspect.signature(initializer).parameters
        if "name" in takes and "dtype" not in takes:
            raise OldName(
                f"initializer {initializer.__name__}(shape, name)",
                "Write it as a function (shape, dtype=None) that returns the values, or use one of keras.initializers.",
                "can't be translated",
            )


def _set_weights(layer: Any, weights: Any) -> None:
    """Keras 1's way to name a layer's weights: variables, where Keras 3 can train them."""
    if not all(isinstance(weight, keras.Variable) for weight in weights):
        raise OldName(
            f"{type(layer).__name__}.trainable_weights = [...]",
            "In build, make each weight by self.add_weight(name=, shape=, initializer=), and delete this line.",
            "holds tensors, which can't be trained",
        )
    for weight in weights:
        layer._track_variable(weight)


def _set_once_built(layer: Any, weights: Any) -> None:
    build = layer.build

    @functools.wraps(build)
    def building(*args: Any, **kwargs: Any) -> None:
        build(*args, **kwargs)
        program.tell("layer weights= -> layer.set_weights(...) once it is built")
        layer.set_weights(weights)

    layer.build = building


def _shape(layer: Any, tensor: str) -> Any:
    value = getattr(layer, tensor)
    if isinstance(value, (list, tuple)):
        return [one.shape for one in value]
    return value.shape


def merge(inputs: Any, mode: Any = "sum", concat_axis: int = -1, dot_axes: Any = -1, **kwargs: Any) -> Any:
    """Keras 1's function: several tensors made one.

    Raises:
        OldName: If the mode is none of Keras 1's.
    """
    if callable(mode):
        program.tell("merge(mode=function) -> keras.layers.Lambda(function)")
        return keras.layers.Lambda(mode, output_shape=kwargs.get("output_shape"), name=kwargs.get("name"))(inputs)
    if mode == "cos":
        return keras.layers.dot(inputs, axes=dot_axes, normalize=True)
    if mode not in _MERGES:
        raise OldName(f"merge(mode={mode!r})", "Use a function of keras.layers: add, multiply, concatenate, dot.")
    program.tell(f"merge(mode={mode!r}) -> keras.layers.{_MERGES[mode]}")
    own = {"concat": {"axis": concat_axis}, "dot": {"axes": dot_axes}}.get(mode, {})
    name = {"name": kwargs["name"]} if kwargs.get("name") else {}
    return getattr(keras.layers, _MERGES[mode])(inputs, **own, **name)


def Merge(layers: Any = None, mode: Any = "sum", *args: Any, **kwargs: Any) -> Any:  # noqa: N802  Keras 1's name
    """Keras 1's layer that joined Sequential models: there is no such layer.

    Raises:
        OldName: Always, with what to write instead.
    """
    function = _MERGES.get(mode, "concatenate") if isinstance(mode, str) else "concatenate"
    raise OldName(
        f"keras.layers.Merge(mode={mode!r})",
        f"Use the functional API: x = keras.layers.{function}([left.output, right.output]), further layers on x, and "
        "model = keras.Model([left.input, right.input], x).",
    )


def ThresholdedReLU(theta: float = 1.0, **kwargs: Any) -> Any:  # noqa: N802  Keras 1's and 2's name
    """The layer `x if x > theta else 0`."""
    program.tell("ThresholdedReLU -> keras.layers.Lambda")
    return keras.layers.Lambda(lambda x: x * keras.ops.cast(x > theta, x.dtype), **kwargs)
