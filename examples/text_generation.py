"""A model that learns to write, from a long text, and writes at several temperatures after each epoch.

The text is real: what scikit-learn says of its datasets, which it installs, written into one file. Windows of 40
characters come from the file itself, each with the same window one character later; a file longer than memory would do
as well, since only where its blocks start is kept.

    python examples/text_generation.py            # 6 epochs, a few minutes on a CPU
    python examples/text_generation.py --quick    # one short epoch

Needs: pip install "fitstream[tensorflow]" scikit-learn     (or [torch], or [jax])
Expected: the loss is below what single characters' shares give (3.4 nats; quick), and below 1.5 after 6 epochs.
Feeding takes 64 MB at most.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import sklearn.datasets

import fitstream as fs

WINDOW = 40
MEMORY = "64 MB"


def write_text(folder: Path) -> Path:
    """All descriptions in one file."""
    pages = sorted((Path(sklearn.datasets.__file__).parent / "descr").glob("*.rst"))
    path = folder / "datasets.txt"
    path.write_text("\n".join(page.read_text(encoding="utf-8") for page in pages), encoding="utf-8")
    return path


def build(classes: int, units: int) -> keras.Model:
    model = keras.Sequential(
        [
            keras.layers.Input((WINDOW,), dtype="int32"),
            keras.layers.Embedding(classes, 32),
            keras.layers.GRU(units, return_sequences=True),
            keras.layers.Dense(classes),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    return model


def entropy(path: Path) -> float:
    """The loss of a model that knows how often each character comes, and nothing else; in nats."""
    _, counts = np.unique(list(path.read_text(encoding="utf-8")), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    keras.utils.set_random_seed(0)

    with tempfile.TemporaryDirectory() as folder:
        path = write_text(Path(folder))
        windows = fs.from_windows(path, WINDOW, stride=20 if quick else 6, target="sequence")
        alphabet = windows.class_names
        assert alphabet is not None
        print(windows)

        model = build(len(alphabet), 64 if quick else 192)
        samples = fs.text.TextSamples(
            alphabet, "This dataset contains the number of each", 40 if quick else 200, temperatures=(0, 0.5, 1.0)
        )
        train = windows.shuffle(0).batch(32 if quick else 64)
        assert train.plan(memory=MEMORY).projected_bytes <= 64e6, "the stated memory"
        history = fs.fit(
            model,
            train,
            epochs=1 if quick else 6,
            callbacks=[samples],
            verbose=0,
            memory=MEMORY,
        )
        loss, alone = history.history["loss"][-1], entropy(path)
        print(f"loss {loss:.2f} nats a character; single characters' shares give {alone:.2f}")
        assert loss < alone, "the expected result"
        assert quick or loss < 1.5, "the expected result"
        assert all(set(text) <= set(alphabet) for text in samples.texts.values())


if __name__ == "__main__":
    main()
