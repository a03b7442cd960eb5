"""Which Keras a program was written for, told by its names."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitstream.errors import PlanError
from fitstream.legacy.detecting import Verdict, detect
from fitstream.legacy.renames import read_renames


def verdict(folder: Path, source: str, **beside: str) -> Verdict:
    for name, text in beside.items():
        (folder / f"{name}.py").write_text(text)
    script = folder / "train.py"
    script.write_text(source)
    return detect(script, read_renames())


@pytest.mark.parametrize(
    "source",
    [
        "model.fit_generator(gen, samples_per_epoch=2000, nb_epoch=5)",
        "model.fit(x, y, nb_epoch=5)",
        "from keras.layers import Convolution2D",
        "from keras.layers.convolutional import Convolution2D",
        "import keras.layers as L\nL.Convolution2D(8, 3, 3)",
        "Conv(8, border_mode='same')",
        "Conv(8, nb_row=3)",
        "from keras.models import Model\nModel(input=a, output=b)",
        "from keras.layers import Dense as D\nD(output_dim=3)",
        "from keras.objectives import mse",
        "from keras import backend as K\nK.set_image_dim_ordering('th')",
    ],
)
def test_names_of_keras_1_tell_it(tmp_path: Path, source: str) -> None:
    assert verdict(tmp_path, source).keras == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.fit_generator(gen, steps_per_epoch=20, epochs=5)",
        "model.fit(x, y, epochs=5)",
        "model.fit_generator(gen, 100, 5, use_multiprocessing=True)",
        "from tensorflow.keras.layers import Dense",
        "import tensorflow as tf\ntf.keras.layers.Dense(3)",
        "from tensorflow import keras",
        "from tensorflow.python.keras.layers import Dense",
        "from keras.layers import Conv2D\nConv2D(8, 3, padding='same')",
        "import keras\nclass Gen(keras.utils.Sequence): pass",
        "from keras.models import Model\nModel(inputs=a, outputs=b)",
    ],
)
def test_names_of_keras_2_tell_it(tmp_path: Path, source: str) -> None:
    assert verdict(tmp_path, source).keras == 2


def test_one_name_of_keras_2_decides_since_it_took_those_of_keras_1_too(tmp_path: Path) -> None:
    found = verdict(tmp_path, "model.fit(x, nb_epoch=2)\nmodel.fit_generator(g, steps_per_epoch=3)")
    assert (found.keras, found.reason) == (2, "train.py:2 uses steps_per_epoch=")


@pytest.mark.parametrize(
    "source",
    [
        "model.fit_generator(gen, 2000, 5)",
        "from keras.preprocessing.sequence import pad_sequences\npad_sequences(x, padding='post')",
        "from collections.abc import Sequence",
        "parser.add_argument('--epochs', default=3)",
        "train(epochs=3)",
        "from keras.layers import Dense, Conv2D",
        "xgboost.XGBClassifier(subsample=0.5)",
    ],
)
def test_what_both_have_tells_nothing(tmp_path: Path, source: str) -> None:
    found = verdict(tmp_path, source)
    assert found.keras is None
    assert found.reason == "nothing in train.py tells Keras 1 from Keras 2"


def test_modules_beside_the_script_are_looked_at(tmp_path: Path) -> None:
    found = verdict(tmp_path, "from models import build", models="from layers import x", layers="f(nb_filter=3)")
    assert (found.keras, found.reason) == (1, "layers.py:1 uses nb_filter=")


def test_modules_that_import_each_other_are_looked_at_once(tmp_path: Path) -> None:
    assert verdict(tmp_path, "import a", a="import b", b="import a\nfit(nb_epoch=1)").keras == 1


def test_a_module_that_cannot_be_parsed_is_passed_over(tmp_path: Path) -> None:
    assert verdict(tmp_path, "import old\nfit(nb_epoch=1)", old="print 'x'").keras == 1


@pytest.mark.parametrize(
    ("source", "only"),
    [
        ("from tensorflow.keras.layers import Dense", True),
        ("import tensorflow as tf\ntf.keras.layers.Dense(3)", True),
        ("from tensorflow.keras.layers import Dense\nfrom keras.models import Model", False),
        ("import keras", False),
        ("import tensorflow as tf", False),
    ],
)
def test_programs_for_the_keras_of_tensorflow_are_known(tmp_path: Path, source: str, only: bool) -> None:
    assert verdict(tmp_path, source).tensorflow is only


@pytest.mark.parametrize(
    "line",
    [
        "print 'hello'",
        "print x, y",
        "raise ValueError, 'no'",
        "try:\n    pass\nexcept ValueError, e:\n    pass",
        "x = 0777",
        "x = ur'a'",
        "if a <> b: pass",
        "x = 10L",
        "x = `y`",
        "exec 'x = 1'",
    ],
)
def test_programs_for_python_2_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(PlanError, match=r"train\.py:\d+: this was written for Python 2.*2to3 -w") as caught:
        verdict(tmp_path, f"import os\n{line}\n")
    number = 4 if line.startswith("try") else 2
    assert f"train.py:{number}:" in str(caught.value)


def test_what_is_no_python_at_all_stays_a_syntax_error(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError):
        verdict(tmp_path, "def f(:\n")
