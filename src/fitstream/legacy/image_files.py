"""Pictures of files as Pillow images and as arrays, with the names and arguments that `keras.preprocessing.image` had.

These read one picture at a time, in the calling thread, by Pillow as Keras does: for programs that call them. Feeding a
model reads pictures by fitstream's own decoder instead (`image_iterators`).

Without arguments that say otherwise, arrays have Keras's dtype and order of axes, if the program imported Keras.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fitstream.errors import PlanError
from fitstream.legacy.program import warn

__all__ = [
    "COLOR_MODES",
    "array_to_img",
    "checked_format",
    "data_format_of",
    "default_dtype",
    "img_to_array",
    "list_pictures",
    "load_img",
    "save_img",
    "validate_filename",
]

#: Keras's names of colours: Pillow's mode, and channels.
COLOR_MODES = {"grayscale": ("L", 1), "rgb": ("RGB", 3), "rgba": ("RGBA", 4)}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_PICTURES = ("jpg", "jpeg", "bmp", "png", "ppm", "tif", "tiff")
#: What Keras 1 called the order of axes.
_OLD_FORMATS = {"tf": "channels_last", "th": "channels_first"}


def _setting(name: str, default: str) -> str:
    # Keras isn't loaded for this: only where the program did can it have set something.
    keras = sys.modules.get("keras")
    return str(getattr(keras.config, name)()) if keras is not None and hasattr(keras, "config") else default


def default_dtype() -> str:
    """Keras's `floatx`."""
    return _setting("floatx", "float32")


def data_format_of(data_format: str | None, dim_ordering: str | None = None) -> str:
    """The order of a picture's axes, from either of its names.

    Args:
        data_format: "channels_last", "channels_first" or None for Keras's setting.
        dim_ordering: Keras 1's name: "tf", "th" or "default".
    Raises:
        PlanError: If it is none of these.
    """
    given = dim_ordering if data_format is None else data_format
    if given is None or given == "default":
        return _setting("image_data_format", "channels_last")
    return checked_format(_OLD_FORMATS.get(given, given))


def checked_format(data_format: str) -> str:
    """The same.

    Raises:
        PlanError: If it is no order of axes.
    """
    if data_format not in ("channels_last", "channels_first"):
        raise PlanError(f'data_format={data_format!r} must be "channels_last" or "channels_first".')
    return data_format


def load_img(
    path: str | os.PathLike[str] | BinaryIO,
    *old: Any,
    grayscale: bool = False,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Image.Image:
    """Load a picture with Pillow.

    Args:
        path: A file's path, or an open file.
        old: What programs pass by position, told by its type: `grayscale` (bool), `color_mode` and `interpolation`
            (text), `target_size` (a pair or None).
        grayscale: Keras 1's way to say `color_mode="grayscale"`.
        color_mode: "grayscale" | "rgb" | "rgba".
        target_size: `(height, width)` in pixels; None keeps the picture's own.
        interpolation: "nearest" | "bilinear" | "bicubic" | "lanczos" | "box" | "hamming".
        keep_aspect_ratio: Crop the middle to the target's shape instead of stretching.
    Raises:
        PlanError: If an argument is impossible.
    """
    for value in old:
        if isinstance(value, bool):
            grayscale = value
        elif isinstance(value, str):
            color_mode, interpolation = (value, interpolation) if value in COLOR_MODES else (color_mode, value)
        elif value is not None:
            target_size = value
    color_mode = "grayscale" if grayscale else color_mode
    if color_mode not in COLOR_MODES:
        raise PlanError(f"color_mode={color_mode!r} must be one of {', '.join(map(repr, COLOR_MODES))}.")
    with Image.open(path) as opened:
        keeps = color_mode == "grayscale" and opened.mode in ("L", "I;16", "I")
        image = opened.copy() if keeps else opened.convert(COLOR_MODES[color_mode][0])
    if target_size is None:
        return image
    height, width = target_size
    if image.size == (width, height):
        return image
    if interpolation not in _RESAMPLING:
        raise PlanError(f"interpolation={interpolation!r} must be one of {', '.join(map(repr, _RESAMPLING))}.")
    box = _middle(image.size, width, height) if keep_aspect_ratio else None
    return image.resize((width, height), _RESAMPLING[interpolation], box=box)


def _middle(size: tuple[int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """The largest rectangle `(left, top, right, bottom)` of the target's shape in the middle of a picture."""
    crop_width, crop_height = min(size[0], size[1] * width // height), min(size[1], size[0] * height // width)
    left, top = (size[0] - crop_width) // 2, (size[1] - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def img_to_array(
    img: Any, data_format: str | None = None, dtype: Any = None, *, dim_ordering: str | None = None
) -> npt.NDArray[Any]:
    """A Pillow image as an array of three axes.

    Args:
        img: `(height, width)` or `(height, width, channels)`: a Pillow image, or an array.
        data_format: "channels_last" or "channels_first"; None for Keras's setting.
        dtype: None for Keras's `floatx`.
        dim_ordering: Keras 1's name of `data_format`: "tf" or "th".
    Raises:
        PlanError: If it has other axes.
    """
    wanted = data_format_of(data_format, dim_ordering)
    x = np.array(img, dtype=dtype or default_dtype())
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3:
        raise PlanError(f"an image of shape {x.shape} must have two or three axes.")
    return x if wanted == "channels_last" else x.transpose(2, 0, 1)


def array_to_img(
    x: Any,
    data_format: str | None = None,
    scale: bool = True,
    dtype: Any = None,
    *,
    dim_ordering: str | None = None,
) -> Image.Image:
    """An array as a Pillow image of 8 bits, or of 32 bits where grey values are above 255.

    Args:
        x: One picture of three axes.
        data_format: As in `img_to_array`.
        scale: Stretch its values to 0 to 255.
        dtype: See there.
        dim_ordering: See there.
    Raises:
        PlanError: If it has other axes, or other than 1, 3 or 4 channels.
    """
    wanted = data_format_of(data_format, dim_ordering)
    pixels = np.asarray(x, dtype=dtype or default_dtype())
    if pixels.ndim != 3:
        raise PlanError(f"a picture of shape {pixels.shape} must have three axes.")
    if wanted == "channels_first":
        pixels = pixels.transpose(1, 2, 0)
    if scale:
        pixels = pixels - pixels.min()
        # In this order the largest is 255, and not a rounding error above it.
        pixels = pixels / (pixels.max() or 1) * 255
    channels = pixels.shape[2]
    if channels not in (1, 3, 4):
        raise PlanError(f"a picture has 1, 3 or 4 channels, and this one of shape {np.shape(x)} has {channels}.")
    if channels == 1:
        deep = pixels.max() > 255
        return Image.fromarray(pixels[:, :, 0].astype(np.int32 if deep else np.uint8))
    return Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))


def validate_filename(filename: str, white_list_formats: tuple[str, ...]) -> bool:
    """Whether a file is there and its name ends as a picture's."""
    return filename.lower().endswith(tuple(white_list_formats)) and os.path.isfile(filename)


def save_img(
    path: str | os.PathLike[str] | BinaryIO,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **options: Any,
) -> None:
    """Save an array as a picture.

    Args:
        path: A file's path, or an open file.
        x: As in `array_to_img`.
        data_format: See there.
        file_format: Such as "png"; None goes by the path's suffix.
        scale: As in `array_to_img`.
        options: Of Pillow's `Image.save`.
    """
    image = array_to_img(x, data_format, scale)
    named = file_format or (Path(path).suffix[1:] if isinstance(path, (str, os.PathLike)) else "")
    wanted = {"jpg": "jpeg"}.get(named.lower(), named.lower())
    if image.mode == "RGBA" and wanted == "jpeg":
        warn("JPEG has no opacity; the picture is saved without it.")
        image = image.convert("RGB")
    image.save(path, format=wanted or None, **options)


def list_pictures(directory: str | os.PathLike[str], ext: str | tuple[str, ...] = _PICTURES) -> list[str]:
    """Paths of all pictures below a folder, sorted.

    Args:
        directory: The folder.
        ext: Suffixes of pictures, as a tuple or, as in Keras 1, joined by `|`.
    """
    suffixes = ext.split("|") if isinstance(ext, str) else [suffix.lstrip(".") for suffix in ext]
    picture = re.compile(rf".+\.(?:{'|'.join(map(re.escape, suffixes))})", re.IGNORECASE)
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if picture.fullmatch(name)
    )
