"""The models of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recorder import KERAS_WARNINGS, keras

from fitstream.errors import PlanError
from fitstream.models import Head, build_model, small_cnn

pytestmark = KERAS_WARNINGS

THREE = Head("int", 3)


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 31, 1), (65, 40, 3), (96, 128, 3)])
def test_small_cnn_takes_pictures_of_any_size(shape: tuple[int, int, int]) -> None:
    model = small_cnn(shape, THREE)
    assert model.output_shape == (None, 3)
    assert model.layers[-3].output.shape[1] <= 4 * 4 * 128, "the last picture is at most 4x4"


def test_small_cnn_is_small_for_small_pictures_and_grows_little() -> None:
    assert small_cnn((8, 8, 3), Head("int", 10)).count_params() < 30_000
    assert small_cnn((128, 128, 3), Head("int", 10)).count_params() < 500_000


def test_small_cnn_learns_pictures_that_differ_in_colour_within_seconds() -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 192)
    pictures = rng.integers(0, 150, (192, 12, 12, 3)).astype(np.uint8)
    pictures[np.arange(192), ..., labels] += 60
    model = build_model("small-cnn", (12, 12, 3), THREE)
    model.fit(pictures[:128], labels[:128], batch_size=16, epochs=4, verbose=0)
    _, accuracy = model.evaluate(pictures[128:], labels[128:], verbose=0)
    assert accuracy > 0.9


@pytest.mark.parametrize(
    ("head", "loss", "activation"),
    [
        (Head("int", 4), "sparse_categorical_crossentropy", "softmax"),
        (Head("categorical", 4), "categorical_crossentropy", "softmax"),
        (Head("binary", 1), "binary_crossentropy", "sigmoid"),
        (Head("raw", 2), "mean_squared_error", "linear"),
    ],
)
def test_the_loss_and_the_last_layer_follow_the_labels(head: Head, loss: str, activation: str) -> None:
    model = build_model("small-cnn", (8, 8, 3), head)
    assert model.loss == loss
    assert model.layers[-1].activation.__name__ == activation
    assert model.output_shape == (None, head.width)


@pytest.mark.parametrize("name", ["MobileNet", "mobilenet"])
def test_models_of_keras_applications_get_their_input_scaled(name: str) -> None:
    model = build_model(name, (32, 32, 3), THREE)
    assert isinstance(model.layers[0], keras.layers.Rescaling)
    assert model.output_shape == (None, 3)


def test_models_that_scale_by_themselves_are_not_scaled_twice() -> None:
    model = build_model("MobileNetV3Small", (32, 32, 3), THREE)
    scales = [layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    assert len(scales) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mobilenett", "Did you mean mobilenet"),
        ("zzz", "There are small-cnn, convnextbase,"),
        ("keras", "is no model that is known"),
    ],
)
def test_an_unknown_name_gets_suggestions(name: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        build_model(name, (32, 32, 3), THREE)


def test_a_picture_too_small_for_a_model_is_an_error_with_its_size() -> None:
    with pytest.raises(PlanError, match=r"InceptionV3 can't take pictures of 8x8 with 3 channels: .*75"):
        build_model("InceptionV3", (8, 8, 3), THREE)


OWN = """
import keras

def make(input_shape, outputs):
    return keras.Sequential([keras.layers.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(outputs)])

def compiled(input_shape, outputs):
    model = make(input_shape, outputs)
    model.compile("sgd", "mean_absolute_error")
    return model

def unbuilt(input_shape, outputs):
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(outputs)])

def narrow(input_shape, outputs):
    return keras.Sequential([keras.layers.Conv2D(4, 7), keras.layers.Flatten(), keras.layers.Dense(outputs)])

def text(input_shape, outputs):
    return "no model"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own_models.py"
    file.write_text(OWN)
    return file


def test_a_function_of_the_user_s_gets_shape_and_outputs(own: Path) -> None:
    model = build_model(f"{own}:make", (6, 4, 3), THREE)
    assert (model.input_shape, model.output_shape) == ((None, 6, 4, 3), (None, 3))
    assert model.loss == "sparse_categorical_crossentropy"


def test_a_model_that_the_user_compiled_stays_as_it_is(own: Path) -> None:
    assert build_model(f"{own}:compiled", (6, 4, 3), THREE).loss == "mean_absolute_error"


def test_a_model_that_the_user_left_unbuilt_is_built(own: Path) -> None:
    assert build_model(f"{own}:unbuilt", (6, 4, 3), THREE).count_params() == (6 * 4 * 3 + 1) * 3


def test_a_model_that_cannot_be_built_is_said_with_the_size_of_the_pictures(own: Path) -> None:
    with pytest.raises(PlanError, match=r"narrow\(\) gave can't be built for .* 6x4 with 3 channels\. .*Keras says: "):
        build_model(f"{own}:narrow", (6, 4, 3), THREE)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (":text", r"text\(\) gave a str, not a keras.Model"),
        (":mak", "has no function mak. It has make, compiled, unbuilt, narrow, text"),
        (":", "must be a name, or file.py:function"),
        ("x:make", "must be a name, or file.py:function"),
    ],
)
def test_what_is_wrong_with_a_user_s_file_is_said(own: Path, ending: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        build_model(f"{own}{ending}", (8, 8, 3), THREE)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="there is no file"):
        build_model(f"{tmp_path / 'gone.py'}:make", (8, 8, 3), THREE)
