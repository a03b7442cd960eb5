"""`fit_generator` and its siblings over what `ImageDataGenerator` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from recorder import KERAS_WARNINGS

import fitstream as fs
from fitstream.legacy.images import DirectoryIterator, ImageDataGenerator

MakePictures = Callable[..., Path]
SIDE = 16

pytestmark = KERAS_WARNINGS


@pytest.fixture
def photos(tmp_path: Path, make_pictures: MakePictures) -> str:
    return str(make_pictures(tmp_path / "photos", count=10))


def of(photos: str, generator: ImageDataGenerator | None = None, **options: Any) -> DirectoryIterator:
    generator = generator or ImageDataGenerator(horizontal_flip=True, rotation_range=10, rescale=1 / 255)
    return generator.flow_from_directory(photos, **{"target_size": (SIDE, SIDE), "batch_size": 4} | options)


def model(units: int = 1) -> Any:
    made = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(units)]
    )
    made.compile(keras.optimizers.SGD(0.1), "mse")
    return made


def test_a_pair_of_folders_trains_and_validates(photos: str) -> None:
    generator = ImageDataGenerator(rescale=1 / 255, validation_split=0.2)
    train = of(photos, generator, class_mode="binary", subset="training")
    validation = of(photos, generator, class_mode="binary", subset="validation")
    history = fs.fit_generator(
        model(), train, steps_per_epoch=train.samples // 4, epochs=3, validation_data=validation, verbose=0
    )
    assert len(history.history["val_loss"]) == 3
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_predictions_come_in_the_order_of_the_files(photos: str) -> None:
    iterator = of(photos, ImageDataGenerator(), shuffle=False, class_mode=None, batch_size=7)
    net = model()
    expected = np.concatenate([net.predict_on_batch(iterator[place]) for place in range(len(iterator))])
    assert np.allclose(fs.predict_generator(net, iterator, verbose=0), expected, atol=1e-3)


class Seen(keras.callbacks.Callback):
    """Keeps the loss of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.losses.append(logs["loss"])


def test_calls_one_after_another_train_on_new_passes(photos: str) -> None:
    iterator = of(photos, ImageDataGenerator(rotation_range=90), class_mode="binary")
    net = model()
    net.optimizer.learning_rate = 0.0
    first, second = Seen(), Seen()
    for seen in (first, second):
        fs.fit_generator(net, iterator, epochs=1, verbose=0, callbacks=[seen])
    assert first.losses != second.losses


def test_pictures_and_masks_train_together(photos: str) -> None:
    net = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Conv2D(1, 1)])
    net.compile(keras.optimizers.SGD(0.0), "mae")
    grey = np.float32([0.299, 0.587, 0.114]).reshape(1, 1, 3, 1)
    net.set_weights([grey, np.zeros(1, np.float32)])
    how = {"class_mode": None, "seed": 3, "batch_size": 5}
    generator = ImageDataGenerator(rotation_range=180, zoom_range=0.3, vertical_flip=True)
    pairs = zip(of(photos, generator, **how), of(photos, generator, color_mode="grayscale", **how), strict=False)
    history = fs.fit_generator(net, pairs, steps_per_epoch=4, epochs=2, verbose=0)
    assert max(history.history["loss"]) < 2  # of 255; with other transformations it is above 20


def test_several_inputs_and_outputs_train(photos: str) -> None:
    inputs = keras.Input((8, 8, 3)), keras.Input((2,))
    joined = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(inputs[0]), inputs[1]])
    net = keras.Model(list(inputs), keras.layers.Dense(1)(joined))
    net.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x = (rng.uniform(0, 1, (12, 8, 8, 3)), rng.uniform(0, 1, (12, 2)))
    iterator = ImageDataGenerator().flow(x, np.ones(12), 5, sample_weight=np.ones(12))
    assert np.isfinite(fs.fit_generator(net, iterator, epochs=2, verbose=0).history["loss"]).all()

    image = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    net = keras.Model(image, [keras.layers.Dense(1, name="age")(pooled), keras.layers.Dense(1, name="legs")(pooled)])
    net.compile("sgd", ["mse", "mse"])
    table = {"file": of(photos).filenames, "age": list(range(20)), "legs": [4.0] * 20}
    iterator = ImageDataGenerator(rescale=1 / 255).flow_from_dataframe(
        table, photos, "file", ["age", "legs"], class_mode="multi_output", target_size=(SIDE, SIDE), batch_size=4
    )
    assert np.isfinite(fs.fit_generator(net, iterator, epochs=1, verbose=0).history["loss"]).all()
    assert len(fs.evaluate_generator(net, iterator)) >= 1
