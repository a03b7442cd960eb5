"""Writing text with a model: choosing the next of several classes by a temperature, and samples after each epoch.

`temperature_softmax` and `sample` are plain NumPy and load no framework. `TextSamples` is a Keras callback; Keras is
loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitstream.late import late_names
from fitstream.text.sampling import sample, temperature_softmax

if TYPE_CHECKING:
    from fitstream.text.callback import TextSamples

__all__ = ["TextSamples", "sample", "temperature_softmax"]

__getattr__ = late_names(__name__, {"TextSamples": "fitstream.text.callback"})
