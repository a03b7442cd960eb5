"""Keras training that goes on from a loader's state."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from recorder import KERAS_WARNINGS, planned, recorder, samples, shuffled

import fitstream as fs

pytestmark = KERAS_WARNINGS


def state_after(batches: int) -> dict[str, Any]:
    with shuffled(23).loader(workers=0) as loader:
        for _ in itertools.islice(loader, batches):
            pass
        state: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
    return state


@pytest.mark.parametrize("through", ["loader.keras()", "fs.fit"])
def test_epochs_follow_each_other_from_the_place_on(through: str) -> None:
    model = recorder()
    with shuffled(23).loader(workers=2) as loader:
        loader.load_state_dict(state_after(2))
        if through == "fs.fit":
            fs.fit(model, loader, epochs=2, verbose=0)
        else:
            model.fit(loader.keras(), epochs=2, verbose=0)
        assert loader.state_dict()["step"] == 2
        assert loader.epoch == 2
    # Two epochs of five batches each: nothing of the first pass is lost, and nothing comes twice.
    assert model.ids == planned(23, range(3))[10:56]


def test_with_steps_per_epoch_training_goes_on_from_the_place() -> None:
    model = recorder()
    with shuffled(23).loader(workers=2) as loader:
        loader.load_state_dict(state_after(2))
        model.fit(loader.keras(steps_per_epoch=3), epochs=2, verbose=0)
    assert model.ids == planned(23, range(3))[10:38]


def test_a_state_at_the_start_of_an_epoch_begins_that_epoch() -> None:
    model = recorder()
    with shuffled(23).loader(workers=2) as loader:
        loader.load_state_dict(state_after(5))
        model.fit(loader.keras(), epochs=2, verbose=0)
        assert loader.epoch == 3
    assert model.ids == planned(23, [1, 2])


def test_a_dataset_made_before_the_state_was_loaded_goes_on_too() -> None:
    model = recorder()
    with shuffled(23).loader(workers=2) as loader:
        dataset = loader.keras()
        loader.load_state_dict(state_after(3))
        model.fit(dataset, epochs=1, verbose=0)
    assert model.ids == planned(23, range(2))[15:38]


def test_a_pass_of_unknown_length_goes_on_with_its_rest() -> None:
    x, y = samples(23)

    def generate() -> Any:
        yield from zip(x, y, strict=True)

    data = fs.from_generator(generate).batch(5)
    with data.loader(workers=0) as loader:
        batches = iter(loader)
        next(batches), next(batches)
        state = loader.state_dict()
    model = recorder()
    with data.loader(workers=0) as loader:
        loader.load_state_dict(state)
        fs.fit(model, loader, epochs=2, verbose=0)
    assert model.ids == [*range(10, 23), *range(23)]
    assert np.isfinite(model.get_weights()[0]).all()
