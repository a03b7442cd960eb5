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
    from fitstream.checkpoints import Checkpoint
    from fitstream.training import evaluate, fit, predict

__all__ = [
    "Checkpoint",
    "Dataset",
    "FitstreamError",
    "Loader",
    "LoaderClosed",
    "Plan",
    "PlanError",
    "SampleError",
    "SourceError",
    "Stalled",
    "StateError",
    "WorkerDied",
    "evaluate",
    "fit",
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
    "shard_auto",
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
    raise AttributeError(f"module 'fitstream' has no attribute {name!r}")
