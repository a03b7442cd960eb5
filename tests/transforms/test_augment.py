"""Random transforms of pictures: shapes, ranges, determinism, and parameters that change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fitstream as fs
from fitstream.transforms.images import (
    Augment,
    ColorJitter,
    Cutout,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
    pad_boxes,
)

RANDOM = [
    RandomFlip(0.5, 0.5),
    RandomCrop((16, 12), padding=2),
    RandomResizedCrop((16, 12)),
    RandomRotation(40),
    ColorJitter(0.5, 0.5, 0.5, 0.3),
    Cutout(6, count=2),
]
IDENTITIES = [
    RandomFlip(0, 0),
    RandomCrop((20, 24)),
    RandomResizedCrop((20, 24), area=(1, 1), aspect=(1.2, 1.2)),
    RandomRotation(0),
    RandomRotation((360, 360)),
    ColorJitter(),
    Cutout(0),
    Augment([]),
]


def picture(dtype: str = "uint8", shape: tuple[int, ...] = (20, 24, 3)) -> np.ndarray[Any, Any]:
    pixels = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    return pixels if dtype == "uint8" else (pixels / np.float32(255)).astype(dtype)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def name(transform: Any) -> str:
    return type(transform).__name__


@pytest.mark.parametrize("transform", RANDOM, ids=name)
@given(
    height=st.integers(16, 40),
    width=st.integers(12, 40),
    channels=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from(["uint8", "float32"]),
    seed=st.integers(0, 2**32),
)
def test_a_picture_keeps_dtype_axes_and_range(
    transform: Any, height: int, width: int, channels: int | None, dtype: str, seed: int
) -> None:
    pixels = picture(dtype, (height, width) if channels is None else (height, width, channels))
    before = pixels.copy()
    done = transform(pixels, rng=rng(seed))
    resized = isinstance(transform, (RandomCrop, RandomResizedCrop))
    assert done.shape == ((16, 12) if resized else (height, width)) + pixels.shape[2:]
    assert done.dtype == pixels.dtype
    assert dtype == "uint8" or (done.min() >= 0 and done.max() <= 1)
    np.testing.assert_array_equal(pixels, before)  # what it was given is unchanged
    np.testing.assert_array_equal(done, transform(pixels, rng=rng(seed)))


@pytest.mark.parametrize("transform", RANDOM, ids=name)
def test_other_seeds_draw_otherwise(transform: Any) -> None:
    assert len({transform(picture(), rng=rng(seed)).tobytes() for seed in range(20)}) > 2


@pytest.mark.parametrize("transform", IDENTITIES, ids=name)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_parameters_that_change_nothing_give_the_picture_back(transform: Any, dtype: str) -> None:
    np.testing.assert_array_equal(transform(picture(dtype), rng=rng()), picture(dtype))


def test_other_parts_pass_through() -> None:
    done = RandomFlip(1)(picture(), 7, "x", rng=rng())
    assert done[1:] == (7, "x")
    np.testing.assert_array_equal(done[0], picture()[:, ::-1])


def test_a_vertical_flip_and_both() -> None:
    np.testing.assert_array_equal(RandomFlip(0, 1)(picture(), rng=rng()), picture()[::-1])
    np.testing.assert_array_equal(RandomFlip(1, 1)(picture(), rng=rng()), picture()[::-1, ::-1])


def test_flips_come_as_often_as_they_are_asked_for() -> None:
    draws = [RandomFlip(0.25, 0.75).draw(rng(seed), 8, 8) for seed in range(4000)]
    assert abs(np.mean([one.across for one in draws]) - 0.25) < 0.03
    assert abs(np.mean([one.down for one in draws]) - 0.75) < 0.03


def test_a_crop_is_a_part_of_the_picture_or_of_its_padding() -> None:
    padded = np.pad(picture(), ((4, 4), (4, 4), (0, 0)), constant_values=9)
    places = set()
    for seed in range(30):
        done = RandomCrop((20, 24), padding=4, fill=9)(picture(), rng=rng(seed))
        found = [
            (top, left)
            for top in range(9)
            for left in range(9)
            if np.array_equal(padded[top : top + 20, left : left + 24], done)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15


def test_a_crop_larger_than_the_picture_says_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"cuts 30 x 30 .* has 20 x 24 and padding=2"):
        RandomCrop(30, padding=2)(picture(), rng=rng())


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_a_resized_crop_stays_inside_and_has_the_area_that_is_asked_for(height: int, width: int, seed: int) -> None:
    transform = RandomResizedCrop(8, area=(0.2, 0.6))
    top, left, rows, columns = transform.region(rng(seed), height, width)
    assert top >= 0
    assert left >= 0
    assert 1 <= rows <= height - top
    assert 1 <= columns <= width - left
    if min(height, width) > 40 and 0.5 < height / width < 2:
        assert 0.18 < rows * columns / (height * width) < 0.62
        assert 0.7 < columns / rows < 1.45


def test_a_quarter_turn_is_exact() -> None:
    square = picture(shape=(21, 21, 3))
    np.testing.assert_array_equal(RandomRotation((90, 90))(square, rng=rng()), np.rot90(square))


def test_a_turn_fills_the_corners() -> None:
    done = RandomRotation((45, 45), fill=200)(np.zeros((30, 30, 3), np.uint8), rng=rng())
    assert (done[0, 0] == 200).all()
    assert (done[15, 15] == 0).all()


def test_jitter_is_brightness_contrast_and_saturation_as_they_are_defined() -> None:
    pixels = picture("float32") * np.float32(0.5)
    luma = np.array([0.299, 0.587, 0.114])
    draws = ColorJitter(0.4, 0.4, 0.4)
    drawn = draws.draw(rng(3), 20, 24)
    grey = (pixels @ luma)[..., None]
    saturated = drawn.saturation * pixels + (1 - drawn.saturation) * grey
    mean = (pixels @ luma).mean() * drawn.brightness
    expected = np.clip(drawn.contrast * drawn.brightness * saturated + (1 - drawn.contrast) * mean, 0, 1)
    np.testing.assert_allclose(draws.image(pixels, drawn), expected, atol=1e-5)


def test_uint8_is_jittered_as_floats_are_but_for_rounding() -> None:
    transform = ColorJitter(0.3, 0.3, 0.3, 0.2)
    done = transform(picture(), rng=rng(1))
    exact = transform(picture("float32"), rng=rng(1)) * 255
    assert np.abs(done - exact).max() < 1  # OpenCV reckons in fixed point there


def test_hue_keeps_greys_and_luma() -> None:
    grey = np.full((4, 4, 3), 90, np.uint8)
    np.testing.assert_array_equal(ColorJitter(hue=0.5)(grey, rng=rng(2)), grey)
    pixels = np.full((4, 4, 3), (0.4, 0.5, 0.45), np.float32)
    turned = ColorJitter(hue=0.5)(pixels, rng=rng(2))
    luma = [0.299, 0.587, 0.114]
    np.testing.assert_allclose(turned @ luma, pixels @ luma, atol=1e-4)
    assert np.abs(turned - pixels).max() > 0.01


def test_alpha_is_no_colour() -> None:
    pixels = picture(shape=(20, 24, 4))
    done = ColorJitter(0.5, 0.5, 0.5, 0.5)(pixels, rng=rng(1))
    np.testing.assert_array_equal(done[..., 3], pixels[..., 3])
    assert not np.array_equal(done, pixels)


def test_cutout_covers_a_square_that_may_lie_partly_outside() -> None:
    covered = [(Cutout(8)(np.ones((20, 20), np.uint8), rng=rng(seed)) == 0).sum() for seed in range(200)]
    assert max(covered) == 64
    assert 16 <= min(covered) < 64


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1), (5, 4)])
def test_normalize_is_the_formula_in_float32(shape: tuple[int, ...]) -> None:
    mean, std = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)) if shape[-1] == 3 else (0.5, 0.2)
    pixels = picture(shape=shape)
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    done = Normalize(mean, std)(pixels)
    assert done.dtype == np.float32
    assert done.shape == shape
    np.testing.assert_allclose(done, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(Normalize(mean, std)(picture("float32", shape)), expected, rtol=1e-4, atol=1e-5)


def test_image_and_mask_are_moved_alike_and_labels_are_never_mixed() -> None:
    mask = np.where(picture()[..., 0] > 127, 7, 2).astype(np.int64)
    image = np.repeat(mask[..., None], 3, 2).astype(np.uint8)
    both = Augment(
        [RandomFlip(0.5, 0.5), RandomRotation(30, "nearest"), RandomResizedCrop(16, interpolation="nearest")],
        ("image", "mask"),
    )
    for seed in range(20):
        done, moved, label = both(image, mask, 3, rng=rng(seed))
        assert moved.dtype == np.int64
        assert set(np.unique(moved)) <= {0, 2, 7}
        np.testing.assert_array_equal(done[..., 0], moved)
        assert label == 3


def test_colours_leave_the_mask_alone() -> None:
    mask = picture()[..., 0]
    _, after = Augment([ColorJitter(1, 1, 1), Cutout(9), Normalize(0.5, 0.2)], ("image", "mask"))(
        picture(), mask, rng=rng()
    )
    np.testing.assert_array_equal(after, mask)


def test_parts_of_a_dict_go_by_name() -> None:
    sample = {"image": picture(), "mask": picture()[..., 0], "id": 4}
    done = Augment([RandomFlip(1)], {"image": "image", "mask": "mask"})(sample, rng=rng())
    np.testing.assert_array_equal(done["mask"], sample["mask"][:, ::-1])
    assert done["id"] == 4
    with pytest.raises(TypeError, match="names mask"):
        Augment([], {"mask": "mask"})({"image": 1}, rng=rng())


def test_a_mask_of_another_size_is_told() -> None:
    with pytest.raises(ValueError, match=r"part 1 is 10 x 24 .* part 0 is 20 x 24"):
        Augment([RandomFlip()], ("image", "mask"))(picture(), picture()[:10, :, 0], rng=rng())


@pytest.mark.parametrize(
    "transform", [RandomFlip(1, 1), RandomCrop(14), RandomResizedCrop((40, 30)), RandomRotation((90, 90))], ids=name
)
def test_boxes_follow_their_picture(transform: Any) -> None:
    image = np.zeros((20, 20), np.uint8)
    image[8:14, 7:12] = 255
    box = np.array([[7, 8, 12, 14, 3]], np.float32)
    for seed in range(10):
        done, boxes = Augment([transform], ("image", "boxes"))(image, box, rng=rng(seed))
        rows, columns = np.nonzero(done > 127)
        if len(rows) < 4:
            continue
        inside = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert boxes.shape == (1, 5)
        assert boxes[0, 4] == 3
        np.testing.assert_allclose(boxes[0, :4], inside, atol=1.1)


def test_a_box_that_is_cut_off_is_left_out_with_its_class() -> None:
    boxes = np.array([[0, 0, 2, 2, 1], [12, 12, 18, 18, 2]], np.float32)
    cut = RandomCrop(8)
    np.testing.assert_array_equal(cut.boxes(boxes, (10, 10)), [[2, 2, 8, 8, 2]])


def test_boxes_are_padded_to_a_maximum_with_a_mask() -> None:
    padded, mask = pad_boxes(np.ones((2, 5), np.float32), 4)
    assert padded.tolist() == [[1] * 5] * 2 + [[0] * 5] * 2
    assert mask.tolist() == [1, 1, 0, 0]
    assert pad_boxes(np.array([]), 2)[0].shape == (2, 4)
    with pytest.raises(ValueError, match="3 boxes, but most_count=2"):
        pad_boxes(np.ones((3, 4)), 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomFlip(2),
        lambda: RandomCrop((0, 3)),
        lambda: RandomCrop("3"),  # type: ignore[arg-type]
        lambda: RandomResizedCrop(8, area=(0, 1)),
        lambda: RandomResizedCrop(8, interpolation="best"),  # type: ignore[arg-type]
        lambda: RandomRotation((10, -10)),
        lambda: ColorJitter(hue=0.6),
        lambda: ColorJitter(brightness=-1),
        lambda: Cutout(-1),
        lambda: Normalize(0.5, 0),
        lambda: Augment([print]),  # type: ignore[list-item]
        lambda: Augment([], ("boxes",)),
        lambda: Augment([], ("image", "picture")),  # type: ignore[arg-type]
        lambda: Augment([], "image"),
        lambda: Augment([], None),  # type: ignore[arg-type]
        lambda: Augment(RandomFlip()),  # type: ignore[arg-type]
        lambda: RandomCrop(None),  # type: ignore[arg-type]
        lambda: RandomCrop(True),
        lambda: RandomCrop(8, padding=1.5),  # type: ignore[arg-type]
        lambda: RandomCrop(8, fill=(1, 2, 3)),  # type: ignore[arg-type]
        lambda: RandomResizedCrop(8, area=0.5),  # type: ignore[arg-type]
        lambda: RandomResizedCrop(8, aspect=(1, float("inf"))),
        lambda: RandomRotation("10"),  # type: ignore[arg-type]
        lambda: RandomRotation((1, 2, 3)),  # type: ignore[arg-type]
        lambda: Cutout(2.5),  # type: ignore[arg-type]
        lambda: Cutout(2, count=1.5),  # type: ignore[arg-type]
        lambda: Normalize((), 1),
        lambda: Normalize("a", 1),  # type: ignore[arg-type]
        lambda: Normalize(float("nan"), 1),
        lambda: pad_boxes(np.zeros((0, 4)), -1),
        lambda: pad_boxes(np.zeros((0, 4)), 1.5),  # type: ignore[arg-type]
    ],
)
def test_a_setting_that_cannot_be_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(fs.PlanError):
        make()


def test_a_class_that_is_called_with_a_picture_does_not_print_it() -> None:
    with pytest.raises(fs.PlanError, match="horizontal=array") as caught:
        RandomFlip(picture(), 3)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 120


def test_lists_and_numbers_of_numpy_are_settings_too() -> None:
    assert RandomCrop([8, 9]) == RandomCrop((np.int64(8), np.int32(9)))  # type: ignore[arg-type]
    assert RandomRotation([-5, 10]) == RandomRotation((-5, 10))  # type: ignore[arg-type]
    assert Normalize(np.float32(0.5), np.array([0.5])) == Normalize(0.5, (0.5,))  # type: ignore[arg-type]


def test_an_iterator_of_transforms_is_kept_for_every_sample() -> None:
    flip = Augment(one for one in [RandomFlip(1)])  # type: ignore[arg-type]
    for _ in range(2):
        np.testing.assert_array_equal(flip(picture(), rng=rng()), picture()[:, ::-1])


def test_boxes_in_lists_have_one_dtype_whether_empty_or_not() -> None:
    for boxes in ([], [[1, 2, 3, 4]], [[1.5, 2, 3, 4]]):
        assert pad_boxes(boxes, 2)[0].dtype == np.float32  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_pictures_of_other_integers_are_resized_and_rounded(dtype: str) -> None:
    pixels = (picture(shape=(40, 40)) // 4).astype(dtype)
    for transform in (RandomResizedCrop(16), RandomRotation(30)):
        exact = transform(pixels.astype(np.float64), rng=rng(1))
        done = transform(pixels, rng=rng(1))
        assert done.dtype == dtype
        assert np.abs(done - exact).max() <= 0.6


def test_float_pictures_of_another_range_are_not_cut_to_white() -> None:
    with pytest.raises(ValueError, match=r"goes from 0 to 25[0-9]\. Change colours before Normalize"):
        ColorJitter(0.2)(picture().astype(np.float32), rng=rng())
    with pytest.raises(ValueError, match="Normalize"):
        ColorJitter(0.2)(Normalize(0.5, 0.2)(picture()), rng=rng())


def test_what_is_no_picture_is_told() -> None:
    with pytest.raises(ValueError, match=r"not list: use np\.asarray"):
        RandomFlip()([[1, 2]], rng=rng())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not object"):
        RandomFlip()(np.array([[None]]), rng=rng())
    with pytest.raises(ValueError, match=r"must be an array \(height, width"):
        RandomFlip()(np.zeros((2, 8, 8, 3), np.uint8), rng=rng())
    with pytest.raises(ValueError, match="not in int64"):
        ColorJitter(0.5)(np.zeros((8, 8, 3), np.int64), rng=rng())


@pytest.mark.parametrize(
    "transform",
    [RandomCrop(30, padding=9, fill=-1.0), Cutout(6, fill=300.0), RandomRotation((45, 45), fill=256)],
    ids=lambda one: type(one).__name__,
)
def test_a_fill_that_the_dtype_can_not_hold_is_refused(transform: Any) -> None:
    with pytest.raises(ValueError, match="hold 0 to 255, and can't be filled with"):
        transform(picture(), rng=rng())
    assert transform(picture("float32"), rng=rng()).dtype == np.float32


def test_a_mask_that_can_not_hold_its_fill_is_refused() -> None:
    turn = Augment([RandomRotation((45, 45), mask_fill=255)], parts=("image", "mask"))
    with pytest.raises(ValueError, match="hold -128 to 127, and can't be filled with 255"):
        turn(picture(), np.zeros((20, 24), np.int8), rng=rng())
