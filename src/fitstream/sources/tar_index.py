"""The members of tar files: where each one's bytes lie, found by reading the headers once, and kept.

Nothing is extracted, and no member's bytes are read here. The standard library reads the headers, through a file that
refuses to hand out more than a header may be. What could lead elsewhere if it were extracted (absolute paths, `..`,
links) and what is no file is refused all the same: such a tar is no data set, and other programs may extract it.

The index is kept in the user's cache folder by path, size and time of the tar.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
from array import array
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SourceError
from fitstream.kept_arrays import Column, file_identity, keep, kept
from fitstream.sources.file_access import check_file
from fitstream.sources.labels import brief

__all__ = ["Members", "index_tar", "member_name"]

_PURPOSE, _VERSION = "tar", 2
#: Of a header, and of the long names and attributes that may stand before it.
_MOST_HEADER_BYTES = 1 << 20
#: How a path begins that isn't below another, also on Windows, and what stands between its parts.
_OUTSIDE, _SEPARATORS = re.compile(r"[/\\]|[A-Za-z]:[/\\]"), re.compile(r"[/\\]")
#: What is looked at behind the mark of the end, which is filled with zeros, to 10 KB as a rule.
_BEYOND_BYTES = 1 << 16
#: Where the first block of a member's headers is looked for, in blocks before its content.
_NAME_BLOCKS = 8
#: Members below which reading the headers is as quick as looking for an index.
_WORTH_MEMBERS = 256


@final
class Members(NamedTuple):
    """The files in a tar, in their order.

    Attributes:
        keys: For each, the number of its sample: those whose names are alike up to the first dot of the last part.
        endings: For each, the place of what follows that dot in `names`.
        starts: Where its bytes begin in the tar.
        sizes: How many there are.
        names: The endings, such as "jpg" or "seg.png".
    """

    keys: npt.NDArray[np.int64]
    endings: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    names: list[str]


class _Headers:
    """A file for `tarfile`, from which only headers are read."""

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path
        self.tell, self.seek = file.tell, file.seek

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _MOST_HEADER_BYTES:
            raise SourceError(
                f"a header at byte {self._file.tell():,} declares {count:,} bytes, and "
                f"{_MOST_HEADER_BYTES:,} are allowed.",
                file=self._path,
            )
        data: bytes = self._file.read(count)
        return data


def index_tar(path: str) -> Members:
    """Find the members of a tar.

    Raises:
        SourceError: If it is no tar, compressed, cut off, or has a member that is no plain file within it.
    """
    size = check_file(path)
    origin = {"files": [file_identity(path)], "options": _VERSION}
    found = kept(_PURPOSE, origin)
    members = None if found is None else _checked(found, size)
    if members is None:
        try:
            members = _read(path, size)
        except OSError as error:
            raise SourceError(f"the file can't be read: {error.strerror}.", file=path) from None
        if len(members.keys) >= _WORTH_MEMBERS:
            names = np.frombuffer("\n".join(members.names).encode("utf-8", "surrogateescape"), np.uint8)
            arrays = {
                "keys": members.keys,
                "endings": members.endings,
                "starts": members.starts,
                "sizes": members.sizes,
            }
            with contextlib.suppress(OSError):  # a folder that can't be written to costs only time
                keep(
                    _PURPOSE,
                    origin,
                    [Column(name, each.dtype, [each]) for name, each in (arrays | {"names": names}).items()],
                )
    return members


def _checked(found: dict[str, npt.NDArray[Any]], size: int) -> Members | None:
    """The members that were kept, if they can be those of a tar of that size."""
    names = found["names"].tobytes().decode("utf-8", "surrogateescape").split("\n")
    keys, endings, starts, sizes = (np.asarray(found[name], np.int64) for name in Members._fields[:4])
    members = Members(keys, endings, starts, sizes, names)
    inside = (members.starts >= 0) & (members.sizes >= 0) & (members.starts + members.sizes <= size)
    named = (members.endings >= 0) & (members.endings < len(names))
    return members if bool((inside & named).all()) else None


def _read(path: str, size: int) -> Members:
    keys, endings, starts, sizes = (array("q") for _ in range(4))
    names: dict[str, int] = {}
    samples: dict[str, int] = {}
    last = ""
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=_Headers(file, path), mode="r:", errorlevel=2) as tar:  # type: ignore[call-overload]
                while (member := tar.next()) is not None:
                    tar.members = []  # else all of them would be held
                    _check(member, path, size)
                    if member.isdir():
                        continue
                    folder, _, base = member.name.rpartition("/")
                    if base.startswith(".") or folder.startswith("__MACOSX"):
                        continue
                    stem, _, ending = base.partition(".")
                    key = f"{folder}/{stem}"
                    if key != last and key in samples:
                        raise SourceError(
                            f"the members of {key.lstrip('/')!r} don't stand together ({member.name!r} is apart). "
                            "Write each sample's files one after the other.",
                            file=path,
                        )
                    last = key
                    keys.append(samples.setdefault(key, len(samples)))
                    endings.append(names.setdefault(ending, len(names)))
                    starts.append(member.offset_data)
                    sizes.append(member.size)
                _check_end(file, tar.offset, path)
        except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"it is no tar file, or a damaged or compressed one: {error}. {_advice(path)}", file=path
            ) from None
    whole = [np.frombuffer(values, np.int64) for values in (keys, endings, starts, sizes)]
    return Members(whole[0], whole[1], whole[2], whole[3], list(names))


def member_name(path: str, start: int) -> str:
    """The name of the member whose content starts there, for an error; "" if it can't be read.

    Names that are long or not ASCII lie in blocks before the member's own, which has what is left of them.
    """
    with contextlib.suppress(OSError), open(path, "rb") as file:
        for blocks in range(min(_NAME_BLOCKS, start // tarfile.BLOCKSIZE), 0, -1):
            with contextlib.suppress(ValueError, EOFError, OverflowError, tarfile.TarError):
                file.seek(start - blocks * tarfile.BLOCKSIZE)
                with tarfile.open(fileobj=_Headers(file, path), mode="r:") as tar:  # type: ignore[call-overload]
                    member = tar.next()
                    if member is not None and member.offset_data == start:
                        return str(member.name)
    return ""


def _advice(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(6)
    packed = start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start == b"\xfd7zXZ\0" or start[:4] == b"(\xb5/\xfd"
    return "Unpack it (gunzip, unxz, zstd -d): packed tars can't be read in any order." if packed else "Restore it."


def _check(member: Any, path: str, size: int) -> None:
    if member.issym() or member.islnk():
        what = f"is a link to {brief(member.linkname)}"
    elif member.issparse():
        what = "is a sparse file"
    elif not (member.isreg() or member.isdir()):
        what = "is a device, a pipe or of an unknown kind"
    elif _OUTSIDE.match(member.name) or ".." in _SEPARATORS.split(member.name):
        what = "points outside of the tar"
    elif member.offset_data + member.size > size:
        what = f"ends at byte {member.offset_data + member.size:,}, and the tar has {size:,}: it was cut off"
    else:
        return
    raise SourceError(
        f"its member {brief(member.name)} {what}. Only plain files below the tar's own root are read: write it anew.",
        file=path,
    )


def _check_end(file: Any, offset: int, path: str) -> None:
    """Refuse a tar whose list of members ends at something else than the mark of its end: the library just stops."""
    file.seek(offset)
    block = file.read(512)
    if not block:
        raise SourceError(
            f"it ends at byte {offset:,} without the mark that ends a tar: it was cut off, or never finished, and "
            "samples may be missing. Write it anew.",
            file=path,
        )
    if block.strip(b"\0"):
        raise SourceError(
            f"the header at byte {offset:,} is damaged, so that members are missing. Restore it.", file=path
        )
    if file.read(_BEYOND_BYTES).strip(b"\0"):
        raise SourceError(
            f"more follows its end at byte {offset:,}, as where tars were joined by cat. Join them by tar -A, or give "
            "them as a list.",
            file=path,
        )
