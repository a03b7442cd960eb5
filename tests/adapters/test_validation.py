"""`fs.fit` with validation, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from recorder import KERAS_WARNINGS, keras, planned, recorder, samples, shuffled

import fitstream as fs

pytestmark = KERAS_WARNINGS
QUIET: dict[str, Any] = {"verbose": 0, "workers": 2, "memory": "10 MB"}


def plain(count: int) -> fs.Dataset:
    return fs.from_arrays(samples(count)).batch(5)


def keras_batches() -> Any:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return samples(min(5, 12 - 5 * index), 5 * index)

    return Batches()


VALIDATION = {
    "dataset": lambda: plain(12),
    "dataset that isn't batched": lambda: fs.from_arrays(samples(12)),
    "arrays": lambda: samples(12),
    "list of arrays": lambda: list(samples(12)),
    "generator function": lambda: lambda: iter([samples(5), samples(5, 5), samples(2, 10)]),
    "what keras takes": keras_batches,
}


@pytest.mark.parametrize("kind", VALIDATION)
def test_validation_measures_what_keras_measures_on_arrays(kind: str) -> None:
    model = recorder()
    data = VALIDATION[kind]()
    history = fs.fit(model, shuffled(23), validation_data=data, epochs=2, **QUIET)
    assert model.ids == planned(23, range(2))
    expected = model.evaluate(*samples(12), verbose=0, return_dict=True)
    for name, value in expected.items():
        assert history.history[f"val_{name}"][1] == pytest.approx(value, 1e-5)


def test_a_loader_to_validate_with_stays_open_and_moves_on() -> None:
    with plain(12).loader(workers=1) as other:
        fs.fit(recorder(), shuffled(23), validation_data=other, epochs=2, **QUIET)
        assert (other.epoch, other.stats().sample_count) == (2, 24)
        assert sum(len(x) for x, _ in other) == 12


def test_validation_steps_take_the_first_batches_each_time() -> None:
    with plain(12).loader(workers=1) as other:
        fs.fit(recorder(), shuffled(23), validation_data=other, validation_steps=2, epochs=2, **QUIET)
        assert other.stats().sample_count == 20


def test_a_generator_that_runs_once_is_validated_with_piece_by_piece() -> None:
    given: list[int] = []

    def generate() -> Iterator[Any]:
        for step in range(10**9):
            given.append(step)
            yield samples(5, 5 * step)

    history = fs.fit(recorder(), shuffled(23), validation_data=generate(), validation_steps=3, epochs=2, **QUIET)
    assert len(history.history["val_loss"]) == 2
    assert given == [*range(len(given))]


def test_validation_comes_as_often_as_is_asked() -> None:
    history = fs.fit(recorder(), shuffled(23), validation_data=plain(5), epochs=4, validation_freq=2, **QUIET)
    assert len(history.history["val_loss"]) == 2
    history = fs.fit(recorder(), shuffled(23), validation_data=plain(5), epochs=4, validation_freq=[1, 3, 4], **QUIET)
    assert len(history.history["val_loss"]) == 3


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_validation_split_takes_samples_away_from_training(kind: str) -> None:
    model = recorder()
    data: Any = samples(20) if kind == "arrays" else fs.from_arrays(samples(20)).shuffle(3).batch(4)
    history = fs.fit(model, data, validation_split=0.25, epochs=2, batch_size=4 if kind == "arrays" else None, **QUIET)
    assert len(model.ids) == 30
    assert sorted(model.ids[:15]) == sorted(model.ids[15:])
    assert len(set(model.ids)) == 15
    assert len(history.history["val_loss"]) == 2
