"""`install()`: the methods and names of old programs, where these look for them.

Keras 2 also took generators in `fit`, `evaluate` and `predict`, and handed them to the methods here. Keras 3's take no
`max_queue_size` or `workers`, replay or drop batches, and don't know our `Sequence`; so they hand over again.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Literal

from fitstream.adapters.keras import keras as keras_3
from fitstream.errors import PlanError
from fitstream.legacy import methods
from fitstream.legacy.enqueuers import GeneratorEnqueuer, OrderedEnqueuer
from fitstream.legacy.keywords import RENAMED, by_keras_1
from fitstream.legacy.logs import install_log_names
from fitstream.legacy.old_modules import OldModule, old_imports
from fitstream.legacy.sequence import Sequence, is_sequence

__all__ = ["install"]

_FAMILY: tuple[Callable[..., Any], ...] = (methods.fit_generator, methods.evaluate_generator, methods.predict_generator)
#: Keras 3's method -> ours, and the name of its count of batches.
_HANDED_OVER = dict(zip(("fit", "evaluate", "predict"), _FAMILY, strict=True))
#: Where imports of Keras 1 and 2 look for the classes, besides keras.utils.
_MODULES = ("keras.utils.data_utils", "keras.engine", "keras.engine.training")
_QUEUE = ("max_queue_size", "workers", "use_multiprocessing")
#: What `evaluate` is given only by Keras's own `fit`, which expects its own answer.
_OF_FIT = "_use_cached_eval_dataset"


def install(keras: Literal[1, 2] = 2) -> None:
    """Put the methods of the `fit_generator` family on `keras.Model`, and the classes where old imports look.

    Also lets `fit`, `evaluate` and `predict` take generators and Sequences as they did, and callbacks find "acc" beside
    "accuracy". Calling it again changes only what `keras` says.

    Args:
        keras: Which version's positional arguments a program means: with 1, `fit_generator(generator, 2000, 10)` is
            2000 samples an epoch, with 2 it is 2000 batches. Keywords of both are always known.
    Raises:
        PlanError: If `keras` is neither 1 nor 2.
    """
    if keras not in (1, 2):
        raise PlanError(f"install(keras={keras!r}): positional arguments are those of Keras 1 or of Keras 2.")
    model = keras_3.Model
    for method in _FAMILY:
        setattr(model, method.__name__, by_keras_1(method) if keras == 1 else method)
    for name, method in _HANDED_OVER.items():
        own = getattr(model, name)
        if not hasattr(own, "takes_generators"):
            setattr(model, name, _handing_over(own, method))
    install_log_names()
    _put_classes()


def _put_classes() -> None:
    places = [keras_3.utils, *(sys.modules[name] for name in ("keras.utils.data_utils",) if name in sys.modules)]
    for place in places:
        for kind in (Sequence, GeneratorEnqueuer, OrderedEnqueuer):
            setattr(place, kind.__name__, kind)
    if old_imports() is None:  # which finds these modules itself
        for name in _MODULES:
            sys.modules.setdefault(name, OldModule(name))
            parent, _, own = name.rpartition(".")
            setattr(sys.modules[parent], own, sys.modules[name])


def _handing_over(own: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    """Keras's method, that hands generators and Sequences over to ours."""
    parameters = list(inspect.signature(own).parameters)[1:]
    ours = inspect.signature(method).parameters

    @functools.wraps(own)
    def call(model: Any, *args: Any, **given: Any) -> Any:
        told = {**dict(zip(parameters, args, strict=False)), **given}
        data = told.get("x")
        asks_for_queue = any(name in given for name in (*_QUEUE, *RENAMED))
        keras_takes = isinstance(data, keras_3.utils.PyDataset) and not asks_for_queue
        if not _is_generator(data) or keras_takes or _OF_FIT in given:
            other = told.get("validation_data")
            if _is_generator(other) and not isinstance(other, keras_3.utils.PyDataset):
                return methods.fit_arrays(own, model, **told)
            return own(model, *args, **{name: value for name, value in given.items() if name not in _QUEUE})
        del told["x"]
        for name, value in list(told.items()):
            if name not in ours and name not in RENAMED:
                # Keras 2 refused arguments that mean nothing beside a generator; None and 0 are their defaults.
                if value is not None and value != 0 and name != "batch_size":
                    raise PlanError(f"{own.__name__}() takes no {name}= together with a generator or a Sequence.")
                del told[name]
        return method(model, data, **told)

    call.takes_generators = True  # type: ignore[attr-defined]
    return call


def _is_generator(data: Any) -> bool:
    """As Keras 2.3 told: it has `__next__` or `next`, or is a Sequence."""
    return hasattr(data, "__next__") or callable(getattr(data, "next", None)) or is_sequence(data)
