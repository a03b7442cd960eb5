"""Pictures in folders, one sub-folder a class.

Order: by class, then by path as bytes; the same on every machine, whatever order the system lists in.

Symbolic links are followed. A link to a folder that holds it is not: that would never end, or take the pictures of
all classes into one. Below one class each folder counts once, by its real path if it has one there. A broken link named
as a picture is listed, so that reading it says so.

A sub-folder without pictures is more often a mistake (`annotations`, an unpacked archive's shell) than a class, and
dropping it silently would shift the labels of all later classes. So it is an error, unless `classes=` names it: a
validation folder may lack a class that training has. A folder beside the classes that `classes=` doesn't name is passed
over if it has no pictures. Sub-folders that are all named as parts of a data set (`train`, `test`) would make a model
that learns nothing of use, without a warning; that too is an error unless `classes=` names them.
"""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias, final

import numpy as np

from fitstream.errors import PlanError, SourceError
from fitstream.sources.class_names import check_labelling
from fitstream.sources.files import PICTURE_SUFFIXES, FileSource, PathPacker
from fitstream.sources.labels import LabelMode, few

__all__ = ["list_folder"]

_PARTS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}

_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar"}

#: Device and inode.
_Identity: TypeAlias = tuple[int, int]


def list_folder(
    root: str | os.PathLike[str],
    *,
    label_mode: LabelMode | None = "int",
    classes: Sequence[str] | None = None,
    recursive: bool = True,
    extensions: Sequence[str] | None = None,
    may_lack_classes: bool = False,
    allow_outside: bool = True,
) -> FileSource:
    """List the pictures of a folder.

    Args:
        root: The folder. Its sub-folders are the classes; with `label_mode=None` all below it are samples.
        label_mode: "int", "categorical", "binary", or None for samples without labels.
        classes: Names of the sub-folders in label order; sorted by default.
        recursive: Take pictures of deeper folders too, into the class that they are below.
        extensions: Suffixes of pictures, any case; `PICTURE_SUFFIXES` by default.
        may_lack_classes: Take a class of `classes` that has no sub-folder for one without pictures, as long as another
            has one: `classes` are then another folder's, such as training's.
    Returns:
        The files, by class, then by path. Labels are int64 class indices.
    Raises:
        PlanError: If arguments are wrong.
        SourceError: If the folder can't be listed, holds no pictures, or isn't laid out in classes.
    """
    if not isinstance(root, (str, bytes, os.PathLike)):
        raise PlanError(f"root={root!r} must be the path of a folder.")
    if label_mode == "raw":
        raise PlanError('label_mode="raw" needs labels that are numbers, from a table. Sub-folders are classes.')
    names = check_labelling(label_mode, classes)
    path = os.fsdecode(root)
    top = os.path.abspath(os.fsencode(root))
    _check_is_folder(path, top)
    listing = _Listing(top, _check_suffixes(extensions), recursive)
    inside = None if allow_outside else os.path.realpath(top)
    if label_mode is None:
        return _without_labels(listing, inside)
    names, found = _by_class(listing, names, may_lack_classes)
    if label_mode == "binary" and len(names) > 2:
        raise SourceError(
            f'label_mode="binary" is for at most 2 classes, but there are {len(names)} sub-folders ({few(names)}). '
            f'Use label_mode="int" or "categorical".',
            file=path,
        )
    packer = PathPacker()
    for name, pictures in zip(names, found, strict=True):
        prefix = os.fsencode(name) + b"/"
        packer.extend([prefix + picture for picture in pictures])
    labels = np.repeat(np.arange(len(names)), [len(pictures) for pictures in found])
    return FileSource(packer.packed(top), labels, names, _origin(top), label_mode, len(names), inside)


def _without_labels(listing: _Listing, inside: bytes | None) -> FileSource:
    pictures = listing.pictures(listing.top)
    if not pictures:
        raise SourceError(f"it holds no pictures.{listing.advice()}", file=os.fsdecode(listing.top))
    packer = PathPacker()
    packer.extend(pictures)
    return FileSource(packer.packed(listing.top), None, None, _origin(listing.top), inside=inside)


def _by_class(listing: _Listing, wanted: list[str] | None, may_lack: bool) -> tuple[list[str], list[list[bytes]]]:
    """Class names in label order, and the pictures below each."""
    file = os.fsdecode(listing.top)
    folders, loose = listing.top_level()
    names = sorted(folders, key=os.fsencode) if wanted is None else wanted
    missing = [name for name in names if name not in folders]
    if missing and (not may_lack or len(missing) == len(names)):
        there = f"Its sub-folders: {few(sorted(folders))}." if folders else "It has no sub-folders."
        raise SourceError(
            f"there is no sub-folder {missing[0]!r}, which classes= names"
            f"{f' (as {len(missing) - 1} more)' if len(missing) > 1 else ''}. {there} "
            "Correct the name, or make the folder.",
            file=file,
        )
    found = [listing.pictures(folders[name]) if name in folders else [] for name in names]
    count = sum(map(len, found))
    if loose:
        what = f"pictures lie directly in it ({len(loose):,}, such as {os.fsdecode(loose[0])!r})"
        advice = "Use label_mode=None to take all pictures without labels, or from_table if a table has the labels."
        if count:
            beside = f"beside the class folders ({len(folders):,}). Move them into a class."
            raise SourceError(f"{what}, {beside} {advice}", file=file)
        raise SourceError(f"{what}, and none in a sub-folder, which would be a class. {advice}", file=file)
    if count == 0:
        where = f", nor do its {len(folders)} sub-folders" if folders else ""
        raise SourceError(f"it holds no pictures{where}.{listing.advice()}", file=file)
    if wanted is None:
        _check_no_parts(names, file)
        _check_no_empty_class(names, found, listing, file)
    else:
        _check_all_named(folders, wanted, listing, file)
    return names, found


def _check_no_parts(names: list[str], file: str) -> None:
    if {name.casefold() for name in names} <= _PARTS:
        part = next((name for name in names if name.casefold().startswith("train")), names[0])
        raise SourceError(
            f"its sub-folders ({few(names)}) are named as parts of a data set, not as classes. Use one of them, "
            f"{os.path.join(file, part)!r}, or name them with classes= if they are classes.",
            file=file,
        )


def _check_no_empty_class(names: list[str], found: list[list[bytes]], listing: _Listing, file: str) -> None:
    empty = [name for name, pictures in zip(names, found, strict=True) if not pictures]
    if empty:
        raise SourceError(
            f"{len(empty)} of {len(names)} sub-folders hold no pictures: {few(empty)}.{listing.advice()} "
            f"Or remove them, or name the classes with classes=[...]; an empty class that is named there is kept.",
            file=file,
        )


def _check_all_named(folders: dict[str, bytes], wanted: list[str], listing: _Listing, file: str) -> None:
    for name in sorted(set(folders) - set(wanted)):
        pictures = listing.pictures(folders[name])
        if pictures:
            raise SourceError(
                f"the sub-folder {name!r} ({len(pictures):,} pictures) is not in classes ({few(wanted)}). "
                f"Add it to classes=, move it out of the folder, or list the files you want with from_table.",
                file=file,
            )


@final
class _Listing:
    """Walks folders below one root.

    Args:
        top: The root, absolute.
        suffixes: Of pictures, in lower case.
        recursive: Whether to enter sub-folders.
    """

    def __init__(self, top: bytes, suffixes: tuple[bytes, ...], recursive: bool) -> None:
        self.top = top
        self._suffixes = suffixes
        self._recursive = recursive
        self._others: Counter[str] = Counter()
        self._deeper = 0
        self._holders = _holders(top)

    def top_level(self) -> tuple[dict[str, bytes], list[bytes]]:
        """Sub-folders of the root, by name, and sorted pictures directly in it."""
        folders: dict[str, bytes] = {}
        pictures: list[bytes] = []
        for name, folder in self._entries(self.top, pictures):
            if _identity(folder) not in self._holders:
                folders[os.fsdecode(name)] = folder
        return folders, sorted(pictures)

    def pictures(self, folder: bytes) -> list[bytes]:
        """Sorted paths of all pictures, relative to `folder`."""
        found: list[bytes] = []
        # The root itself is among its own holders, but may be what is listed.
        seen = self._holders - {_identity(folder)}
        # Folders reached without a link come first, so that a link never takes their place.
        pending = [(False, b"")]
        while pending:
            linked, below = heapq.heappop(pending)
            here = os.path.join(folder, below) if below else folder
            identity = _identity(here)
            if identity in seen:
                continue
            seen.add(identity)
            pictures: list[bytes] = []
            for name, deeper in self._entries(here, pictures):
                if self._recursive:
                    heapq.heappush(pending, (linked or os.path.islink(deeper), below + name + b"/"))
                else:
                    self._deeper += 1
            found.extend([below + name for name in pictures] if below else pictures)
        return sorted(found)

    def _entries(self, folder: bytes, pictures: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Names and paths of the folders in a folder; its pictures' names are added to `pictures`."""
        folders = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith(b".") or name.lower() in (b"thumbs.db", b"desktop.ini", b"__macosx"):
                        continue
                    if _is_folder(entry):
                        folders.append((name, entry.path))
                    elif name.lower().endswith(self._suffixes):
                        pictures.append(name)
                    else:
                        self._others[os.fsdecode(os.path.splitext(name)[1].lower()) or "no suffix"] += 1
        except OSError as error:
            raise SourceError(f"the folder cannot be listed: {error.strerror}.", file=os.fsdecode(folder)) from error
        return folders

    def advice(self) -> str:
        """What was seen instead of pictures, and what to do about it; starts with a space."""
        suffixes = ", ".join(os.fsdecode(suffix) for suffix in self._suffixes)
        others = ", ".join(f"{count:,} {suffix}" for suffix, count in self._others.most_common(5))
        seen = f" There are other files: {others}." if others else ""
        if self._deeper:
            seen += f" Deeper folders ({self._deeper:,}) were not entered: recursive=True enters them."
        return f"{seen} Pictures are files that end in {suffixes}; extensions=[...] names others."


def _check_is_folder(path: str, top: bytes) -> None:
    if os.path.isdir(top):
        return
    if os.path.exists(top):
        suffix = os.path.splitext(path)[1].lower()
        advice = (
            "Unpack it, and pass the folder that it holds."
            if suffix in _ARCHIVES
            else "Use from_table for a table that lists files."
        )
        raise SourceError(f"it is a file, not a folder. {advice}", file=path)
    raise SourceError(f"the folder does not exist. Relative paths start at {os.getcwd()!r}.", file=path)


def _check_suffixes(extensions: Sequence[str] | None) -> tuple[bytes, ...]:
    if extensions is None:
        extensions = PICTURE_SUFFIXES
    if isinstance(extensions, str) or not isinstance(extensions, Iterable):
        extensions = [extensions]
    if not extensions or not all(isinstance(suffix, str) and suffix.strip(". ") for suffix in extensions):
        raise PlanError(f'extensions={extensions!r} must be suffixes such as [".jpg", ".png"].')
    return tuple(os.fsencode("." + suffix.lower().lstrip(".")) for suffix in extensions)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # A link to itself. If it is named as a picture, reading it says so.


def _identity(folder: bytes) -> _Identity:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise SourceError(f"the folder cannot be listed: {error.strerror}.", file=os.fsdecode(folder)) from error
    return status.st_dev, status.st_ino


def _holders(top: bytes) -> set[_Identity]:
    """The root and all folders above it."""
    folder = os.path.realpath(top)
    holders = {_identity(folder)}
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        holders.add(_identity(folder))
    return holders


def _origin(top: bytes) -> str:
    return f"folder {os.fsdecode(top)!r}"
