"""Two inputs and one output, from the lines of a text file.

The file is the breast cancer table that scikit-learn installs: real, 569 lines of 30 numbers and a label, under a
header. The model has two inputs: the 10 means of a tumour's cells, and the other 20 numbers. Nothing is loaded: a line
is read and parsed when its batch is made.

    python examples/two_inputs.py            # 40 epochs, some seconds
    python examples/two_inputs.py --quick    # 15 epochs

Needs: pip install "fitstream[tensorflow]" scikit-learn     (or [torch], or [jax])
Expected: on 114 lines that weren't trained on, at least 92 of 100 are right; always to say "benign" gives about 60.
Feeding takes 64 MB at most.
"""

from __future__ import annotations

import argparse
import os

import keras
import numpy as np
import sklearn.datasets

import fitstream as fs

MEMORY = "64 MB"


def parse(line: str) -> tuple[tuple[np.ndarray, np.ndarray], np.float32]:
    """A line as `((means, others), label)`."""
    *values, label = line.split(",")
    numbers = np.log1p(np.array(values, np.float32))  # the columns differ by a factor of a million
    return (numbers[:10], numbers[10:]), np.float32(label)


def build(train: fs.Dataset) -> keras.Model:
    some = [train[i][0] for i in range(200)]
    inputs, branches = [], []
    for place, width in enumerate((10, 20)):
        norm = keras.layers.Normalization()
        norm.adapt(np.stack([parts[place] for parts in some]))
        inputs.append(keras.layers.Input((width,)))
        branches.append(keras.layers.Dense(16, activation="relu")(norm(inputs[-1])))
    joined = keras.layers.Concatenate()(branches)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(joined))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)

    path = os.path.join(os.path.dirname(sklearn.datasets.__file__), "data", "breast_cancer.csv")
    lines = fs.from_text(path, parse, skip_lines=1)
    assert len(lines) == 569
    test, train = lines.split(0.2, seed=1)
    print(lines)

    model = build(train)
    batches = train.shuffle(0).batch(32)
    assert batches.plan(memory=MEMORY).projected_bytes <= 64e6, "the stated memory"
    fs.fit(model, batches, epochs=15 if options.quick else 40, verbose=0, memory=MEMORY)

    result = fs.evaluate(model, test.batch(32), return_dict=True, verbose=0, memory=MEMORY)
    benign = np.mean([test[i][1] for i in range(len(test))])
    print(f"{len(test)} lines: accuracy {result['accuracy']:.3f}, always benign {benign:.3f}")
    assert result["accuracy"] >= 0.92, "the expected result"


if __name__ == "__main__":
    main()
