"""The `fs.from_...` functions: one line over the files that people have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from fitstream.dataset import Dataset
from fitstream.errors import PlanError, SourceError
from fitstream.events import Observer
from fitstream.operations import Decode, Map, whole_number
from fitstream.sources.arrays import ArraySource, SequenceSource
from fitstream.sources.generators import GeneratorSource
from fitstream.sources.labels import LabelMode
from fitstream.sources.stored import Axes, open_datasets
from fitstream.transforms.images import FORMATS, ImageOptions, Interpolation, Resize

__all__ = [
    "from_arrays",
    "from_batches",
    "from_folder",
    "from_generator",
    "from_hdf5",
    "from_sequence",
    "from_table",
    "from_text",
    "from_windows",
    "image_options",
]

ImageSize = int | tuple[int, int] | None
_MAX_PIXELS = ImageOptions().max_pixels


def from_folder(
    root: str | os.PathLike[str],
    image_size: ImageSize = None,
    label_mode: LabelMode | None = "int",
    classes: Sequence[str] | None = None,
    *,
    recursive: bool = True,
    extensions: Sequence[str] | None = None,
    allow_outside: bool = True,
    channels: Literal[1, 3, 4] = 3,
    resize: Resize = "stretch",
    interpolation: Interpolation = "bilinear",
    dtype: Literal["uint8", "float32"] = "uint8",
    max_pixels: int = _MAX_PIXELS,
    formats: Sequence[str] | None = None,
) -> Dataset:
    """Pictures in folders, one sub-folder a class.

    Samples are `(image, label)`, the image `(height, width, channels)`, RGB; or the image with `label_mode=None`.

    Args:
        root: The folder.
        image_size: `(height, width)` in pixels, or one number for both; None keeps each picture's own.
        label_mode: "int": int64 `()`; "categorical": float32 `(classes,)`; "binary": float32 `(1,)`; None: no label,
            and sub-folders aren't classes.
        classes: Names of the sub-folders in label order; None for all, sorted.
        recursive: Take pictures from deeper folders too.
        extensions: File name endings that count as pictures, such as `[".jpg"]`.
        allow_outside: Read pictures that symbolic links lead to outside the folder. False for folders from strangers.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        resize: "stretch" to the size, "crop" the centre, or "pad" with black.
        interpolation: "bilinear" | "area" | "nearest" | "cubic" | "lanczos".
        dtype: "uint8" (0 to 255) or "float32" (0 to 1).
        max_pixels: A picture that declares more is refused before it is decoded.
        formats: Formats that are read, such as `["JPEG", "PNG"]`; None for all: JPEG, PNG, WebP, GIF, BMP, TIFF. Others
            are refused, whatever the file's name.
    Raises:
        PlanError: If an argument can't be used.
        SourceError: If the folder is missing or has no pictures, or a class has no folder.
    """
    from fitstream.sources.folder import list_folder  # late: a quarter of the time that importing fitstream would take

    options = image_options(image_size, channels, resize, interpolation, dtype, max_pixels, formats)
    source = list_folder(
        root,
        label_mode=label_mode,
        classes=classes,
        recursive=recursive,
        extensions=extensions,
        allow_outside=allow_outside,
    )
    return Dataset(source, (Decode(options),))


def from_table(
    table: Any,
    image: str = "path",
    label: str | Sequence[str] | None = "label",
    root: str | os.PathLike[str] | None = None,
    image_size: ImageSize = None,
    label_mode: LabelMode | None = "int",
    classes: Sequence[str] | None = None,
    *,
    path_to_class: Callable[[str], Any] | None = None,
    allow_outside: bool = False,
    channels: Literal[1, 3, 4] = 3,
    resize: Resize = "stretch",
    interpolation: Interpolation = "bilinear",
    dtype: Literal["uint8", "float32"] = "uint8",
    max_pixels: int = _MAX_PIXELS,
    formats: Sequence[str] | None = None,
) -> Dataset:
    """Pictures listed by a table.

    Args:
        table: A .csv, .tsv, .json (list of objects), .jsonl, .ndjson or .parquet file; a pandas, polars or pyarrow
            table; a list of dicts; a 2-D array or list whose rows are `[path, label...]`; or a list, array or column of
            paths.
        image: Column of the paths. Columns inside others have dotted paths: "meta.file", "boxes.0.file".
        label: Column of the labels, or several, which become one float32 vector, as a column of lists of numbers does;
            None for none.
        root: Folder that relative paths start from; None for the table's own. With a root given, no path leaves it.
        image_size: As in `from_folder`.
        label_mode: "int" | "categorical" | "binary" | "raw" | None, as in `from_folder`; "raw" keeps numbers as they
            are.
        classes: Names of the classes in label order; None for all, sorted.
        path_to_class: Function of a path as the table has it that gives its class, for tables without labels.
        allow_outside: Let paths leave the root.
        channels: As in `from_folder`, like all that follow.
        resize: See there.
        interpolation: See there.
        dtype: See there.
        max_pixels: See there.
        formats: See there.
    Raises:
        PlanError: If an argument can't be used, or two contradict each other.
        SourceError: With file, line and column, if the table can't be used.
    """
    from fitstream.sources.table import read_table  # late, as above

    options = image_options(image_size, channels, resize, interpolation, dtype, max_pixels, formats)
    source = read_table(
        table,
        image=image,
        label="label" if label is None else label,  # whose mode decides
        root=root,
        label_mode=None if label is None and path_to_class is None else label_mode,
        classes=classes,
        allow_outside=allow_outside,
        path_to_class=path_to_class,
    )
    return Dataset(source, (Decode(options),))


def from_arrays(tree: Any, *, allow_nan: bool = False) -> Dataset:
    """Arrays in memory or on disk; a sample is one row of each.

    What is on disk is never loaded whole: a lane fetches the rows that it works on in one call per array. Shuffled rows
    out of compressed blocks (HDF5 and zarr "chunks") are slow by nature, since each costs the unpacking of a block.

    Args:
        tree: An array, `np.memmap`, `h5py.Dataset`, `zarr.Array`, the path of a `.npy` file (which is mapped) or of a
            `.npz` file that isn't compressed (a dict of its arrays), or a tuple or dict of them, whose first axes have
            one length. Keep HDF5 files open, in mode "r", until the loader is closed: worker processes open them again
            by name, and can't while they are open for writing.
        allow_nan: Let NaN and infinity pass. Otherwise the first pass finds them, and a sample that holds one is bad.
    Raises:
        SourceError: If lengths differ, or an array has no rows or no numbers. Objects are never unpickled.
    """
    from fitstream.sources.array_files import with_files_mapped  # late, as above

    return Dataset(ArraySource(with_files_mapped(tree), allow_nan=allow_nan))


def from_hdf5(
    path: str | os.PathLike[str],
    *names: str | dict[str, Any],
    axes: Axes | Sequence[Axes] = "stored",
    allow_outside: bool = False,
    allow_nan: bool = False,
) -> Dataset:
    """Datasets of an HDF5 file: `.h5`, `.hdf5`, or MATLAB's `.mat` of version 7.3. Needs h5py.

    The file is opened by each lane for itself, for reading, and need not be held open.

    Args:
        path: The file.
        names: Of the datasets, with their groups: "train/x". One gives samples that are its rows, several give tuples
            in that order. A dict in the place of names, `{"image": "train/x"}`, gives dicts.
        axes: "stored": a sample is a row of the first axis, as in the file. "matlab": the axes are reversed, as MATLAB
            shows them, so that a sample is one of MATLAB's first axis, the last one in the file. What MATLAB calls an
            array of `(height, width, 3, count)` lies in the file as `(count, 3, width, height)`. Or a list with one of
            the two for each name, such as for pictures and a column of labels.
        allow_outside: Follow what the file says to other files: external links and storage, virtual datasets.
        allow_nan: As in `from_arrays`.
    Raises:
        PlanError: If the path or a name is none, or axes= is none of the two, or not one for each name.
        SourceError: With the file, if it is none of HDF5, a dataset is missing, leads elsewhere, holds no numbers, or
            needs a filter that isn't there, or if lengths differ.
    """
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise PlanError(f"path={path!r} must be the path of an HDF5 file.")
    tree = open_datasets(os.fsdecode(path), names, axes, allow_outside=allow_outside)
    return Dataset(ArraySource(tree, allow_nan=allow_nan))


def from_text(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    parse: Callable[..., Any],
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    skip_lines: int = 0,
    keep_empty: bool = False,
    observers: Sequence[Observer] = (),
) -> Dataset:
    r"""Text files; a sample is what a function makes of a line.

    The files are read once to find their lines: 4 or 8 bytes a line, kept in the user's cache folder. Then lines are
    read in any order. Of compressed files (.gz, .bz2, .xz, .zst) they come in their order alone, as from a generator.

    Args:
        path: A file, a pattern such as "logs/*.txt", or a list of both, which are laid end to end.
        parse: `parse(line) -> sample`, called in the lanes with the text of a line without its end. Gets `rng=` if its
            signature names it. What it raises names the file and the line.
        encoding: Of the text; a byte order mark is no part of it.
        errors: What becomes of bytes that are no text: "strict", "replace" or "ignore".
        skip_lines: Lines at the start of each file that are no samples, such as a header.
        keep_empty: Whether empty lines are samples; else they are passed over.
        observers: Called with `IndexProgress` while lines are looked for.
    Raises:
        PlanError: If an argument can't be used.
        SourceError: If a file is missing or can't be read, or there are no lines.
    Example:
        >>> open("sums.txt", "w").write("1 2 3\n4 5 9\n")
        12
        >>> fs.from_text("sums.txt", lambda line: np.array(line.split(), np.float32))[1]
        array([4., 5., 9.], dtype=float32)
    """
    from fitstream.sources.text import open_text  # late, as above

    source, made = open_text(
        path,
        parse,
        encoding=encoding,
        errors=errors,
        skip_lines=skip_lines,
        keep_empty=keep_empty,
        observers=observers,
    )
    return Dataset(source, (Map.of(made),))


def from_windows(
    source: Any,
    length: int,
    stride: int = 1,
    *,
    target: Literal["next", "sequence"] | None = "next",
    one_hot: bool = False,
    class_count: int | None = None,
    alphabet: Sequence[str] | None = None,
    encoding: str = "utf-8",
    allow_nan: bool = False,
    observers: Sequence[Observer] = (),
) -> Dataset:
    """Overlapping windows over a text, a list of tokens or a time series, none of which need fit into memory.

    Args:
        source: A text file, by its path; a text; whole numbers `(count,)`, which are tokens; or a time series
            `(count,)` of fractions or `(count, channels)`. Arrays may be in memory, mapped, h5py or zarr datasets, or
            the path of a `.npy` file. A string that names no file is the text itself.
        length: Characters, tokens or rows of a window.
        stride: From the start of a window to that of the next one.
        target: "next": samples are `(window, next)`, what follows the window. "sequence": `(window, shifted)`, the
            window one place later, which has the next one for each place. None: windows alone.
        one_hot: Characters and tokens as float32 `(..., classes)` with a one, instead of int64 numbers.
        class_count: Number of different tokens; needed for `one_hot`. With it, others are refused.
        alphabet: Characters of a text in the order of their numbers; None for all that are there, sorted.
            `ds.class_names` has them.
        encoding: Of a text file.
        allow_nan: As in `from_arrays`, for time series.
        observers: Called with `IndexProgress` while a text file is read for the first time.
    Raises:
        PlanError: If an argument can't be used.
        SourceError: If the source is empty, shorter than a window, or can't be read, or has other characters.
    Example:
        >>> ds = fs.from_windows("to be or not to be", length=3)
        >>> window, following = ds[0]
        >>> "".join(ds.class_names[number] for number in window), ds.class_names[following]
        ('to ', 'b')
    """
    from fitstream.sources.windows import open_windows  # late, as above

    return Dataset(
        open_windows(
            source,
            length,
            stride,
            target=target,
            one_hot=one_hot,
            class_count=class_count,
            alphabet=alphabet,
            encoding=encoding,
            allow_nan=allow_nan,
            observers=observers,
        )
    )


def from_sequence(obj: Any) -> Dataset:
    """Samples of anything with `__len__` and `__getitem__`: a list, a PyTorch Dataset, a Hugging Face dataset.

    The rows of a pyarrow Table or RecordBatch are dicts of numbers and arrays.

    Args:
        obj: The object; lanes call it from several threads at once. Where it has `__getitems__`, which takes a list of
            places and returns as many samples in a list, several samples are read in one call.
    Raises:
        SourceError: If it is empty or has no random access.
    """
    if type(obj).__module__.startswith("pyarrow.") and hasattr(obj, "schema") and hasattr(obj, "take"):
        from fitstream.sources.arrow import ArrowRows  # late, as above

        obj = ArrowRows(obj)  # whose own places are columns
    return Dataset(SequenceSource(obj))


def from_generator(fn: Callable[[], Iterable[Any]], length: int | None = None) -> Dataset:
    """Samples of a generator function.

    It runs in one thread and is never copied. The first sample is read by `plan()`, in the calling thread, and kept.

    Args:
        fn: `fn() -> iterable of samples`, called anew each pass.
        length: Samples of a pass, if known: a pass ends there, and one that ends before is an error.
    Raises:
        PlanError: If it is a generator that runs already.
        SourceError: If it isn't a function, or `length` no whole number from 1 on.
    """
    _check_length(length)
    if hasattr(fn, "__next__"):
        raise PlanError("from_generator() needs the function, not a generator that runs already: pass fn, not fn().")
    return Dataset(GeneratorSource(fn, length))


def from_batches(source: Any, length: int | None = None, batch_size: int | None = None) -> Dataset:
    """Batches that are made already.

    Args:
        source: A generator function; a generator, which serves one pass of one loader; or anything with `__len__` and
            `__getitem__`, such as a Keras Sequence.
        length: Batches of a pass, where a generator's are known.
        batch_size: Samples of the largest batch; None for the first one's.
    Raises:
        PlanError: If `batch_size` is no whole number from 1 on, or `length` is given for what has one of its own.
        SourceError: If it is none of these, or empty.
    """
    size = 0 if batch_size is None else whole_number(batch_size, "batch_size", 1)
    _check_length(length)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        if length is not None:
            raise PlanError(f"length={length} is for generators; a {type(source).__name__} has a length of its own.")
        return Dataset(SequenceSource(source, "batches"), (), size)
    made: Callable[[], Iterable[Any]] | Iterator[Any] = source
    return Dataset(GeneratorSource(made, length, "batches"), (), size)


def _check_length(length: Any) -> None:
    if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 1):
        raise SourceError(f"length={length!r} must be a whole number from 1 on, or None where it isn't known.")


def image_options(
    image_size: ImageSize,
    channels: int,
    resize: Resize,
    interpolation: Interpolation,
    dtype: str,
    max_pixels: int,
    formats: Sequence[str] | None,
) -> ImageOptions:
    """Check and gather how pictures are decoded; the arguments are those of `from_folder`."""
    size: Any = image_size
    if size is not None:
        sides = size if isinstance(size, (tuple, list)) else (size, size)
        size = tuple(int(side) if isinstance(side, np.integer) else side for side in sides)
    allowed = None
    if formats is not None:
        names = {name.upper(): name for name in FORMATS}
        given = formats if isinstance(formats, Iterable) and not isinstance(formats, str) else [formats]
        allowed = tuple(names.get(str(name).upper(), str(name)) for name in given)
    return ImageOptions(size, channels, resize, interpolation, dtype, max_pixels, allowed)
