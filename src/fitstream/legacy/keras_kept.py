"""What Keras 3 keeps of old preprocessing, in a private module that another version may move or drop.

No other file names it. `tests/adapters/test_preprocessing.py` holds it to what old programs need of it.
"""

from __future__ import annotations

from fitstream.adapters.keras import keras

try:
    from keras.src.legacy.preprocessing import sequence, text
except ImportError as error:
    raise ImportError(
        f"Keras {keras.__version__} no longer keeps the text and sequence functions of old Keras; 3.15.1 does. Install "
        "that version, or use keras.layers.TextVectorization and keras.utils.timeseries_dataset_from_array."
    ) from error

__all__ = ["pad_sequences", "sequence", "text"]

pad_sequences = keras.utils.pad_sequences
