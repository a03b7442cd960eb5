"""Keras 3, once it is imported, made to understand old programs: all parts in their order."""

from __future__ import annotations

import logging
import warnings

from fitstream.adapters.keras import keras
from fitstream.legacy import old_callbacks, old_files, old_layers, old_models, old_optimizers, old_params, old_training
from fitstream.legacy.installing import install
from fitstream.legacy.old_names import install_names
from fitstream.legacy.program import program
from fitstream.legacy.renames import read_renames
from fitstream.legacy.translating import install_calls

__all__ = ["adapt"]


def adapt() -> None:
    """Add the old methods and names to Keras, and translate old arguments. For the whole process, and once."""
    install(program.keras)
    for part in (old_layers, old_models, old_training, old_optimizers, old_callbacks, old_params, old_files):
        part.install()
    # Around what the parts put in: they meet new names alone.
    install_calls(keras, read_renames())
    install_names()
    # Keras's advice to write it otherwise; there is one line for each kind of translation already.
    warnings.filterwarnings("ignore", message="Do not pass an `input_shape`")
    warnings.filterwarnings("ignore", message="The structure of `inputs` doesn't match")
    warnings.filterwarnings("ignore", message="Argument `input_length` is deprecated")
    logging.getLogger("absl").addFilter(lambda record: "saving your model as an HDF5 file" not in record.getMessage())
