"""A DataFrame of paths without labels, some of whose files are broken: classes from paths, bad samples skipped.

Expected: every broken file that training met is in a CSV with its reason, and above 0.9 of the held-out digits are told
right. Memory for feeding: 64 MB.

    python examples/frame_with_broken_files.py            # 8 epochs: under a minute
    python examples/frame_with_broken_files.py --quick    # 4 epochs
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

import fitstream as fs
from fitstream.backend import choose_backend

BROKEN = {100: "cut off", 500: "empty", 900: "missing", 1300: "no picture"}


def write_digits(folder: Path) -> pd.DataFrame:
    """Write scikit-learn's digits as "seven_0012.png" and so on, four of them broken; returns a frame of paths."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    digits, paths = load_digits(), []
    for number, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / f"{words[digit]}_{number:04d}.png"
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
        paths.append(str(path))
        what = BROKEN.get(number)
        if what == "cut off":
            path.write_bytes(path.read_bytes()[:60])
        elif what == "empty":
            path.write_bytes(b"")
        elif what == "missing":
            path.unlink()
        elif what == "no picture":
            path.write_text("<html>404</html>")
    return pd.DataFrame({"file": paths})


def main(quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        frame = write_digits(Path(folder))
        ds = fs.from_table(
            frame,
            image="file",
            path_to_class=lambda path: Path(path).name.split("_")[0],
            image_size=8,
            channels=1,
        )
        print(f"classes: {ds.class_names}")
        train, held_out = ds.split(0.8, seed=0, stratify=True)
        with train.batch(64).loader(memory="64 MB", on_bad_sample="skip") as loader, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first bad sample is told of by a warning
            good = sum(len(labels) for _, labels in loader)
            loader.stats().write_bad_samples(Path(folder) / "bad.csv")
        bad = pd.read_csv(Path(folder) / "bad.csv")
        print(bad[["index", "reason"]].to_string())
        assert good + len(bad) == len(train)
        assert set(bad["index"]) <= set(BROKEN)

        choose_backend()
        import keras

        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Rescaling(1 / 255),
                layers.Conv2D(32, 3, padding="same", activation="relu"),
                layers.Flatten(),
                layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = {"memory": "64 MB", "verbose": 0, "on_bad_sample": "skip"}
            fs.fit(model, train.shuffle(0).batch(32), epochs=4 if quick else 8, **settings)
            _, accuracy = fs.evaluate(model, held_out.batch(64), **settings)
        print(f"accuracy on held-out digits: {accuracy:.3f}")
        assert accuracy > 0.9


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
