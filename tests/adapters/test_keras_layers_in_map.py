"""Keras's preprocessing layers as functions for `map`, on whichever backend runs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import fitstream as fs
from fitstream.transforms.images import MixUp, RandomFlip


def images() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 10, 3), dtype=np.uint8)
    return pixels, np.eye(4, dtype=np.float32)[np.arange(16) % 4]


@pytest.mark.filterwarnings("ignore")
def test_a_layer_is_called_as_it_is() -> None:
    layer = keras.layers.RandomFlip("horizontal", seed=1)
    pixels, labels = images()
    ds = fs.from_arrays((pixels, labels)).map(lambda x, y: (layer(x, training=True), y)).batch(8)
    with ds.loader(memory="64 MB", workers=1, processes=0) as loader:
        found = np.concatenate([x for x, _ in loader])
    assert found.dtype == np.float32
    for one, original in zip(found, pixels, strict=True):
        assert np.array_equal(one, original) or np.array_equal(one, original[:, ::-1])


@pytest.mark.filterwarnings("ignore")
def test_a_layer_with_a_seed_for_each_sample_is_repeatable_in_any_lane() -> None:
    layer = keras.layers.RandomFlip("horizontal")

    def flipped(image: Any, label: Any, rng: np.random.Generator) -> Any:
        seed = keras.random.SeedGenerator(int(rng.integers(2**31)))
        drawn = layer.get_random_transformation(image[None], training=True, seed=seed)
        return np.asarray(layer.transform_images(image[None].astype("float32"), drawn, training=True))[0], label

    ds = fs.from_arrays(images()).map(flipped).batch(8)

    def batches(workers: int, processes: int) -> list[bytes]:
        with ds.loader(memory="4 GB", workers=workers, processes=processes) as loader:
            return [x.tobytes() for _ in range(2) for x, _ in loader]

    expected = batches(0, 0)
    assert len(set(expected)) == 4
    assert batches(2, 0) == expected
    assert batches(1, 1) == expected  # the layer is sent, and its backend imported there


def test_fit_trains_on_mixed_batches() -> None:
    model = keras.Sequential([keras.layers.Input((8, 10, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    train = fs.from_arrays(images()).shuffle(0).map(RandomFlip()).batch(8).map_batch(MixUp())
    history = fs.fit(model, train, epochs=2, memory="64 MB", verbose=0)
    assert len(history.history["loss"]) == 2
