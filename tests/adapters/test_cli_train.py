"""`fitstream train` and `demo`, whole."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from recorder import BACKEND, KERAS_WARNINGS, keras

from fitstream.cli import main

pytestmark = KERAS_WARNINGS

MakePictures = Callable[..., Path]
Fitstream = Callable[..., Any]


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def fitstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fitstream:
    """Run the command line in this process, where Keras is loaded already, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fitstream.cli.watch_for_interrupts", lambda: None)

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capsys.readouterr())

    return run


def fact(name: str, out: str) -> str:
    """What the summary says after a name."""
    found = re.search(rf"^{name} +(.*)$", out, re.MULTILINE)
    assert found is not None, out
    return found[1]


def test_train_on_a_folder_writes_model_history_classes_and_plot(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=40, classes=("cats", "dogs", "frogs"))
    done = fitstream(
        *("train", "photos", "--memory", "64MB", "--epochs", "3", "--image-size", "16", "--batch-size", "8"),
        *("--output", "out", "--seed", "1"),
    )
    assert done.code == 0, done.err
    assert "96 pictures in 3 classes (cats, dogs, frogs), and 24 to validate on" in done.out
    assert "96 samples a pass in 12 batches" in done.out
    assert len(re.findall(r"^Epoch \d/3 - 12 steps - ", done.out, re.MULTILINE)) == 3

    accuracy = re.match(r"accuracy ([\d.]+), loss ", fact("Validation", done.out))
    assert accuracy is not None
    assert float(accuracy[1]) > 0.6, "three classes by their colour"
    assert fact("Memory", done.out).endswith(" of 64 MB")

    with (tmp_path / "out" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert round(float(rows[-1]["val_accuracy"]), 4) == float(accuracy[1])
    assert json.loads((tmp_path / "out" / "class_names.json").read_text()) == ["cats", "dogs", "frogs"]
    assert (tmp_path / "out" / "history.png").read_bytes()[:4] == b"\x89PNG"

    model = keras.models.load_model(tmp_path / "out" / "model.keras")
    frogs = [np.asarray(Image.open(file).resize((16, 16))) for file in sorted(tmp_path.glob("photos/frogs/*"))]
    assert (model.predict(np.stack(frogs), verbose=0).argmax(1) == 2).mean() > 0.6
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "class_names.json",
        "history.csv",
        "history.png",
        "model.keras",
    ]


def test_the_same_command_goes_on_from_its_checkpoints(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=10)
    command = ("train", "photos", "--memory", "64MB", "--image-size", "8", "--batch-size", "8", "--checkpoint", "run")
    first = fitstream(*command, "--epochs", "1", "--output", "one")
    assert first.code == 0, first.err
    more = fitstream(*command, "--epochs", "2", "--output", "two")
    assert re.findall(r"^Epoch \d/2 ", more.out, re.MULTILINE) == ["Epoch 2/2 "]
    again = fitstream(*command, "--epochs", "2", "--output", "three")
    assert "Speed" not in again.out
    assert (tmp_path / "two" / "history.csv").read_text() == (tmp_path / "three" / "history.csv").read_text()


@pytest.mark.filterwarnings("ignore:.*on_bad_sample:RuntimeWarning")
def test_pictures_that_cannot_be_read_are_skipped_if_that_is_wanted_and_listed(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=10)
    (tmp_path / "photos" / "cats" / "001.jpg").write_bytes(b"cut off")
    command = ("train", "photos", "--memory", "64MB", "--image-size", "8", "--batch-size", "8", "--epochs", "1")
    assert fitstream(*command, "--output", "one").code == 1
    done = fitstream(*command, "--output", "two", "--on-bad-sample", "skip")
    assert done.code == 0, done.err
    with open(fact("Bad samples", done.out), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == ["001.jpg"]


def test_train_on_a_table_of_numbers_with_a_user_s_model(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=8)
    files = sorted(tmp_path.glob("photos/*/*"))
    rows = [f"{file.relative_to(tmp_path)},{number / 10},{-number}" for number, file in enumerate(files)]
    (tmp_path / "list.csv").write_text("\n".join(["file,width,height", *rows]))
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def make(shape, outputs):\n"
        "    return keras.Sequential([keras.layers.Input(shape), keras.layers.Rescaling(1 / 255),\n"
        "        keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(outputs)], name='mine')\n"
    )
    done = fitstream(
        *("train", "list.csv", "--image", "file", "--label", "width", "--label", "height", "--epochs", "1"),
        *("--model", "mine.py:make", "--image-size", "8x12", "--validation-split", "0", "--workers", "0"),
    )
    assert done.code == 0, done.err
    assert fact("Model", done.out).startswith("mine, 8 parameters, ")
    assert fact("Training", done.out).startswith("loss ")
    assert not (tmp_path / "fitstream-train" / "class_names.json").exists()
    assert (tmp_path / "fitstream-train" / "model.keras").exists()


def test_validation_data_gets_the_classes_of_training(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "train", count=8, classes=("ants", "bees", "cats"))
    make_pictures(tmp_path / "held out", count=4, classes=("bees", "ants", "cats"))
    (tmp_path / "fitstream-train").mkdir()
    done = fitstream(
        *("train", "train", "--validation", "held out", "--epochs", "1", "--image-size", "8", "--memory", "16MB"),
    )
    assert done.code == 0, done.err
    assert "24 pictures in 3 classes (ants, bees, cats), and 12 to validate on" in done.out
    assert (tmp_path / "fitstream-train-2" / "model.keras").exists(), "a folder that is there is left alone"


def test_validation_may_lack_a_class_of_training(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "train", count=4, classes=("ants", "bees", "cats"))
    make_pictures(tmp_path / "held out", count=4, classes=("ants", "cats"))
    done = fitstream("train", "train", "--validation", "held out", "--epochs", "1", "--image-size", "8")
    assert done.code == 0, done.err
    assert "12 pictures in 3 classes (ants, bees, cats), and 8 to validate on" in done.out


def table_of(labels: list[int], file: Path) -> None:
    """Write a table of pictures that are there by `make_pictures(file.parent / "photos")`."""
    pictures = sorted(file.parent.glob("photos/*/*"))
    rows = [f"{picture.relative_to(file.parent)},{label}" for picture, label in zip(pictures, labels, strict=False)]
    file.write_text("\n".join(["path,label", *rows]))


@pytest.mark.parametrize(
    ("mode", "labels", "said"),
    [
        ("int", [0, 1, 5], "validation has 6 classes, but training, and so the model, has 3"),
        ("categorical", [0, 1, 5], "validation has 6 values a label, but training, and so the model, has 3"),
        ("categorical", [0, 1], "validation has 2 values a label, but training, and so the model, has 3"),
    ],
)
def test_classes_of_validation_that_the_model_lacks_are_refused_before_training(
    mode: str, labels: list[int], said: str, tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=4)
    table_of([0, 1, 2, 0, 1, 2], tmp_path / "train.csv")
    table_of(labels, tmp_path / "other.csv")
    done = fitstream(
        "train", "train.csv", "--validation", "other.csv", "--image-size", "8", "--label-mode", mode, "--output", "out"
    )
    assert done.code == 1
    assert said in done.err
    assert "Epoch" not in done.out
    assert not (tmp_path / "out").exists()


def test_a_class_whose_only_sample_is_split_off_is_still_a_class_of_the_model(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=4)
    table_of([0, 1, 2, 3, 4, 5], tmp_path / "train.csv")
    done = fitstream("train", "train.csv", "--image-size", "8", "--epochs", "1", "--validation-split", "0.8")
    assert done.code == 0, done.err


@pytest.mark.parametrize("mode", ["int", "categorical"])
def test_labels_that_would_make_an_unbounded_model_are_refused_with_advice(
    mode: str, tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=4)
    table_of([0, 3_000_000, 6_000_000], tmp_path / "train.csv")
    done = fitstream("train", "train.csv", "--image-size", "8", "--label-mode", mode, "--validation-split", "0")
    assert done.code == 1
    assert "6,000,001 outputs for 3 samples" in done.err
    assert "--label-mode raw" in done.err


def test_a_model_that_is_not_known_is_said_before_the_plan(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=4)
    done = fitstream("train", "photos", "--image-size", "8", "--model", "mobilenett")
    assert done.code == 1
    assert "Did you mean mobilenet" in done.err
    assert "samples a pass" not in done.out


def test_the_same_seed_gives_the_same_history(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=8)
    histories = []
    for output, workers in (("one", "1"), ("two", "2")):
        done = fitstream(
            *("train", "photos", "--epochs", "2", "--image-size", "8", "--memory", "16MB", "--seed", "7"),
            *("--workers", workers, "--output", output),
        )
        assert done.code == 0, done.err
        with (tmp_path / output / "history.csv").open() as file:
            histories.append([[float(value) for value in row] for row in list(csv.reader(file))[1:]])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)


def test_a_picture_that_is_none_is_one_message_and_leaves_no_folder(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=8)
    (tmp_path / "photos" / "cats" / "001.jpg").write_text("This is a text file.")
    done = fitstream(
        *("train", "photos", "--epochs", "1", "--image-size", "8", "--output", "out", "--validation-split", "0"),
    )
    assert done.code == 1
    assert "Error: Sample 1 (" in done.err
    assert "cats/001.jpg" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_said_before_training(
    tmp_path: Path, make_pictures: MakePictures, fitstream: Fitstream
) -> None:
    make_pictures(tmp_path / "photos", count=2)
    (tmp_path / "taken").write_text("")
    done = fitstream("train", "photos", "--output", "taken/out")
    assert done.code == 1
    assert done.err.startswith("Error: the output folder can't be made")
    assert "Epoch" not in done.out


def test_ctrl_c_while_training_ends_with_one_line(tmp_path: Path, make_pictures: MakePictures) -> None:
    make_pictures(tmp_path / "photos", count=40)
    process = subprocess.Popen(
        [sys.executable, "-m", "fitstream", "train", "photos", "--epochs", "10000", "--image-size", "32"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "Interrupted."
    assert "Traceback" not in err


def test_the_demo_reaches_97_percent_within_its_budget(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    command = [sys.executable, "-m", "fitstream", "demo"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    done = Done(run.returncode, run.stdout, run.stderr)
    assert done.code == 0, done.err
    if BACKEND == "tensorflow":  # Keras on the others loads TensorFlow too if it is there, late and loudly.
        assert done.err == ""
    assert "Writing 1,797 handwritten digits" in done.out
    accuracy = re.match(r"accuracy ([\d.]+)", fact("Validation", done.out))
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.97
    used = re.fullmatch(r"peak ([\d.]+) (kB|MB) of 64 MB", fact("Memory", done.out))
    assert used is not None
    assert float(used[1]) * {"kB": 1e3, "MB": 1e6}[used[2]] <= 64e6
    for name, file in (("Model", "model.keras"), ("Plot", "history.png"), ("History", "history.csv")):
        told = re.findall(rf"^{name} +(fitstream-demo/.*)$", done.out, re.MULTILINE)
        assert told == [f"fitstream-demo/{file}"]
        assert (tmp_path / told[0]).stat().st_size > 0
    assert len(list((tmp_path / "fitstream-demo" / "digits").glob("?/*.png"))) == 1797
