"""Encoded pictures to pixels: JPEG by libjpeg-turbo, everything else by Pillow, resized straight into the batch.

    JPEG bytes ──simplejpeg──> arena scratch ──cv2.resize(dst=)──> the batch's row
        with the row's own size, shown as stored: simplejpeg writes the row itself

A JPEG that is at least twice as large as needed on both sides is decoded at 1/2, 1/4 or 1/8 of its size, which its
cosine transform gives for less than the full picture, and better than interpolating, which samples only some of its
pixels. Never for "nearest", which promises pixels of the picture. (simplejpeg can't decode a rectangle alone, so a
random crop saves by the scale only.) The choice depends on the picture and the options
alone: were it to depend on the memory at hand, the bytes of a batch would too.

Not used: libjpeg's fast DCT (a mean error of 1.0 of 255, and no faster with today's vector instructions) and its plain
chroma upsampling (0.06 of 255 but up to 50 at coloured edges, for 7 % of the time).

What simplejpeg warns of, it refuses. Stray bytes harm nothing, so Pillow is asked then; but Pillow passes over every
warning, so where the warning says that picture data are missing or wrong, the picture is refused: grey areas are not
what was photographed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import numpy.typing as npt
import simplejpeg

from fitstream.scratch import Arena
from fitstream.transforms.images import DecodeError, ImageOptions
from fitstream.transforms.jpeg import JPEG_START, JpegHeader, read_jpeg_header
from fitstream.transforms.pillow import (
    copy_pixels,
    open_picture,
    orientation_of,
    picture_format,
    pillow_errors,
    storage_bytes,
    tile_size,
)
from fitstream.transforms.resize import Fit, Part, fit, place, result_shape, stored_part, turn
from fitstream.transforms.trimming import parts_of

__all__ = ["DecodeError", "ImageDecoder"]

Region: TypeAlias = Callable[[int, int], tuple[int, int, int, int]]

_COLOURS = {1: "GRAY", 3: "RGB", 4: "RGBA"}
#: libjpeg's words for picture data that are missing or wrong, in lower case.
_DAMAGE = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst")


@final
class ImageDecoder:
    """Decodes pictures for one lane.

    Args:
        options: What the pictures become.
        arena: The lane's scratch. What is taken or charged stays so until its owner resets it.

    Attributes:
        fallback_count: JPEGs that simplejpeg refused and Pillow read.
    """

    def __init__(self, options: ImageOptions, arena: Arena) -> None:
        self.fallback_count = 0
        self._options = options
        self._arena = arena
        self._formats = options.formats
        self._colours = _COLOURS[options.channels]
        self._dtype = np.dtype(options.dtype)
        self._plan_jpeg = lru_cache(1024)(partial(_plan_jpeg, options))
        self._scaled = options.dtype != "uint8"

    def decode(
        self,
        encoded: memoryview,
        out: npt.NDArray[Any] | None = None,
        region: Region | None = None,
    ) -> npt.NDArray[Any]:
        """Decode one picture.

        Args:
            encoded: The file's bytes.
            out: `(height, width, channels)` of the options' dtype, C-contiguous: a row of the batch to write to.
                What it holds after an error is undefined.
            region: Called with the picture's height and width, as shown: the rectangle (top, left, height, width) that
                fills the result. None for what the options say.
        Returns:
            `out`, or a fresh array of that kind, never scratch: 0 to 255 as uint8, 0 to 1 as float32.
        Raises:
            DecodeError: If the bytes are no whole picture that can be read, or it has another size than `out`.
            TooLarge: If the arena can't give what the picture needs.
        """
        name = "JPEG" if encoded[:3] == JPEG_START else picture_format(encoded)
        if self._formats is not None and name not in self._formats:
            raise DecodeError(f"it is a {name} picture, where formats={self._formats} are allowed")
        if name != "JPEG":
            return self._decode_with_pillow(name, encoded, out, None, region)
        header = read_jpeg_header(encoded)
        _check_pixels(header.height, header.width, self._options)
        if header.components == 4:  # libjpeg leaves CMYK to its caller
            return self._decode_with_pillow("JPEG", encoded, out, header, region)
        return self._decode_jpeg(encoded, out, header, region)

    def _decode_jpeg(
        self, encoded: memoryview, out: npt.NDArray[Any] | None, header: JpegHeader, region: Region | None
    ) -> npt.NDArray[Any]:
        if region is None:
            plan = self._plan_jpeg(header.height, header.width, header.orientation)
        else:
            used = self._used(*_shown(header.height, header.width, header.orientation), region)
            region = partial(_drawn, used)  # drawn once, whoever decodes
            plan = _plan_jpeg(self._options, header.height, header.width, header.orientation, used)
        result = self._result(plan.shape, out)
        shown = self._take(plan.shape) if self._scaled else result
        if header.coefficient_bytes:
            self._arena.charge(header.coefficient_bytes)
        stored = shown if plan.direct else self._take((plan.height, plan.width, self._options.channels))
        least = (plan.height, plan.width) if plan.reduced else (0, 0)
        try:
            decoded = simplejpeg.decode_jpeg(encoded, self._colours, False, False, *least, 1.0, stored)
        except ValueError as error:
            return self._decode_refused(encoded, result, header, error, region)
        if decoded.shape != stored.shape:
            raise DecodeError(f"it is a JPEG whose headers contradict each other: {stored.shape} and {decoded.shape}")
        if plan.direct:
            turn(shown, header.orientation)
        else:
            place(stored, plan.part, header.orientation, plan.used, self._options.interpolation, self._arena, shown)
        return self._finish(shown, result) if self._scaled else result

    def _decode_refused(
        self,
        encoded: memoryview,
        result: npt.NDArray[Any],
        header: JpegHeader,
        refusal: ValueError,
        region: Region | None,
    ) -> npt.NDArray[Any]:
        reason = str(refusal)
        if any(words in reason.lower() for words in _DAMAGE):
            raise DecodeError(f"it is a JPEG whose picture data are cut off or damaged ({reason})") from refusal
        self._decode_with_pillow("JPEG", encoded, result, header, region)
        self.fallback_count += 1
        return result

    def _decode_with_pillow(
        self,
        name: str,
        encoded: memoryview,
        out: npt.NDArray[Any] | None,
        header: JpegHeader | None,
        region: Region | None,
    ) -> npt.NDArray[Any]:
        options, arena = self._options, self._arena
        chosen = parts_of(name, encoded)
        arena.charge(chosen.copied_bytes)
        with open_picture(name, encoded, chosen) as image:
            _check_pixels(image.height, image.width, options)
            _check_pixels(*tile_size(image), options)
            if header is not None and image.size != (header.width, header.height):
                raise DecodeError("it is a JPEG whose headers contradict each other")
            arena.charge(storage_bytes(name, image))
            if header is not None and header.coefficient_bytes:
                arena.charge(header.coefficient_bytes)
            stored = self._take((image.height, image.width, options.channels))
            with pillow_errors(name):
                image.load()
                copy_pixels(image, stored)
                orientation = header.orientation if header is not None else orientation_of(name, image)
        height, width = _shown(stored.shape[0], stored.shape[1], orientation)
        result = self._result(result_shape(height, width, options), out)
        shown = self._take(result.shape) if self._scaled else result
        used = self._used(height, width, region)
        part = stored_part(used, stored.shape[0], stored.shape[1], orientation)
        place(stored, part, orientation, used, options.interpolation, arena, shown)
        return self._finish(shown, result) if self._scaled else result

    def _used(self, height: int, width: int, region: Region | None) -> Fit:
        """The layout of a picture of this size, as shown."""
        if region is None:
            return fit(height, width, self._options)
        assert self._options.size is not None
        return Fit(*region(height, width), 0, 0, *self._options.size)

    def _take(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        height, width, channels = shape
        return self._arena.take(height * width * channels).reshape(shape)

    def _result(self, shape: tuple[int, int, int], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if out is None:
            return np.empty(shape, self._dtype)
        if out.shape != shape:
            raise DecodeError(
                f"it is {shape[0]} x {shape[1]} pixels (height x width) with {shape[2]} channels, but its batch holds "
                f"{' x '.join(map(str, out.shape[:2]))} with {out.shape[2]}",
                "Pictures of several sizes need image_size=(height, width).",
            )
        return out

    def _finish(self, shown: npt.NDArray[np.uint8], result: npt.NDArray[Any]) -> npt.NDArray[Any]:
        np.divide(shown, np.float32(255), out=result, dtype=np.float32)
        return result


class _JpegPlan(NamedTuple):
    """How one JPEG is decoded: its stored size after reduction, where it goes, and whether `out` takes it as it is."""

    height: int
    width: int
    reduced: bool
    used: Fit
    part: Part
    shape: tuple[int, int, int]
    direct: bool


def _drawn(used: Fit, height: int, width: int) -> tuple[int, int, int, int]:
    return used.top, used.left, used.height, used.width


def _plan_jpeg(options: ImageOptions, height: int, width: int, orientation: int, used: Fit | None = None) -> _JpegPlan:
    shown = _shown(height, width, orientation)
    shape = result_shape(*shown, options)
    used = fit(*shown, options) if used is None else used
    scale = _reduction(used, options)
    part = stored_part(used, height, width, orientation, scale)
    decoded = (-(-height // scale), -(-width // scale))
    # All decoded pixels fill the whole result, one by one.
    direct = orientation < 5 and decoded == (part.height, part.width) == shape[:2] and part.down == part.across == 1
    return _JpegPlan(*decoded, scale > 1, used, part, shape, direct)


def _reduction(used: Fit, options: ImageOptions) -> int:
    if options.size is not None and options.interpolation != "nearest":
        for scale in (8, 4, 2):
            if used.height >= scale * used.out_height and used.width >= scale * used.out_width:
                return scale
    return 1


def _shown(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation >= 5 else (height, width)


def _check_pixels(height: int, width: int, options: ImageOptions) -> None:
    pixels = height * width
    if not 0 < pixels <= options.max_pixels:
        raise DecodeError(
            f"its header declares {height} x {width} = {pixels:,} pixels (height x width), where 1 to "
            f"max_pixels={options.max_pixels:,} are allowed",
            "Leave the file out, or raise max_pixels=.",
        )
