"""`loader.keras()` given to Keras's own fit, evaluate and predict, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from recorder import BACKEND, KERAS_WARNINGS, StopAfter, keras, planned, recorder, samples, shuffled

import fitstream as fs

pytestmark = KERAS_WARNINGS


@pytest.fixture
def loader() -> Iterator[fs.Loader]:
    with shuffled(23).loader(workers=2) as loader:
        yield loader


@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
@pytest.mark.parametrize("count", [23, 8, 4], ids=["5 batches", "2 batches", "1 batch"])
def test_each_epoch_trains_on_each_sample_once_in_the_planned_order(count: int, built: bool) -> None:
    model = recorder(built)
    with shuffled(count).loader(workers=2) as loader:
        model.fit(loader.keras(), epochs=3, verbose=0)
        assert loader.epoch == 3
    assert model.ids == planned(count, range(3))


@pytest.mark.parametrize("count", [23, 4])
def test_the_first_fit_of_a_new_model_on_a_used_dataset_starts_with_the_next_pass(count: int) -> None:
    with shuffled(count).loader(workers=2) as loader:
        dataset = loader.keras()
        recorder().fit(dataset, epochs=1, verbose=0)
        model = recorder()
        model.fit(dataset, epochs=1, verbose=0)
    assert model.ids == planned(count, [1])


@pytest.mark.skipif(BACKEND == "jax", reason="takes seconds on JAX and goes the same ways there")
def test_the_order_is_the_planned_one_where_steps_run_eagerly(loader: fs.Loader) -> None:
    model = recorder(run_eagerly=True)
    model.fit(loader.keras(), epochs=2, verbose=0)
    assert model.ids == planned(23, range(2))


@pytest.mark.parametrize(("steps", "epochs", "trained"), [(3, 4, 56), (7, 2, 66), (1, 3, 15)])
def test_steps_per_epoch_lays_passes_end_to_end(loader: fs.Loader, steps: int, epochs: int, trained: int) -> None:
    model = recorder()
    dataset = loader.keras(steps_per_epoch=steps)
    assert len(dataset) == dataset.num_batches == steps
    model.fit(dataset, epochs=epochs, verbose=0)
    assert model.ids == planned(23, range(3))[:trained]


def test_keras_own_steps_below_the_length_lose_and_repeat_nothing(loader: fs.Loader) -> None:
    model = recorder()
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(loader.keras(), epochs=4, steps_per_epoch=3, verbose=0)
    assert model.ids == planned(23, range(2))


def test_each_validation_is_a_pass(loader: fs.Loader) -> None:
    model = recorder()
    with shuffled(11).loader(workers=0) as other:
        history = model.fit(loader.keras(), validation_data=other.keras(), epochs=3, verbose=0)
        assert (other.epoch, other.stats().sample_count) == (3, 33)
    assert model.ids == planned(23, range(3))
    assert len(history.history["val_loss"]) == 3


def test_one_dataset_serves_training_validation_evaluation_and_prediction_in_turn(loader: fs.Loader) -> None:
    model = recorder()
    dataset = loader.keras()
    model.fit(dataset, validation_data=dataset, epochs=2, verbose=0)
    model.evaluate(dataset, verbose=0)
    assert model.predict(dataset, verbose=0).shape == (23, 3)
    assert model.ids == planned(23, [0, 2])
    assert loader.epoch == 6


@pytest.mark.parametrize("batch", [0, 2, 4])
@pytest.mark.parametrize("error", [None, RuntimeError("in a callback")], ids=["flag", "error"])
def test_an_epoch_that_was_stopped_starts_again_in_the_next_fit(
    loader: fs.Loader, batch: int, error: RuntimeError | None
) -> None:
    model = recorder()
    dataset = loader.keras()
    if error is None:
        model.fit(dataset, epochs=3, verbose=0, callbacks=[StopAfter(batch)])
    else:
        with pytest.raises(RuntimeError) as caught:
            model.fit(dataset, epochs=3, verbose=0, callbacks=[StopAfter(batch, error)])
        assert caught.value is error
    trained = len(model.ids)
    assert model.ids == planned(23, [0])[:trained]
    model.fit(dataset, epochs=2, verbose=0)
    assert model.ids[trained:] == planned(23, [0, 1])


def test_with_steps_per_epoch_too_a_stopped_epoch_starts_again(loader: fs.Loader) -> None:
    class StopInSecondEpoch(keras.callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches += 1
            self.model.stop_training = self.batches == 7

    model = recorder()
    dataset = loader.keras(steps_per_epoch=4)
    model.fit(dataset, epochs=3, verbose=0, callbacks=[StopInSecondEpoch()])
    order = planned(23, range(3))
    assert model.ids == order[:33]
    model.fit(dataset, epochs=2, verbose=0)
    assert model.ids[33:] == order[20:56]


def test_a_look_ahead_that_was_left_waiting_takes_no_batch_from_the_next_fit() -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold(x: Any, y: Any) -> Any:
        if x[0] == 20 and not go_on.is_set():
            held.set()
            go_on.wait(60)
        return x, y

    class GoOn(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            go_on.set()

    dataset = fs.from_arrays(samples(25)).map(hold).batch(5)
    model = recorder()
    error = RuntimeError("in a callback")
    with dataset.loader(workers=2) as loader:
        data = loader.keras()
        with pytest.raises(RuntimeError) as caught:  # `caught` keeps the first fit's iterator alive
            model.fit(data, verbose=0, callbacks=[StopAfter(2, error)])
        assert held.wait(60)
        trained = len(model.ids)
        model.fit(data, epochs=2, verbose=0, callbacks=[GoOn()])
    assert caught.value is error
    assert model.ids[trained:] == [*range(25)] * 2


def test_an_older_iterator_gets_nothing_once_a_newer_one_has_begun(loader: fs.Loader) -> None:
    def as_keras_iterates(dataset: Any) -> Iterator[Any]:
        for index in range(dataset.num_batches):
            yield dataset[index]

    dataset = loader.keras()
    older, newer = as_keras_iterates(dataset), as_keras_iterates(dataset)
    for _ in range(3):
        next(older)
    ids = [next(newer)[0][:, 0]]
    with pytest.raises(fs.LoaderClosed, match="newer iterator"):
        next(older)
    ids += [x[:, 0] for x, _ in newer]
    assert np.concatenate(ids).tolist() == planned(23, [0])


def test_batches_looked_at_before_training_are_delivered(loader: fs.Loader) -> None:
    dataset = loader.keras()
    first = [dataset[i][0][:, 0].tolist() for i in (1, 0, 1)]
    assert first == [planned(23, [0])[a : a + 5] for a in (5, 0, 5)]
    model = recorder()
    model.fit(dataset, epochs=2, verbose=0)
    assert model.ids == planned(23, range(2))


def test_only_the_first_batches_can_be_looked_at_and_only_before_training(loader: fs.Loader) -> None:
    dataset = loader.keras()
    with pytest.raises(fs.PlanError, match="batch 2 can't be picked out"):
        dataset[2]
    with pytest.raises(IndexError):
        dataset[5]


def test_what_a_callback_asks_in_mid_epoch_disturbs_nothing(loader: fs.Loader) -> None:
    dataset = loader.keras()

    class Curious(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            assert len(dataset) == dataset.num_batches == 5
            if batch == 3:
                with pytest.raises(fs.PlanError, match="can't be picked out"):
                    dataset[0]

    model = recorder()
    model.fit(dataset, epochs=2, verbose=0, callbacks=[Curious()])
    assert model.ids == planned(23, range(2))


def test_a_plain_loop_over_it_is_a_pass(loader: fs.Loader) -> None:
    dataset = loader.keras()
    ids = [int(one) for _ in range(2) for x, _ in dataset for one in x[:, 0]]
    assert ids == planned(23, range(2))


def test_a_normalization_layer_adapts_to_each_sample_once(loader: fs.Loader) -> None:
    layer = keras.layers.Normalization()
    layer.adapt(loader.keras())
    assert np.allclose(keras.ops.convert_to_numpy(layer.mean), samples(23)[0].mean(axis=0), atol=1e-4)


def test_evaluation_and_prediction_are_those_of_keras_on_arrays() -> None:
    x, y = samples(23)
    model = recorder()
    with fs.from_arrays((x, y)).batch(5).loader(workers=2) as loader:
        dataset = loader.keras()
        predicted = model.predict(dataset, verbose=0)
        assert model.evaluate(dataset, verbose=0) == pytest.approx(model.evaluate(x, y, batch_size=5, verbose=0), 1e-5)
        assert loader.epoch == 2
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


def test_a_loader_left_in_mid_pass_goes_on_with_the_next_one(loader: fs.Loader) -> None:
    for _ in loader:
        break
    model = recorder()
    model.fit(loader.keras(), verbose=0)
    assert model.ids == planned(23, [1])


def test_a_source_of_unknown_length_is_refused_without_steps_per_epoch() -> None:
    dataset = fs.from_generator(lambda: zip(*samples(9), strict=True)).batch(2)
    with dataset.loader(workers=0) as loader, pytest.raises(fs.PlanError, match=r"steps_per_epoch=n.*fs\.fit"):
        loader.keras()


def test_a_generator_that_runs_once_goes_on_after_a_fit_that_was_stopped() -> None:
    batches = (samples(5, 5 * i) for i in range(30))
    model = recorder()
    with fs.from_batches(batches).loader(workers=1) as loader:
        data = loader.keras(steps_per_epoch=4)
        model.fit(data, epochs=2, verbose=0, callbacks=[StopAfter(2)])
        assert model.ids == [*range(15)]
        model.fit(data, epochs=2, verbose=0)
    again = model.ids[15:]
    assert again == [*range(again[0], again[0] + 40)]
    if BACKEND != "tensorflow":  # which reads ahead
        assert again[0] == 15


@pytest.mark.parametrize("steps", [0, -1, "5", 2.5])
def test_steps_per_epoch_must_be_a_positive_number(loader: fs.Loader, steps: Any) -> None:
    with pytest.raises(fs.PlanError, match="must be a whole number from 1 on, or None"):
        loader.keras(steps_per_epoch=steps)


def test_batches_of_four_parts_are_refused() -> None:
    x, y = samples(6)
    with (
        fs.from_arrays((x, y, y, y)).batch(2).loader(workers=0) as loader,
        pytest.raises(fs.PlanError, match="4 parts"),
    ):
        loader.keras()


def test_keras_own_workers_are_refused(loader: fs.Loader) -> None:
    dataset = loader.keras()
    with pytest.raises(fs.PlanError, match=r"loader\(workers=4\)"):
        dataset.workers = 4
    assert dataset.workers == 1


def test_a_closed_loader_says_so(loader: fs.Loader) -> None:
    dataset = loader.keras()
    loader.close()
    with pytest.raises(fs.LoaderClosed):
        dataset[0]
