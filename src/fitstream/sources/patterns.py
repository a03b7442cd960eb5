"""Names of files as users give them: one, a pattern such as "train-*.tar", or a list of both."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from typing import Any

from fitstream.errors import PlanError, SourceError

__all__ = ["matching_files"]


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
    for each in each_given:
        name = os.fsdecode(each)
        if os.path.exists(name) or not glob.has_magic(name):
            if "{" in name and ".." in name and not os.path.exists(name):
                start = name.partition("{")[0]
                raise SourceError(
                    f"braces aren't expanded. Use a pattern such as {start + '*'!r}, or a list.", file=name
                )
            found.append(name)
            continue
        matched = sorted(one for one in glob.glob(name, recursive=True) if os.path.isfile(one))
        if not matched:
            raise SourceError(f"no file matches the pattern. Relative patterns start at {os.getcwd()!r}.", file=name)
        found += matched
    return found
