"""Models and weights saved under the names that old programs give them, and read again.

Keras 2 wrote HDF5 under any name. Keras 3 looks at the name's end, and refuses most. So a file is written under a name
that Keras takes, beside the one that was asked for, and then renamed; what is read is told by its content.

Weights are written in Keras 2's own layout, which Keras 3 reads, also `by_name`; its writer is gone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.legacy.program import program
from fitstream.legacy.renames import read_renames

__all__ = ["install"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


def install() -> None:
    """Let models be saved and loaded under any name."""
    model = keras.Model
    model.save = _saving(model.save)
    model.save_weights = _saving_weights(model.save_weights)
    model.load_weights = _loading_weights(model.load_weights)
    for module in (keras.models, keras.saving):
        module.load_model = _loading(module.load_model)
        module.save_model = _saving_model


def _saving_model(model: Any, filepath: Any, *args: Any, **kwargs: Any) -> None:
    model.save(filepath, *args, **kwargs)


def _saving(save: Any) -> Any:
    @functools.wraps(save)
    def saving(self: Any, filepath: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("save_format", None)
        path = _path(filepath)
        if path is None or path.suffix in (".keras", ".h5", ".hdf5"):
            save(self, filepath, *args, **kwargs)
            return
        program.tell("model.save(name): an HDF5 file of that name; in Keras 3, name it .keras")
        with _beside(path, ".h5") as written:
            save(self, str(written), *args, **kwargs)

    return saving


def _saving_weights(save: Any) -> Any:
    @functools.wraps(save)
    def saving_weights(self: Any, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        path = _path(filepath)
        if path is None or path.name.endswith((".weights.h5", ".weights.json")):
            save(self, filepath, overwrite, **kwargs)
            return
        program.tell("model.save_weights(name): as Keras 2 wrote it; in Keras 3, name it .weights.h5")
        with _beside(path, ".h5") as written:
            _write_weights(self, written)

    return saving_weights


def _loading_weights(load: Any) -> Any:
    @functools.wraps(load)
    def loading_weights(self: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("by_name", True):
            del kwargs["by_name"]
        path = _path(filepath)
        if path is None or not _is_hdf5(path):
            return load(self, filepath, *args, **kwargs)
        kind = ".h5" if _is_layout_of_keras_2(path) else ".weights.h5"
        with _called(path, kind) as named:
            return load(self, str(named), *args, **kwargs)

    return loading_weights


def _loading(load: Any) -> Any:
    @functools.wraps(load)
    def loading(filepath: Any, custom_objects: Any = None, *args: Any, **kwargs: Any) -> Any:
        path = _path(filepath)
        if path is None or not _is_hdf5(path):
            return load(filepath, custom_objects, *args, **kwargs)
        with _called(path, ".h5") as named:
            known = {**_operations(), **_short_names(), **(custom_objects or {})}
            model = load(str(named), known, *args, **kwargs)
        _restore_optimizer(model, path)
        return model

    return loading


def _restore_optimizer(model: Any, path: Path) -> None:
    """Give a model an optimizer for its variables: Keras 3 builds that of an HDF5 file for none, and can't train it."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built or optimizer._trainable_variables:
        return
    import h5py

    optimizer = type(optimizer).from_config(optimizer.get_config())
    optimizer.build(model.trainable_variables)
    with h5py.File(path, "r") as file:
        group = file["optimizer_weights"]
        state = [group[name][()] for name in _read_names(group, "weight_names")]
    if [value.shape for value in state] == [tuple(variable.shape) for variable in optimizer.variables]:
        for variable, value in zip(optimizer.variables, state, strict=True):
            variable.assign(value)
    else:
        program.tell(f"load_model({path.name!r}): the optimizer begins anew, as its state is not that of Keras 3")
    model.optimizer = optimizer


def _operations() -> dict[str, Any]:
    """Operations that models hold beside layers, such as those of a mask, which Keras 3 can't find for an HDF5 file."""
    found: dict[str, Any] = {}
    waiting = [keras.Operation]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if not issubclass(kind, keras.Layer) and not hasattr(keras.layers, kind.__name__):
                found[kind.__name__] = kind
                waiting.append(kind)
    return found


def _short_names() -> dict[str, Any]:
    """Losses and metrics by the names that Keras 3 takes in `compile`, writes into HDF5 files, and can't read there."""
    names = read_renames().names["keras.losses"]
    return {old: getattr(keras.losses, new) for old, new in names.items() if hasattr(keras.losses, new)}


def _path(filepath: Any) -> Path | None:
    """A file's path; None for what is no path in this file system."""
    if isinstance(filepath, (str, os.PathLike)) and "://" not in str(filepath):
        return Path(filepath)
    return None


@contextlib.contextmanager
def _beside(path: Path, suffix: str) -> Iterator[Path]:
    """A new file beside one that gets its name once it is whole."""
    # No `mkstemp`, whose files are private: to ask which permissions others have is to change them, for all threads.
    written = path.parent / f".{path.name}.{os.urandom(8).hex()}{suffix}"
    written.touch(exist_ok=False)
    try:
        yield written
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


@contextlib.contextmanager
def _called(path: Path, suffix: str) -> Iterator[Path]:
    """The same file under a name with that end."""
    if path.name.endswith(suffix) and (suffix != ".h5" or not path.name.endswith(".weights.h5")):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / f"named{suffix}"
        named.symlink_to(path.resolve())
        yield named


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_HDF5)) == _HDF5
    except OSError:
        return False


def _is_layout_of_keras_2(path: Path) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return bool({"layer_names", "layer_names0"} & set(file.attrs)) or "model_weights" in file


def _write_weights(model: Any, path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        _write_names(file, "layer_names", [layer.name for layer in model.layers])
        file.attrs["backend"] = keras.backend.backend().encode()
        file.attrs["keras_version"] = keras.__version__.encode()
        for layer in model.layers:
            group = file.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            # Layers of a model within a model may have weights of the same path.
            names = [f"{number}/{weight.path}" for number, weight in enumerate(weights)]
            _write_names(group, "weight_names", names)
            for name, weight in zip(names, weights, strict=True):
                group.create_dataset(name, data=np.asarray(keras.ops.convert_to_numpy(weight)))
        weights_ids = {id(weight) for weight in model.weights}
        own = [one for one in model._trainable_variables + model._non_trainable_variables if id(one) in weights_ids]
        group = file.create_group("top_level_model_weights")
        _write_names(group, "weight_names", [weight.path for weight in own])
        for weight in own:
            group.create_dataset(weight.path, data=np.asarray(keras.ops.convert_to_numpy(weight)))


def _read_names(group: Any, attribute: str) -> list[str]:
    parts = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{attribute}{len(parts)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _write_names(group: Any, attribute: str, names: list[str]) -> None:
    """HDF5 keeps an attribute within 64 KiB: longer lists are written in parts, which Keras joins."""
    encoded = [name.encode() for name in names]
    parts = 1
    while any(np.asarray(part).nbytes > 64_000 for part in np.array_split(np.asarray(encoded or [b""]), parts)):
        parts += 1
    if parts == 1:
        group.attrs[attribute] = encoded
        return
    for number, part in enumerate(np.array_split(np.asarray(encoded), parts)):
        group.attrs[f"{attribute}{number}"] = part
