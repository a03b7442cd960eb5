"""Names of files as users give them: a file, a pattern ("train-*.tar", "train-{000..012}.tar"), or a list of both."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from fitstream.errors import PlanError, SourceError

__all__ = ["matching_files"]

#: Numbers of files as shells and WebDataset write them, and how many may be meant.
_NUMBERS, _MOST_FILES = re.compile(r"\{(\d+)\.\.(\d+)\}"), 1_000_000


def matching_files(given: Any, caller: str) -> list[str]:
    """All files that are meant, in their order; those of a pattern sorted. Names without a pattern are not looked up.

    Args:
        given: A path, a pattern, or several of both.
        caller: Whose argument it is, for errors.
    Raises:
        PlanError: If it is something else.
        SourceError: If there is none, or nothing matches a pattern.
    """
    alone = isinstance(given, (str, bytes, os.PathLike)) or not isinstance(given, Iterable)
    each_given = [given] if alone else list(given)
    if not each_given:
        raise SourceError(f"{caller} got an empty list of files.")
    if not all(isinstance(one, (str, bytes, os.PathLike)) for one in each_given):
        raise PlanError(f"path={given!r} must be a file, a pattern such as 'logs/*.txt', or a list of both.")
    found: list[str] = []
    for name in chain.from_iterable(_numbered(os.fsdecode(each)) for each in each_given):
        if os.path.exists(name) or not glob.has_magic(name):
            found.append(name)
            continue
        matched = sorted(one for one in glob.glob(name, recursive=True) if os.path.isfile(one))
        if not matched:
            raise SourceError(f"no file matches the pattern. Relative patterns start at {os.getcwd()!r}.", file=name)
        found += matched
    return found


def _numbered(name: str) -> Iterator[str]:
    """The names that "{000..012}" in one stands for, in the order of the numbers, as wide as the first one."""
    numbers = _NUMBERS.search(name)
    if numbers is None or os.path.exists(name):
        yield name
        return
    first, last = map(int, numbers.groups())
    if not 0 <= last - first < _MOST_FILES:
        raise SourceError(f"{numbers[0]} must rise, by less than {_MOST_FILES:,} files.", file=name)
    for number in range(first, last + 1):
        inner = f"{number:0{len(numbers[1])}d}"
        yield from _numbered(f"{name[: numbers.start()]}{inner}{name[numbers.end() :]}")
