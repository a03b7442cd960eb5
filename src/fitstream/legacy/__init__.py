"""The `fit_generator` family, for programs written for Keras 1 and 2: their classes, methods and names on Keras 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitstream.legacy.enqueuers import GeneratorEnqueuer, OrderedEnqueuer
from fitstream.legacy.sequence import Sequence

if TYPE_CHECKING:
    from fitstream.legacy.image_generator import ImageDataGenerator
    from fitstream.legacy.installing import install

__all__ = ["GeneratorEnqueuer", "ImageDataGenerator", "OrderedEnqueuer", "Sequence", "install"]


def __getattr__(name: str) -> Any:
    # Loads Keras and its backend, which importing this must not.
    if name == "install":
        from fitstream.legacy.installing import install

        return install
    if name == "ImageDataGenerator":  # needs Pillow and OpenCV
        from fitstream.legacy.image_generator import ImageDataGenerator

        return ImageDataGenerator
    raise AttributeError(f"module 'fitstream.legacy' has no attribute {name!r}")
