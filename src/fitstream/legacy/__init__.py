"""The `fit_generator` family, for programs written for Keras 1 and 2: their classes, methods and names on Keras 3."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fitstream.legacy.sequence import Sequence

if TYPE_CHECKING:
    from fitstream.legacy.installing import install

__all__ = ["Sequence", "install"]

#: Public names that are loaded late, and their modules: some load Keras.
_LATE = {
    "GeneratorEnqueuer": "enqueuers",
    "OrderedEnqueuer": "enqueuers",
    "install": "installing",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(f"fitstream.legacy.{_LATE[name]}"), name)
    raise AttributeError(f"module 'fitstream.legacy' has no attribute {name!r}")
