"""The `fit_generator` family, for programs written for Keras 1 and 2: their classes, methods and names on Keras 3."""

from __future__ import annotations

from fitstream.legacy.enqueuers import GeneratorEnqueuer, OrderedEnqueuer
from fitstream.legacy.sequence import Sequence

__all__ = ["GeneratorEnqueuer", "OrderedEnqueuer", "Sequence"]
