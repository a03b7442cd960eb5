"""Names of Keras 1 and 2 in modules that Keras 3 still has: `keras.layers.Convolution2D`, `keras.utils.Sequence`.

What Keras 3 has no equal for can still be imported, since old programs import more than they use. Using it is an
error.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.legacy.program import OldAttribute, OldName, calls_itself, program
from fitstream.legacy.renames import read_renames

__all__ = [
    "WAY",
    "Gone",
    "HDF5Matrix",
    "find",
    "install_names",
    "multi_gpu_model",
    "names_of",
    "print_summary",
    "to_categorical",
    "way_of",
]

#: What can be said of any old name.
WAY = "Write it with what keras.io/api lists."


@final
class Gone:
    """Stands for a name that Keras 3 has no equal for; used in any way, it raises `OldName`."""

    def __init__(self, old: str, way: str) -> None:
        self._old, self._way = old, way

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise OldName(self._old, self._way)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise OldName(f"{self._old}.{name}", self._way)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise OldName(self._old, self._way)

    def __instancecheck__(self, instance: Any) -> bool:
        return False


def find(module_name: str, name: str) -> Any:
    """What an old name in a module is now.

    Raises:
        AttributeError: If it is neither there nor in the table.
    """
    renames = read_renames()
    new = renames.names.get(module_name, {}).get(name)
    if new is not None:
        place, colon, attribute = new.rpartition(":")
        return getattr(importlib.import_module(place if colon else module_name), attribute)
    way = renames.gone.get(module_name, {}).get(name)
    if way is not None:
        return Gone(f"{module_name}.{name}", way)
    module = importlib.import_module(module_name)
    if name in vars(module):
        return vars(module)[name]
    if module_name == "keras.backend":
        return getattr(importlib.import_module("fitstream.legacy.old_backend"), name)
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"{module_name}.{name}")
    raise AttributeError(f"module {module_name!r} has no attribute {name!r}")


def names_of(module_name: str) -> set[str]:
    """All names of a module, the old ones too."""
    renames = read_renames()
    old = renames.names.get(module_name, {}).keys() | renames.gone.get(module_name, {}).keys()
    return old | vars(importlib.import_module(module_name)).keys()


def install_names() -> None:
    """Let the modules of Keras answer to the old names as well."""
    renames = read_renames()
    for module_name in {*renames.names, *renames.gone, "keras", "keras.backend", "keras.preprocessing"}:
        module = importlib.import_module(module_name)
        module.__getattr__ = _finder(module_name)  # type: ignore[method-assign]
        for name, new in renames.names.get(module_name, {}).items():
            # `import *` takes what is there already; what Keras 3 has under an old name with another meaning goes.
            if ":" not in new or name in vars(module) or new.partition(":")[0] in sys.modules:
                with contextlib.suppress(AttributeError, ImportError):
                    setattr(module, name, find(module_name, name))
        for name in renames.gone.get(module_name, {}):
            setattr(module, name, find(module_name, name))


def _finder(module_name: str) -> Callable[[str], Any]:
    def __getattr__(name: str) -> Any:  # noqa: N807
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return find(module_name, name)
        except AttributeError:
            if not calls_itself():
                raise
            raise OldAttribute(f"{module_name}.{name}", way_of(module_name, name)) from None

    return __getattr__


def way_of(module_name: str, name: str) -> str:
    """What to do about an old name that the table doesn't know either: names that look like it."""
    near = difflib.get_close_matches(name, [each for each in names_of(module_name) if not each.startswith("_")], 2)
    way = "keras.ops has what the old backend had." if module_name.startswith("keras.backend") else WAY
    return f"There is {' and '.join(near)}. {way}" if near else way


def to_categorical(
    y: Any, num_classes: int | None = None, dtype: str = "float32", *, nb_classes: int | None = None
) -> npt.NDArray[Any]:
    """Keras 2's function: class indices as rows of zeros with a one. In NumPy, so that workers need no Keras for it.

    Args:
        y: Integers from 0, `(samples,)` or `(samples, 1)`, or with more axes before.
        num_classes: None for the largest of them and one.
        dtype: Of what is returned.
        nb_classes: Keras 1's name of `num_classes`.
    Returns:
        `(samples, num_classes)`, or with the axes before.
    """
    indices = np.asarray(y, dtype="int64")
    shape = indices.shape[:-1] if indices.ndim > 1 and indices.shape[-1] == 1 else indices.shape
    num_classes = num_classes or nb_classes or int(indices.max()) + 1
    rows: npt.NDArray[Any] = np.eye(num_classes, dtype=dtype)[indices.reshape(shape)]
    return rows


def multi_gpu_model(model: Any, gpus: Any = None, *args: Any, **kwargs: Any) -> Any:
    """The model itself: Keras 3 spreads a batch over devices by `keras.distribution`, not by a second model."""
    program.tell(f"multi_gpu_model(gpus={gpus}) -> the model itself; see keras.distribution.DataParallel")
    return model


def print_summary(model: Any, *args: Any, **kwargs: Any) -> None:
    """Print a model's layers."""
    model.summary(*args, **kwargs)


@final
class HDF5Matrix:
    """Rows of a dataset in an HDF5 file, as Keras 1 and 2 read them: an array that stays on disk.

    Args:
        datapath: The file.
        dataset: The dataset's name in it.
        start: The first row.
        end: The row after the last one; None for all.
        normalizer: Called with what is read, if given.
    """

    def __init__(
        self, datapath: str, dataset: str, start: int = 0, end: int | None = None, normalizer: Any = None
    ) -> None:
        import h5py

        self.data = h5py.File(datapath, "r")[dataset]
        self.start = start
        self.end = len(self.data) if end is None else end
        self.normalizer = normalizer

    def __len__(self) -> int:
        return int(self.end - self.start)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            first, last, step = key.indices(len(self))
            rows: Any = self.data[first + self.start : last + self.start : step]
        elif isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"row {key} of {len(self)}")
            rows = self.data[key % len(self) + self.start]
        else:
            # h5py reads rows in rising order alone, and each once.
            wanted, inverse = np.unique(np.asarray(key) % len(self) + self.start, return_inverse=True)
            rows = self.data[wanted][inverse]
        return rows if self.normalizer is None else self.normalizer(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(rows, ...)`."""
        first = self[0:1]
        return (len(self), *np.shape(first)[1:])

    @property
    def dtype(self) -> Any:
        """Of what is read."""
        return np.asarray(self[0:1]).dtype

    @property
    def ndim(self) -> int:
        """Axes, rows included."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Values in all."""
        return int(np.prod(self.shape))
