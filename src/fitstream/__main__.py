"""`python -m fitstream`, the same as `fitstream`."""

from __future__ import annotations

from fitstream.cli import main

main()
