"""fitstream: train Keras 3, PyTorch and JAX models on more data than memory holds, inside a byte budget.

A `Dataset` describes, a `Plan` proves that it fits, a `Loader` runs, an adapter hands over to the framework.
"""

from __future__ import annotations

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
from fitstream.stored_constructors import from_parquet, from_webdataset

if TYPE_CHECKING:
    from fitstream import datasets, devices, text
    from fitstream.checkpoints import Checkpoint
    from fitstream.legacy.methods import evaluate_generator, fit_generator, predict_generator
    from fitstream.legacy.sequence import Sequence
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


def __getattr__(name: str) -> Any:
    if name == "Checkpoint":
        # Only training needs it, and what it imports takes a tenth of the time that importing fitstream does.
        from fitstream.checkpoints import Checkpoint

        return Checkpoint
    # Training loads Keras and its backend, which importing fitstream must not.
    if name in ("evaluate", "fit", "predict"):
        from fitstream import training

        return getattr(training, name)
    if name in ("datasets", "devices"):
        import importlib

        return importlib.import_module(f"fitstream.{name}")
    if name in ("evaluate_generator", "fit_generator", "predict_generator"):
        from fitstream.legacy import methods

        return getattr(methods, name)
    if name == "Sequence":
        from fitstream.legacy.sequence import Sequence

        return Sequence
    if name == "text":
        import fitstream.text

        return fitstream.text
    raise AttributeError(f"module 'fitstream' has no attribute {name!r}")
