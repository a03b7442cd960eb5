"""Generators that end before all was asked for: what is trained on, and what is said of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from old_programs import one_sided
from old_rows import Rows, batches
from recorder import KERAS_WARNINGS, Diary, recorder, samples

import fitstream as fs

pytestmark = KERAS_WARNINGS


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
def test_training_ends_after_the_batches_that_came_and_says_how_many(workers: int, built: bool) -> None:
    model = recorder(built)
    diary = Diary()
    said = r"ended early: 15 batches .*steps_per_epoch=3, epochs=5.*, 7 came, 8 are missing\. Training stopped"
    with pytest.warns(UserWarning, match=said):
        history = fs.fit_generator(model, batches(7), 3, 5, 0, [diary], workers=workers)
    assert model.ids == [*range(35)]
    assert history.epoch == [0, 1, 2]
    assert diary.lines[-4:] == ["epoch 2", "<0", "0>", "end"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_end_between_epochs_gives_no_empty_epoch(workers: int) -> None:
    model = recorder()
    diary = Diary()
    with pytest.warns(UserWarning, match="6 came, 9 are missing"):
        history = fs.fit_generator(model, batches(6), 3, 5, 0, [diary], workers=workers)
    assert model.ids == [*range(30)]
    assert history.epoch == [0, 1]
    assert "epoch 2" not in diary.lines


def test_a_generator_that_has_just_enough_is_not_warned_of() -> None:
    model = recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fs.fit_generator(model, batches(6), 3, 2, 0)
        fs.evaluate_generator(model, batches(6), 6)
        fs.predict_generator(model, batches(6), 6)
    assert model.ids == [*range(30)]


def test_the_epochs_that_were_done_before_are_not_asked_for() -> None:
    with pytest.warns(UserWarning, match="6 batches were asked for .*epochs=5.*, 4 came, 2 are missing"):
        fs.fit_generator(recorder(), batches(4), 3, 5, 0, initial_epoch=3)


def test_samples_that_are_missing_are_told_where_samples_were_asked_for() -> None:
    with pytest.warns(UserWarning, match=r"24 samples .*samples_per_epoch=12, epochs=2.*, 20 came, 4 are missing"):
        fs.fit_generator(recorder(), batches(4), samples_per_epoch=12, nb_epoch=2, verbose=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_evaluation_is_over_what_came(workers: int) -> None:
    model = one_sided(loss="mae", optimizer="sgd")
    with pytest.warns(UserWarning, match=r"5 batches .*steps=5.*, 3 came, 2 are missing"):
        loss = fs.evaluate_generator(model, batches(3), 5, workers=workers)
    assert loss == pytest.approx(np.mean([i % 3 for i in range(15)]))


@pytest.mark.parametrize("workers", [0, 1])
def test_predictions_are_of_what_came(workers: int) -> None:
    model = recorder()
    with pytest.warns(UserWarning, match=r"5 batches .*steps=5.*, 3 came, 2 are missing"):
        given = fs.predict_generator(model, batches(3), 5, workers=workers)
    assert given == pytest.approx(model.predict(samples(15)[0], verbose=0), rel=1e-5)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_stops_when_nothing_is_left_to_validate_with(workers: int) -> None:
    model = recorder()
    with pytest.warns(UserWarning, match=r"validation_data ended early: 8 batches .*validation_steps=2.*, 4 came"):
        history = fs.fit_generator(
            model, batches(), 1, 4, 0, validation_data=batches(4), validation_steps=2, workers=workers
        )
    assert len(history.history["val_loss"]) == 2
    assert model.ids == [*range(10)]


def test_a_validation_that_is_cut_short_is_over_what_came() -> None:
    model = one_sided(loss="mae", optimizer="sgd")
    with pytest.warns(UserWarning, match="4 batches .*, 3 came, 1 are missing"):
        history = fs.fit_generator(model, Rows(5), epochs=2, verbose=0, validation_data=batches(3), validation_steps=2)
    assert len(history.history["val_loss"]) == 2


@pytest.mark.parametrize("call", [fs.fit_generator, fs.evaluate_generator, fs.predict_generator])
def test_a_generator_that_gives_nothing_is_refused(call: Any) -> None:
    with pytest.raises(fs.PlanError, match="gives nothing"):
        call(recorder(), batches(0), 3, verbose=0)
