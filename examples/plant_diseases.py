"""Plant diseases: JSON lists of photos with Chinese names and 61 classes, for MobileNetV2 from random weights.

The photos are pieces of the two that scikit-learn has. A class has a colour of its own, which takes the place of the
piece's mean colour, a little different in each photo. As in the lists that this is modelled on, classes are of unequal
size, and there is a list to train and one to validate. Those to train come from the left two thirds of the pictures,
those to validate from the rest: no pixel is in both, and where a piece comes from says nothing about its class.

Expected: each class comes equally often in a balanced pass, and more than 80 % of the validation photos are told
right, where 1.6 % would be by chance (in the short form more than 20 %). Memory for feeding: 128 MB.

    python examples/plant_diseases.py            # 3,016 photos, 7 epochs: two minutes on two cores
    python examples/plant_diseases.py --quick    # 1,194 photos at half the size, 5 epochs: a minute

That is with TensorFlow; JAX takes five minutes, PyTorch more than fifteen (two and a half in the short form).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import fitstream as fs
from fitstream.backend import choose_backend

QUICK = "--quick" in sys.argv[1:]
SIZE, TRAIN, VALIDATE, EPOCHS, LEAST = (32, 16, 4, 5, 0.2) if QUICK else (64, 40, 10, 7, 0.8)
CLASSES, SIDE = 61, 96
CROPS, DISEASES = ["番茄", "玉米", "葡萄", "苹果"], ["健康", "叶霉病", "黑腐病", "灰斑病"]
GRADES = ["轻微", "一般", "严重", "极重"]


def write_photos(folder: Path, counts: list[int], share: tuple[float, float]) -> Path:
    """Write photos of each class, from this share of the pictures' width, and the list of them; returns its path."""
    rng = np.random.default_rng(0)
    pictures = load_sample_images().images
    folder.mkdir()
    rows = []
    for kind, count in enumerate(counts):
        crop, disease, grade = kind % 4, kind // 4 % 4, kind // 16
        for number in range(count):
            picture = pictures[rng.integers(len(pictures))]
            first, end = (int(one * picture.shape[1]) for one in share)
            top, left = rng.integers(picture.shape[0] - SIDE + 1), rng.integers(first, end - SIDE + 1)
            piece = picture[top : top + SIDE, left : left + SIDE].astype(np.float32)
            colour = 40 + 58 * np.array([crop, disease, grade]) + rng.integers(-10, 11, 3)
            photo = 0.5 * (piece - piece.mean(axis=(0, 1))) + colour
            name = f"{CROPS[crop]}_{DISEASES[disease]}_{GRADES[grade]}_{number:04d}.jpg"
            Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(folder / name, quality=85)
            rows.append({"disease_class": kind, "image_id": name})
    (folder / "photos.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / "photos.json"


def photos(path: Path) -> fs.Dataset:
    return fs.from_table(path, image="image_id", label="disease_class", image_size=SIZE)


def check_balance(balanced: fs.Dataset) -> None:
    """Every class comes equally often in a pass, but for one."""
    counts = np.zeros(CLASSES, int)
    with balanced.loader(memory="128 MB") as loader:
        for _, labels in loader:
            counts += np.bincount(labels, minlength=CLASSES)
    assert np.ptp(counts) <= 1, counts


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        unequal = [TRAIN * (2 + kind % 3) // 3 for kind in range(CLASSES)]
        train = photos(write_photos(Path(folder) / "train", unequal, (0, 2 / 3)))
        validation = photos(write_photos(Path(folder) / "validate", [VALIDATE] * CLASSES, (2 / 3, 1)))
        print(f"{len(train)} photos to train, {len(validation)} to validate")
        balanced = train.sample(len(train), balance=True, seed=2).batch(32)
        check_balance(balanced)

        choose_backend()
        import keras

        keras.utils.set_random_seed(0)
        network = keras.applications.MobileNetV2(
            input_shape=(SIZE, SIZE, 3), alpha=0.35, weights=None, classes=CLASSES, classifier_activation=None
        )
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                # At its 0.999 the averages that validation uses would still be those of the random weights.
                layer.momentum = 0.9
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Rescaling(1 / 127.5, -1), network])
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.003, len(balanced) * EPOCHS)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        history = fs.fit(
            model, balanced, validation_data=validation.batch(32), epochs=EPOCHS, memory="128 MB", verbose=0
        ).history
        found = history["val_accuracy"][-1]
        print(f"told right: {history['accuracy'][-1]:.2f} in training, {found:.2f} of the validation photos")
        assert found > LEAST > 5 / CLASSES, history


if __name__ == "__main__":
    main()
