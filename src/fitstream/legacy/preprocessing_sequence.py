"""What `keras.preprocessing.sequence` offered, under its names; Keras 3 still has all of it, in two places."""

from __future__ import annotations

from fitstream.legacy.keras_kept import pad_sequences, sequence

__all__ = ["TimeseriesGenerator", "make_sampling_table", "pad_sequences", "skipgrams"]

TimeseriesGenerator = sequence.TimeseriesGenerator
make_sampling_table = sequence.make_sampling_table
skipgrams = sequence.skipgrams
