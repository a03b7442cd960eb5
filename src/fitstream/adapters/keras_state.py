"""What a training is made of, as JSON data and arrays, and back: variables, callbacks, random states.

Variables are saved in their order: those of the model (with its seed generators), of its optimizers, of its metrics.
Names must agree but for the numbers that Keras gives (`dense_1`), since these count all models of a process; shapes and
dtypes must agree in full.

Of a callback those attributes are saved that differ from what `on_train_begin` left: so its settings stay what the
program says now. Numbers, text, arrays, tensors, and lists, tuples and dicts of these can be saved. Functions, classes
and open files are no state. All else that was bound anew is named in a warning; an object that is changed in place
can't be seen.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, final

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.errors import StateError

__all__ = ["Callbacks", "Variables", "decode", "encode", "random_states", "restore_random_states", "versions"]

Arrays: TypeAlias = dict[str, np.ndarray]

_PLAIN = (type(None), bool, int, float, str)
#: What a callback keeps that isn't its state: code and files.
_NO_STATE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, np.ufunc, io.IOBase)
#: Of `keras.callbacks.Callback` itself.
_OF_KERAS = {"_model", "params"}

#: How deep in lists and dicts of attributes an optimizer is looked for.
_MOST_DEPTH = 4


class _Unsavable(Exception):
    """A value that can't be saved."""


# Values.


def encode(value: Any, arrays: Arrays) -> Any:
    """Make JSON data of a value, and put its arrays aside.

    Raises:
        _Unsavable: If it, or something in it, is of another kind.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list:
        return [encode(each, arrays) for each in value]
    if kind is tuple:
        return {"tuple": [encode(each, arrays) for each in value]}
    if kind is dict:
        return {"dict": [[encode(key, arrays), encode(each, arrays)] for key, each in value.items()]}
    for name, fits in (("scalar", isinstance(value, np.generic)), ("array", kind is np.ndarray)):
        if fits:
            return {name: _put_aside(np.asarray(value), arrays)}
    if keras.ops.is_tensor(value):
        return {"tensor": _put_aside(keras.ops.convert_to_numpy(value), arrays)}
    raise _Unsavable


def _put_aside(array: np.ndarray, arrays: Arrays) -> str:
    if array.dtype.hasobject or array.dtype.names:
        raise _Unsavable
    name = f"value-{len(arrays):05d}"
    arrays[name] = array
    return name


def decode(data: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `encode` was given."""
    if isinstance(data, list):
        return [decode(each, arrays) for each in data]
    if not isinstance(data, dict):
        return data
    ((kind, inner),) = data.items()
    if kind == "tuple":
        return tuple(decode(each, arrays) for each in inner)
    if kind == "dict":
        return {decode(key, arrays): decode(each, arrays) for key, each in inner}
    array = arrays[inner]
    if kind == "tensor":
        return keras.ops.convert_to_tensor(array)
    return array[()] if kind == "scalar" else array


# Variables.


def _optimizers(thing: Any, depth: int = 0) -> Iterator[Any]:
    """All optimizers in attributes, and in lists, tuples and dicts there."""
    if isinstance(thing, keras.optimizers.Optimizer):
        yield thing
    elif depth < _MOST_DEPTH and isinstance(thing, dict):
        for each in list(thing.values()):
            yield from _optimizers(each, depth + 1)
    elif depth < _MOST_DEPTH and isinstance(thing, (list, tuple)):
        for each in thing:
            yield from _optimizers(each, depth + 1)


@final
class Variables:
    """All that a model's training changes: variables, and on PyTorch also the buffers of its modules."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def _all(self) -> list[Any]:
        model = self._model
        optimizers = list(_optimizers([vars(one) for one in (model, *model.layers)]))
        if isinstance(model.optimizer, keras.optimizers.Optimizer) and all(
            each is not model.optimizer for each in optimizers
        ):
            optimizers.insert(0, model.optimizer)
        found = [*model.variables, *(one for each in optimizers for one in each.variables), *model.metrics_variables]
        return list({id(one): one for one in found}.values())

    def _buffers(self) -> list[tuple[str, Any]]:
        return list(self._model.named_buffers()) if keras.backend.backend() == "torch" else []

    def forms(self) -> list[list[Any]]:
        """Name, shape and dtype of each."""
        found = [[one.path, list(one.shape), str(one.dtype)] for one in self._all()]
        return found + [[name, list(one.shape), str(one.dtype)] for name, one in self._buffers()]

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Their values, one by one. On a CPU they may be the variables' own memory."""
        if hasattr(self._model, "jax_state_sync"):
            # While it trains, JAX's values are elsewhere.
            self._model.jax_state_sync()
        values = [*self._all(), *(one for _, one in self._buffers())]
        for number, one in enumerate(values):
            yield _name(number), np.asarray(keras.ops.convert_to_numpy(one))

    def restore(self, forms: Sequence[Sequence[Any]], arrays: Mapping[str, np.ndarray]) -> None:
        """Take values back.

        Raises:
            StateError: If these aren't the variables that were saved; with those that differ. Nothing is changed then.
        """
        here = self.forms()
        changes = _differences(forms, here)
        if changes:
            raise StateError(
                f"the checkpoint is of another model: {_listed(changes)} (checkpoint -> here). Make the model, its "
                "optimizer and its metrics as they were, or give another folder. (A model that builds its variables "
                "only while training must be built before, by calling it on a batch.)",
                changes=changes,
            )
        variables = self._all()
        for number, one in enumerate(variables):
            one.assign(arrays[_name(number)])
        for number, (_, buffer) in enumerate(self._buffers(), len(variables)):
            buffer.copy_(keras.ops.convert_to_tensor(arrays[_name(number)]))


def _name(number: int) -> str:
    return f"variable-{number:05d}"


def _differences(saved: Sequence[Sequence[Any]], here: Sequence[Sequence[Any]]) -> tuple[str, ...]:
    changes = []
    for number in range(max(len(saved), len(here))):
        old = saved[number] if number < len(saved) else None
        new = here[number] if number < len(here) else None
        if old is None or new is None or [_plain_name(old[0]), *old[1:]] != [_plain_name(new[0]), *new[1:]]:
            changes.append(f"variable {number}: {_told(old)} -> {_told(new)}")
    return tuple(changes)


def _plain_name(path: str) -> str:
    return re.sub(r"_[0-9]+(?=_|/|\.|$)", "", path)


def _told(form: Sequence[Any] | None) -> str:
    return "none" if form is None else f"{form[0]} {form[2]}{tuple(form[1])}"


def _listed(changes: Sequence[str]) -> str:
    more = f"; and {len(changes) - 5} more" if len(changes) > 5 else ""
    return "; ".join(changes[:5]) + more


# Callbacks.


@final
class Callbacks:
    """The state of users' callbacks.

    Args:
        callbacks: They have begun to train (`on_train_begin`), and nothing of a checkpoint was restored.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._named: dict[str, Any] = {}
        for each in callbacks:
            kind = f"{type(each).__module__}.{type(each).__qualname__}"
            same = sum(name.partition("#")[0] == kind for name in self._named)
            self._named[f"{kind}#{same + 1}"] = each
        self._first = {
            name: {attribute: _mark(value) for attribute, value in _attributes(each)}
            for name, each in self._named.items()
        }
        self._warned: set[tuple[str, str]] = set()

    def save(self, arrays: Arrays) -> dict[str, Any]:
        """What changed since they began."""
        states: dict[str, Any] = {}
        for name, each in self._named.items():
            states[name] = {}
            for attribute, value in _attributes(each):
                before, now = self._first[name].get(attribute), _mark(value)
                if before is not None and _same(before, now):
                    continue
                try:
                    states[name][attribute] = encode(value, arrays)
                except (_Unsavable, RecursionError):
                    self._warn(name, attribute, value)
        return states

    def restore(self, states: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Take changes back; of a callback that isn't there any more, with a warning."""
        for name, state in states.items():
            if name in self._named:
                vars(self._named[name]).update({key: decode(data, arrays) for key, data in state.items()})
            elif state:
                warnings.warn(
                    f"the checkpoint holds the state of a callback {name.partition('#')[0]}, which isn't given now.",
                    stacklevel=2,
                )

    def _warn(self, name: str, attribute: str, value: Any) -> None:
        if (name, attribute) in self._warned or type(value).__module__ in ("csv", "_csv"):
            return
        self._warned.add((name, attribute))
        kind = name.partition("#")[0].rpartition(".")[2]
        warnings.warn(
            f"{kind}.{attribute} is a {type(value).__name__}, which a checkpoint can't hold: after a resumption it is "
            "what on_train_begin makes it. Numbers, text, arrays, and lists, tuples and dicts of these are kept.",
            stacklevel=2,
        )


def _attributes(callback: Any) -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, value in vars(callback).items()
        if name not in _OF_KERAS and not isinstance(value, _NO_STATE)
    ]


def _mark(value: Any) -> Any:
    """What tells whether a value is still the same: a digest of all of it, or the object itself."""
    arrays: Arrays = {}
    try:
        data = encode(value, arrays)
    except (_Unsavable, RecursionError):
        return value
    whole = hashlib.blake2b(json.dumps(data).encode("utf-8", "surrogatepass"))
    for array in arrays.values():
        whole.update(f"{array.dtype}{array.shape}".encode())
        whole.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
    return whole.digest()


def _same(before: Any, now: Any) -> bool:
    return before is now or (isinstance(before, bytes) and isinstance(now, bytes) and before == now)


# Random states.


def random_states(arrays: Arrays) -> dict[str, Any]:
    """The states of the generators that all of a process shares: Python's, NumPy's, the backend's, Keras's."""
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {
        "python": (version, np.array(numbers, np.uint32), gauss),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  users' code may draw from it
    }
    if keras.backend.backend() == "torch":
        import torch

        states["torch"] = torch.get_rng_state().numpy()
        if torch.cuda.is_available():
            states["cuda"] = [each.numpy() for each in torch.cuda.get_rng_state_all()]
    generator = _global_seed_generator(make=False)
    if generator is not None:
        states["keras"] = np.asarray(keras.ops.convert_to_numpy(generator.state))
    return encode(states, arrays)  # type: ignore[no-any-return]


def restore_random_states(data: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Take them back."""
    states = decode(data, arrays)
    if "keras" in states:
        generator = _global_seed_generator(make=True)
        if generator is not None:
            generator.state.assign(states["keras"])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    np.random.set_state(states["numpy"])  # noqa: NPY002
    if "torch" in states:
        import torch

        torch.set_rng_state(torch.from_numpy(states["torch"]))
        if torch.cuda.is_available() and len(states.get("cuda", ())) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([torch.from_numpy(each) for each in states["cuda"]])


def _global_seed_generator(*, make: bool) -> Any:
    """What Keras draws from where a layer has no seed generator of its own; None if it never did.

    Keras has no public name for it.
    """
    try:
        source = keras.src.random.seed_generator
        kept = keras.src.backend.common.global_state.get_global_attribute(source.GLOBAL_SEED_GENERATOR)
        return source.global_seed_generator() if kept is None and make else kept
    except AttributeError:
        return None


def versions() -> dict[str, str]:
    """What results may depend on."""
    backend = keras.backend.backend()
    return {
        "backend": backend,
        backend: str(getattr(sys.modules.get(backend), "__version__", "?")),
        "keras": str(keras.__version__),
        "numpy": np.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
