"""Names of files as users give them: one, a pattern such as "train-*.tar", or a list of both."""

from __future__ import annotations

import glob
import os
from typing import Any

from fitstream.errors import SourceError

__all__ = ["matching_files"]


def matching_files(given: Any, caller: str) -> list[str]:
    """All files that are meant, in their order; those of a pattern sorted. Names without a pattern are not looked up.

    Args:
        given: A path, a pattern, or several of both.
        caller: Whose argument it is, for errors.
    Raises:
        SourceError: If there is none, or nothing matches a pattern.
    """
    each_given = [given] if isinstance(given, (str, os.PathLike)) else list(given)
    if not each_given:
        raise SourceError(f"{caller} got an empty list of files.")
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
