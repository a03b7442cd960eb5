"""What all tests with Keras share."""

from __future__ import annotations

import gc
import importlib.util

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage() -> None:
    """Set aside what importing Keras and its backend made: millions of objects that each full collection walks over."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Models begin with the same weights in each run: what a test says of numbers is no matter of luck."""
    if importlib.util.find_spec("keras") is not None:
        import keras

        keras.utils.set_random_seed(0)
