"""OpenCV's own threads are switched off while lanes decode: they would fight with the lanes over the cores.

The setting belongs to the whole process, so it is counted over loaders and put back when the last one closes.
"""

from __future__ import annotations

import threading
from typing import final

__all__ = ["codec_threads"]


@final
class _CodecThreads:
    def __init__(self) -> None:
        # Reentrant: a collection inside it may end another loader.
        self._lock = threading.RLock()
        self._holders = 0
        self._before = 0

    def hold(self) -> None:
        """Let OpenCV use one thread, until `release` was called as often."""
        import cv2  # loads slowly, and only pictures need it

        with self._lock:
            if self._holders == 0:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._holders += 1

    def release(self) -> None:
        """Undo one `hold`."""
        import cv2

        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                cv2.setNumThreads(self._before)


#: One for the process, as the setting is.
codec_threads = _CodecThreads()
