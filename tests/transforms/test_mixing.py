"""MixUp and CutMix on a batch, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.transforms.images import CutMix, MixUp


def batch(count: int = 6, dtype: str = "float32") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures that are all of one value, their place, and one-hot labels of the same."""
    images = np.empty((count, 8, 10, 3), dtype)
    images[...] = np.arange(count).reshape(-1, 1, 1, 1) * (40 if dtype == "uint8" else 1)
    return images, np.eye(count, dtype=np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_mixup_blends_pictures_in_the_share_of_their_labels(dtype: str) -> None:
    images, labels = batch(dtype=dtype)
    originals = images.copy()
    MixUp(1.0)(images, labels, rng=np.random.default_rng(1))
    expected = np.tensordot(labels, originals.astype(np.float64), 1)
    np.testing.assert_allclose(images, expected, atol=0.51 if dtype == "uint8" else 1e-5)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert ((labels > 0).sum(1) == 2).all()
    assert ((labels > 0).sum(0) == 2).all()  # each is somebody's partner once


def test_cutmix_pastes_the_share_of_the_area_that_labels_say() -> None:
    for seed in range(20):
        images, labels = batch()
        CutMix()(images, labels, rng=np.random.default_rng(seed))
        for row, label in zip(images, labels, strict=True):
            shares = [(row == value).mean() for value in range(len(labels))]
            np.testing.assert_allclose(label, shares, atol=1e-6)


def test_one_picture_alone_stays_as_it_is() -> None:
    for mix in (MixUp(), CutMix()):
        images, labels = batch(1)
        mix(images, labels, rng=np.random.default_rng(0))
        np.testing.assert_array_equal(images, batch(1)[0])
        np.testing.assert_allclose(labels, [[1]])


def test_equal_seeds_mix_alike_and_others_otherwise() -> None:
    def mixed(seed: int) -> bytes:
        images, labels = batch()
        MixUp()(images, labels, rng=np.random.default_rng(seed))
        return images.tobytes() + labels.tobytes()

    assert mixed(1) == mixed(1)
    assert mixed(1) != mixed(2)


def test_labels_that_are_numbers_of_classes_are_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"one-hot.*categorical"):
        MixUp()(batch()[0], np.arange(6), rng=np.random.default_rng(0))


def test_what_cannot_be_changed_in_place_is_refused_and_not_left_as_it_was() -> None:
    images, labels = batch()
    with pytest.raises(TypeError, match="before they are transposed"):
        MixUp()(images.transpose(0, 3, 1, 2), labels, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="labels must be one array, not dict"):
        CutMix()(images, {"a": labels}, rng=np.random.default_rng(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [0, -1, float("inf"), "1"])
def test_alpha_must_be_positive(alpha: Any) -> None:
    with pytest.raises(fs.PlanError, match="alpha"):
        MixUp(alpha)
    with pytest.raises(fs.PlanError, match="alpha"):
        CutMix(alpha)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ((np.zeros((8, 4, 4, 3), np.uint8), np.arange(8)), r"map_batch\(MixUp\).*labels of dtype int64.*one-hot"),
        ((np.zeros((8, 4), np.float32), np.zeros((8, 2), np.float32)), "images must be uint8 or floats of shape"),
        ((np.zeros((8, 4, 4), np.int32), np.zeros((8, 2), np.float32)), "not int32 with 3 axes"),
        (np.zeros((8, 4, 4), np.uint8), "tuples that begin with one array of images and one of labels"),
    ],
)
def test_samples_that_cannot_be_mixed_are_refused_when_the_plan_is_made(samples: Any, told: str) -> None:
    dataset = fs.from_arrays(samples).batch(4).map_batch(MixUp())
    with pytest.raises(fs.PlanError, match=told):
        dataset.plan(memory="1 MB")
