"""What all tests with Keras share."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage() -> None:
    """Set aside what importing Keras and its backend made: millions of objects that each full collection walks over."""
    gc.collect()
    gc.freeze()
