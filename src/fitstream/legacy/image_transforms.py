"""Geometry and colour of one picture, with the names and the sign conventions of `keras.preprocessing.image`.

The geometry is that of Keras 1 and 2 with `keras_preprocessing` up to 1.1.2: `tx` and `height_shift_range` move rows,
and all turns about the middle. (What Keras 3 keeps swaps rows and columns, so that `height_shift_range` moves columns,
and a picture that is no square turns about a point beside its middle.)

Keras warps with `scipy.ndimage`, a channel at a time; here OpenCV does, all channels at once, in about a twentieth of
the time. With `order=1` results are equal to rounding, but for "wrap": SciPy repeats a picture of n pixels every n - 1,
OpenCV every n. An `order` of 2 to 5 is cubic convolution here, not splines.

Functions take one picture `(height, width, channels)` or, by `channel_axis`, `(channels, height, width)`, and give one
that is floating if anything was interpolated. None changes its argument. Random ones draw from NumPy's global state, as
in Keras, so that `np.random.seed` fixes them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, final

import cv2
import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError

__all__ = [
    "FILL_MODES",
    "Scratch",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "apply_transform",
    "as_floating",
    "flip_axis",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "transform_matrix_offset_center",
    "warp",
]

Picture = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

#: SciPy's names of what lies outside a picture, and OpenCV's.
FILL_MODES = {
    "nearest": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_REPLICATE,  # what lies outside is set afterwards, as sharply as SciPy does
    "reflect": cv2.BORDER_REFLECT,
    "mirror": cv2.BORDER_REFLECT_101,
    "wrap": cv2.BORDER_WRAP,
}
#: What OpenCV interpolates at once.
_MOST_CHANNELS = 4
#: Pixels.
_ROUNDING = 1e-3


@final
class Scratch(threading.local):
    """Memory for one picture on its way, kept from picture to picture, of each thread its own.

    Fresh memory for each picture costs more than warping it: the system hands it out page by page, each time anew.
    """

    def __init__(self) -> None:
        self._kept: dict[str, npt.NDArray[np.float32]] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array of this shape, with anything in it; the next one of this name takes its place."""
        count = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size != count:
            kept = self._kept[name] = np.empty(count, np.float32)
        return kept.reshape(shape)


def as_floating(x: Picture) -> Picture:
    """The picture as it is if its dtype is floating and OpenCV knows it, else as float32."""
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def transform_matrix_offset_center(matrix: Matrix, x: float, y: float) -> Matrix:
    """The same transformation about the middle of a picture of `x` rows and `y` columns: `(3, 3)`."""
    down, across = x / 2 - 0.5, y / 2 - 0.5
    there = np.array([[1, 0, down], [0, 1, across], [0, 0, 1]])
    back = np.array([[1, 0, -down], [0, 1, -across], [0, 0, 1]])
    moved: Matrix = there @ matrix @ back
    return moved


def _matrix(theta: float, tx: float, ty: float, shear: float, zx: float, zy: float) -> Matrix | None:
    """Where a pixel of the result comes from, `(3, 3)` over (row, column, 1); None if from where it is."""
    matrices = []
    if theta != 0:
        cos, sin = math.cos(math.radians(theta)), math.sin(math.radians(theta))
        matrices.append(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]))
    if tx != 0 or ty != 0:
        matrices.append(np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]]))
    if shear != 0:
        cos, sin = math.cos(math.radians(shear)), math.sin(math.radians(shear))
        matrices.append(np.array([[1, -sin, 0], [0, cos, 0], [0, 0, 1]]))
    if zx != 1 or zy != 1:
        matrices.append(np.diag([zx, zy, 1.0]))
    if not matrices:
        return None
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def warp(
    x: Picture, parameters: dict[str, Any], fill_mode: str, cval: float, order: int, scratch: Scratch | None = None
) -> Picture:
    """Rotate, shift, shear and zoom about the middle.

    Args:
        x: `(height, width, channels)`.
        parameters: `theta` and `shear` in degrees, `tx` (down) and `ty` (across) in pixels, `zx` and `zy` as factors of
            what is seen. What isn't there does nothing.
        fill_mode: What lies outside, one of `FILL_MODES`.
        cval: Value outside for "constant".
        order: 0 for the nearest pixel, 1 for bilinear, 2 to 5 for cubic interpolation.
        scratch: What the result may lie in, as float32; None for fresh memory.
    Returns:
        Floating `(height, width, channels)`; `x` itself if nothing is to be done.
    Raises:
        PlanError: If the fill mode or the order is unknown.
    """
    if fill_mode not in FILL_MODES:
        raise PlanError(f"fill_mode={fill_mode!r} must be one of {', '.join(map(repr, FILL_MODES))}.")
    if order not in range(6):
        raise PlanError(f"interpolation_order={order!r} must be a whole number from 0 to 5.")
    names = (("theta", 0), ("tx", 0), ("ty", 0), ("shear", 0), ("zx", 1), ("zy", 1))
    matrix = _matrix(*(parameters.get(name, default) for name, default in names))
    if matrix is None:
        return x
    height, width = x.shape[:2]
    (a, b, down), (c, d, across), _ = transform_matrix_offset_center(matrix, height, width).tolist()
    border, flags = FILL_MODES[fill_mode], (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[min(order, 2)]
    inverse = np.array([[d, c, across], [b, a, down]])  # OpenCV's points are (column, row)
    options = {"flags": flags | cv2.WARP_INVERSE_MAP, "borderMode": border}
    warped: Picture
    if scratch is not None and x.shape[2] <= _MOST_CHANNELS:
        source, warped = scratch.take("source", x.shape), scratch.take("warped", x.shape)
        np.copyto(source, x)
        flat = warped.reshape(height, width) if x.shape[2] == 1 else warped  # as OpenCV gives a single channel
        written = cv2.warpAffine(source, inverse, (width, height), dst=flat, **options)
        assert written is flat, "OpenCV did not write in place"
    else:
        source = np.ascontiguousarray(as_floating(x))
        parts = [
            cv2.warpAffine(source[..., first : first + _MOST_CHANNELS], inverse, (width, height), **options)
            for first in range(0, x.shape[2], _MOST_CHANNELS)
        ]
        warped = np.concatenate([part.reshape(height, width, -1) for part in parts], axis=2)
    if fill_mode == "constant":
        rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
        warped[
            _outside(a * rows + (b * columns + down), height) | _outside(c * rows + (d * columns + across), width)
        ] = cval
    return warped


def _outside(places: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.bool_]:
    """Which places lie beyond the centres of the first and the last pixel."""
    # A rotation by 90 degrees and back leaves places that are off by rounding.
    found: npt.NDArray[np.bool_] = (places < -_ROUNDING) | (places > length - 1 + _ROUNDING)
    return found


def apply_transform(
    x: Picture,
    parameters: dict[str, Any],
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
    scratch: Scratch | None = None,
) -> Picture:
    """All transformations of one picture `(height, width, channels)`, in Keras's order.

    Args:
        x: Left as it is.
        parameters: As in `warp`, and `channel_shift_intensity`, `flip_horizontal`, `flip_vertical`, `brightness`.
        fill_mode: As in `warp`, like all that follow.
        cval: See there.
        order: See there.
        scratch: See there.
    """
    x = warp(x, parameters, fill_mode, cval, order, scratch)
    if parameters.get("channel_shift_intensity") is not None:
        x = apply_channel_shift(x, parameters["channel_shift_intensity"], 2)
    if parameters.get("flip_horizontal"):
        x = x[:, ::-1]
    if parameters.get("flip_vertical"):
        x = x[::-1]
    if parameters.get("brightness") is not None:
        x = apply_brightness_shift(x, parameters["brightness"], False)
    return x


def apply_affine_transform(
    x: Picture,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> Picture:
    """Rotate, shift, shear and zoom one picture about its middle.

    Args:
        x: Three axes: rows, columns, and the channels before or after them.
        theta: Degrees.
        tx: Pixels down.
        ty: Pixels across.
        shear: Degrees.
        zx: Factor of the rows that are seen; below 1 makes things larger.
        zy: Of the columns.
        row_axis: Told by `channel_axis`; taken because programs pass it.
        col_axis: Likewise.
        channel_axis: 0 or 2.
        fill_mode: "nearest" | "constant" | "reflect" | "mirror" | "wrap".
        cval: Value outside for "constant".
        order: 0 nearest, 1 bilinear, 2 to 5 cubic.
    Raises:
        PlanError: If the axes, the fill mode or the order are impossible.
    """
    x = np.asarray(x)
    if x.ndim != 3 or channel_axis not in (0, 2):
        raise PlanError(
            f"a picture of shape {x.shape} with channel_axis={channel_axis} can't be transformed: it needs three axes, "
            "of which the channels are the first (0) or the last (2)."
        )
    parameters = {"theta": theta, "tx": tx, "ty": ty, "shear": shear, "zx": zx, "zy": zy}
    warped = warp(np.moveaxis(x, channel_axis, 2), parameters, fill_mode, cval, order)
    return np.moveaxis(warped, 2, channel_axis)


def flip_axis(x: Picture, axis: int) -> Picture:
    """The picture with one axis reversed."""
    flipped: Picture = np.flip(np.asarray(x), axis)
    return flipped


def apply_channel_shift(x: Picture, intensity: float, channel_axis: int = 0) -> Picture:
    """Add to all channels, kept between the picture's least and largest value."""
    del channel_axis  # all channels get the same
    x = as_floating(np.asarray(x))
    shifted: Picture = np.clip(x + x.dtype.type(intensity), x.min(), x.max())
    return shifted


def apply_brightness_shift(x: Picture, brightness: float, scale: bool = True) -> Picture:
    """Multiply by a factor in 8 bits, as Pillow's `ImageEnhance.Brightness` does.

    Args:
        x: `(height, width, channels)`; of four channels the last one, opacity, stays.
        brightness: The factor.
        scale: Stretch the picture's values to 0 to 255 before. Done in any case if they are outside these, and then
            undone after.
    Returns:
        float32 of the same shape.
    """
    x = as_floating(np.asarray(x))
    low, high = float(x.min()), float(x.max())
    outside = low < 0 or high > 255
    if scale or outside:
        x = (x - low) * (255 / (high - low) if high > low else 0)
    levels = np.ascontiguousarray(x.astype(np.uint8))
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(brightness), 0, 255)
    shifted = cv2.LUT(levels, table.astype(np.uint8)).reshape(levels.shape)
    if levels.shape[2] == 4:
        shifted[..., 3] = levels[..., 3]
    bright: Picture = shifted.astype(np.float32)
    if outside and not scale:
        bright = bright / 255 * (high - low) + low
    return bright


def random_rotation(
    x: Picture,
    rg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Picture:
    """Rotate by up to `rg` degrees either way. The axes are as in `apply_affine_transform`."""
    return _affine(x, channel_axis, (fill_mode, cval, interpolation_order), theta=_uniform(rg))


def random_shift(
    x: Picture,
    wrg: float,
    hrg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Picture:
    """Shift by up to `wrg` of the width and `hrg` of the height."""
    tx = _uniform(hrg) * x.shape[row_axis]
    ty = _uniform(wrg) * x.shape[col_axis]
    return _affine(x, channel_axis, (fill_mode, cval, interpolation_order), tx=tx, ty=ty)


def random_shear(
    x: Picture,
    intensity: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Picture:
    """Shear by up to `intensity` degrees either way."""
    return _affine(x, channel_axis, (fill_mode, cval, interpolation_order), shear=_uniform(intensity))


def random_zoom(
    x: Picture,
    zoom_range: Sequence[float],
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Picture:
    """Zoom rows and columns by factors between the two of `zoom_range`."""
    low, high = _pair(zoom_range, "zoom_range")
    zx, zy = (1, 1) if low == high == 1 else np.random.uniform(low, high, 2)  # noqa: NPY002  Keras's own state
    return _affine(x, channel_axis, (fill_mode, cval, interpolation_order), zx=zx, zy=zy)


def random_channel_shift(x: Picture, intensity_range: float, channel_axis: int = 0) -> Picture:
    """Add up to `intensity_range` either way, kept between the picture's least and largest value."""
    return apply_channel_shift(x, _uniform(intensity_range), channel_axis)


def random_brightness(x: Picture, brightness_range: Sequence[float], scale: bool = True) -> Picture:
    """Multiply by a factor between the two of `brightness_range`, in 8 bits."""
    low, high = _pair(brightness_range, "brightness_range")
    return apply_brightness_shift(x, np.random.uniform(low, high), scale)  # noqa: NPY002


def _uniform(limit: float) -> float:
    # As everywhere in these functions: programs fix NumPy's global state, by np.random.seed.
    return float(np.random.uniform(-limit, limit))  # noqa: NPY002


def _pair(values: Sequence[float], name: str) -> tuple[float, float]:
    if not isinstance(values, (tuple, list, np.ndarray)) or len(values) != 2:
        raise PlanError(f"{name}={values!r} must be two numbers: (least, largest).")
    return float(values[0]), float(values[1])


def _affine(x: Picture, channel_axis: int, how: tuple[str, float, int], **parameters: float) -> Picture:
    fill_mode, cval, order = how
    warped = warp(np.moveaxis(x, channel_axis, 2), parameters, fill_mode, cval, order)
    return np.moveaxis(warped, 2, channel_axis)
