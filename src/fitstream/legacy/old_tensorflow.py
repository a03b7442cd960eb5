"""Names of TensorFlow 1 beside Keras: `tf.ConfigProto`, `tf.Session`, `tf.log`.

TensorFlow 2 keeps most of them in `tf.compat.v1`, where they are found. Sessions and graphs are gone: a session that
only carries settings for a GPU is left out, and what would run in one is an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, final

from fitstream.legacy.program import OldAttribute, OldName, calls_itself, program
from fitstream.legacy.renames import read_renames

__all__ = ["Session", "answer_old_names", "set_session"]

_WAY = "Call the model, or its fit and predict: they run at once. See tf.config for settings of a GPU."


def answer_old_names(tensorflow: ModuleType) -> None:
    """Let the module answer to names of TensorFlow 1, where the program itself asks."""
    if not isinstance(vars(tensorflow).get("__getattr__"), _Answer):
        tensorflow.__getattr__ = _Answer(tensorflow, vars(tensorflow).get("__getattr__"))  # type: ignore[method-assign]


@final
class _Answer:
    def __init__(self, tensorflow: ModuleType, own: Callable[[str], Any] | None) -> None:
        self._tensorflow, self._own = tensorflow, own

    def __call__(self, name: str) -> Any:
        if self._own is not None:
            return self._own(name)
        if name.startswith("__") or not calls_itself():
            raise AttributeError(f"module 'tensorflow' has no attribute {name!r}")
        if name in ("Session", "InteractiveSession"):
            return Session
        way = read_renames().tensorflow.get(name)
        old = getattr(self._tensorflow.compat, "v1", None)
        if way is not None or not hasattr(old, name):
            raise OldAttribute(f"tf.{name}", way or "See tensorflow.org/guide/migrate.", "is not in TensorFlow 2")
        program.tell(f"tf.{name} -> tf.compat.v1.{name}")
        return getattr(old, name)


@final
class Session:
    """Stands for a session that is made to be handed to Keras, and for nothing else.

    Args:
        settings: What `tf.Session` took. It is left out.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        program.tell("tf.Session(...) left out: there are no sessions. See tf.config for settings of a GPU")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was opened."""

    def close(self) -> None:
        """Nothing was opened."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise OldName(f"tf.Session.{name}", _WAY, "is not in TensorFlow 2")


def set_session(session: Any) -> None:
    """`keras.backend.set_session`: nothing is left for it to do."""
    program.tell("keras.backend.set_session(...) left out: there are no sessions")
