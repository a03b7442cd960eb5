"""Arrays that frameworks keep without copying are never overwritten."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import fitstream as fs

#: Each backend has its own process, because a framework stays loaded once it is.
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")


def needs(backend: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(backend != BACKEND, reason=f"tested with KERAS_BACKEND={backend}")


def kept_by(keep: Any, epochs: int = 3) -> list[tuple[Any, int]]:
    """Keep every batch, and forget the arrays that it came in."""
    data = np.repeat(np.arange(1000, dtype=np.float32)[:, None], 64, axis=1)
    with fs.from_arrays((data, np.arange(1000))).shuffle(0).batch(50).loader(memory="1 MB", workers=2) as loader:
        return [(keep(x), y.tolist()) for _ in range(epochs) for x, y in loader]


def check(kept: list[tuple[Any, Any]]) -> None:
    assert len(kept) == 60
    for array, labels in kept:
        assert np.asarray(array)[:, 0].tolist() == labels


@needs("torch")
@pytest.mark.parametrize("name", ["from_numpy", "as_tensor", "from_dlpack"])
def test_torch_tensors_that_alias_a_batch_are_never_overwritten(name: str) -> None:
    torch = pytest.importorskip("torch")
    check(kept_by(getattr(torch, name)))


@needs("jax")
def test_jax_arrays_that_alias_a_batch_are_never_overwritten() -> None:
    jax = pytest.importorskip("jax")
    check(kept_by(jax.device_put))


@needs("tensorflow")
def test_what_tensorflow_takes_from_a_generator_is_never_overwritten() -> None:
    tf = pytest.importorskip("tensorflow")
    data = np.repeat(np.arange(1000, dtype=np.float32)[:, None], 64, axis=1)
    with fs.from_arrays((data, np.arange(1000))).shuffle(0).batch(50).loader(memory="1 MB", workers=2) as loader:
        signature = (tf.TensorSpec((None, 64), tf.float32), tf.TensorSpec((None,), tf.int64))
        kept = list(tf.data.Dataset.from_generator(lambda: iter(loader), output_signature=signature).prefetch(4))
    assert len(kept) == 20
    for array, labels in kept:
        assert array.numpy()[:, 0].tolist() == labels.numpy().tolist()
