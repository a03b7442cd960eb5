"""A feed in the form that Keras takes on each backend.

JAX and PyTorch take batches from a PyDataset, in the main thread; TensorFlow from a generator, in its own threads.
Where Keras can't foresee an epoch's end (a pass of unknown length; the rest of an epoch that an earlier run began), an
`OpenLength` ends it on JAX and PyTorch, and `FeedCallback` on TensorFlow.
"""

from __future__ import annotations

from typing import Any, final

from fitstream.adapters.class_weights import map_tree
from fitstream.adapters.keras import keras
from fitstream.adapters.keras_feed import Feed

__all__ = ["OpenLength", "as_keras_data"]


def as_keras_data(feed: Feed) -> Any:
    """What to give to Keras as `x` or `validation_data`: a `tf.data.Dataset` on TensorFlow, else a PyDataset."""
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_dataset(feed)
    return _FeedDataset(feed)


def _tensorflow_dataset(feed: Feed) -> Any:
    # The backend is chosen when Keras is imported, and the others needn't be installed.
    import tensorflow as tf

    signature = map_tree(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), feed.spec)
    dataset = tf.data.Dataset.from_generator(feed.batches, output_signature=signature)
    if not feed.open:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(feed.steps))
    # There is nothing to tune, and a thread that tunes may make whoever lets go of an iterator wait for it: for up to a
    # minute, with the interpreter's lock.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(1).with_options(options)


@final
class _FeedDataset(keras.utils.PyDataset):
    """Batches in their order, for backends that ask in the main thread."""

    def __init__(self, feed: Feed) -> None:
        super().__init__(workers=1)
        self._feed = feed

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return OpenLength(self._feed) if self._feed.open or self._feed.steps is None else self._feed.steps

    def __getitem__(self, index: int) -> Any:
        return self._feed.next()


@final
class OpenLength(int):
    """A length at most, and endless where none is known; Keras asks `steps >= length` before each step.

    Args:
        feed: Knows when an epoch is over.
    """

    _feed: Feed

    def __new__(cls, feed: Feed) -> OpenLength:
        length = super().__new__(cls, 1 << 62 if feed.steps is None else feed.steps)
        length._feed = feed
        return length

    def __le__(self, steps: int) -> bool:
        return self._feed.is_over(steps)
