"""What `keras.preprocessing.image` offered, under its names: `ImageDataGenerator`, its iterators, and the functions.

    image_transforms, image_files, image_targets, image_tables <- image_batches (which samples, and who makes them)
        <- image_iterators (folders, tables), image_arrays <- image_generator (what is done to a picture) <- images

All is made here and needs neither Keras nor SciPy.
"""

from __future__ import annotations

from fitstream.legacy.image_arrays import NumpyArrayIterator
from fitstream.legacy.image_batches import Iterator
from fitstream.legacy.image_files import (
    array_to_img,
    img_to_array,
    list_pictures,
    load_img,
    save_img,
    validate_filename,
)
from fitstream.legacy.image_generator import ImageDataGenerator
from fitstream.legacy.image_iterators import DataFrameIterator, DirectoryIterator
from fitstream.legacy.image_transforms import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    flip_axis,
    random_brightness,
    random_channel_shift,
    random_rotation,
    random_shear,
    random_shift,
    random_zoom,
    transform_matrix_offset_center,
)

__all__ = [
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "NumpyArrayIterator",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "array_to_img",
    "flip_axis",
    "img_to_array",
    "list_pictures",
    "load_img",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "save_img",
    "transform_matrix_offset_center",
    "validate_filename",
]
