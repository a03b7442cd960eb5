"""Old programs, as their authors wrote them, run unchanged under `fitstream run`.

Each of `programs/` is one shape of the years 2016 to 2019. It finds its data in the folder where it is started, and
says what it did. It runs in a process of its own, on the backend of this run.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parent / "programs"

#: What each program says, among other things.
SAID: dict[str, list[str]] = {
    "random_batches": [
        r"keys: \['acc', 'loss', 'val_acc', 'val_loss'\]",
        r"train batches per epoch: 15",
        r"enough batches: True True",
        r"good: True",
        r"best model is good: True",
    ],
    "driving": [
        r"\['loss', 'val_loss'\]",
        r"rows of the log: 20",
        r"counter after 3 epochs: \d+",
        r"in order, each once: True",
        r"epochs of loss: 3 and 3",
        r"saved",
    ],
    "image_sequence": [
        r"batches per epoch: 5 of 22 images",
        r"on_epoch_end calls: 3",
        r"orders differ: True",
        r"acc: 3 val_acc: 3",
        r"predictions: \(10, 2\)",
    ],
    "json_images": [
        r"concatenated: \(288, 2\)",
        r"some twice: True",
        r"acc in history: True",
        r"losses: 3",
        r"score of two: 2",
        r"predicted: \(12, 2\)",
    ],
    "two_inputs": [r"lines read: 30", r"goes on where it was: True", r"loss is one number: True"],
    "frame_sequence": [
        r"24 rows, classes cats,dogs",
        r"acc: 2 values, val_acc: 2 values",
        r"lr: True",
        r"log: True",
        r"predictions of readable files: 8",
    ],
    "hdf5_batches": [
        r"train: 70 in 5 steps, test: 37 in 3 steps",
        r"history: \['acc', 'val_acc'\]",
        r"evaluated all once: True",
        r"predicted in order: True",
        r"loaded: True",
    ],
    "directory_pair": [
        r"Found 22 images belonging to 2 classes\.",
        r"class indices: \{'cats': 0, 'dogs': 1\}",
        r"samples: 22, steps: 6",
        r"val_acc: 3 values",
        r"predictions: \(10, 1\) for 10 files",
        r"classes: \[.*0.*, .*1.*\]",
        r"weights the same: True",
    ],
    "seven_positional": [
        r"epochs: 3",
        r"train samples: \d+",
        r"val samples: \d+",
        r"loss went: \['True', 'True', 'True'\]",
    ],
    "generator_callback": [
        r"epoch 2 ended with a loss: True",
        r"begun: True",
        r"levels: \[1, 2, 3\]",
        r"back at the start: True",
    ],
}

#: Packages that a program imports and that may be missing.
NEEDS = {"frame_sequence": ["pandas"], "driving": ["sklearn"], "directory_pair": ["scipy"]}


@pytest.fixture
def folder(tmp_path: Path, make_pictures: Callable[..., Path]) -> Path:
    """Where programs run: with pictures, lists of them, lines of text and features."""
    rng = np.random.default_rng(0)
    make_pictures(tmp_path / "data" / "train", count=11)
    make_pictures(tmp_path / "data" / "validation", count=5)
    for path in sorted((tmp_path / "data").rglob("*.png")):
        path.rename(path.with_suffix(".jpg"))  # programs look for one suffix; readers look at the bytes
    pictures = [path.relative_to(tmp_path) for path in sorted((tmp_path / "data" / "train").rglob("*.jpg"))]
    with (tmp_path / "driving_log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["center", "steering", "throttle"])
        writer.writerows([str(path), f"{rng.uniform(-1, 1):.4f}", "0.5"] for path in pictures)
        writer.writerows([str(path), "0.0", "0.5"] for path in pictures[:6])
    listed = [{"file": str(path), "label": path.parent.name, "split": "train"} for path in pictures]
    (tmp_path / "images.json").write_text(json.dumps({"classes": ["cats", "dogs"], "images": listed}))
    (tmp_path / "pairs.txt").write_text("".join(f"{line},1,2,3,4,{line % 3}\n" for line in range(12)))
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with (tmp_path / "frame.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows([["broken.jpg", "cats"], ["missing.jpg", "dogs"]])
        writer.writerows([str(path), path.parent.name] for path in pictures)
    with h5py.File(tmp_path / "features.h5", "w") as stored:
        for split, count in (("train", 70), ("test", 37)):
            stored[f"X_{split}"] = rng.normal(size=(count, 6)).astype(np.float32)
            stored[f"y_{split}"] = rng.integers(0, 2, (count, 1))
    return tmp_path


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fitstream", "run", str(PROGRAMS / f"{name}.py")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(said: str, name: str) -> int:
    found = re.search(rf"^{name}: (\d+)$", said, re.MULTILINE)
    assert found, said
    return int(found[1])


@pytest.mark.parametrize("name", SAID)
def test_an_old_program_runs_unchanged_and_says_what_it_said_then(name: str, folder: Path) -> None:
    for package in NEEDS.get(name, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    said = run(name, folder)
    missing = [line for line in SAID[name] if not re.search(rf"^{line}$", said, re.MULTILINE)]
    assert not missing, said
    if name == "seven_positional":
        # Counts are samples. The generator is asked for some batches ahead, of 10 samples, as Keras asked.
        assert 135 <= number(said, "train samples") <= 135 + 120
        assert 45 <= number(said, "val samples") <= 45 + 120
    if name == "driving":
        assert 60 <= number(said, "counter after 3 epochs") <= 60 + 48


def test_every_program_is_run() -> None:
    assert sorted(SAID) == sorted(path.stem for path in PROGRAMS.glob("*.py"))
