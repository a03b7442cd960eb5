"""OpenCV's own threads are switched off while lanes decode: they would fight with the lanes over the cores.

The setting belongs to the whole process, so it is counted over loaders and put back when the last one closes.
"""

from __future__ import annotations

import threading

__all__ = ["hold_codec_threads", "release_codec_threads"]

_lock = threading.Lock()
_holders = 0
_before = 0


def hold_codec_threads() -> None:
    """Let OpenCV use one thread, until `release_codec_threads` was called as often."""
    import cv2  # loads slowly, and only pictures need it

    global _holders, _before
    with _lock:
        if _holders == 0:
            _before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _holders += 1


def release_codec_threads() -> None:
    """Undo one `hold_codec_threads`."""
    import cv2

    global _holders
    with _lock:
        _holders -= 1
        if _holders == 0:
            cv2.setNumThreads(_before)
