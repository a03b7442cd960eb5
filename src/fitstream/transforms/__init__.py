"""What is done to a sample: images and sequences."""

from __future__ import annotations

from fitstream.late import late_names

__getattr__ = late_names(__name__, {})
