"""`.npy` files and the members of `.npz` files as arrays that are mapped, not loaded.

The header of a `.npy` file is a Python literal, which NumPy's own reader parses without executing anything. Its length
is looked at before, so that no file makes us reserve gigabytes for it. Objects are refused: they are stored as pickles,
and to unpickle a file is to run it. The shape must fit the file before anything is mapped.

A `.npz` file is a zip file. What `np.savez` writes is not compressed, so that its arrays can be mapped where they lie.
"""

from __future__ import annotations

import io
import math
import os
import struct
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.sources.file_access import check_file
from fitstream.sources.labels import few
from fitstream.spec import Structure, format_bytes

__all__ = ["is_in_npz", "npy_in", "with_files_mapped"]

_ADVICE = dict.fromkeys((".h5", ".hdf5", ".he5", ".mat"), "Use from_hdf5 for it.") | {
    ".zarr": 'Open it: from_arrays(zarr.open_array(path, mode="r")).',
    ".parquet": "Use from_parquet for it.",
}
#: NumPy's own limit, up to which its parser is safe.
_MOST_HEADER_BYTES = 10_000
#: A zip file's local header: its mark, and the lengths of the name and the extra field at its end.
_LOCAL = struct.Struct("<4s22xHH")
_PICKLED = (
    "stored as pickles, which could run any code when they are read. Save numbers instead: "
    'np.save(path, np.asarray(x, dtype="float32"))'
)


def with_files_mapped(tree: Any) -> Any:
    """The same tree with arrays in the place of paths: of a `.npy` file one, of a `.npz` file a dict of them.

    Raises:
        SourceError: If a file isn't there, is damaged, or holds anything but numbers that can be mapped.
    """
    structure = Structure(tree)
    leaves = structure.flatten(tree)
    if not any(isinstance(leaf, (str, os.PathLike)) for leaf in leaves):
        return tree
    return structure.build(
        [_opened(os.fspath(leaf)) if isinstance(leaf, (str, os.PathLike)) else leaf for leaf in leaves]
    )


def _opened(path: str) -> Any:
    path, member = _divided(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".npy", ".npz"):
        advice = _ADVICE.get(suffix, "Load it, and pass the array.")
        raise SourceError(f"from_arrays reads .npy and .npz files, and this is none. {advice}", file=path)
    check_file(path)
    try:
        with open(path, "rb") as file:
            return (
                _members(file, path, member)
                if suffix == ".npz"
                else _mapped(file, path, "it", 0, os.fstat(file.fileno()).st_size)
            )
    except (OSError, ValueError) as error:
        raise SourceError(f"the file can't be read: {error}.", file=path) from None


def is_in_npz(path: str) -> bool:
    """Whether a path names an array of a `.npz` file that is there, as "data.npz/x" does."""
    file, member = _divided(path)
    return member is not None and os.path.isfile(file)


def _divided(path: str) -> tuple[str, str | None]:
    """The file, and the array in it that "data.npz/x" names."""
    file, mark, member = path.partition(".npz/")
    return (path, None) if not mark or os.path.exists(path) else (f"{file}.npz", member.removesuffix(".npy"))


def npy_in(data: npt.NDArray[np.uint8], path: str, what: str) -> npt.NDArray[Any]:
    """The array of a whole `.npy` file in memory, `(bytes,)`; a view of it.

    Args:
        path: Of the file that holds it, for errors, as `what` in it.
    Raises:
        SourceError: If it is damaged, or holds objects.
    """
    file = io.BytesIO(data.data)
    shape, fortran, dtype = _header(file, path, what)
    _check_fits(shape, dtype, len(data) - file.tell(), path, what)
    count = math.prod(shape)
    values = data[file.tell() : file.tell() + count * dtype.itemsize]
    return np.frombuffer(values, dtype, count).reshape(shape, order="F" if fortran else "C")


def _mapped(file: BinaryIO, path: str, what: str, start: int, end: int) -> npt.NDArray[Any]:
    """Map the array that a `.npy` header at `start` describes; it must end by `end`."""
    file.seek(start)
    shape, fortran, dtype = _header(file, path, what)
    if _check_fits(shape, dtype, end - file.tell(), path, what) == 0:
        if shape[:1] == (0,):
            raise SourceError(f"{what} has no rows, so there is nothing to feed.", file=path)
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _check_fits(shape: tuple[int, ...], dtype: np.dtype[Any], left_bytes: int, path: str, what: str) -> int:
    if dtype.hasobject:
        raise SourceError(f"{what} holds Python objects (dtype {dtype}), {_PICKLED}.", file=path)
    count_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or count_bytes > left_bytes:
        raise SourceError(
            f"{what} declares {dtype}{list(shape)}, {count_bytes:,} bytes, but {left_bytes:,} "
            "follow its header. It is cut off or damaged: restore it.",
            file=path,
        )
    return count_bytes


def _header(file: BinaryIO, path: str, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    damaged = f"{what} is no .npy array, or a damaged one"
    start = file.read(12)
    if start[:6] != np.lib.format.MAGIC_PREFIX or len(start) < 12:
        pickled = " It looks like a pickle, which is never read." if start[:1] == b"\x80" else ""
        raise SourceError(f"{damaged}: it begins with {start[:6]!r}.{pickled}", file=path)
    major = start[6]
    if major not in (1, 2, 3):
        raise SourceError(f"{damaged}: it is of version {major}.{start[7]}, and 1 to 3 are known.", file=path)
    size = int.from_bytes(start[8:10] if major == 1 else start[8:12], "little")
    if size > _MOST_HEADER_BYTES:
        raise SourceError(
            f"{damaged}: its header declares {size:,} bytes, and {_MOST_HEADER_BYTES:,} are allowed.", file=path
        )
    text = io.BytesIO(start[8:] + file.read(size - (2 if major == 1 else 0)))
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    try:
        found = read(text, max_header_size=_MOST_HEADER_BYTES)
    except Exception as error:  # noqa: BLE001  NumPy's parser raises nearly anything about text that is none
        raise SourceError(f"{damaged}: {type(error).__name__}: {str(error)[:200]}.", file=path) from None
    return found


def _members(file: BinaryIO, path: str, wanted: str | None) -> Any:
    """The arrays by their names, or the wanted one."""
    import zipfile  # a twentieth of the time that importing fitstream would take

    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise SourceError(f"it is no .npz file, or a damaged one: {error}.", file=path) from None
    if not members:
        raise SourceError("it holds no arrays.", file=path)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        what = f"its member {member.filename!r}"
        if wanted not in (None, name):
            continue
        if name in arrays:
            raise SourceError(f"{what} is there twice.", file=path)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise SourceError(
                f"{what} is compressed ({format_bytes(member.compress_size)} for {format_bytes(member.file_size)}), so "
                "that its rows can't be read one by one. Save with np.savez, or each array by np.save; or let memory "
                "hold all of it: from_arrays(dict(np.load(path))).",
                file=path,
            )
        file.seek(member.header_offset)
        head = file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
            raise SourceError(f"{what} is not where the file says. The file is damaged.", file=path)
        _, name_bytes, extra_bytes = _LOCAL.unpack(head)
        first = member.header_offset + _LOCAL.size + name_bytes + extra_bytes
        arrays[name] = _mapped(file, path, what, first, first + member.file_size)
    if wanted is None:
        return arrays
    if wanted not in arrays:
        there = few([member.filename.removesuffix(".npy") for member in members])
        raise SourceError(f"it holds no array {wanted!r}. There are {there}.", file=path)
    return arrays[wanted]
