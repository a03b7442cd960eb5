"""Old import paths: `keras.utils.np_utils`, `keras.layers.core`, `tensorflow.keras` and `tensorflow.python.keras`.

A finder makes the modules of Keras that are gone, as the table of renames lists them: each looks its names up where
they are now. Where imports begin at `tensorflow`, the import statement itself is met, and only that of the program's
own files: Keras 3 *is* `tensorflow.keras`, so these names are `keras`, with TensorFlow or without, while libraries go
on to get what they always got. `import tensorflow` stays what it is.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, final

from fitstream.legacy.old_names import WAY, find, install_names, names_of, way_of
from fitstream.legacy.old_tensorflow import answer_old_names
from fitstream.legacy.program import OldAttribute, OldName, calls_itself, program
from fitstream.legacy.renames import read_renames

__all__ = ["OldImports", "OldModule", "canonical", "install_modules", "old_imports"]

#: What begins a path into Keras inside TensorFlow; the longest first.
_INSIDE_TENSORFLOW = (
    "tensorflow.contrib.keras.api.keras",
    "tensorflow.contrib.keras.python.keras",
    "tensorflow.contrib.keras",
    "tensorflow.python.keras",
    "tensorflow.keras",
)


def install_modules(adapt: Callable[[], None]) -> None:
    """Make old import paths work in this process. Twice does no harm.

    Args:
        adapt: Called once Keras is imported, as soon as it is.
    """
    if _installed():
        return
    sys.meta_path.insert(0, _Finder(adapt))
    builtins.__import__ = _Importing(builtins.__import__)


def _installed() -> bool:
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def old_imports() -> OldImports | None:
    """What has old import paths work in worker processes as well; None where they don't work here.

    To be sent ahead of what may need them: modules of the program that workers import by name, above all.
    """
    return OldImports() if _installed() else None


@final
class OldImports:
    """Unpickled, it makes old import paths work there, and the old names in Keras's modules. Training needs more."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _in_worker, ()


def _in_worker() -> None:
    install_modules(install_names)


def canonical(name: str) -> str | None:
    """The path in `keras` that a path into TensorFlow's Keras means; None for any other path."""
    for start in _INSIDE_TENSORFLOW:
        if name == start or name.startswith(f"{start}."):
            return "keras" + name[len(start) :]
    return None


@final
class OldModule(ModuleType):
    """A module that Keras no longer has. Its names are looked up where they are now.

    Called, it is the function of its name: `keras.layers.merge` was a module in Keras 2 and a function in Keras 1.
    """

    def __getattr__(self, name: str) -> Any:
        sources = read_renames().modules[self.__name__]
        if name == "__all__":
            return sorted({each for source in sources for each in names_of(source) if not each.startswith("_")})
        if name.startswith("__"):
            raise AttributeError(name)
        for source in sources:
            try:
                value = find(source, name)
            except AttributeError:
                continue
            setattr(self, name, value)
            return value
        raise OldAttribute(f"{self.__name__}.{name}", way_of(self.__name__, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parent, _, name = self.__name__.rpartition(".")
        return find(parent, name)(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        # Not by importing it, as other modules: that would load Keras in worker processes.
        return OldModule, (self.__name__,)


@final
class _Finder(MetaPathFinder, Loader):
    def __init__(self, adapt: Callable[[], None]) -> None:
        self._adapt = adapt

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "keras":
            program.settle_backend()
            return _followed(fullname, path, self._adapt)
        if (
            fullname not in read_renames().modules or _elsewhere(fullname, path) is not None
        ):  # what is installed goes first
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return OldModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _followed(name: str, path: Sequence[str] | None, adapt: Callable[[], None]) -> ModuleSpec | None:
    """Where Keras is, with a loader that adapts it once it is loaded."""
    spec = _elsewhere(name, path)
    if spec is not None and spec.loader is not None:
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            adapt()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


def _elsewhere(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    others = (finder for finder in sys.meta_path if not isinstance(finder, _Finder))
    return next(filter(None, (finder.find_spec(name, path) for finder in others)), None)


@final
class _Importing:
    """The import statement, which the program's own files use through here."""

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  as Python names it
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        if level or name.partition(".")[0] not in ("keras", "tensorflow") or not calls_itself():
            return self._original(name, globals, locals, fromlist, level)
        if not name.startswith("tensorflow"):
            return self._keras(name, globals, locals, fromlist)
        path = canonical(name)
        if path is None:
            return self._tensorflow(name, globals, locals, fromlist)
        if fromlist:
            return self._keras(path, globals, locals, fromlist)
        self._keras(path, globals, locals, ())
        # `import tensorflow.keras.layers` binds `tensorflow`; so does `... as layers`, which then asks for attributes.
        whole = self._tensorflow("tensorflow", globals, locals, ("keras",))
        return whole if name.startswith("tensorflow.keras") else _Beside(whole)

    def _keras(self, name: str, globals: Any, locals: Any, fromlist: Sequence[str] | None) -> Any:  # noqa: A002
        try:
            module = self._original(name, globals, locals, fromlist, 0)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("keras."):
                raise OldName(f"module {error.name}", WAY) from None
            raise  # another package, or Keras itself
        for each in fromlist or ():
            if each != "*" and not hasattr(module, each):
                raise OldName(f"{name}.{each}", way_of(name, each))
        return module

    def _tensorflow(self, name: str, globals: Any, locals: Any, fromlist: Sequence[str] | None) -> Any:  # noqa: A002
        try:
            module = self._original(name, globals, locals, fromlist, 0)
        except ModuleNotFoundError as error:
            if error.name != "tensorflow":
                raise
            if fromlist and set(fromlist) <= {"keras"}:
                return SimpleNamespace(keras=importlib.import_module("keras"))
            raise OldName(
                f"`import {name}`",
                "Install it: fitstream[tensorflow]; or, where the program needs only tf.keras, write `from tensorflow "
                "import keras`, which fitstream run takes from Keras 3.",
                "needs TensorFlow, which is not installed",
            ) from None
        # In place of a loader that would bring another module, which knows no old names.
        sys.modules["tensorflow"].keras = importlib.import_module("keras")  # type: ignore[attr-defined]
        answer_old_names(sys.modules["tensorflow"])
        return module


@final
class _Beside:
    """TensorFlow with Keras 3 as its `python.keras` and `contrib.keras`, where a program imports these.

    TensorFlow itself goes on to use what it has there.
    """

    def __init__(self, tensorflow: Any) -> None:
        self._tensorflow = tensorflow
        inside = SimpleNamespace(keras=tensorflow.keras)
        inside.api = inside.python = inside
        self.keras, self.python, self.contrib = tensorflow.keras, inside, inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensorflow, name)
