"""Functions of one picture: files, arrays and transformations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fitstream.errors import PlanError
from fitstream.legacy import images
from fitstream.legacy.image_transforms import FILL_MODES, warp


@pytest.fixture
def smooth() -> Any:
    """A picture `(40, 56, 3)` whose neighbours differ little, so that rounding shows as rounding."""
    rows, columns = np.mgrid[:40, :56]
    waves = [np.sin(rows / 7 + phase) + np.cos(columns / 9 - phase) for phase in (0, 1, 2)]
    return (127 + 60 * np.stack(waves, axis=2)).astype(np.float32)


def by_scipy(x: Any, mode: str, order: int, **parameters: float) -> Any:
    """Keras 2's way, over (row, column)."""
    ndimage = pytest.importorskip("scipy.ndimage")
    theta, shear = (np.deg2rad(parameters.get(name, 0)) for name in ("theta", "shear"))
    matrix = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    matrix = matrix @ [[1, 0, parameters.get("tx", 0)], [0, 1, parameters.get("ty", 0)], [0, 0, 1]]
    matrix = matrix @ [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]
    matrix = matrix @ np.diag([parameters.get("zx", 1), parameters.get("zy", 1), 1.0])
    matrix = images.transform_matrix_offset_center(matrix, *x.shape[:2])
    how = {"order": order, "mode": mode, "cval": 7.0}
    channels = [ndimage.affine_transform(x[..., c], matrix[:2, :2], matrix[:2, 2], **how) for c in range(x.shape[2])]
    return np.stack(channels, axis=2)


PARAMETERS = [
    {"theta": 25},
    {"theta": 90},
    {"tx": 5.3, "ty": -10.6},
    {"tx": 5, "ty": -10},
    {"shear": 20},
    {"zx": 0.8, "zy": 1.3},
    {"theta": -30, "tx": 5, "ty": 7, "shear": 10, "zx": 0.9, "zy": 1.2},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "constant", "reflect", "mirror"])
def test_warping_equals_scipys(smooth: Any, mode: str, parameters: dict[str, float]) -> None:
    ours, theirs = warp(smooth, parameters, mode, 7.0, 1), by_scipy(smooth, mode, 1, **parameters)
    # A pixel that lies on the border itself may be taken for inside or outside.
    differ = np.abs(ours - theirs) > 2
    assert differ.mean() <= (0.03 if mode == "constant" else 0)
    assert np.abs(ours - theirs)[~differ].mean() < 0.3


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("order", [0, 3])
def test_other_orders_are_close_to_scipys(smooth: Any, order: int, parameters: dict[str, float]) -> None:
    ours, theirs = warp(smooth, parameters, "nearest", 0.0, order), by_scipy(smooth, "nearest", order, **parameters)
    assert np.abs(ours - theirs).mean() < 2


def test_wrapping_equals_scipys_inside(smooth: Any) -> None:
    ours, theirs = warp(smooth, {"theta": 25}, "wrap", 0.0, 1), by_scipy(smooth, "wrap", 1, theta=25)
    assert np.abs(ours - theirs)[12:-12, 20:-20].mean() < 0.3


def test_signs_are_those_of_keras() -> None:
    x = np.zeros((9, 9, 1), np.float32)
    x[4, 4] = 1
    down = images.apply_affine_transform(x, tx=2, channel_axis=2)
    across = images.apply_affine_transform(x, ty=2, channel_axis=2)
    assert np.argwhere(down).tolist() == [[2, 4, 0]]
    assert np.argwhere(across).tolist() == [[4, 2, 0]]
    x[:] = 0
    x[1, 4] = 1
    turned = images.apply_affine_transform(x, theta=90, channel_axis=2)
    assert np.argwhere(turned > 0.5).tolist() == [[4, 7, 0]]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_any_number_of_channels_is_warped(count: int) -> None:
    x = np.add.outer(np.add.outer(np.arange(12), np.arange(10) * 2), np.arange(count) * 20).astype(np.float32)
    whole = warp(x, {"theta": 20}, "reflect", 0.0, 1)
    alone = [warp(x[..., c : c + 1], {"theta": 20}, "reflect", 0.0, 1) for c in range(count)]
    assert whole.shape == x.shape
    assert np.allclose(whole, np.concatenate(alone, axis=2), atol=0.1)


def test_channels_first_is_warped_alike(smooth: Any) -> None:
    last = images.apply_affine_transform(smooth, theta=20, zx=0.8, channel_axis=2)
    first = images.apply_affine_transform(smooth.transpose(2, 0, 1), theta=20, zx=0.8, channel_axis=0)
    assert np.array_equal(first.transpose(1, 2, 0), last)


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30, 1), (20, 30, 4)])
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.5, 3.3])
def test_brightness_equals_pillows(shape: tuple[int, ...], factor: float) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    theirs = ImageEnhance.Brightness(Image.fromarray(x[..., 0] if shape[2] == 1 else x)).enhance(factor)
    assert np.array_equal(images.apply_brightness_shift(x, factor, False), np.asarray(theirs).reshape(shape))


def test_shifting_channels_stays_between_least_and_largest() -> None:
    x = np.float32([[[10, 20], [30, 40]]])
    assert images.apply_channel_shift(x, 15, 2).tolist() == [[[25, 35], [40, 40]]]
    assert x[0, 0, 0] == 10


def test_flipping_reverses_one_axis(smooth: Any) -> None:
    assert np.array_equal(images.flip_axis(smooth, 1), smooth[:, ::-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: images.random_rotation(x, 40),
        lambda x: images.random_shift(x, 0.2, 0.3),
        lambda x: images.random_shear(x, 20),
        lambda x: images.random_zoom(x, (0.5, 1.5)),
        lambda x: images.random_channel_shift(x, 20),
        lambda x: images.random_brightness(x.transpose(1, 2, 0), (0.2, 0.9)).transpose(2, 0, 1),
    ],
)
def test_random_functions_follow_numpys_seed_and_leave_their_argument(smooth: Any, change: Any) -> None:
    x = np.ascontiguousarray(smooth.transpose(2, 0, 1))
    before = x.copy()
    np.random.seed(5)  # noqa: NPY002
    first = change(x)
    np.random.seed(5)  # noqa: NPY002
    again = change(x)
    assert first.shape == x.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, change(x))
    assert np.array_equal(x, before)


@pytest.mark.parametrize(
    "call",
    [
        lambda: images.apply_affine_transform(np.zeros((4, 4)), theta=1),
        lambda: images.apply_affine_transform(np.zeros((4, 4, 3)), theta=1, channel_axis=1),
        lambda: images.apply_affine_transform(np.zeros((4, 4, 3)), theta=1, fill_mode="edge"),
        lambda: images.apply_affine_transform(np.zeros((4, 4, 3)), theta=1, order=9),
        lambda: images.random_zoom(np.zeros((4, 4, 3)), (1,)),
        lambda: images.random_brightness(np.zeros((4, 4, 3)), [0]),
        lambda: images.array_to_img(np.zeros((4, 4))),
        lambda: images.array_to_img(np.zeros((4, 4, 2))),
        lambda: images.img_to_array(np.zeros((1, 4, 4, 3))),
        lambda: images.img_to_array(np.zeros((4, 4, 3)), "last"),
    ],
)
def test_impossible_calls_are_refused(call: Any) -> None:
    with pytest.raises(PlanError):
        call()


def test_fill_modes_are_named() -> None:
    with pytest.raises(PlanError, match="'nearest', 'constant', 'reflect'"):
        warp(np.zeros((4, 4, 3)), {"theta": 1}, "edge", 0.0, 1)
    assert set(FILL_MODES) >= {"nearest", "constant", "reflect", "wrap"}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "options", "size", "mode"),
    [
        ((), {}, (30, 20), "RGB"),
        ((True,), {}, (30, 20), "L"),
        ((False, (8, 6)), {}, (6, 8), "RGB"),
        ((False, "rgba", (8, 6), "bilinear"), {}, (6, 8), "RGBA"),
        (("grayscale", (8, 6), "bicubic"), {}, (6, 8), "L"),
        ((), {"grayscale": True, "target_size": (8, 6)}, (6, 8), "L"),
        ((), {"target_size": (8, 8), "keep_aspect_ratio": True}, (8, 8), "RGB"),
    ],
)
def test_pictures_are_loaded_as_each_keras_called_it(
    photo: Path, arguments: tuple[Any, ...], options: dict[str, Any], size: tuple[int, int], mode: str
) -> None:
    image = images.load_img(str(photo), *arguments, **options)
    assert (image.size, image.mode) == (size, mode)


def test_keeping_the_shape_crops_the_middle(photo: Path) -> None:
    whole = images.img_to_array(images.load_img(photo))
    square = images.img_to_array(images.load_img(photo, target_size=(20, 20), keep_aspect_ratio=True))
    assert np.array_equal(square, whole[:, 5:25])


@pytest.mark.parametrize("options", [{"color_mode": "cmyk"}, {"target_size": (4, 4), "interpolation": "best"}])
def test_loading_refuses_unknown_choices(photo: Path, options: dict[str, Any]) -> None:
    with pytest.raises(PlanError):
        images.load_img(photo, **options)


def test_arrays_and_images_go_back_and_forth(photo: Path) -> None:
    image = images.load_img(photo)
    last, first = images.img_to_array(image), images.img_to_array(image, dim_ordering="th")
    assert (last.dtype, last.shape, first.shape) == (np.float32, (20, 30, 3), (3, 20, 30))
    assert np.array_equal(images.array_to_img(last, scale=False), image)
    assert np.array_equal(images.array_to_img(first, "channels_first", scale=False), image)
    assert images.img_to_array(image.convert("L")).shape == (20, 30, 1)
    assert images.img_to_array(image, dtype="uint8").dtype == np.uint8


def test_arrays_are_scaled_for_people() -> None:
    x = np.float32([[[-1.0], [1.0]]])
    assert np.asarray(images.array_to_img(x)).tolist() == [[0, 255]]
    assert all(images.array_to_img(np.float32([[[0.0], [top]]])).mode == "L" for top in np.arange(1, 300) / 7)
    assert images.array_to_img(np.float32([[[300.0]]]), scale=False).mode == "I"


def test_arrays_are_saved_by_the_paths_suffix(tmp_path: Path) -> None:
    x = np.zeros((4, 4, 4))
    images.save_img(tmp_path / "a.png", x)
    with pytest.warns(UserWarning, match="opacity"):
        images.save_img(tmp_path / "a.jpg", x)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG"
    assert images.list_pictures(tmp_path) == [str(tmp_path / "a.jpg"), str(tmp_path / "a.png")]
    assert images.validate_filename(str(tmp_path / "a.png"), ("png",))
    assert not images.validate_filename(str(tmp_path / "b.png"), ("png",))
    assert images.list_pictures(tmp_path, ext="png") == [str(tmp_path / "a.png")]
