"""fitstream: train Keras 3, PyTorch and JAX models on more data than memory holds, inside a byte budget.

A `Dataset` describes, a `Plan` proves that it fits, a `Loader` runs, an adapter hands over to the framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitstream.late import late_names

if TYPE_CHECKING:
    from fitstream import datasets, devices, text
    from fitstream.checkpoints import Checkpoint
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
    from fitstream.legacy.methods import evaluate_generator, fit_generator, predict_generator
    from fitstream.legacy.sequence import Sequence
    from fitstream.loader import Loader
    from fitstream.plan import Plan
    from fitstream.ranks import shard_auto
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

#: The module of each public name.
_MODULES = {
    "Checkpoint": "fitstream.checkpoints",
    "Dataset": "fitstream.dataset",
    "DeviceError": "fitstream.errors",
    "FitstreamError": "fitstream.errors",
    "Loader": "fitstream.loader",
    "LoaderClosed": "fitstream.errors",
    "Plan": "fitstream.plan",
    "PlanError": "fitstream.errors",
    "SampleError": "fitstream.errors",
    "Sequence": "fitstream.legacy.sequence",
    "SourceError": "fitstream.errors",
    "Stalled": "fitstream.errors",
    "StateError": "fitstream.errors",
    "WorkerDied": "fitstream.errors",
    "evaluate": "fitstream.training",
    "evaluate_generator": "fitstream.legacy.methods",
    "fit": "fitstream.training",
    "fit_generator": "fitstream.legacy.methods",
    "from_arrays": "fitstream.constructors",
    "from_batches": "fitstream.constructors",
    "from_folder": "fitstream.constructors",
    "from_generator": "fitstream.constructors",
    "from_hdf5": "fitstream.constructors",
    "from_parquet": "fitstream.stored_constructors",
    "from_sequence": "fitstream.constructors",
    "from_table": "fitstream.constructors",
    "from_text": "fitstream.constructors",
    "from_webdataset": "fitstream.stored_constructors",
    "from_windows": "fitstream.constructors",
    "predict": "fitstream.training",
    "predict_generator": "fitstream.legacy.methods",
    "shard_auto": "fitstream.ranks",
}

__getattr__ = late_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
