"""`ImageDataGenerator` beside the one that Keras 3 keeps in private: the same files, labels, numbers and values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras.src.legacy.preprocessing import image as theirs

from fitstream.legacy import images as ours

MakePictures = Callable[..., Path]
KINDS = ours.ImageDataGenerator, theirs.ImageDataGenerator

AUGMENTED: dict[str, Any] = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": [-2, 0, 3],
    "shear_range": 10,
    "zoom_range": [0.8, 1.3],
    "channel_shift_range": 12,
    "brightness_range": (0.5, 1.5),
    "horizontal_flip": True,
    "vertical_flip": True,
}


@pytest.fixture
def photos(tmp_path: Path, make_pictures: MakePictures) -> str:
    """Pictures of one size that aren't resized, so that decoders agree; PNG alone would be exact."""
    return str(make_pictures(tmp_path / "photos", count=6, classes=("a", "b", "c")))


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(0).uniform(0, 255, (12, 10, 10, 3)).astype(np.float32)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    # JPEG decoders differ by rounding, of 255.
    return one.shape == other.shape and one.dtype == other.dtype and np.abs(one - other).sum() <= 0.1 * one.size


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [AUGMENTED, {"height_shift_range": 5}, {"width_shift_range": 7.5}, {}], ids=str)
def test_a_seed_draws_the_same_transformation(options: dict[str, Any], seed: int) -> None:
    one, other = (kind(**options).get_random_transform((30, 20, 3), seed) for kind in KINDS)
    assert one == other


@pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")
@pytest.mark.parametrize("theta", [-70, 30])
@pytest.mark.parametrize("zx", [0.7, 1.4])
def test_warping_is_the_transposed_of_what_keras_3_does(x: Any, theta: float, zx: float) -> None:
    pytest.importorskip("scipy")
    # Keras 3 swaps rows and columns; Keras 1 and 2, whose programs these are, did not.
    how = {"theta": theta, "zx": zx, "tx": 1.5, "ty": -2, "shear": 10, "channel_axis": 2}
    one = ours.apply_affine_transform(x[0], **how)
    other = theirs.apply_affine_transform(x[0].transpose(1, 0, 2), row_axis=0, col_axis=1, **how).transpose(1, 0, 2)
    assert np.abs(one - other).mean() < 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"flip_horizontal": True},
        {"flip_vertical": True, "channel_shift_intensity": 25},
        {"brightness": 0.4},
        {"brightness": 1.7, "flip_horizontal": True},
    ],
    ids=str,
)
def test_other_transformations_are_equal(x: Any, parameters: dict[str, Any]) -> None:
    one, other = (kind().apply_transform(x[0].copy(), parameters) for kind in KINDS)
    assert np.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"rescale": 1 / 255},
        {"samplewise_center": True, "samplewise_std_normalization": True},
        {"featurewise_center": True, "featurewise_std_normalization": True, "rescale": 0.5},
        {"zca_whitening": True, "featurewise_center": True, "zca_epsilon": 1e-3, "rescale": 1 / 255},
        {"preprocessing_function": lambda x: x[..., ::-1] - 100.0},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_standardizing_is_equal(x: Any, options: dict[str, Any], data_format: str) -> None:
    pictures = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    results = []
    for kind in KINDS:
        generator = kind(data_format=data_format, **options)
        generator.fit(pictures)
        results.append(generator.flow(pictures, batch_size=12, shuffle=False)[0])
    assert np.allclose(*results, atol=2e-2 if "zca_whitening" in options else 1e-3)


def test_options_that_imply_others_do_so_alike() -> None:
    names = ("featurewise_center", "featurewise_std_normalization", "samplewise_center")
    for option in ("zca_whitening", "featurewise_std_normalization", "samplewise_std_normalization"):
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            one, other = (kind(**{option: True}) for kind in KINDS)
        assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


@pytest.mark.parametrize("class_mode", ["categorical", "binary", "sparse", "input", None])
@pytest.mark.parametrize("subset", [None, "training", "validation"])
def test_folders_give_the_same_batches(
    photos: str, class_mode: str | None, subset: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    iterators, told = [], []
    for kind in KINDS:
        generator = kind(rescale=1.0, validation_split=0.4)
        iterators.append(
            generator.flow_from_directory(
                photos, (24, 32), class_mode=class_mode, batch_size=4, shuffle=False, subset=subset
            )
        )
        told.append(capsys.readouterr().out.strip())
    one, other = iterators
    for name in ("filenames", "filepaths", "class_indices", "samples", "num_classes", "image_shape", "n"):
        assert getattr(one, name) == getattr(other, name)
    assert one.classes.tolist() == other.classes.tolist()
    assert told[0] == told[1]
    assert len(one) == len(other)
    for place in range(len(one)):
        assert equal(one[place], other[place])
    assert equal([next(one) for _ in range(5)], [next(other) for _ in range(5)])


@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_pictures_are_read_as_by_keras(photos: str, color_mode: str, interpolation: str) -> None:
    how = {"color_mode": color_mode, "interpolation": interpolation, "shuffle": False, "class_mode": None}
    one, other = (kind().flow_from_directory(photos, (20, 26), **how)[0] for kind in KINDS)
    assert one.shape == other.shape
    limit = {"nearest": 3}.get(interpolation, 16)  # of 255, for pictures of noise
    assert np.abs(one - other).mean() < limit


@pytest.mark.parametrize(
    "options",
    [
        {"class_mode": "categorical"},
        {"class_mode": "sparse", "weight_col": "weight"},
        {"class_mode": "raw", "y_col": "age"},
        {"class_mode": "raw", "y_col": ["age", "weight"], "weight_col": "weight"},
        {"class_mode": "multi_output", "y_col": ["age", "weight"]},
        {"class_mode": "categorical", "y_col": "tags"},
        {"class_mode": "categorical", "y_col": "tags", "classes": ["y", "z"]},
        {"class_mode": "input"},
        {"class_mode": None},
        {"class_mode": "sparse", "subset": "training"},
        {"class_mode": "sparse", "subset": "validation"},
    ],
    ids=str,
)
def test_tables_give_the_same_batches(photos: str, options: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    names = ours.ImageDataGenerator().flow_from_directory(photos).filenames
    frame = pandas.DataFrame(
        {
            "filename": names,
            "class": [name[0] for name in names],
            "age": np.arange(len(names)) / 2,
            "weight": np.linspace(0, 1, len(names)),
            "tags": [["x"], ["y", "x"], ["z"]] * 6,
        }
    )
    one, other = (
        kind(validation_split=0.25).flow_from_dataframe(frame, photos, target_size=(24, 32), shuffle=False, **options)
        for kind in KINDS
    )
    assert one.filenames == other.filenames
    assert equal(one[0], other[0])


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("subset", [None, "training", "validation"])
def test_arrays_give_the_same_batches(x: Any, beside: bool, subset: str | None) -> None:
    given = (x, [np.arange(12), np.arange(24).reshape(12, 2)]) if beside else x
    y = np.tile([0, 1], 6)
    # Keras divides pictures and labels, but not weights: those of the training part are other samples'.
    weights = None if subset == "training" else np.linspace(0, 1, 12)
    one, other = (
        kind(rescale=0.5, validation_split=0.5).flow(given, y, 5, shuffle=False, sample_weight=weights, subset=subset)
        for kind in KINDS
    )
    for place in range(len(one)):
        assert equal(one[place], other[place])
