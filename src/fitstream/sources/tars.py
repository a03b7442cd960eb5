"""WebDataset tars: samples whose parts are files of one name with different endings, read where they lie in the tar.

Samples are read in any order by one call of the system for each part. A block, for shuffling by chunk, is a stretch of
a tar, so that a slow disk reads neighbouring bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, BinaryIO, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError, SourceError
from fitstream.memory import shared_copy
from fitstream.sampling import Indices
from fitstream.scratch import Arena
from fitstream.sources.array_files import npy_in
from fitstream.sources.arrow import Classes
from fitstream.sources.base import Reader, Source
from fitstream.sources.file_access import read_at
from fitstream.sources.files import PICTURE_SUFFIXES
from fitstream.sources.json_text import parse
from fitstream.sources.labels import few
from fitstream.sources.tar_index import Members, index_tar, member_name

__all__ = ["TarSource", "open_tars"]

#: Samples of a block, at most, and its bytes.
_BLOCK_SAMPLES, _BLOCK_BYTES = 1024, 1 << 25
#: Whole numbers in text, and labels that are read whole when all are asked for.
_NUMBERS, _LABELS_MOST = ("cls", "cls2", "index", "inx", "id"), 1 << 21
_MOST_NUMBER_BYTES = 64
#: That a lane keeps open.
_OPEN_FILES = 8


def open_tars(
    paths: Sequence[str], parts: Sequence[Any], classes: list[str] | None, *, allow_nan: bool = False
) -> TarSource:
    """Index tars, and choose parts of their samples.

    Args:
        paths: Of the tars.
        parts: Endings of the parts' names, in the order of the sample; alternatives by ";": "jpg;jpeg;png".
        classes: Names of the classes that the last part holds, as text or index.
        allow_nan: Don't look for NaN and infinity.
    Raises:
        PlanError: If no part is named.
        SourceError: If a tar can't be used, or a sample lacks a part.
    """
    if len(parts) == 1 and isinstance(parts[0], (tuple, list)):
        parts = parts[0]
    if not parts or not all(isinstance(part, str) and part.strip(";. ") for part in parts):
        raise PlanError(f'from_webdataset needs endings such as "jpg", "cls", not {list(parts)!r}.')
    wanted = [[one.strip().lstrip(".").lower() for one in part.split(";")] for part in parts]
    starts, sizes, first = [], [], [0]
    for path in paths:
        here_starts, here_sizes = _chosen(index_tar(path), wanted, path)
        starts.append(here_starts)
        sizes.append(here_sizes)
        first.append(first[-1] + len(here_starts))
    places = shared_copy(np.concatenate(starts)), shared_copy(np.concatenate(sizes))
    states = [os.stat(path) for path in paths]
    marks = [(state.st_size, state.st_mtime_ns) for state in states]
    return TarSource(
        [os.path.abspath(path) for path in paths], marks, first, places, wanted, classes, allow_nan=allow_nan
    )


def _chosen(
    members: Members, wanted: list[list[str]], path: str
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Where the chosen parts of each sample lie, `(samples, parts)`."""
    count = int(members.keys.max()) + 1 if len(members.keys) else 0
    if not count:
        raise SourceError("the tar holds no files.", file=path)
    starts, sizes = np.zeros((count, len(wanted)), np.uint64), np.zeros((count, len(wanted)), np.uint32)
    for place, endings in enumerate(wanted):
        numbers = [number for number, name in enumerate(members.names) if name.lower() in endings]
        rows = np.flatnonzero(np.isin(members.endings, numbers))
        there = np.bincount(members.keys[rows], minlength=count)
        if (there != 1).any():
            sample = int(np.argmax(there != 1))
            what = "no part" if there[sample] == 0 else f"{there[sample]} parts"
            name = member_name(path, int(members.starts[members.keys == sample].min()))
            raise SourceError(
                f"sample {sample} of the tar (that of {name!r}) has {what} {';'.join(endings)!r}. "
                f"There are {few(members.names)}. Name endings that each sample has once.",
                file=path,
            )
        if len(rows) and int(members.sizes[rows].max()) >= 2**32:
            raise SourceError(f"a member of ending {';'.join(endings)!r} has 4 GiB or more.", file=path)
        starts[members.keys[rows], place] = members.starts[rows]
        sizes[members.keys[rows], place] = members.sizes[rows]
    return starts, sizes


@final
class TarSource(Source):
    """Samples in tars.

    Args:
        paths: Of the tars.
        marks: Size and time of each.
        first: The first sample of each, and the number of all.
        places: Start and size of each part, `(samples, parts)`.
        wanted: Endings of each part.
        classes: Names of the classes that the last part holds.
        allow_nan: Don't look for NaN and infinity.
    """

    def __init__(
        self,
        paths: list[str],
        marks: list[tuple[int, int]],
        first: list[int],
        places: tuple[npt.NDArray[Any], npt.NDArray[Any]],
        wanted: list[list[str]],
        classes: list[str] | None,
        *,
        allow_nan: bool,
    ) -> None:
        self.paths, self.marks, self.wanted = paths, marks, wanted
        self.first = np.array(first, np.int64)
        self.starts, self.sizes = places
        self.classes = None if classes is None else Classes(classes)
        self.class_names = classes
        kinds = {self.kind(place) for place in range(len(wanted))}
        self.checks_finite = not allow_nan and not kinds.isdisjoint(("npy", "json"))
        if "json" not in kinds:  # which may be several arrays
            self.part_names = [f"part {';'.join(one)!r}" for one in wanted]

    @property
    def begins_with_pictures(self) -> bool:
        """Whether the first part is decoded as a picture."""
        return all(f".{ending.rpartition('.')[2]}" in PICTURE_SUFFIXES for ending in self.wanted[0])

    def __len__(self) -> int:
        return len(self.starts)

    def open(self) -> Reader:
        return _TarReader(self)

    @property
    def index_bytes(self) -> int:
        return self.starts.nbytes + self.sizes.nbytes + self.first.nbytes

    def block_edges(self) -> Indices:
        edges = [np.zeros(1, np.int64)]
        for start, end in zip(self.first[:-1].tolist(), self.first[1:].tolist(), strict=True):
            mean = max(1, int(self.sizes[start:end].sum()) // max(1, end - start))
            step = max(1, min(_BLOCK_SAMPLES, _BLOCK_BYTES // mean))
            edges.append(np.append(np.arange(start + step, end, step), end))
        return np.unique(np.concatenate(edges))

    def tar(self, index: int) -> int:
        """The tar that holds a sample."""
        return int(np.searchsorted(self.first, index, "right")) - 1

    def path(self, index: int) -> str:
        """The tar, the byte where the sample's first part begins, and the name of that part."""
        path, start = self.paths[self.tar(index)], int(self.starts[index, 0])
        name = member_name(path, start)
        return f"{path}@{start}" + (f" {name!r}" if name else "")

    def labels(self) -> npt.NDArray[np.generic] | None:
        """The last part of several, if it is a whole number and they aren't too many to be read now."""
        if len(self.wanted) < 2 or len(self) > _LABELS_MOST or not self._is_number(len(self.wanted) - 1):
            return None
        reader = _TarReader(self)
        try:
            return np.array([reader.part(index, len(self.wanted) - 1, None) for index in range(len(self))], np.int64)
        finally:
            reader.close()

    def _is_number(self, place: int) -> bool:
        return self.wanted[place][0] in _NUMBERS or (self.classes is not None and place == len(self.wanted) - 1)

    def kind(self, place: int) -> str:
        """What a part becomes: "number", "npy", "json" or "bytes"."""
        if self._is_number(place):
            return "number"
        ending = self.wanted[place][0].rpartition(".")[2]
        return ending if ending in ("npy", "json") else "bytes"

    def fingerprint_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"members": (self.starts, self.sizes, self.first), "parts": self.wanted}
        return parts | ({} if self.class_names is None else {"class names": self.class_names})

    def __repr__(self) -> str:
        files = f"tar {self.paths[0]!r}" if len(self.paths) == 1 else f"{len(self.paths)} tars"
        return f"{files}: {len(self):,} samples of {', '.join(';'.join(one) for one in self.wanted)}"


@final
class _TarReader(Reader):
    def __init__(self, source: TarSource) -> None:
        self._source = source
        self._kinds = [source.kind(place) for place in range(len(source.wanted))]
        self._files: dict[int, BinaryIO] = {}

    def _opened(self, number: int) -> BinaryIO:
        if len(self._files) >= _OPEN_FILES:
            self._files.pop(next(iter(self._files))).close()
        path = self._source.paths[number]
        try:
            opened = open(path, "rb", buffering=0)  # noqa: SIM115  closed in `close`
        except OSError as error:
            raise SourceError(f"the tar can't be read: {error.strerror}.", file=path) from None
        state = os.fstat(opened.fileno())
        if (state.st_size, state.st_mtime_ns) != self._source.marks[number]:
            opened.close()  # and not kept, so that the next sample is refused as well
            raise SourceError("the tar was written anew since it was indexed. Leave it as it is.", file=path)
        self._files[number] = opened
        return opened

    def part(self, index: int, place: int, arena: Arena | None) -> Any:
        """One part of a sample."""
        source = self._source
        number = source.tar(index)
        start, size = int(source.starts[index, place]), int(source.sizes[index, place])
        kind = self._kinds[place]
        if kind == "number" and size > _MOST_NUMBER_BYTES and source.classes is None:
            raise SourceError(f"its part {';'.join(source.wanted[place])!r} has {size:,} bytes and is no number.")
        decoded = place == 0 and source.begins_with_pictures
        data = np.empty(size, np.uint8) if arena is None or not decoded else arena.take(size)
        if read_at(self._files.get(number) or self._opened(number), start, data.data) < size:
            raise SourceError("the tar ends before the member does.", file=source.paths[number])
        if kind == "bytes":
            return data.data if decoded else data.tobytes()
        if kind == "npy":
            return npy_in(data, source.paths[number], f"its part {';'.join(source.wanted[place])!r}")
        if kind == "json":
            return _parsed(data, source.paths[number], ";".join(source.wanted[place]))
        text = data.tobytes().decode("utf-8", "replace").strip()
        is_last = place == len(source.wanted) - 1
        try:
            value: Any = int(text)
        except ValueError:
            value = text
        if source.classes is not None and is_last:
            return source.classes.index(value)
        if not isinstance(value, int):
            raise SourceError(
                f"its part {';'.join(source.wanted[place])!r} is {text[:40]!r}, no whole number. "
                "Name its values with classes=."
            )
        return np.int64(value)

    def read(self, index: int, arena: Arena) -> Any:
        parts = tuple(self.part(index, place, arena) for place in range(len(self._kinds)))
        return parts if len(parts) > 1 else parts[0]

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1].close()


def _parsed(data: npt.NDArray[np.uint8], path: str, part: str) -> Any:
    try:
        return parse(data.tobytes().decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise SourceError(f"its part {part!r} is not UTF-8 text.", file=path) from None
    except SourceError as error:
        raise SourceError(f"its part {part!r}: {str(error).removeprefix(path).lstrip(':, ')}", file=path) from None
