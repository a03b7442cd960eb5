"""Hostile files are made in a folder of their own, with a secret beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from canary import Hostile


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    return Hostile(tmp_path)
