"""How many pictures a second do random transforms change, beside those of Albumentations and torchvision?

Method: one thread, uint8 pictures of 224 x 224 x 3 (random noise, the same for all), each library's own transform of
the same meaning and settings, the best of five rounds of some tenths of a second. What isn't installed is left out.
MixUp and CutMix are of batches of 64, in place, in pictures a second. torchvision gets uint8 tensors `(3, 224, 224)`.

    python benchmarks/augmentation.py
"""

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from fitstream.transforms.images import (
    ColorJitter,
    CutMix,
    Cutout,
    MixUp,
    Normalize,
    RandomCrop,
    RandomFlip,
    RandomResizedCrop,
    RandomRotation,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS, ROUND_S = 5, 0.3


def rate(call: Callable[[], Any], pictures: int = 1) -> float:
    """Pictures a second, best of some rounds."""
    call()
    best = 0.0
    for _ in range(ROUNDS):
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < ROUND_S:
            call()
            count += pictures
        best = max(best, count / took)
    return best


def ours(picture: np.ndarray) -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    transforms = {
        "flip": RandomFlip(1.0),
        "crop": RandomCrop(200),
        "resized crop": RandomResizedCrop(224),
        "rotation": RandomRotation(30),
        "jitter": ColorJitter(0.2, 0.2, 0.2, 0.05),
        "cutout": Cutout(56),
        "normalize": Normalize(MEAN, STD),
    }
    return {name: lambda one=one: one(picture, rng=rng) for name, one in transforms.items()}


def albumentations(picture: np.ndarray) -> dict[str, Callable[[], Any]]:
    try:
        import albumentations as A  # noqa: N812  as everybody calls it
    except ImportError:
        return {}
    transforms = {
        "flip": A.HorizontalFlip(p=1),
        "crop": A.RandomCrop(200, 200, p=1),
        "resized crop": A.RandomResizedCrop((224, 224), p=1),
        "rotation": A.Rotate(30, p=1),
        "jitter": A.ColorJitter((0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.05, 0.05), p=1),
        "cutout": A.CoarseDropout((1, 1), (56, 56), (56, 56), p=1),
        "normalize": A.Normalize(MEAN, STD, p=1),
    }
    return {name: lambda one=one: one(image=picture) for name, one in transforms.items()}


def torchvision(picture: np.ndarray) -> dict[str, Callable[[], Any]]:
    try:
        import torch
        from torchvision.transforms import v2
    except ImportError:
        return {}
    torch.set_num_threads(1)
    tensor = torch.from_numpy(picture).permute(2, 0, 1).contiguous()
    transforms = {
        "flip": v2.RandomHorizontalFlip(1.0),
        "crop": v2.RandomCrop(200),
        "resized crop": v2.RandomResizedCrop(224, antialias=False),
        "rotation": v2.RandomRotation(30, v2.InterpolationMode.BILINEAR),
        "jitter": v2.ColorJitter(0.2, 0.2, 0.2, 0.05),
        "cutout": v2.RandomErasing(1.0, (0.0625, 0.0625), (1, 1)),
        "normalize": v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]),
    }
    return {name: lambda one=one: one(tensor) for name, one in transforms.items()}


def main() -> None:
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    libraries = {"fitstream": ours, "Albumentations": albumentations, "torchvision": torchvision}
    made = {name: library(picture) for name, library in libraries.items()}
    columns = {name: calls for name, calls in made.items() if calls}
    print(f"| pictures/s | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name in columns["fitstream"]:
        print(f"| {name} | {' | '.join(f'{rate(calls[name]):,.0f}' for calls in columns.values())} |", flush=True)
    batch = rng.integers(0, 256, (64, 224, 224, 3), dtype=np.uint8)
    labels = np.eye(64, dtype=np.float32)
    for mix in (MixUp(0.2), CutMix()):
        told = rate(lambda mix=mix: mix(batch, labels, rng=rng), 64)
        print(f"| {type(mix).__name__}, batch of 64 | {told:,.0f} ({64_000 / told:.1f} ms a batch) |", flush=True)


if __name__ == "__main__":
    main()
