"""HDF5 files opened so that they lead nowhere else, and run nothing.

A file can name others: by an external link, by storage outside, by a virtual dataset. HDF5 follows all of them without
a word, as it follows a chain of links, and whoever made the file decides where to. So the way to a dataset is walked
here step by step, and only links that stay in the file are taken.

A file can also ask for a filter that HDF5 doesn't know; HDF5 then looks for a library of that number in its plugin
folder and runs it. Only filters that are there already, built in or registered by an import of the user's (such as
`hdf5plugin`), are used.

What is left is HDF5 itself, which reads the bytes of a file in C, in this process.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fitstream.errors import FitstreamError, SourceError
from fitstream.sources.file_access import check_file

__all__ = [
    "block_bytes",
    "check_filters",
    "check_numbers",
    "check_storage",
    "find_dataset",
    "hdf5_errors",
    "open_hdf5",
    "told_names",
]

#: Links that may be followed to one dataset; HDF5's own limit.
_MOST_LINKS = 16
#: Objects that are looked at, and names that are shown, where a name is wrong.
_MOST_OBJECTS, _MOST_SHOWN = 1000, 20
#: What HDF5 keeps of a dataset's blocks, for each time that it is opened; a larger block is not kept.
_CACHE_BYTES = 1 << 20

_LEAVES = (
    "Put the data into the file itself, or pass allow_outside=True to from_hdf5 if the file is trusted with what it "
    "may read."
)


def open_hdf5(path: str) -> Any:
    """Open a file for reading.

    Returns:
        An `h5py.File`.
    Raises:
        SourceError: If h5py isn't installed, or the file is none that it reads.
    """
    try:
        import h5py
    except ImportError:
        raise SourceError('reading HDF5 needs h5py: pip install "fitstream[hdf5]".', file=path) from None
    check_file(path)
    try:
        # With locks as h5py has them by default: HDF5 refuses to open a file twice in a process with different ones.
        return h5py.File(path, "r")
    except (OSError, ValueError) as error:
        raise SourceError(f"the HDF5 file can't be opened for reading: {error}.{_advice(path)}", file=path) from None


def _advice(path: str) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(128)
    except OSError:
        return ""
    if start.startswith(b"MATLAB 5.0 MAT-file"):
        return " It is a MATLAB file of version 7 or before: save it with save(..., '-v7.3'), or load it with SciPy."
    return " Restore it, if it was cut off while it was copied."


@contextmanager
def hdf5_errors(path: str) -> Iterator[None]:
    """Turn whatever h5py raises about a damaged file, which can be nearly anything, into a SourceError."""
    try:
        yield
    except (FitstreamError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        raise SourceError(
            f"the HDF5 file is damaged, or not what it says ({type(error).__name__}: {error}). Restore it.", file=path
        ) from None


def find_dataset(file: Any, name: str, *, allow_outside: bool) -> Any:
    """Find a dataset, by links that stay in the file.

    Args:
        file: An open `h5py.File`.
        name: Groups and the dataset, with "/" between.
        allow_outside: Follow links wherever they lead.
    Returns:
        An `h5py.Dataset`; None if there is nothing of that name.
    Raises:
        SourceError: If a link leads out of the file, links lead in a circle, or it isn't a dataset.
    """
    import h5py

    path = os.fsdecode(file.filename)
    found = file.get(name) if allow_outside else _walk(file, name, path)
    if found is None or isinstance(found, h5py.Dataset):
        return found
    if "MATLAB_sparse" in found.attrs:
        raise SourceError(f"{name!r} is a sparse matrix of MATLAB. Save it as full({name.strip('/')}).", file=path)
    kind = type(found).__name__.lower()
    inner = [name.rstrip("/") + one for one in _dataset_names(found)] if isinstance(found, h5py.Group) else []
    told = f"; in it are {_few(inner)}" if inner else ""
    raise SourceError(f"{name!r} is a {kind}, not a dataset{told}. Name one dataset.", file=path)


def _walk(file: Any, name: str, path: str) -> Any:
    from h5py import h5l

    here, followed = file["/"], 0
    ahead = deque(name.encode("utf-8", "surrogateescape").split(b"/"))
    while ahead:
        part = ahead.popleft()
        if part in (b"", b"."):
            continue
        links = getattr(here.id, "links", None)
        if links is None or not links.exists(part):
            return None
        kind = links.get_info(part).type
        if kind == h5l.TYPE_HARD:
            here = here[part]
        elif kind == h5l.TYPE_SOFT:
            followed += 1
            if followed > _MOST_LINKS:
                raise SourceError(
                    f"the way to {name!r} takes more than {_MOST_LINKS} links, or they lead in a circle. "
                    "Name the dataset itself.",
                    file=path,
                )
            target = links.get_val(part)
            if target.startswith(b"/"):
                here = file["/"]
            ahead.extendleft(reversed(target.split(b"/")))
        else:
            where = ""
            if kind == h5l.TYPE_EXTERNAL:
                other, inner = (os.fsdecode(one) for one in links.get_val(part))
                where = f", to {inner!r} in {other!r}"
            raise SourceError(f"the way to {name!r} leaves the file by an external link{where}. {_LEAVES}", file=path)
    return here


def _dataset_names(group: Any) -> list[str]:
    """Names of the datasets in a group and those below it, the first some; links are not followed."""
    import h5py
    from h5py import h5l

    names: list[str] = []
    seen: set[Any] = set()
    ahead, looked_at = deque([("", group)]), 0
    while ahead and len(names) <= _MOST_SHOWN:
        prefix, here = ahead.popleft()
        for key in here:
            looked_at += 1
            if looked_at > _MOST_OBJECTS:
                return names
            raw = key.encode("utf-8", "surrogateescape")
            if here.id.links.get_info(raw).type != h5l.TYPE_HARD:
                names.append(f"{prefix}/{key} (a link)")
                continue
            child = here[raw]
            if isinstance(child, h5py.Dataset):
                names.append(f"{prefix}/{key}")
            elif isinstance(child, h5py.Group) and child.id not in seen:
                seen.add(child.id)
                ahead.append((f"{prefix}/{key}", child))
    return names


def told_names(file: Any) -> str:
    """The datasets of a file, for an error."""
    names = _dataset_names(file)
    return f"In it are {_few([name.removeprefix('/') for name in names])}" if names else "It holds no dataset"


def _few(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_SHOWN]))
    return shown + (", ..." if len(names) > _MOST_SHOWN else "")


def check_storage(dataset: Any, where: str) -> None:
    """Refuse a dataset whose numbers lie in other files.

    Args:
        where: What it is called in the error.
    Raises:
        SourceError: If it is virtual, or its storage is external.
    """
    path = os.fsdecode(dataset.file.filename)
    if dataset.is_virtual:
        raise SourceError(f"{where} is a virtual dataset, which reads from other files. {_LEAVES}", file=path)
    if dataset.external:
        names = [os.fsdecode(name) for name, *_ in dataset.external]
        raise SourceError(f"{where} has its numbers in other files ({_few(names)}). {_LEAVES}", file=path)


def check_numbers(dataset: Any, where: str) -> None:
    """Refuse a dataset that holds anything but rows of numbers.

    Raises:
        SourceError: Says what it holds, and what to do.
    """
    import h5py

    path = os.fsdecode(dataset.file.filename)
    if dataset.shape is None:
        raise SourceError(f"{where} is an HDF5 dataset without data (its dataspace is null).", file=path)
    try:
        dtype = dataset.dtype
    except TypeError as error:
        raise SourceError(f"{where} has a type that NumPy doesn't know: {error}.", file=path) from None
    # Bytes of no type may name any NumPy dtype as theirs, and are no numbers all the same.
    if dtype.kind in "biufc" and dataset.id.get_type().get_class() != h5py.h5t.OPAQUE:
        _check_matlab(dataset, where, path)
        return
    what = "Encode text and objects first"
    if h5py.check_string_dtype(dtype) is not None:
        what = "It is text: encode it first"
    elif h5py.check_vlen_dtype(dtype) is not None:
        what = "Its rows vary in length: pad them to one"
    elif h5py.check_ref_dtype(dtype) is not None:
        what = "It is references to other objects, as MATLAB's cell arrays are: name those datasets"
    elif dtype.kind == "V":
        what = "It has fields, or bytes of no type: save each field as a dataset"
    raise SourceError(f"{where} has dtype {dtype}; arrays must hold numbers. {what}.", file=path)


def _check_matlab(dataset: Any, where: str, path: str) -> None:
    """Refuse numbers that mean something else to MATLAB, as its attributes tell."""
    if dataset.attrs.get("MATLAB_empty", 0):
        # What is stored are the lengths of its axes.
        raise SourceError(f"{where} is an empty array of MATLAB, so there is nothing to feed.", file=path)
    if dataset.attrs.get("MATLAB_class") == b"char":
        raise SourceError(f"{where} is text of MATLAB; arrays must hold numbers. Encode it first.", file=path)


def check_filters(dataset: Any, where: str) -> None:
    """Refuse a dataset that needs a filter which isn't there.

    Raises:
        SourceError: Names the filter.
    """
    settings = dataset.id.get_create_plist()
    for place in range(settings.get_nfilters()):
        code, _, _, name = settings.get_filter(place)
        if not _is_there(code):
            raise SourceError(
                f"{where} is packed with filter {code} ({name.decode(errors='replace') or 'no name'}), which is "
                "neither part of HDF5 nor registered. Import the package that has it first, such as hdf5plugin.",
                file=os.fsdecode(dataset.file.filename),
            )


def _is_there(code: int) -> bool:
    """Whether HDF5 has a filter already. To ask alone would make HDF5 look for a library, load it and run it."""
    from h5py import h5pl, h5z

    with h5z.phil:  # other threads wait for their turn at HDF5, and so don't miss the folders
        folders = [h5pl.get(place) for place in range(h5pl.size())]
        for _ in folders:
            h5pl.remove(0)
        try:
            return bool(h5z.filter_avail(code))
        finally:
            for folder in folders:
                h5pl.append(folder)


def block_bytes(dataset: Any) -> int:
    """Memory that HDF5 takes to read one row, beside the row: a block that is unpacked whole, and those it keeps."""
    if dataset.chunks is None:
        return 0
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    kept = min(_CACHE_BYTES, math.prod(dataset.shape) * dataset.dtype.itemsize) if size <= _CACHE_BYTES else 0
    packed = dataset.id.get_create_plist().get_nfilters() > 0
    return int(kept + (2 * size if packed else 0))
