"""Probabilities from logits at a temperature, and classes drawn by them. In float64, so that nothing overflows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fitstream.errors import PlanError

__all__ = ["sample", "temperature_softmax"]


def temperature_softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities `exp(logits / temperature)`, divided by their sum.

    Args:
        logits: `(..., classes)`; of probabilities their logarithm. Minus infinity is a class that never comes.
        temperature: Below 1 the likely classes become likelier, above 1 all become alike. 0 gives all to the largest
            logit (the first, if several are).
    Returns:
        float64 `(..., classes)`.
    Raises:
        PlanError: If the temperature is negative or no number, or a logit is NaN or infinite, or all of a row are minus
            infinity, or there are no classes.
    Example:
        >>> temperature_softmax([0.0, 1.0, 2.0], temperature=0)
        array([0., 0., 1.])
    """
    values, degree = _checked(logits, temperature)
    if degree == 0:
        chosen = np.zeros_like(values)
        np.put_along_axis(chosen, values.argmax(-1, keepdims=True), 1, axis=-1)
        return chosen
    with np.errstate(over="ignore"):  # a tiny temperature may make minus infinity, whose exponential is 0
        powers = np.exp((values - values.max(-1, keepdims=True)) / degree)
    found: npt.NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return found


def sample(
    logits: npt.ArrayLike, temperature: float = 1.0, rng: np.random.Generator | int | None = None
) -> npt.NDArray[np.int64]:
    """Draw a class for each row of logits, by `temperature_softmax`.

    Args:
        logits: As there, `(..., classes)`.
        temperature: As there; 0 takes the largest.
        rng: A generator, or a seed for a new one; None for one that is never the same.
    Returns:
        int64 `(...)`.
    Raises:
        PlanError: As there.
    Example:
        >>> sample([[0.0, 9.0], [9.0, 0.0]], temperature=0)
        array([1, 0])
    """
    probabilities = temperature_softmax(logits, temperature)
    try:
        generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise PlanError(f"rng={rng!r} is neither a generator nor a seed: {error}.") from None
    bounds = probabilities.cumsum(-1)
    drawn = generator.random((*probabilities.shape[:-1], 1)) * bounds[..., -1:]
    # The first class whose bound is above: one of probability 0 has the bound of the one before it, and never is.
    found: npt.NDArray[np.int64] = (bounds <= drawn).sum(-1)
    return found


def _checked(logits: npt.ArrayLike, temperature: Any) -> tuple[npt.NDArray[np.float64], float]:
    """Logits and temperature as NumPy has them, whatever framework they come from."""
    try:
        degree = np.nan if isinstance(temperature, (bool, str, bytes)) or np.ndim(temperature) else float(temperature)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        degree = np.nan
    if not 0 <= degree < np.inf:
        raise PlanError(f"temperature={temperature!r} must be a finite number from 0 on; 0 takes the largest logit.")
    try:
        values = np.asarray(logits, np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise PlanError(f"logits must be an array of numbers (..., classes): {error}") from None
    if values.ndim == 0 or values.shape[-1] == 0:
        raise PlanError(f"logits of shape {values.shape} have no classes; their last axis must be the classes.")
    for wrong, what in ((np.isnan(values), "NaN"), (values == np.inf, "infinite")):
        if wrong.any():
            place = tuple(int(axis[0]) for axis in np.nonzero(wrong))
            raise PlanError(f"{int(wrong.sum())} of {values.size} logits are {what}, the first at {place}.")
    if (values == -np.inf).all(-1).any():
        raise PlanError("a row of logits is minus infinity for all classes, so that none can be drawn.")
    return values, degree
