"""Long tests share the helpers of tests/engine. Nothing here is collected by itself: `pytest tests/soak/*.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
