"""Temperatures and draws."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fitstream as fs

LOGITS = [0.0, 1.0, 3.0]


def test_at_temperature_1_it_is_the_softmax() -> None:
    powers = np.exp(LOGITS)
    assert np.allclose(fs.text.temperature_softmax(LOGITS), powers / powers.sum())


def test_a_high_temperature_makes_all_alike_and_a_low_one_the_largest() -> None:
    assert np.allclose(fs.text.temperature_softmax(LOGITS, 1e9), 1 / 3)
    assert np.allclose(fs.text.temperature_softmax(LOGITS, 1e-3), [0, 0, 1])


@pytest.mark.parametrize("temperature", [0, 1e-320, 1e-12])
def test_towards_0_it_is_the_largest(temperature: float) -> None:
    found = fs.text.temperature_softmax([[5.0, -1e300, 5.1], [-1.0, -2.0, -3.0]], temperature)
    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_of_equal_logits_0_takes_the_first() -> None:
    assert fs.text.temperature_softmax([1.0, 2.0, 2.0], 0).tolist() == [0, 1, 0]


@pytest.mark.parametrize("shift", [1e4, -1e4, 1e300])
def test_large_logits_do_not_overflow(shift: float) -> None:
    found = fs.text.temperature_softmax(np.array([0.0, 0.0]) + shift, 0.5)
    assert found.tolist() == [0.5, 0.5]


def test_any_leading_shape_and_dtype() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float16)
    found = fs.text.temperature_softmax(logits, 0.7)
    assert (found.shape, found.dtype) == ((2, 3, 4, 5), np.float64)
    assert np.allclose(found.sum(-1), 1)
    drawn = fs.text.sample(logits, 0.7, rng=0)
    assert (drawn.shape, drawn.dtype) == ((2, 3, 4), np.int64)
    assert fs.text.sample(LOGITS, 0.7, rng=0).shape == ()


def test_draws_have_the_probabilities_and_a_seed() -> None:
    with np.errstate(divide="ignore"):
        logits = np.tile(np.log([0.2, 0.0, 0.5, 0.3]), (40_000, 1))
    drawn = fs.text.sample(logits, rng=1)
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares[1] == 0
    assert np.allclose(shares, [0.2, 0, 0.5, 0.3], atol=0.01)
    assert np.array_equal(drawn, fs.text.sample(logits, rng=np.random.default_rng(1)))
    assert (fs.text.sample(logits, 0) == 2).all()


def test_a_draw_of_1_never_falls_behind_the_last_class() -> None:
    class Highest(np.random.Generator):
        def random(self, size):  # type: ignore[no-untyped-def, override]
            return np.full(size, np.nextafter(1, 0))

    logits = np.log([0.1] * 9 + [0.1, 1e-300])
    assert fs.text.sample(logits, rng=Highest(np.random.PCG64(0))) <= 10


@pytest.mark.parametrize(
    ("logits", "temperature", "says"),
    [
        (LOGITS, -0.1, r"temperature=-0\.1 must be a finite number from 0 on"),
        (LOGITS, float("nan"), "temperature=nan"),
        (LOGITS, float("inf"), "temperature=inf"),
        (LOGITS, "hot", "temperature='hot'"),
        ([[0.0, 1.0], [2.0, float("nan")]], 1.0, r"1 of 4 logits are NaN, the first at \(1, 1\)"),
        ([0.0, float("inf")], 1.0, "infinite"),
        ([-float("inf")] * 2, 1.0, "minus infinity for all"),
        (1.0, 1.0, "no classes"),
        (np.zeros((3, 0)), 1.0, "no classes"),
    ],
)
def test_what_can_not_be_drawn_from_is_refused(logits, temperature, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(fs.PlanError, match=says):
        fs.text.temperature_softmax(logits, temperature)
    with pytest.raises(fs.PlanError, match=says):
        fs.text.sample(logits, temperature)


def test_it_loads_no_framework() -> None:
    program = "import sys, fitstream as fs; fs.text.sample([0.0, 1.0]); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("logits", [["a", "b"], [1j, 2], [[1, 2], [3]], [10**400, 1]])
def test_logits_that_are_no_numbers_are_refused(logits: Any) -> None:
    with pytest.raises(fs.PlanError, match="logits must be an array of numbers"):
        fs.text.temperature_softmax(logits)


@pytest.mark.parametrize("temperature", [np.array(0.5), np.float16(0.5), Fraction(1, 2)])
def test_a_temperature_is_any_number(temperature: Any) -> None:
    assert np.array_equal(fs.text.temperature_softmax([1, 2], temperature), fs.text.temperature_softmax([1, 2], 0.5))


@pytest.mark.parametrize("temperature", ["0.5", None, True, [0.5], 10**400, 1j])
def test_a_temperature_that_is_none_is_refused(temperature: Any) -> None:
    with pytest.raises(fs.PlanError, match="must be a finite number from 0 on"):
        fs.text.temperature_softmax([1, 2], temperature)


@pytest.mark.parametrize("rng", ["x", -1, 0.5])
def test_what_is_no_generator_and_no_seed_is_refused(rng: Any) -> None:
    with pytest.raises(fs.PlanError, match="neither a generator nor a seed"):
        fs.text.sample([1, 2], rng=rng)
