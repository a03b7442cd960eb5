"""Where long tests tell their numbers: on standard output, and in the file that SOAK_REPORT names."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def report(text: str) -> None:
    """Tell, and keep."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    if path := os.environ.get("SOAK_REPORT"):
        Path(path).parent.mkdir(exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text + "\n\n")
