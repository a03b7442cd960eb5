"""Functions of other libraries in `map`, as docs/augmentation.md says. Skipped where the library isn't there."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import fitstream as fs


def images() -> fs.Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 20, 3), dtype=np.uint8)
    return fs.from_arrays((pixels, np.arange(16)))


def batches(ds: fs.Dataset, **settings: Any) -> list[bytes]:
    with ds.shuffle(2).batch(8).loader(memory="1 GB", **settings) as loader:
        return [x.tobytes() for _ in range(2) for x, _ in loader]


def test_albumentations_is_repeatable_with_an_object_for_each_thread() -> None:
    albumentations = pytest.importorskip("albumentations")
    mine = threading.local()

    def augment(image: Any, label: Any, rng: np.random.Generator) -> Any:
        if not hasattr(mine, "compose"):
            mine.compose = albumentations.Compose(
                [albumentations.HorizontalFlip(), albumentations.RandomBrightnessContrast(p=1)]
            )
        mine.compose.set_random_seed(int(rng.integers(2**31)))
        return mine.compose(image=image)["image"], label

    ds = images().map(augment)
    expected = batches(ds, workers=0)
    assert len(set(expected)) == 4
    assert batches(ds, workers=3, processes=0) == expected


def test_torchvision_is_repeatable_with_one_lane_a_process() -> None:
    pytest.importorskip("torchvision")

    def augment(image: Any, label: Any, rng: np.random.Generator) -> Any:
        import torch
        from torchvision.transforms import v2

        transform = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.2)])
        torch.manual_seed(int(rng.integers(2**31)))
        picture = transform(torch.from_numpy(image).permute(2, 0, 1))
        return picture.permute(1, 2, 0).numpy(), label

    ds = images().map(augment)
    expected = batches(ds, workers=0)
    assert len(set(expected)) == 4
    assert batches(ds, workers=1, processes=1) == expected
