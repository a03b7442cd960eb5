"""CIFAR-style arrays with a batcher of constant size that wraps: what `generator(array, batch_size)` used to do.

Many old programs train on `(x_train, y_train), (x_test, y_test)` with a generator that walks over the arrays for ever
and begins again in the middle of a batch. `batch(n, last="wrap")` is that generator, without copies in memory, in
another order each pass. Expected: without shuffling, both give the same batches, byte for byte; and a small network
trained on wrapped batches with `steps_per_epoch` tells at least 85 % of the test pictures. Memory for feeding: 64 MB.

    python examples/cifar_wrapping.py                  # scikit-learn's digits as 32 x 32 x 3 pictures: no download
    python examples/cifar_wrapping.py --quick          # fewer steps, for the tests: at least 60 %
    python examples/cifar_wrapping.py --data ~/data    # CIFAR-10 itself (170 MB on first use): at least 35 %
"""

import sys
from collections.abc import Iterator

import keras
import numpy as np

import fitstream as fs
from fitstream.transforms.images import Augment, RandomCrop, RandomFlip

BATCH = 50
QUICK = "--quick" in sys.argv


def generator(array: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """The old way: batches of one size for ever, over the end and on from the start."""
    first = 0
    while True:
        rows = np.arange(first, first + batch_size) % len(array)
        yield array[rows]
        first = (first + batch_size) % len(array)


def arrays() -> tuple[fs.datasets.Arrays, float]:
    """Training and test arrays, and the accuracy to expect."""
    if "--data" in sys.argv:
        return fs.datasets.cifar10(sys.argv[sys.argv.index("--data") + 1]), 0.35
    (x_train, y_train), (x_test, y_test) = fs.datasets.digits()

    def enlarged(x: np.ndarray) -> np.ndarray:
        return np.repeat((np.kron(x, np.ones((1, 4, 4))) * 15).astype(np.uint8)[..., np.newaxis], 3, axis=3)

    return ((enlarged(x_train), y_train[:, None]), (enlarged(x_test), y_test[:, None])), 0.6 if QUICK else 0.85


def compare(x: np.ndarray, y: np.ndarray) -> int:
    """Both batchers side by side, over the ends of several passes."""
    wrapped = fs.from_arrays((x, y)).batch(BATCH, last="wrap")
    steps = 0
    with wrapped.loader(memory="64 MB") as loader:
        old = zip(generator(x, BATCH), generator(y, BATCH), strict=True)
        for _ in range(3):
            for ours, theirs in zip(loader, old, strict=False):
                np.testing.assert_array_equal(ours[0], theirs[0])
                np.testing.assert_array_equal(ours[1], theirs[1])
                steps += 1
                if steps == len(loader) * 3:
                    break
    return steps


def main() -> None:
    keras.utils.set_random_seed(0)
    ((x_train, y_train), (x_test, y_test)), least = arrays()
    steps = compare(x_train[:1234], y_train[:1234])
    print(f"{steps} batches of {BATCH}, the same as the old generator's")

    augment = Augment([RandomCrop(32, padding=2)] + ([RandomFlip()] if "--data" in sys.argv else []))
    train = fs.from_arrays((x_train, y_train)).shuffle(seed=0).map(augment).batch(BATCH, last="wrap")
    test = fs.from_arrays((x_test, y_test)).batch(BATCH)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 5, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    fs.fit(model, train, epochs=2 if QUICK else 6, steps_per_epoch=30, memory="64 MB", verbose=0)
    result = fs.evaluate(model, test, memory="64 MB", verbose=0, return_dict=True)
    print(f"accuracy on the test pictures: {result['accuracy']:.2f}")
    assert result["accuracy"] >= least, result


if __name__ == "__main__":
    main()
