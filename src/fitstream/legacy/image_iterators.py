"""The iterators over files that `ImageDataGenerator.flow_from_...` make: those of folders and of tables.

What they list and how they split is Keras's: the same files in the same order, the same classes, the first part of each
class for validation. Hidden files and folders are passed over. Paths are packed, and names are made as text only when a
program asks for them.

Pictures are resized by fitstream's decoder. "nearest", Keras's default, gives Pillow's pixels; Pillow's "bilinear",
"box" and "hamming" average over what they shrink, so here they are "area".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.legacy.image_batches import PictureIterator, SaveTo, split_of
from fitstream.legacy.image_files import COLOR_MODES, data_format_of, default_dtype
from fitstream.legacy.image_tables import Table
from fitstream.legacy.image_targets import Labels, Targets
from fitstream.legacy.program import warn
from fitstream.sources.files import FileSource, PathPacker
from fitstream.transforms.images import ImageOptions, Interpolation, Resize

__all__ = ["DataFrameIterator", "DirectoryIterator", "FileIterator"]

_INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": "nearest",
    "bilinear": "area",
    "box": "area",
    "hamming": "area",
    "bicubic": "cubic",
    "lanczos": "lanczos",
}


class FileIterator(PictureIterator):
    """What iterators over files have in common.

    Attributes:
        filenames: As Keras had them: paths relative to the folder.
        filepaths: With the folder.
        samples: Their number; also `n` and `nb_sample`.
        image_shape: Of a picture, in `data_format`.
    """

    allowed_class_modes: frozenset[str | None]
    directory: str

    def _describe(
        self, target_size: Any, color_mode: str, interpolation: str, class_mode: str | None, keep_aspect_ratio: bool
    ) -> None:
        if class_mode not in self.allowed_class_modes:
            modes = ", ".join(sorted(map(repr, self.allowed_class_modes)))
            raise PlanError(f"class_mode={class_mode!r} must be one of {modes}.")
        if color_mode not in COLOR_MODES:
            raise PlanError(f"color_mode={color_mode!r} must be one of {', '.join(map(repr, COLOR_MODES))}.")
        if interpolation not in _INTERPOLATIONS:
            raise PlanError(f"interpolation={interpolation!r} must be one of {', '.join(map(repr, _INTERPOLATIONS))}.")
        self.class_mode = class_mode
        self.color_mode = color_mode
        self.interpolation = interpolation
        self.keep_aspect_ratio = keep_aspect_ratio
        try:
            self.target_size = height, width = int(target_size[0]), int(target_size[1])
        except (TypeError, IndexError, ValueError):
            raise PlanError(f"target_size={target_size!r} must be (height, width) in pixels.") from None
        channels = COLOR_MODES[color_mode][1]
        first = self.data_format == "channels_first"
        self.image_shape = (channels, height, width) if first else (height, width, channels)
        how = _INTERPOLATIONS[interpolation]
        resize: Resize = "crop" if keep_aspect_ratio else "stretch"
        self._options = ImageOptions((height, width), channels, resize, how)

    def _hold(self, groups: Iterable[list[str]], names: list[str] | None) -> None:
        """Keep the files' names, and make them samples."""
        packer = PathPacker()
        for group in groups:
            packer.extend([os.fsencode(name) for name in group])
        self.samples = len(packer)
        if self.samples:
            paths = packer.packed(os.fsencode(os.path.abspath(self.directory)))
            places = np.arange(self.samples, dtype=np.int64)[:, None]
            self._source = FileSource(paths, places, names, f"folder {self.directory!r}", "raw")
            self._paths = paths

    @cached_property
    def filenames(self) -> list[str]:
        if not self.samples:
            return []
        blob, offsets = self._paths.arrays
        whole, ends = blob.tobytes(), offsets.tolist()
        return [os.fsdecode(whole[a:b]) for a, b in pairwise(ends)]

    @property
    def filepaths(self) -> list[str]:
        """Paths of all files."""
        return [os.path.join(self.directory, name) for name in self.filenames]

    @property
    def nb_sample(self) -> int:
        """Keras 1's name of `samples`."""
        return self.samples

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "filenames"}


class DirectoryIterator(FileIterator):
    """Batches of pictures in folders.

    Args:
        directory: Holds one sub-folder a class. Files directly in it don't count.
        image_data_generator: An `ImageDataGenerator`, or None.
        target_size: `(height, width)` in pixels.
        color_mode: "grayscale" | "rgb" | "rgba".
        classes: Names of the sub-folders in label order; None for all, sorted.
        class_mode: "categorical" (one-hot rows), "binary" or "sparse" (the class's number, floating), "input" (the
            picture itself), or None for pictures alone.
        batch_size: Samples of a batch.
        shuffle: Another order each pass.
        seed: Of order and transformations; None is 0.
        data_format: Order of the axes; None for Keras's setting.
        save_to_dir: Folder to save what was handed out to.
        save_prefix: Of the names there.
        save_format: "png" or "jpeg".
        follow_links: Look into folders that are symbolic links.
        subset: "training" or "validation", by the generator's `validation_split`.
        interpolation: "nearest" | "bilinear" | "bicubic" | "lanczos" | "box" | "hamming".
        keep_aspect_ratio: Crop the middle to the target's shape instead of stretching.
        dtype: Of pictures and labels; None for Keras's `floatx`.
    Raises:
        PlanError: If an argument is impossible.
        SourceError: If the folder can't be listed.

    Attributes:
        classes: `(samples,)` int32, each sample's class.
        class_indices: Each class's number, by name.
        num_classes: Their number; also `nb_class`.
    """

    allowed_class_modes = frozenset({"categorical", "binary", "sparse", "input", None})

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_data_generator: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str | None = None,
        *,
        dim_ordering: str | None = None,
    ) -> None:
        # fmt: off
        super().__init__(
            0, batch_size, shuffle, seed, generator=image_data_generator,
            data_format=data_format_of(data_format, dim_ordering), dtype=dtype or default_dtype(),
            save_to=SaveTo(save_to_dir, save_prefix, save_format) if save_to_dir else None)
        # fmt: on
        self.directory = os.fspath(directory)
        self._describe(target_size, color_mode, interpolation, class_mode, keep_aspect_ratio)
        self.subset = subset
        split = split_of(image_data_generator, subset)
        try:
            names = list(classes) if classes else _folders(self.directory)
        except OSError as error:
            raise SourceError(f"the folder cannot be listed: {error.strerror}.", file=self.directory) from error
        self.num_classes = self.nb_class = len(names)
        self.class_indices = {name: index for index, name in enumerate(names)}
        groups = [_pictures(self.directory, name, self.white_list_formats, follow_links) for name in names]
        if split is not None:
            groups = [group[int(split[0] * len(group)) : int(split[1] * len(group))] for group in groups]
        self._hold(groups, names)
        self.n = self.samples
        counts = [len(group) for group in groups]
        self.classes: npt.NDArray[np.int32] = np.repeat(np.arange(len(names), dtype=np.int32), counts)
        print(f"Found {self.samples} images belonging to {self.num_classes} classes.")  # noqa: T201  as Keras does
        self._targets = _class_targets(class_mode, self.classes, len(names), self.dtype, None)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Each sample's class."""
        return self.classes


class DataFrameIterator(FileIterator):
    """Batches of pictures that a table lists.

    Args:
        dataframe: A pandas table, or anything whose columns come by `table[name]`.
        directory: Folder that the paths start at; None takes them as they are.
        image_data_generator: An `ImageDataGenerator`, or None.
        x_col: Column of the paths.
        y_col: Column of the targets; a list of them for "multi_output" and "raw".
        weight_col: Column of sample weights.
        target_size: As in `DirectoryIterator`, like all that aren't told here.
        classes: Names in label order; rows of other classes are left out. None for all, sorted.
        class_mode: "categorical" (text, or a list of texts where a sample has several classes), "binary", "sparse",
            "input", "raw" (numbers as they are; "other" is its old name), "multi_output" (a list of columns), or None.
        validate_filenames: Leave out rows whose file isn't there or has no picture's suffix.
        has_ext: False: names in the table lack their suffix, which is looked up in the folder.
        drop_duplicates: Keep the first row of each path.
        sort: Does nothing, as in Keras.
    Raises:
        PlanError: If an argument is impossible. It is a TypeError as well where values have the wrong type.
    """

    allowed_class_modes = frozenset({"binary", "categorical", "input", "multi_output", "raw", "sparse", None})

    def __init__(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        image_data_generator: Any = None,
        x_col: str = "filename",
        y_col: str | list[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str | None = None,
        validate_filenames: bool = True,
        *,
        has_ext: bool = True,
        drop_duplicates: bool = False,
        sort: Any = None,
    ) -> None:
        # fmt: off
        super().__init__(
            0, batch_size, shuffle, seed, generator=image_data_generator, data_format=data_format_of(data_format),
            dtype=dtype or default_dtype(),
            save_to=SaveTo(save_to_dir, save_prefix, save_format) if save_to_dir else None)
        # fmt: on
        self.directory = os.fspath(directory) if directory else ""
        class_mode = "raw" if class_mode == "other" else class_mode
        self._describe(target_size, color_mode, interpolation, class_mode, keep_aspect_ratio)
        self.subset = subset
        split = split_of(image_data_generator, subset)
        table = Table(dataframe, self.directory, x_col, y_col, weight_col, class_mode)
        # fmt: off
        table.choose(
            self.white_list_formats, has_ext=has_ext, drop_duplicates=drop_duplicates, validate=validate_filenames)
        # fmt: on
        names = table.classes(classes)
        if split is not None:
            table.keep_part(*split)
        self._hold([table.paths], names)
        self.n = self.samples
        validated = "validated" if validate_filenames else "non-validated"
        told = "" if names is None else f" belonging to {len(names)} classes"
        print(f"Found {self.samples} {validated} image filenames{told}.")  # noqa: T201  as Keras does
        self._label(table, names)

    def _label(self, table: Table, names: list[str] | None) -> None:
        weights = table.weights()
        if names is not None:
            self.class_indices = {name: index for index, name in enumerate(names)}
            self.num_classes = self.nb_class = len(names)
            self.classes = table.codes(self.class_indices)
            self._targets = _class_targets(self.class_mode, self.classes, len(names), self.dtype, weights)
        else:
            self.classes = []
            self._targets = table.targets(weights)

    @property
    def labels(self) -> Any:
        """Each sample's class or classes; for "raw" the numbers, for "multi_output" a list of them."""
        outputs = [output for output in self._targets.outputs if isinstance(output, np.ndarray)]
        if self.class_mode == "multi_output":
            return outputs
        return outputs[0] if self.class_mode == "raw" else self.classes

    @property
    def sample_weight(self) -> npt.NDArray[Any] | None:
        """Weights of all samples, or None."""
        return self._targets.weights


def _folders(directory: str) -> list[str]:
    names = sorted(os.listdir(directory))
    return [name for name in names if not name.startswith(".") and os.path.isdir(os.path.join(directory, name))]


def _pictures(directory: str, name: str, suffixes: tuple[str, ...], follow_links: bool) -> list[str]:
    """Pictures below one class's folder, relative to the folder of all."""
    top = os.path.join(directory, name)
    if not os.path.isdir(top):
        warn(f"the class {name!r} has no folder in {directory!r}, and so no pictures.")
    found: list[str] = []
    for folder, _, files in sorted(os.walk(top, followlinks=follow_links), key=lambda one: one[0]):
        below = os.path.relpath(folder, directory)
        if not any(part.startswith(".") for part in os.path.relpath(folder, top).split(os.sep) if part != "."):
            pictures = (one for one in sorted(files) if not one.startswith(".") and one.lower().endswith(suffixes))
            found.extend(os.path.join(below, one) for one in pictures)
    return found


def _class_targets(
    class_mode: str | None, classes: Any, count: int, dtype: str, weights: npt.NDArray[Any] | None
) -> Targets:
    if class_mode is None:
        return Targets()
    if class_mode == "input":
        return Targets(copies_input=True, weights=weights)
    if class_mode == "categorical":
        return Targets(outputs=(Labels.of(classes, count, dtype),), weights=weights)
    return Targets(outputs=(np.asarray(classes, dtype),), weights=weights)
