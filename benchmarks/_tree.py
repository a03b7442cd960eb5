"""The memory of a process and all its descendants, read from `/proc`. On its own, since probes pay for every import."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["tree_bytes"]


def tree_bytes(root: int, *, unbacked: bool = False) -> int:
    """The proportional set size of a process and its descendants; `unbacked` leaves out pages of files."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            # The second field is the program's name, which may hold anything, in parentheses.
            fields = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(name))
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, []))
    held = 0
    for pid in tree:
        with contextlib.suppress(OSError):
            lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
            held += sizes.get("Pss:", 0) - (sizes.get("Pss_File:", 0) if unbacked else 0)
    return held
