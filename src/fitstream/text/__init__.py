"""Writing text with a model: choosing the next of several classes by a temperature, and samples after each epoch.

`temperature_softmax` and `sample` are plain NumPy and load no framework. `TextSamples` is a Keras callback; Keras is
loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitstream.text.sampling import sample, temperature_softmax

if TYPE_CHECKING:
    from fitstream.text.callback import TextSamples

__all__ = ["TextSamples", "sample", "temperature_softmax"]


def __getattr__(name: str) -> Any:
    if name == "TextSamples":
        from fitstream.text.callback import TextSamples

        return TextSamples
    raise AttributeError(f"module 'fitstream.text' has no attribute {name!r}")
