"""Pictures made on the spot."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def photo(height: int, width: int, seed: int = 0) -> Pixels:
    """A smooth colour picture, `(height, width, 3)` uint8, that JPEG keeps within a few levels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def saved(picture: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(height: int, width: int, seed: int = 0, **options: Any) -> bytes:
    return saved(photo(height, width, seed), "JPEG", quality=95, **options)


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def insert_before_tables(encoded: bytes, extra: bytes) -> bytes:
    """Put bytes before a JPEG's first quantisation table."""
    at = encoded.index(b"\xff\xdb")
    return encoded[:at] + extra + encoded[at:]
