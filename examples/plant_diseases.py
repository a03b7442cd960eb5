"""Plant diseases: a JSON list of photos with Chinese names and 61 classes, for MobileNetV2.

Expected: opening is quick, each class comes about equally often in a balanced pass, and the loss falls by a
third (by a tenth in the short form).
Memory for feeding: 128 MB. The photos are pieces of the two that scikit-learn has, tinted by class.

    python examples/plant_diseases.py            # 61 x 40 photos, 3 epochs: some minutes
    python examples/plant_diseases.py --quick    # 61 x 4 photos
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

CLASSES = 61
CROPS, DISEASES, GRADES = ["番茄", "玉米", "葡萄", "苹果"], ["健康", "叶霉病", "黑腐病", "灰斑病"], ["一般", "严重"]


def write_photos(folder: Path, each: int) -> Path:
    """Write photos and the list of them; returns the list's path."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    rows = []
    for number in range(CLASSES * each):
        kind = number % CLASSES
        name = f"{CROPS[kind % 4]}_{DISEASES[kind // 4 % 4]}_{GRADES[kind % 2]}_{number:06d}.jpg"
        photo = photos[number % 2]
        top, left = rng.integers(0, photo.shape[0] - 96), rng.integers(0, photo.shape[1] - 96)
        piece = photo[top : top + 96, left : left + 96].astype(np.float32)
        tint = np.array([kind % 4, kind // 4 % 4, kind // 16], np.float32) / 3
        piece = 0.4 * piece + 0.6 * 255 * tint  # the sickness is in the colour, so that few photos teach it
        Image.fromarray(piece.clip(0, 255).astype(np.uint8)).save(folder / name, quality=85)
        rows.append({"disease_class": kind, "image_id": name})
    (folder / "photos.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / "photos.json"


def main(quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder), each=4 if quick else 40)
        ds = fs.from_table(photos, image="image_id", label="disease_class", image_size=32 if quick else 64)
        train, validation = ds.split(0.75, seed=1, stratify=True)
        print(f"{len(ds)} photos, {len(train)} to train and {len(validation)} to validate")
        drawn = train.sample(len(train), balance=True).batch(CLASSES)
        counts = np.zeros(CLASSES, int)
        with drawn.loader(memory="128 MB") as loader:
            for _, labels in loader:
                counts += np.bincount(labels, minlength=CLASSES)
        assert np.ptp(counts) <= 1, counts

        choose_backend()
        import keras

        keras.utils.set_random_seed(0)
        size = 32 if quick else 64
        model = keras.Sequential(
            [
                keras.Input((size, size, 3)),
                keras.layers.Rescaling(1 / 127.5, -1),
                keras.applications.MobileNetV2(
                    input_shape=(size, size, 3), alpha=0.35, weights=None, classes=CLASSES, classifier_activation=None
                ),
            ]
        )
        model.compile(
            keras.optimizers.Adam(3e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        epochs = 3 if quick else 6
        history = fs.fit(
            model,
            train.sample(len(train), balance=True, seed=2).batch(32),
            validation_data=validation.batch(32),
            epochs=epochs,
            memory="128 MB",
            verbose=0,
        ).history
        print(
            f"loss {history['loss'][0]:.2f} -> {history['loss'][-1]:.2f}, by chance {np.log(CLASSES):.2f}; "
            f"accuracy {history['accuracy'][-1]:.2f}, of validation {history['val_accuracy'][-1]:.2f}"
        )
        assert history["loss"][-1] < history["loss"][0] * (9 / 10 if quick else 2 / 3)


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
