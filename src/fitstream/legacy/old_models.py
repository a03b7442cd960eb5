"""What models of Keras 1 and 2 did that those of Keras 3 don't: methods, rows of HDF5 files, names of losses."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.legacy.program import OldName, program
from fitstream.legacy.renames import read_renames
from fitstream.legacy.sequence import Sequence
from fitstream.legacy.translating import definer

__all__ = ["install"]


def install() -> None:
    """Give them to all models."""
    model = keras.Model
    for name in ("fit", "evaluate", "predict"):
        setattr(model, name, _slicing(getattr(model, name)))
    definer(model, "compile").compile = _compiling(model.compile)
    keras.Sequential.predict_classes = _predict_classes
    keras.Sequential.predict_proba = _predict_proba
    model.reset_states = _reset_states
    model.to_yaml = _to_yaml
    keras.layers.RNN.reset_states = keras.layers.RNN.reset_state
    model.input_names = property(lambda self: [tensor.name for tensor in self.inputs])
    model.metrics_names = property(_metrics_names)
    # `Model(...)` with an input and an output becomes one of these, whose arguments are to be translated as well.
    for cls in model.__subclasses__():
        if cls.__name__ == "Functional":
            cls.__init__ = _both_ways(cls.__init__)
    for side in ("input", "output"):
        setattr(keras.Sequential, side, property(functools.partial(_end, side=side)))
    new = model.__new__
    model.__new__ = staticmethod(_both_ways(new))


def _both_ways(original: Any) -> Any:
    """A function that takes `input` and `output` as Keras 1 called them."""

    @functools.wraps(original)
    def making(*args: Any, **kwargs: Any) -> Any:
        names = {"input": "inputs", "output": "outputs"}
        kwargs = {names.get(name, name): value for name, value in kwargs.items()}
        ends = {name: _single(kwargs[name]) for name in names.values() if name in kwargs}
        return original(*map(_single, args), **{**kwargs, **ends})

    making.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    return making


def _single(tensors: Any) -> Any:
    """A list of one tensor is that tensor: so `model.output` was, and what `predict` gave."""
    alone = isinstance(tensors, (list, tuple)) and len(tensors) == 1 and isinstance(tensors[0], keras.KerasTensor)
    return tensors[0] if alone else tensors


def _end(model: Any, side: str) -> Any:
    """`input` and `output` of a Sequential model before its first call."""
    found = getattr(model, f"{side}s")
    return found[0] if len(found) == 1 else found


def _slicing(original: Any) -> Any:
    """`fit`, `evaluate` or `predict`, for rows of HDF5 files: read a batch at a time."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def slicing(self: Any, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs.get("x")
        if not _is_on_disk(x):
            return original(self, *args, **kwargs)
        given = signature.bind_partial(
            self, *args, **{one: kwargs[one] for one in kwargs if one in signature.parameters}
        )
        told = {**given.arguments, **kwargs}
        told.pop("self", None)
        parts = [told.pop(name, None) for name in ("x", "y", "sample_weight")]
        told["x"] = _Slices(parts, told.pop("batch_size", None) or 32)
        if "shuffle" in told:
            told["shuffle"] = bool(told["shuffle"])
        return original(self, **told)

    return slicing


def _is_on_disk(x: Any) -> bool:
    kind = type(x)
    return kind.__name__ == "HDF5Matrix" or (kind.__name__ == "Dataset" and kind.__module__.startswith("h5py."))


@final
class _Slices(Sequence):
    """Rows of arrays that stay on disk, as batches. Shuffling permutes batches, as `shuffle="batch"` did."""

    def __init__(self, parts: Any, batch_size: int) -> None:
        self._parts = [part for part in parts if part is not None]
        self._size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._parts[0]) / self._size)

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * self._size, (index + 1) * self._size)
        parts = tuple(np.asarray(part[rows]) for part in self._parts)
        return parts if len(parts) > 1 else parts[0]


def _compiling(original: Any) -> Any:
    """`compile`, with names of losses and metrics that are called otherwise now, and an optimizer for each model."""

    @functools.wraps(original)
    def compiling(self: Any, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(original).bind(self, optimizer, *args, **kwargs)
        for argument, names in read_renames().strings.items():
            if argument in given.arguments:
                given.arguments[argument] = _named(given.arguments[argument], names)
        _spread(self, given.arguments)
        owner = getattr(optimizer, "_old_owner", None)
        if owner is not None and owner != id(self):
            # Keras 3 ties an optimizer to the variables of one model; programs share it, above all those for GANs.
            program.tell("one optimizer for two models -> an optimizer with the same settings for each")
            given.arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
        elif hasattr(optimizer, "get_config"):
            optimizer._old_owner = id(self)
        original(*given.args, **given.kwargs)

    return compiling


def _named(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str) and value in names:
        program.tell(f"{value!r} -> {names[value]!r}")
        return names[value]
    if isinstance(value, (list, tuple)):
        return [_named(one, names) for one in value]
    if isinstance(value, dict):
        return {key: _named(one, names) for key, one in value.items()}
    return value


def _spread(model: Any, arguments: dict[str, Any]) -> None:
    """What meant each of several outputs: one loss, and a flat list of metrics."""
    try:
        count = len(model.outputs)
    except (AttributeError, TypeError):
        return  # a model that doesn't know its outputs yet
    if all(one is None for one in keras.tree.flatten(arguments.get("loss"))):
        arguments["loss"] = None  # all that the model learns from was added to it
    if count < 2:
        return
    for name in ("metrics", "weighted_metrics"):
        metrics = arguments.get(name)
        flat = isinstance(metrics, (list, tuple)) and not any(isinstance(one, (list, tuple, dict)) for one in metrics)
        if metrics and flat and None not in metrics:
            arguments[name] = [[_copy(one) for one in metrics] for _ in range(count)]
    loss = arguments.get("loss")
    if loss is not None and not isinstance(loss, (list, tuple, dict)):
        arguments["loss"] = [loss] * count


def _copy(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if hasattr(metric, "get_config") else metric


def _metrics_names(self: Any) -> list[str]:
    """Names of what `evaluate` returns, in its order; Keras 3 names all compiled metrics as one."""
    parts = [part for part in (self._compile_metrics, self._compile_loss) if part is not None]
    if not all(part.built for part in parts):
        return ["loss", *_names_before(self)]
    found = self._flatten_metrics_in_order({name: name for name in self.get_metrics_result()})
    return [found] if isinstance(found, str) else found


def _names_before(model: Any) -> list[str]:
    """Names of losses and metrics before the first batch, when Keras 3 makes them."""
    outputs = list(getattr(model, "output_names", None) or [])
    losses = getattr(model._compile_loss, "_user_loss", None)
    asked = getattr(model._compile_metrics, "_user_metrics", None) or []
    if len(outputs) < 2:
        return [_name(one) for one in keras.tree.flatten(asked) if one is not None]
    own = [f"{output}_loss" for output, loss in zip(outputs, _by_output(losses, outputs), strict=True) if loss]
    named = [
        f"{output}_{_name(one)}"
        for output, metrics in zip(outputs, _by_output(asked, outputs), strict=True)
        for one in keras.tree.flatten(metrics)
        if one is not None
    ]
    return (own if len(own) > 1 else []) + sorted(named)


def _by_output(given: Any, outputs: list[str]) -> list[Any]:
    """What was compiled for each output."""
    if isinstance(given, Mapping):
        return [given.get(output) for output in outputs]
    if isinstance(given, (list, tuple)) and len(given) == len(outputs):
        return list(given)
    return [given or None] * len(outputs)


def _name(metric: Any) -> Any:
    return getattr(metric, "name", None) or getattr(metric, "__name__", metric)


def _to_yaml(self: Any, **kwargs: Any) -> str:
    raise OldName("model.to_yaml()", "Use model.to_json() and keras.models.model_from_json().")


def _reset_states(self: Any) -> None:
    for layer in self._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            layer.reset_state()


def _predict_classes(self: Any, x: Any, batch_size: int | None = None, verbose: int = 0, steps: Any = None) -> Any:
    program.tell("predict_classes -> predict, then argmax or > 0.5")
    scores = np.asarray(self.predict(x, batch_size=batch_size, verbose=verbose, steps=steps))
    return scores.argmax(axis=-1) if scores.shape[-1] > 1 else (scores > 0.5).astype("int32")


def _predict_proba(self: Any, x: Any, batch_size: int | None = None, verbose: int = 0, steps: Any = None) -> Any:
    program.tell("predict_proba -> predict")
    return self.predict(x, batch_size=batch_size, verbose=verbose, steps=steps)
