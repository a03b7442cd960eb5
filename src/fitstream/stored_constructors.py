"""The `fs.from_...` functions over files that hold many samples each: Parquet, and tars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from fitstream.constructors import ImageSize, image_options
from fitstream.dataset import Dataset
from fitstream.operations import Decode
from fitstream.sources.class_names import check_labelling
from fitstream.transforms.images import ImageOptions, Interpolation, Resize

__all__ = ["from_parquet", "from_webdataset"]

_MAX_PIXELS = ImageOptions().max_pixels
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def from_parquet(
    path: Paths,
    *columns: str | dict[str, Any],
    classes: Sequence[str] | None = None,
    allow_nan: bool = False,
    image_size: ImageSize = None,
    channels: Literal[1, 3, 4] = 3,
    resize: Resize = "stretch",
    interpolation: Interpolation = "bilinear",
    dtype: Literal["uint8", "float32"] = "uint8",
    max_pixels: int = _MAX_PIXELS,
    formats: Sequence[str] | None = None,
) -> Dataset:
    """Rows of Parquet files: numbers, lists of numbers as arrays, and pictures as bytes. Needs pyarrow.

    Each lane decodes whole row groups, and keeps one. So samples come quickly in the order of the file, and in that of
    `shuffle(seed, within="chunks")`, which keeps some; a plain `shuffle` decodes a row group for nearly each row.

    Args:
        path: One file, a pattern such as "train-*.parquet", or a list of both, whose rows follow each other.
        columns: Their names; of those inside others a dotted path, "box.left". One gives samples that are its rows,
            several give tuples in that order; a dict in the place of names, `{"x": "features"}`, gives dicts. A first
            column of bytes (or of Hugging Face's images) is decoded as pictures; other bytes go to `map` as
            memoryviews. Lists of one length are arrays.
        classes: Names of the classes that the last column holds, as text or as indices, in label order: int64 labels.
        allow_nan: As in `from_arrays`.
        image_size: As in `from_folder`, like all that follow.
        channels: See there.
        resize: See there.
        interpolation: See there.
        dtype: See there.
        max_pixels: See there.
        formats: See there.
    Raises:
        PlanError: If no column was named, or an argument can't be used.
        SourceError: If a file can't be read, or a column isn't there or holds what no array can.
    """
    from fitstream.sources.parquet import open_parquet  # late: a tenth of the time that importing fitstream would take
    from fitstream.sources.patterns import matching_files

    options = image_options(image_size, channels, resize, interpolation, dtype, max_pixels, formats)
    names = check_labelling("int", classes)
    source = open_parquet(matching_files(path, "from_parquet"), columns, names, allow_nan=allow_nan)
    return Dataset(source, (Decode(options),) if source.begins_with_bytes else ())


def from_webdataset(
    paths: Paths,
    *parts: str | tuple[str, ...],
    classes: Sequence[str] | None = None,
    allow_nan: bool = False,
    image_size: ImageSize = None,
    channels: Literal[1, 3, 4] = 3,
    resize: Resize = "stretch",
    interpolation: Interpolation = "bilinear",
    dtype: Literal["uint8", "float32"] = "uint8",
    max_pixels: int = _MAX_PIXELS,
    formats: Sequence[str] | None = None,
) -> Dataset:
    """Samples of WebDataset tars, in any order: files of one name up to its first dot, with an ending for each part.

    The headers are read once, and what they say is kept in the user's cache folder (12 bytes a part in memory). Nothing
    is extracted or unpickled; the tars must not be packed.

    Args:
        paths: One tar, a pattern such as "train-*.tar" or "train-{000..012}.tar", or a list of them.
        parts: Endings of the parts, with alternatives: "jpg;jpeg;png", "cls". One gives samples that are it, several
            (or a tuple of them) give tuples. A first part that is a picture is decoded; "cls", "id" and "index" are
            whole numbers, int64; "npy" is an array, "json" what it says; other parts are given to `map` as bytes.
        classes: Names of the classes that the last part holds, as text or as indices, in label order.
        allow_nan: As in `from_arrays`, of "npy" and "json".
        image_size: As in `from_folder`, like all that follow.
        channels: See there.
        resize: See there.
        interpolation: See there.
        dtype: See there.
        max_pixels: See there.
        formats: See there.
    Raises:
        PlanError: If no part was named, or an argument can't be used.
        SourceError: If a tar can't be read, is packed, has links, devices or members that point outside, or if a sample
            lacks a part.
    """
    from fitstream.sources.patterns import matching_files
    from fitstream.sources.tars import open_tars  # late, as above

    options = image_options(image_size, channels, resize, interpolation, dtype, max_pixels, formats)
    names = check_labelling("int", classes)
    source = open_tars(matching_files(paths, "from_webdataset"), parts, names, allow_nan=allow_nan)
    return Dataset(source, (Decode(options),) if source.begins_with_pictures else ())
