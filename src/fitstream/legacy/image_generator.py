"""`ImageDataGenerator`: what is done at random to each picture, and how it becomes what a model takes.

The order is Keras's: warp, channel shift, flips, brightness; then `preprocessing_function`, `rescale`, centring and
scaling by the sample, by the data set, and whitening. The iterators that `flow...` make draw each sample's numbers from
a generator of its own, given by fitstream, so that they don't depend on who makes the sample; `random_transform` and
`get_random_transform`, called by programs, draw from NumPy's global state or from a seed, and with a seed draw what
Keras draws.

A subclass that overrides one of the methods is respected: samples are then made by calling it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError
from fitstream.legacy.image_arrays import NumpyArrayIterator
from fitstream.legacy.image_files import data_format_of, default_dtype
from fitstream.legacy.image_iterators import DataFrameIterator, DirectoryIterator
from fitstream.legacy.image_ranges import brightness_of, shift_of, zoom_of
from fitstream.legacy.image_transforms import Scratch, apply_transform
from fitstream.legacy.program import warn

__all__ = ["ImageDataGenerator"]

Picture = npt.NDArray[Any]

_SCRATCH = Scratch()
_TRANSFORMING = ("random_transform", "get_random_transform", "apply_transform", "standardize")


class ImageDataGenerator:
    """Batches of pictures, changed at random.

    Args:
        featurewise_center: Subtract the data set's mean, which `fit` finds.
        samplewise_center: Subtract each picture's mean.
        featurewise_std_normalization: Divide by the data set's standard deviation, which `fit` finds.
        samplewise_std_normalization: Divide by each picture's standard deviation.
        zca_whitening: Whiten, by what `fit` finds.
        zca_epsilon: Against division by zero there.
        rotation_range: Degrees, either way.
        width_shift_range: A fraction of the width if below 1, else pixels; a whole number means whole pixels below it,
            a list the pixels to choose from.
        height_shift_range: Likewise, of the height.
        brightness_range: `(least, largest)` factor.
        shear_range: Degrees, either way.
        zoom_range: `(least, largest)` factor of what is seen; one number z means `(1 - z, 1 + z)`.
        channel_shift_range: What is added to all channels, at most, either way.
        fill_mode: "nearest" | "constant" | "reflect" | "wrap": what lies outside of a warped picture.
        cval: Value outside for "constant".
        horizontal_flip: Mirror every second picture, by chance.
        vertical_flip: Turn every second one upside down.
        rescale: A factor.
        preprocessing_function: Given each picture, floating, of three axes; returns one of the same shape.
        data_format: "channels_last" or "channels_first"; None for Keras's setting.
        validation_split: Share of the samples that `subset="validation"` means.
        interpolation_order: 0 nearest, 1 bilinear, 2 to 5 cubic.
        dtype: Of what is handed out; None for Keras's `floatx`.
        dim_ordering: Keras 1's name of `data_format`: "tf" or "th".
    Raises:
        PlanError: If an argument is impossible.
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: tuple[float, float] | None = None,
        shear_range: float = 0.0,
        zoom_range: float | tuple[float, float] = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Picture], Picture] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: str | None = None,
        dim_ordering: str | None = None,
    ) -> None:
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.shear_range = shear_range
        self.zoom_range = zoom_of(zoom_range)
        self.channel_shift_range = channel_shift_range
        self.brightness_range = brightness_of(brightness_range)
        self.fill_mode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.interpolation_order = interpolation_order
        self.dtype = dtype or default_dtype()
        self.data_format = data_format_of(data_format, dim_ordering)
        first = self.data_format == "channels_first"
        self.channel_axis, self.row_axis, self.col_axis = (1, 2, 3) if first else (3, 1, 2)
        if validation_split and not 0 < validation_split < 1:
            raise PlanError(f"validation_split={validation_split!r} must be between 0 and 1.")
        self._validation_split = validation_split
        self.mean: Picture | None = None
        self.std: Picture | None = None
        self.zca_whitening_matrix: Picture | None = None
        self._imply()

    def _imply(self) -> None:
        """Turn on, or off, what another option asks for, and say so."""
        needs = [
            ("zca_whitening", "featurewise_center", True),
            ("zca_whitening", "featurewise_std_normalization", False),
            ("featurewise_std_normalization", "featurewise_center", True),
            ("samplewise_std_normalization", "samplewise_center", True),
        ]
        for option, other, wanted in needs:
            if getattr(self, option) and bool(getattr(self, other)) != wanted:
                setattr(self, other, wanted)
                warn(f"{option}=True means {other}={wanted}.")

    def flow(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
        *,
        X: Any = None,  # noqa: N803  Keras 1's name
    ) -> NumpyArrayIterator:
        """Batches from arrays. They may lie on disk (`np.memmap`), and are never copied as a whole.

        Args:
            x: `(count, ...)` pictures of three axes in the generator's `data_format`; or `(pictures, others)`, where
                others is an array, or a list of them, handed out beside.
            y: Targets of any shape, or None.
            batch_size: Samples of a batch.
            shuffle: Another order each pass.
            sample_weight: `(count,)`.
            seed: Of order and transformations. Equal seeds give equal ones, so that pictures and masks stay together.
            save_to_dir: Folder to save what was handed out to.
            save_prefix: Of the names there.
            save_format: "png" or "jpeg".
            ignore_class_split: Let training and validation have other classes.
            subset: "training" or "validation", by `validation_split`: the first samples are for validation.
            X: Keras 1's name of `x`.
        Raises:
            PlanError: If shapes or arguments are impossible.
        """
        # fmt: off
        return NumpyArrayIterator(
            X if x is None else x, y, self, batch_size=batch_size, shuffle=shuffle, sample_weight=sample_weight,
            seed=seed, data_format=self.data_format, save_to_dir=save_to_dir, save_prefix=save_prefix,
            save_format=save_format, subset=subset, ignore_class_split=ignore_class_split, dtype=self.dtype)
        # fmt: on

    def flow_from_directory(
        self,
        directory: str,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> DirectoryIterator:
        """Batches of pictures in folders, one sub-folder a class. See `DirectoryIterator`."""
        # fmt: off
        return DirectoryIterator(
            directory, self, target_size=target_size, color_mode=color_mode, classes=classes, class_mode=class_mode,
            batch_size=batch_size, shuffle=shuffle, seed=seed, data_format=self.data_format, save_to_dir=save_to_dir,
            save_prefix=save_prefix, save_format=save_format, follow_links=follow_links, subset=subset,
            interpolation=interpolation, keep_aspect_ratio=keep_aspect_ratio, dtype=self.dtype)
        # fmt: on

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | None = None,
        x_col: str = "filename",
        y_col: str | list[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        keep_aspect_ratio: bool = False,
        **old: Any,
    ) -> DataFrameIterator:
        """Batches of pictures that a table lists. See `DataFrameIterator`, which takes the old names too."""
        # fmt: off
        return DataFrameIterator(
            dataframe, directory, self, x_col=x_col, y_col=y_col, weight_col=weight_col, target_size=target_size,
            color_mode=color_mode, classes=classes, class_mode=class_mode, batch_size=batch_size, shuffle=shuffle,
            seed=seed, data_format=self.data_format, save_to_dir=save_to_dir, save_prefix=save_prefix,
            save_format=save_format, subset=subset, interpolation=interpolation, validate_filenames=validate_filenames,
            keep_aspect_ratio=keep_aspect_ratio, dtype=self.dtype, **old)
        # fmt: on

    def get_random_transform(
        self, img_shape: tuple[int, ...], seed: int | None = None, rng: Any = None
    ) -> dict[str, Any]:
        """Draw the parameters of one picture's transformation.

        Args:
            img_shape: Of the picture, three axes in the generator's `data_format`.
            seed: Equal seeds give equal parameters; None takes NumPy's global state.
            rng: A random generator to draw from instead.
        Returns:
            `theta`, `tx`, `ty`, `shear`, `zx`, `zy`, `flip_horizontal`, `flip_vertical`, `channel_shift_intensity` and
            `brightness`, the last two None where they aren't asked for.
        """
        if rng is None:
            rng = np.random if seed is None else np.random.RandomState(seed)
        theta = rng.uniform(-self.rotation_range, self.rotation_range) if self.rotation_range else 0
        tx = shift_of(rng, self.height_shift_range, img_shape[self.row_axis - 1])
        ty = shift_of(rng, self.width_shift_range, img_shape[self.col_axis - 1])
        shear = rng.uniform(-self.shear_range, self.shear_range) if self.shear_range else 0
        least, largest = self.zoom_range
        zx, zy = (1, 1) if least == largest == 1 else rng.uniform(least, largest, 2)
        flip_horizontal = (rng.random() < 0.5) * self.horizontal_flip
        flip_vertical = (rng.random() < 0.5) * self.vertical_flip
        shift, brightness = self.channel_shift_range, self.brightness_range
        return {
            "theta": theta,
            "tx": tx,
            "ty": ty,
            "shear": shear,
            "zx": zx,
            "zy": zy,
            "flip_horizontal": flip_horizontal,
            "flip_vertical": flip_vertical,
            "channel_shift_intensity": rng.uniform(-shift, shift) if shift else None,
            "brightness": None if brightness is None else rng.uniform(*brightness),
        }

    def apply_transform(self, x: Picture, transform_parameters: dict[str, Any]) -> Picture:
        """Transform one picture by the parameters that `get_random_transform` gives; any of them may be left out."""
        shown = np.moveaxis(np.asarray(x), self.channel_axis - 1, 2)
        changed = apply_transform(shown, transform_parameters, self.fill_mode, self.cval, self.interpolation_order)
        return np.moveaxis(changed, 2, self.channel_axis - 1)

    def random_transform(self, x: Picture, seed: int | None = None) -> Picture:
        """Transform one picture at random."""
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    def standardize(self, x: Picture) -> Picture:
        """Call `preprocessing_function`, rescale, centre, scale and whiten, in place where `x` is floating."""
        if self.preprocessing_function:
            x = self.preprocessing_function(x)
        if not np.issubdtype(x.dtype, np.floating):
            x = x.astype(self.dtype)
        if self.rescale:
            x *= self.rescale
        if self.samplewise_center:
            x -= np.mean(x, keepdims=True)
        if self.samplewise_std_normalization:
            x /= np.std(x, keepdims=True) + 1e-6
        if self.featurewise_center and self._fitted("featurewise_center", self.mean):
            x -= self.mean
        if self.featurewise_std_normalization and self._fitted("featurewise_std_normalization", self.std):
            x /= np.asarray(self.std) + 1e-6
        if self.zca_whitening and self._fitted("zca_whitening", self.zca_whitening_matrix):
            flat = x.reshape(-1, int(np.prod(x.shape[-3:])))
            x = (flat @ self.zca_whitening_matrix).reshape(x.shape)
        return x

    def _fitted(self, option: str, found: Picture | None) -> bool:
        if found is None:
            told = f"{option}=True does nothing before ImageDataGenerator.fit(x) was called with some of the data."
            warn(told)
        return found is not None

    def _overrides(self) -> bool:
        own, mine = type(self), ImageDataGenerator
        return any(getattr(own, name) is not getattr(mine, name) for name in _TRANSFORMING)

    @property
    def is_plain(self) -> bool:
        """Whether no code of the program's is called, so that several threads may make pictures."""
        return not (self.preprocessing_function or self._overrides())

    def prepared(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Transform one picture at random and make it what a model takes.

        Args:
            picture: In the generator's `data_format`, of any dtype; left as it is.
            rng: What is drawn from.
        Returns:
            A picture of the generator's dtype. It may lie in memory that this thread's next picture takes.
        """
        if self._overrides():
            return self._prepared_by_methods(picture, rng)
        # A function of the program's may keep what it is given.
        scratch = None if self.preprocessing_function or self.dtype != "float32" else _SCRATCH
        parameters = self.get_random_transform(picture.shape, rng=rng)
        axis = self.channel_axis - 1
        shown = np.moveaxis(picture, axis, 2)
        x = apply_transform(shown, parameters, self.fill_mode, self.cval, self.interpolation_order, scratch)
        if np.may_share_memory(x, picture) or x.dtype != self.dtype:
            # What follows works in place.
            taken = np.empty(x.shape, self.dtype) if scratch is None else scratch.take("warped", x.shape)
            np.copyto(taken, x, casting="unsafe")
            x = taken
        return self.standardize(np.moveaxis(x, 2, axis)).astype(self.dtype, copy=False)

    def _prepared_by_methods(self, picture: Picture, rng: np.random.Generator) -> Picture:
        own, mine = type(self), ImageDataGenerator
        x = picture.astype(self.dtype)
        if own.random_transform is not mine.random_transform:
            x = self.random_transform(x)
        elif own.get_random_transform is not mine.get_random_transform:
            x = self.apply_transform(x, self.get_random_transform(x.shape))
        else:
            x = self.apply_transform(x, self.get_random_transform(x.shape, rng=rng))
        return self.standardize(x).astype(self.dtype, copy=False)

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Find the mean, standard deviation and whitening that the options ask for.

        Args:
            x: `(count, ...)` pictures in the generator's `data_format`. A floating copy of them is made.
            augment: Find them from transformed pictures.
            rounds: How often each is transformed.
            seed: Of the transformations.
        Raises:
            PlanError: If `x` hasn't four axes.
        """
        x = np.array(x, dtype=self.dtype)
        if x.ndim != 4:
            raise PlanError(f"fit() needs pictures of shape (count, ...) with four axes, not {x.shape}.")
        if x.shape[self.channel_axis] not in (1, 3, 4):
            told = f"x has {x.shape[self.channel_axis]} channels in {self.data_format!r}; pictures have 1, 3 or 4."
            warn(told)
        if seed is not None:
            np.random.seed(seed)  # noqa: NPY002  as in Keras: subclasses draw from there
        if self.rescale:
            x *= self.rescale
        if augment:
            x = np.stack([self.random_transform(picture) for _ in range(rounds) for picture in x]).astype(self.dtype)
        axes = (0, self.row_axis, self.col_axis)
        if self.featurewise_center:
            self.mean = np.mean(x, axis=axes, keepdims=True)[0]
            x -= self.mean
        if self.featurewise_std_normalization:
            self.std = np.std(x, axis=axes, keepdims=True)[0]
            x /= self.std + 1e-6
        if self.zca_whitening:
            flat = x.reshape(len(x), -1)
            directions, sizes, _ = np.linalg.svd(flat.T, full_matrices=False)
            self.zca_whitening_matrix = (directions * (np.sqrt(len(x)) / (sizes + self.zca_epsilon))) @ directions.T
