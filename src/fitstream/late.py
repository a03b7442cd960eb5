"""Names of a package that are loaded when they are first used.

What a program doesn't use costs it nothing so: importing Keras and its backend takes seconds, the whole of fitstream a
tenth of one. Type checkers and editors see the names by the imports under `TYPE_CHECKING`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["late_names"]


def late_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`.

    Args:
        package: Its name.
        modules: The module of each late name. The package's own modules are found by their names beside these.
    """

    def load(name: str) -> Any:
        if name in modules:
            found = getattr(importlib.import_module(modules[name]), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}") is not None:
            found = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)
        return found

    return load
