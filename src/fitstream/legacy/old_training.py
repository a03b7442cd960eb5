"""How models of Keras 1 and 2 trained: on the weights that were trainable at `compile`, and on losses of tensors.

`compile` counted: programs for GANs set `discriminator.trainable = False` after it, for the combined model alone, and
went on to train the discriminator. Keras 3 looks at the flags when it trains. So a model trains under the flags that it
was compiled with, and gets its present ones back.

`model.add_loss(tensor)` is gone from functional models. The tensor is computed by a model of its own, over the same
layers, from the same inputs.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.legacy.program import OldName, program
from fitstream.legacy.translating import definer

__all__ = ["install"]

_TRAINING = ("fit", "train_on_batch")
_WITH_TARGETS = ("fit", "evaluate", "train_on_batch", "test_on_batch")
_ON_BATCH = ("train_on_batch", "test_on_batch")
#: By model: what was trainable when it was compiled, by the identities of its layers and variables.
_compiled: weakref.WeakKeyDictionary[Any, dict[int, bool]] = weakref.WeakKeyDictionary()
#: By model: models of the losses that were added to it.
_losses: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


def install() -> None:
    """Let all models train so."""
    model = keras.Model
    for name in _WITH_TARGETS:
        setattr(model, name, _taking_lists(getattr(model, name), _array if name not in _ON_BATCH else _floats))
    for name in _TRAINING:
        setattr(model, name, _as_compiled(getattr(model, name)))
    definer(model, "compile").compile = _remembering(model.compile)
    definer(model, "compute_loss").compute_loss = _with_added_losses(model.compute_loss)
    for cls in model.__subclasses__():
        if cls.__name__ == "Functional":
            cls.add_loss = _add_loss


def _taking_lists(original: Any, read: Any) -> Any:
    """Targets as they were read: those of one output may be a list of numbers, where Keras 3 sees as many outputs."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def taking(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) > 1:
            args = (args[0], read(args[1]), *args[2:])
        elif "y" in kwargs:
            kwargs["y"] = read(kwargs["y"])
        return original(self, *args, **kwargs)

    taking.__signature__ = signature  # type: ignore[attr-defined]
    return taking


def _array(y: Any) -> Any:
    return np.asarray(y) if isinstance(y, list) and y and isinstance(y[0], (int, float, np.number)) else y


def _floats(y: Any) -> Any:
    """Targets in Keras's own precision, which Keras 3 gives to those of `fit` alone."""

    def cast(part: Any) -> Any:
        is_floating = isinstance(part, np.ndarray) and part.dtype.kind == "f"
        return part.astype(keras.config.floatx()) if is_floating else part

    return keras.tree.map_structure(cast, _array(y))


def _remembering(original: Any) -> Any:
    @functools.wraps(original)
    def compiling(self: Any, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(original).bind(self, *args, **kwargs)
        if inspect.isfunction(given.arguments.get("loss")) and _reads_tensors(given.arguments["loss"]):
            _add_loss_of_targets(self, given.arguments.pop("loss"))
        original(*given.args, **given.kwargs)
        _compiled[self] = {id(part): flag for part, flag in _flags(self)}

    return compiling


def _flags(model: Any) -> Iterator[tuple[Any, bool]]:
    for layer in model._flatten_layers():
        yield layer, layer.trainable
    for variable in model.weights:
        yield variable, variable.trainable


def _as_compiled(original: Any) -> Any:
    @functools.wraps(original)
    def training(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _flags_as_compiled(self):
            return original(self, *args, **kwargs)

    return training


@contextlib.contextmanager
def _flags_as_compiled(model: Any) -> Iterator[None]:
    compiled = _compiled.get(model, {})
    changed = [(part, flag) for part, flag in _flags(model) if compiled.get(id(part), flag) != flag]
    if changed:
        program.tell("trainable was changed after compile: the model trains what it did then, as in Keras 1 and 2")
    for part, flag in changed:
        _set_flag(part, not flag)
    try:
        yield
    finally:
        for part, flag in changed:
            _set_flag(part, flag)


def _set_flag(part: Any, flag: bool) -> None:
    """Of a layer alone: its own setter would pass it on to all that is in the layer."""
    if isinstance(part, keras.Variable):
        part.trainable = flag
    else:
        part._trainable = flag


def _add_loss(self: Any, loss: Any, inputs: Any = None) -> None:
    if not isinstance(loss, keras.KerasTensor):
        raise OldName("model.add_loss(...)", "Give it a tensor made of the model's inputs.", "can't be translated")
    program.tell("model.add_loss(tensor) is computed from the model's inputs in each step")
    _losses.setdefault(self, []).append(keras.Model(self.inputs, loss))


def _reads_tensors(loss: Any) -> bool:
    """Whether a loss reads tensors of a model by their names, as those for variational autoencoders did."""
    read = inspect.getclosurevars(loss)
    return any(isinstance(value, keras.KerasTensor) for value in [*read.globals.values(), *read.nonlocals.values()])


def _add_loss_of_targets(model: Any, loss: Any) -> None:
    """Such a loss, computed from the model's inputs and the targets."""
    if len(getattr(model, "outputs", ())) != 1:
        raise OldName(
            f"{loss.__name__}(y_true, y_pred), which reads other tensors of the model,",
            "Use a keras.Layer that calls self.add_loss, or model.add_loss(tensor).",
            "can be translated for functional models with one output alone",
        )
    program.tell(f"loss={loss.__name__}, which reads tensors of the model, is computed from its inputs in each step")
    targets = keras.Input(batch_shape=model.outputs[0].shape)
    _losses[model] = [keras.Model([*model.inputs, targets], loss(targets, model.outputs[0]))]


def _with_added_losses(original: Any) -> Any:
    @functools.wraps(original)
    def compute_loss(
        self: Any, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        added = _losses.get(self)
        if not added:
            return original(self, x, y, y_pred, sample_weight, training)
        given = keras.tree.flatten(x)
        total = sum(
            keras.ops.mean(one(given if len(one.inputs) == len(given) else [*given, y], training=training))
            for one in added
        )
        if self._compile_loss is None and not self.losses:
            return total
        return total + original(self, x, y, y_pred, sample_weight, training)

    compute_loss.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    return compute_loss
