"""What `keras.preprocessing.sequence` offered, under its names; Keras 3 still has all of it, in two places."""

from __future__ import annotations

from typing import Any

from fitstream.legacy.keras_kept import pad_sequences, sequence

__all__ = ["TimeseriesGenerator", "make_sampling_table", "pad_sequences", "skipgrams"]

make_sampling_table = sequence.make_sampling_table
skipgrams = sequence.skipgrams


class _Configured:
    """The end of the chain of `get_config`, which Keras 3's PyDataset lacks."""

    def get_config(self) -> dict[str, Any]:
        return {}


class TimeseriesGenerator(sequence.TimeseriesGenerator, _Configured):
    """Windows over a series, as a Sequence of batches. As in Keras 2, `to_json` included."""
