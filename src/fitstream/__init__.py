"""fitstream: train Keras 3, PyTorch and JAX models on more data than memory holds, inside a byte budget.

A `Dataset` describes, a `Plan` proves that it fits, a `Loader` runs, an adapter hands over to the framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fitstream.constructors import (
    from_arrays,
    from_batches,
    from_folder,
    from_generator,
    from_hdf5,
    from_sequence,
    from_table,
    from_text,
    from_windows,
)
from fitstream.dataset import Dataset
from fitstream.errors import (
    DeviceError,
    FitstreamError,
    LoaderClosed,
    PlanError,
    SampleError,
    SourceError,
    Stalled,
    StateError,
    WorkerDied,
)
from fitstream.loader import Loader
from fitstream.plan import Plan
from fitstream.ranks import shard_auto

if TYPE_CHECKING:
    from fitstream import datasets, devices, text
    from fitstream.checkpoints import Checkpoint
    from fitstream.legacy.methods import evaluate_generator, fit_generator, predict_generator
    from fitstream.legacy.sequence import Sequence
    from fitstream.stored_constructors import from_parquet, from_webdataset
    from fitstream.training import evaluate, fit, predict

__all__ = [
    "Checkpoint",
    "Dataset",
    "DeviceError",
    "FitstreamError",
    "Loader",
    "LoaderClosed",
    "Plan",
    "PlanError",
    "SampleError",
    "Sequence",
    "SourceError",
    "Stalled",
    "StateError",
    "WorkerDied",
    "datasets",
    "devices",
    "evaluate",
    "evaluate_generator",
    "fit",
    "fit_generator",
    "from_arrays",
    "from_batches",
    "from_folder",
    "from_generator",
    "from_hdf5",
    "from_parquet",
    "from_sequence",
    "from_table",
    "from_text",
    "from_webdataset",
    "from_windows",
    "predict",
    "predict_generator",
    "shard_auto",
    "text",
]

__version__ = "0.1.0"


#: Names that are loaded when they are first used, and the module of each: what it imports (Keras and its backend, for
#: training) would make up most of the time that importing fitstream takes, and many programs need none of it.
_LATE = {
    "Checkpoint": "fitstream.checkpoints",
    "Sequence": "fitstream.legacy.sequence",
    "evaluate": "fitstream.training",
    "evaluate_generator": "fitstream.legacy.methods",
    "fit": "fitstream.training",
    "fit_generator": "fitstream.legacy.methods",
    "from_parquet": "fitstream.stored_constructors",
    "from_webdataset": "fitstream.stored_constructors",
    "predict": "fitstream.training",
    "predict_generator": "fitstream.legacy.methods",
}
_LATE_MODULES = ("datasets", "devices", "text")


def __getattr__(name: str) -> Any:
    if name in _LATE_MODULES:
        return importlib.import_module(f"fitstream.{name}")
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'fitstream' has no attribute {name!r}")
