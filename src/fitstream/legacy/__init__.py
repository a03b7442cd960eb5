"""The `fit_generator` family, for programs written for Keras 1 and 2: their classes, methods and names on Keras 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitstream.late import late_names
from fitstream.legacy.enqueuers import GeneratorEnqueuer, OrderedEnqueuer
from fitstream.legacy.sequence import Sequence

if TYPE_CHECKING:
    from fitstream.legacy.image_generator import ImageDataGenerator
    from fitstream.legacy.installing import install

__all__ = ["GeneratorEnqueuer", "ImageDataGenerator", "OrderedEnqueuer", "Sequence", "install"]

# These load Keras and its backend, or Pillow and OpenCV.
_MODULES = {
    "ImageDataGenerator": "fitstream.legacy.image_generator",
    "install": "fitstream.legacy.installing",
}

__getattr__ = late_names(__name__, _MODULES)
