"""zarr arrays as sources read them: a few blocks at a time, and nothing unpickled. zarr itself is never imported."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.sampling import Indices

__all__ = ["check_codecs", "gather", "reading_bytes"]

#: Blocks that are unpacked at the same time, if one alone isn't larger: zarr would take ten, of any size.
_TOGETHER_BYTES = 1 << 20


def reading_bytes(array: Any, block_rows: int = 0) -> int:
    """Memory that zarr takes to read rows, beside the rows: blocks as stored, unpacked, and what its threads keep.

    Measured in worker processes with blocks of 4 and 20 MB: 3 to 3.6 blocks a lane.
    """
    return int(4 * max(block_rows * _row_bytes(array), _TOGETHER_BYTES))


def gather(array: Any, indices: Indices, rows: npt.NDArray[Any]) -> None:
    """Read rows in any order, a few blocks at a time.

    Args:
        array: A `zarr.Array`.
        indices: `(rows,)`.
        rows: Where they go, `(rows, ...)`.
    """
    block_rows = int(array.chunks[0])
    count = max(1, _TOGETHER_BYTES // max(1, block_rows * _row_bytes(array)))
    numbers = indices // block_rows
    blocks = list(dict.fromkeys(numbers.tolist()))
    for first in range(0, len(blocks), count):
        here = np.flatnonzero(np.isin(numbers, blocks[first : first + count]))
        rising, places = np.unique(indices[here], return_inverse=True)
        rows[here] = array.oindex[rising][places]


def _row_bytes(array: Any) -> int:
    return int(math.prod(array.shape[1:]) * array.dtype.itemsize)


def check_codecs(array: Any, where: str) -> None:
    """Refuse an array that would be unpickled.

    Args:
        where: What it is called in the error.
    Raises:
        SourceError: If a codec of it is pickle.
    """
    codecs = [*(getattr(array, "filters", None) or ()), *(getattr(array, "compressors", None) or ())]
    if "pickle" in {getattr(codec, "codec_id", None) for codec in codecs}:
        raise SourceError(
            f"{where} is a zarr array of pickled objects, which could run any code. Save it as an array of numbers."
        )
