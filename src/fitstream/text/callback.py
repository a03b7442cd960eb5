"""A Keras callback that has the model write after each epoch.

The model reads the last characters (or words) and gives a row for the next one. All temperatures are written side by
side, as rows of one batch, so that several cost as many calls of the model as one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from fitstream.adapters.keras import keras
from fitstream.errors import PlanError
from fitstream.text.sampling import sample, temperature_softmax

__all__ = ["TextSamples"]


@final
class TextSamples(keras.callbacks.Callback):
    """Writes text at several temperatures after each epoch.

    The model must take windows as `fs.from_windows` gives them, numbers `(batch, length)` or one-hot
    `(batch, length, classes)`, and give `(batch, classes)`, or `(batch, length, classes)` of which the last place
    counts.

    Args:
        alphabet: Characters (or words) in the order of their numbers: `ds.class_names`.
        start: What the model goes on from, at least as long as its windows; characters of the alphabet.
        length: Characters to be written.
        temperatures: As in `fs.text.sample`.
        window: Characters that the model is given, the last of `start`; None for as many as the model's input has, or
            all where that is open.
        one_hot: Whether it takes them one-hot.
        from_logits: Whether it gives logits; else probabilities, as after a softmax.
        every: Epochs from one time to the next.
        seed: Of what is drawn; each epoch draws anew.
        separator: What stands between words; "" for characters.
        write: Called with each text and what it is, such as `print` or `logging.getLogger("samples").info`.
    Raises:
        PlanError: If `start` is shorter than the window or not of the alphabet, or a number can't be used.

    Attributes:
        texts: Of the last time, by temperature, without the start.
    """

    def __init__(
        self,
        alphabet: Sequence[str],
        start: str | Sequence[str],
        length: int = 200,
        temperatures: Sequence[float] = (0.2, 0.5, 1.0, 1.2),
        *,
        window: int | None = None,
        one_hot: bool = False,
        from_logits: bool = True,
        every: int = 1,
        seed: int = 0,
        separator: str = "",
        write: Callable[[str], object] = print,
    ) -> None:
        super().__init__()
        numbers = {each: number for number, each in enumerate(alphabet)}
        missing = [each for each in start if each not in numbers]
        if missing:
            raise PlanError(f"start={start!r} has {missing[0]!r}, which isn't in the alphabet of {len(numbers):,}.")
        for name, value in (("length", length), ("window", window or len(start)), ("every", every)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise PlanError(f"{name}={value!r} must be a whole number from 1 on.")
        if window is not None and len(start) < window:
            raise PlanError(f"start= has {len(start)} characters, and the model's window has {window}. Give more.")
        if np.ndim(temperatures) != 1 or not len(temperatures):
            raise PlanError(f"temperatures={temperatures!r} must be a list of at least one.")
        for temperature in temperatures:
            temperature_softmax([0.0], temperature)
        if not callable(write):
            raise PlanError(f"write={write!r} must be a function of a text, such as print.")
        self.texts: dict[float, str] = {}
        self._alphabet = list(alphabet)
        self._start = [numbers[each] for each in start]
        self._window = window
        self._shown = start if isinstance(start, str) else separator.join(start)
        self._length = length
        self._temperatures = list(temperatures)
        self._one_hot = one_hot
        self._from_logits = from_logits
        self._every = every
        self._seed = seed
        self._separator = separator
        self._write = write

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write, if it is time."""
        if (epoch + 1) % self._every:
            return
        for temperature, text in self.generate(np.random.default_rng((self._seed, epoch))).items():
            self._write(f"epoch {epoch + 1}, temperature {temperature}: {self._shown!r} goes on {text!r}")

    def generate(self, rng: np.random.Generator | int | None = None) -> dict[float, str]:
        """Have the model write once.

        Args:
            rng: As in `fs.text.sample`.
        Returns:
            What it wrote, by temperature.
        """
        generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
        length = self._window or _input_length(self.model) or len(self._start)
        if len(self._start) < length:
            raise PlanError(
                f"start= has {len(self._start)} characters, and the model's window has {length}. Give more."
            )
        window = np.tile(np.array(self._start[-length:], np.int64), (len(self._temperatures), 1))
        written = []
        for _ in range(self._length):
            logits = self._logits(window)
            following = np.array(
                [
                    sample(row, temperature, generator)
                    for row, temperature in zip(logits, self._temperatures, strict=True)
                ]
            )
            written.append(following)
            window = np.concatenate([window[:, 1:], following[:, None]], axis=1)
        columns = np.stack(written, axis=1).tolist()
        self.texts = {
            temperature: self._separator.join(self._alphabet[number] for number in row)
            for temperature, row in zip(self._temperatures, columns, strict=True)
        }
        return self.texts

    def _logits(self, window: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What the model gives for the next place, `(temperatures, classes)`."""
        given = np.eye(len(self._alphabet), dtype=np.float32)[window] if self._one_hot else window
        made: np.ndarray[Any, Any] = keras.ops.convert_to_numpy(self.model.predict_on_batch(given))
        last: np.ndarray[Any, Any] = made[:, -1] if made.ndim == 3 else made
        if last.shape != (len(window), len(self._alphabet)):
            raise PlanError(
                f"the model gives arrays {made.shape} for {given.shape}, and TextSamples needs "
                f"({len(window)}, {len(self._alphabet)}): a row of {len(self._alphabet)} classes, as many as the "
                "alphabet."
            )
        if self._from_logits:
            if ((last >= 0) & (last <= 1)).all() and np.allclose(last.sum(-1), 1, atol=1e-3):
                warnings.warn(
                    "the model seems to give probabilities, and TextSamples takes them for logits, which makes all "
                    "classes nearly alike. Use from_logits=False.",
                    stacklevel=2,
                )
            return last
        if (last < 0).any():
            raise PlanError("the model gives negative numbers, which are no probabilities. Use from_logits=True.")
        with np.errstate(divide="ignore"):  # a probability of 0 is a logit of minus infinity
            logits: np.ndarray[Any, Any] = np.log(last, dtype=np.float64)
        return logits


def _input_length(model: Any) -> int | None:
    """Characters that a model's input has, where that is fixed and known."""
    shape = getattr(model, "input_shape", None)
    length = shape[1] if isinstance(shape, tuple) and len(shape) > 1 else None
    return length if isinstance(length, int) else None
