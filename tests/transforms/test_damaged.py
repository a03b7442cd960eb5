"""Small pictures cut off at every byte, and with flipped bits: the whole picture or a refusal, never a part of one."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pictures import photo, saved
from PIL import Image

from fitstream.scratch import TooLarge
from fitstream.transforms.images import DecodeError

Decode = Callable[..., np.ndarray]

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG": ("JPEG", "RGB", {}),
    "JPEG, progressive": ("JPEG", "RGB", {"progressive": True}),
    "JPEG, CMYK": ("JPEG", "CMYK", {}),
    "PNG": ("PNG", "RGB", {}),
    "PNG, palette": ("PNG", "P", {}),
    "GIF": ("GIF", "P", {}),
    "BMP": ("BMP", "RGB", {}),
    "TIFF": ("TIFF", "RGB", {}),
    "TIFF, LZW": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "WebP": ("WebP", "RGB", {}),
    "WebP, lossless": ("WebP", "RGBA", {"lossless": True}),
}


def encoded(kind: str) -> bytes:
    name, mode, options = KINDS[kind]
    return saved(Image.fromarray(photo(20, 24)).convert(mode), name, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_is_cut_off_is_whole_or_refused(kind: str, decode: Decode) -> None:
    data = encoded(kind)
    whole = decode(data)
    refused = 0
    for stop in range(len(data)):
        try:
            pixels = decode(data[:stop])
        except DecodeError:
            refused += 1
        else:
            assert (pixels == whole).all(), f"cut at {stop} of {len(data)}"
    assert refused > 0.9 * len(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_with_flipped_bits_is_a_picture_or_refused(kind: str, decode: Decode) -> None:
    data = encoded(kind)
    rng = random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of tags that are odd
        for _ in range(300):
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 4))):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            with contextlib.suppress(DecodeError, TooLarge):
                pixels = decode(bytes(changed), max_pixels=1_000_000)
                assert pixels.dtype == np.uint8
                assert pixels.shape[2] == 3
