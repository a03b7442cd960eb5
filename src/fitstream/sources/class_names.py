"""The arguments `label_mode=` and `classes=`, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np

from fitstream.errors import PlanError
from fitstream.sources.labels import LabelMode, brief

__all__ = ["check_labelling"]


def check_labelling(label_mode: str | None, classes: Any) -> list[str] | None:
    """Check the arguments `label_mode` and `classes`, before anything is read.

    Returns:
        The class names as text, or None.
    Raises:
        PlanError: If they are wrong, or contradict each other.
    """
    if label_mode is not None and label_mode not in get_args(LabelMode):
        modes = ", ".join(map(repr, get_args(LabelMode)))
        raise PlanError(f"label_mode={label_mode!r} must be one of {modes} or None (no labels).")
    if classes is None:
        return None
    if label_mode in (None, "raw"):
        raise PlanError(f"classes= names classes, but label_mode={label_mode!r} has none. Leave one of them out.")
    names = _in_order(classes)
    if not names:
        raise PlanError("classes=[] names no class. Leave it out to take all that there are.")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise PlanError(f"classes= has {', '.join(map(repr, twice))} more than once; each class has one index.")
    if label_mode == "binary" and len(names) > 2:
        raise PlanError(f'label_mode="binary" is for at most 2 classes, but classes= names {len(names)}.')
    return names


def _in_order(classes: Any) -> list[str]:
    """The names as text. A set's order differs from run to run, and a dict's is not that of its indices."""
    told = f"classes={brief(classes)} must be a list of names, in the order of their indices"
    if isinstance(classes, Mapping):
        by_index = all(isinstance(value, (int, np.integer)) for value in classes.values())
        meant = sorted(classes, key=classes.__getitem__) if by_index else list(classes.values())
        raise PlanError(f"{told}, not a dict. Perhaps you mean classes={brief(meant)}.")
    if isinstance(classes, (set, frozenset)):
        raise PlanError(f"{told}, and a set has no order. Perhaps you mean classes={brief(sorted(classes, key=str))}.")
    if isinstance(classes, (str, bytes)) or not isinstance(classes, Iterable):
        raise PlanError(f"{told}.")
    names = list(classes)
    if not all(isinstance(name, (str, int, np.integer)) for name in names):
        raise PlanError(f"{told}.")
    return [str(name) for name in names]
