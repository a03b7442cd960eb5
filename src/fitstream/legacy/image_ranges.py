"""What the ranges of `ImageDataGenerator` mean."""

from __future__ import annotations

from typing import Any

import numpy as np

from fitstream.errors import PlanError

__all__ = ["brightness_of", "shift_of", "zoom_of"]


def shift_of(rng: Any, wanted: Any, length: int) -> Any:
    """Pixels that a picture is moved by: drawn from a range, as `ImageDataGenerator` explains it."""
    if not np.any(wanted):
        return 0
    if np.ndim(wanted) == 0 and not isinstance(wanted, (int, np.integer)):
        pixels = rng.uniform(-wanted, wanted)
    else:
        pixels = rng.choice(wanted) * rng.choice([-1, 1])
    return pixels * length if np.max(wanted) < 1 else pixels


def zoom_of(wanted: Any) -> list[float]:
    """The least and the largest factor that `zoom_range` means.

    Raises:
        PlanError: If it means none.
    """
    if isinstance(wanted, (int, float, np.number)):
        return [1 - float(wanted), 1 + float(wanted)]
    if len(wanted) == 2 and all(isinstance(value, (int, float, np.number)) for value in wanted):
        return [float(wanted[0]), float(wanted[1])]
    raise PlanError(f"zoom_range={wanted!r} must be a number, or two: (least, largest).")


def brightness_of(wanted: Any) -> tuple[float, float] | None:
    """The least and the largest factor that `brightness_range` means, or None.

    Raises:
        PlanError: If it means none.
    """
    if wanted is None:
        return None
    if not isinstance(wanted, (tuple, list)) or len(wanted) != 2:
        raise PlanError(f"brightness_range={wanted!r} must be two numbers: (least, largest).")
    return float(wanted[0]), float(wanted[1])
