"""Boxes in a picture: how they move with it, and how a varying number of them fits a batch.

Boxes are `(boxes, 4 or more)` of floats: left, top, right, bottom in pixels, where the picture reaches from 0 to its
width and height; further columns (a class, a score) belong to the box and travel with it. What is cut off altogether
is left out, with its columns, so that nothing must be kept in step.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fitstream.transforms.augment import Array, whole

__all__ = ["clipped", "floats", "pad_boxes"]


def floats(boxes: Array) -> Array:
    """A copy in floating point, float32 unless the boxes have a floating dtype of their own.

    Raises:
        ValueError: If these are no boxes.
    """
    # A list says nothing of its dtype, least of all an empty one.
    boxes = np.asarray(boxes, None if isinstance(boxes, np.ndarray) else np.float32)
    if boxes.size == 0 and boxes.ndim < 2:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] < 4:
        raise ValueError(f"boxes must be (boxes, 4 or more), left, top, right, bottom first, not {boxes.shape}")
    return boxes.astype(boxes.dtype if boxes.dtype.kind == "f" else np.float32)


def clipped(boxes: Array, height: int, width: int) -> Array:
    """Cut boxes to the picture, in place, and leave out those that have no area left."""
    boxes[:, 0:4:2] = boxes[:, 0:4:2].clip(0, width)
    boxes[:, 1:4:2] = boxes[:, 1:4:2].clip(0, height)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def pad_boxes(boxes: Array, most_count: int) -> tuple[Array, npt.NDArray[np.float32]]:
    """Fill boxes of a varying number up to a fixed one, so that they can be batched.

    Args:
        boxes: `(boxes, columns)`; any number of them up to `most_count`.
        most_count: Rows of the result.
    Returns:
        `(padded, mask)`: `(most_count, columns)` with zeros behind the boxes, and float32 `(most_count,)` with 1 for
        boxes and 0 for padding.
    Raises:
        ValueError: If there are more boxes than that, or `most_count` is no whole number.
    Example:
        >>> padded, mask = pad_boxes(np.array([[1, 1, 5, 5]], np.float32), 2)
        >>> padded.shape, mask.tolist()
        ((2, 4), [1.0, 0.0])
    """
    most_count = whole("most_count", most_count, 0, 2**31)
    boxes = floats(boxes)
    count = len(boxes)
    if count > most_count:
        raise ValueError(f"it has {count} boxes, but most_count={most_count}. Raise it, or choose the boxes first")
    padded = np.zeros((most_count, boxes.shape[1]), boxes.dtype)
    padded[:count] = boxes
    return padded, (np.arange(most_count) < count).astype(np.float32)
