"""Which backend Keras runs on, decided before Keras is imported: it keeps the first it meets.

What the user says counts (KERAS_BACKEND, then Keras's own settings file). Only where that names none, or one that isn't
installed, is another chosen: the fastest on a CPU that is there. Nothing here imports a framework.

`python -m fitstream.backend` prints the choice, for the Makefile.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from fitstream.devices import keras_default
from fitstream.errors import PlanError

__all__ = ["choose_backend", "without_chatter"]

#: Fastest first: a small CNN on two cores trains on 640, 430 and 180 pictures a second.
_BACKENDS = ("tensorflow", "torch", "jax")

#: Information and warnings of the logging library that TensorFlow and JAX share.
_CHATTER = re.compile(rb"[IW]\d{4} |WARNING: All log messages before absl")


def choose_backend() -> tuple[str, str]:
    """Decide on a backend, and tell Keras by setting KERAS_BACKEND.

    Returns:
        Its name, and why it was chosen if it isn't what the user's settings say, or "".
    Raises:
        PlanError: If Keras or every backend is missing, or KERAS_BACKEND names one that is.
    """
    if not _installed("keras"):
        raise PlanError('this needs Keras, which is not installed. Use: pip install "fitstream[demo]"')
    there = [name for name in _BACKENDS if _installed(name)]
    asked = os.environ.get("KERAS_BACKEND")
    if asked is not None:
        if asked not in there:
            raise PlanError(
                f"KERAS_BACKEND={asked} is not installed here; {', '.join(there) or 'no backend'} is. "
                f'Unset it, or use: pip install "fitstream[{asked if asked in _BACKENDS else "tensorflow"}]"'
            )
        return asked, ""
    if not there:
        raise PlanError('Keras has no backend here. Use: pip install "fitstream[tensorflow]", or [torch] or [jax].')
    default = keras_default()
    backend = default if default in there else there[0]
    os.environ["KERAS_BACKEND"] = backend
    return backend, "" if backend == default else f"{default}, Keras's default, is not installed"


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Keep a framework's remarks off standard error while it is imported; errors and all else come through after.

    TensorFlow writes them from C++ before its own settings of verbosity count, so they are caught at the descriptor.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            for line in caught:
                if not _CHATTER.match(line):
                    os.write(2, line)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    print(choose_backend()[0])  # noqa: T201
