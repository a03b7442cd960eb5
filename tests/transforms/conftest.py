"""A decoder with plenty of scratch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import pytest

from fitstream.scratch import Allowance, Arena
from fitstream.transforms.decode import ImageDecoder
from fitstream.transforms.images import ImageOptions


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena(Allowance(lane_bytes=64_000_000, large_bytes=0, budget_bytes=10**9)) as arena:
        yield arena


@pytest.fixture
def decode(arena: Arena) -> Callable[..., npt.NDArray[Any]]:
    """`decode(encoded, **options)`: what a decoder with these options makes of it."""

    def run(encoded: bytes, out: npt.NDArray[Any] | None = None, **options: Any) -> npt.NDArray[Any]:
        try:
            return ImageDecoder(ImageOptions(**options), arena).decode(memoryview(encoded), out)
        finally:
            arena.reset()

    return run
