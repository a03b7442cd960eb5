"""`fs.fit_generator`: which batches training and validation get, in which order, and what is called when."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from old_programs import ENDS_EARLY, ONE_THREAD, Called, one_sided, weights_of
from old_rows import Rows, Shrinking, batches
from recorder import KERAS_WARNINGS, Diary, StopAfter, keras, recorder, samples

import fitstream as fs

pytestmark = KERAS_WARNINGS


# Generators.


@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_generator_is_trained_on_in_its_order_without_a_gap(workers: int, built: bool) -> None:
    model = recorder(built)
    history = fs.fit_generator(model, batches(), 3, epochs=3, verbose=0, workers=workers)
    assert model.ids == [*range(45)]
    assert history.epoch == [0, 1, 2]
    assert set(history.history) == {"loss", "accuracy"}


@pytest.mark.parametrize("workers", [0, 1])
def test_no_batch_beyond_those_asked_for_is_taken_from_a_generator(workers: int) -> None:
    told: list[Any] = []
    generator = batches(told=told)
    fs.fit_generator(recorder(), generator, 3, 2, verbose=0, workers=workers)
    assert [step for step, _ in told] == [*range(6)]
    assert next(generator)[0][0, 0] == 30


@ONE_THREAD
@pytest.mark.parametrize("settings", [{"workers": 4}, {"workers": 3, "use_multiprocessing": True}])
def test_several_workers_run_a_generator_once_in_one_thread(settings: dict[str, Any]) -> None:
    told: list[Any] = []
    model = recorder()
    fs.fit_generator(model, batches(told=told), 4, epochs=2, verbose=0, **settings)
    assert model.ids == [*range(40)]
    assert len({thread for _, thread in told[1:]}) == 1


@pytest.mark.parametrize("settings", [{"use_multiprocessing": True}, {"workers": 3, "use_multiprocessing": True}])
def test_processes_for_a_generator_are_warned_of_and_a_sequence_named(settings: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="Sequence"):
        fs.fit_generator(recorder(), batches(), 1, verbose=0, **settings)


def test_without_workers_everything_runs_in_the_calling_thread() -> None:
    told: list[Any] = []
    other: list[Any] = []
    fs.fit_generator(
        recorder(), batches(told=told), 3, 2, 0, validation_data=batches(told=other), validation_steps=2, workers=0
    )
    assert {thread for _, thread in told + other} == {threading.current_thread()}


def test_a_fraction_of_a_step_counts_as_a_whole_one() -> None:
    model = recorder()
    fs.fit_generator(model, batches(), steps_per_epoch=12 / 5, epochs=2, verbose=0)
    assert model.ids == [*range(30)]


def test_batches_may_vary_in_size() -> None:
    sizes = [4, 7, 1, 6]
    starts = np.cumsum([0, *sizes])
    model = recorder()
    generator = (samples(size, int(start)) for size, start in zip(sizes, starts, strict=False))
    fs.fit_generator(model, generator, 4, verbose=0)
    assert model.ids == [*range(18)]


class OfPython2:
    def __init__(self) -> None:
        self._batches = batches()

    def next(self) -> Any:
        return next(self._batches)


@pytest.mark.parametrize("make", [OfPython2, lambda: batches, lambda: iter(list(batches(3)))])
def test_a_generator_is_anything_that_gives_a_next_batch(make: Any) -> None:
    model = recorder()
    fs.fit_generator(model, make(), 3, verbose=0)
    assert model.ids == [*range(15)]


def test_a_generator_may_be_a_callback_as_well() -> None:
    class Both(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.epochs = 0, 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            self.step += 1
            return samples(5, 5 * (self.step - 1))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs += 1

    both = Both()
    model = recorder()
    fs.fit_generator(model, both, 3, 2, verbose=0, callbacks=[both])
    assert model.ids == [*range(30)]
    assert both.epochs == 2


def test_a_generator_goes_on_where_an_earlier_call_left_it() -> None:
    generator = batches()
    model = recorder()
    fs.fit_generator(model, generator, 2, verbose=0)
    fs.fit_generator(model, generator, 3, verbose=0)
    assert model.ids == [*range(25)]


def test_a_callback_that_stops_training_leaves_a_generator_of_no_workers_where_it_is() -> None:
    generator = batches()
    model = recorder()
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    fs.fit_generator(model, generator, 3, 9, verbose=0, callbacks=[stop], workers=0)
    assert model.ids == [*range(30)]
    assert next(generator)[0][0, 0] == 30


# Keras 1's counts.


def test_samples_per_epoch_ends_an_epoch_once_so_many_samples_were_seen() -> None:
    model = recorder()
    diary = Diary()
    fs.fit_generator(model, batches(), samples_per_epoch=12, nb_epoch=2, verbose=0, callbacks=[diary])
    assert model.ids == [*range(30)]
    steps = ["<0", "0>", "<1", "1>", "<2", "2>"]
    assert diary.lines == ["begin", "epoch 0", *steps, "epoch 1", *steps, "end"]


def test_nb_val_samples_ends_a_validation_once_so_many_samples_were_seen() -> None:
    told: list[Any] = []
    fs.fit_generator(
        recorder(), batches(), samples_per_epoch=5, nb_epoch=2, verbose=0, validation_data=batches(told=told),
        nb_val_samples=11, nb_worker=0,
    )  # fmt: skip
    # One more is looked at after the first validation, which tells that there is one for the second.
    assert [step for step, _ in told] == [*range(6)]


# Sequences.


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_each_epoch_trains_on_each_batch_of_a_sequence_once(workers: int, shuffle: bool) -> None:
    model = recorder()
    rows = Rows(23)
    fs.fit_generator(model, rows, epochs=3, verbose=0, workers=workers, shuffle=shuffle)
    for epoch in range(3):
        assert sorted(model.ids[23 * epoch : 23 * epoch + 23]) == [*range(23)]
    assert (model.ids == [*range(23)] * 3) == (not shuffle)
    assert rows.ends == 3
    assert sorted(rows.asked) == sorted([*range(5)] * 3)


def test_the_shuffled_order_follows_the_seed_and_not_the_workers() -> None:
    orders = []
    for workers, seed in ((0, 0), (3, 0), (0, 1)):
        model = recorder()
        fs.fit_generator(model, Rows(40), epochs=2, verbose=0, workers=workers, seed=seed)
        orders.append(model.ids)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:40] != orders[0][40:]


@pytest.mark.parametrize(("steps", "epochs", "passes"), [(3, 4, 2), (7, 2, 2), (5, 2, 2), (12, 1, 2), (2, 1, 0)])
@pytest.mark.parametrize("workers", [0, 1])
def test_fewer_steps_than_a_sequence_has_go_on_and_more_wrap(
    steps: int, epochs: int, passes: int, workers: int
) -> None:
    model = recorder()
    rows = Rows(25)
    diary = Diary()
    fs.fit_generator(model, rows, steps, epochs, 0, [diary], shuffle=False, workers=workers)
    assert model.ids == ([*range(25)] * 4)[: steps * epochs * 5]
    assert rows.ends == passes
    assert diary.lines.count(f"{steps - 1}>") == epochs


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_length_of_a_sequence_is_read_anew_each_epoch(workers: int) -> None:
    model = recorder()
    told: list[int] = []

    class Steps(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            told.append(self.params["steps"])

    fs.fit_generator(model, Shrinking(45), epochs=3, verbose=0, shuffle=False, workers=workers, callbacks=[Steps()])
    assert model.ids == [*range(45), *range(30), *range(20)]
    assert told == [9, 6, 4]


def test_a_sequence_may_grow() -> None:
    class Growing(Rows):
        def on_epoch_end(self) -> None:
            self.count += 15

    model = recorder()
    fs.fit_generator(model, Growing(5), epochs=3, verbose=0, shuffle=False)
    assert model.ids == [*range(5), *range(20), *range(35)]


def test_a_sequence_is_known_by_its_methods() -> None:
    class Plain:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return samples(5, 5 * index)

    model = recorder()
    fs.fit_generator(model, Plain(), epochs=2, verbose=0, shuffle=False)
    assert model.ids == [*range(15)] * 2


def test_on_epoch_end_comes_before_users_callbacks_and_before_the_next_pass() -> None:
    lines: list[str] = []

    class Told(Rows):
        def __getitem__(self, index: int) -> Any:
            lines.append(f"make {index}")
            return super().__getitem__(index)

        def on_epoch_end(self) -> None:
            lines.append("pass over")

    end = Called(epoch_end=lambda epoch: lines.append(f"epoch {epoch} over"))
    fs.fit_generator(recorder(), Told(10), epochs=2, verbose=0, shuffle=False, callbacks=[end], workers=0)
    once = ["make 0", "make 1", "pass over"]
    assert lines == [*once, "epoch 0 over", *once, "epoch 1 over"]


@pytest.mark.parametrize("batch", [1, 4], ids=["in the middle", "after the last batch"])
@pytest.mark.parametrize("workers", [0, 1])
def test_on_epoch_end_comes_once_when_training_stops(batch: int, workers: int) -> None:
    rows = Rows(25)
    fs.fit_generator(recorder(), rows, epochs=3, verbose=0, callbacks=[StopAfter(batch)], workers=workers)
    assert rows.ends == 1


def test_an_early_stop_after_an_epoch_leaves_one_on_epoch_end_an_epoch() -> None:
    rows = Rows(25)
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
    fs.fit_generator(recorder(), rows, epochs=9, verbose=0, callbacks=[stop])
    assert rows.ends == 2


def test_batches_of_worker_processes_come_once_and_in_order() -> None:
    model = recorder()
    rows = Rows(23)
    fs.fit_generator(model, rows, epochs=3, verbose=0, shuffle=False, workers=2, use_multiprocessing=True)
    assert model.ids == [*range(23)] * 3
    assert rows.ends == 3


# Validation.


@pytest.mark.parametrize("workers", [0, 1])
def test_a_validation_generator_goes_on_from_epoch_to_epoch(workers: int) -> None:
    asked: list[list[int]] = []

    def validate() -> Any:
        for step in range(10**6):
            asked[-1].append(step)
            yield samples(5, 5 * step)

    asked.append([])
    model = recorder()
    history = fs.fit_generator(
        model, batches(), 2, 3, 0, validation_data=validate(), validation_steps=2, workers=workers
    )
    assert model.ids == [*range(30)]
    assert len(history.history["val_loss"]) == 3
    assert asked == [[*range(6)]]


def losses(*groups: range) -> list[float]:
    """Mean of y over ids, of a model that predicts 0 and is compiled with the mean absolute error."""
    return [float(np.mean([i % 3 for i in group])) for group in groups]


def still() -> Any:
    """A model that predicts 0, whatever it is trained on."""
    return one_sided(loss="mae", optimizer=keras.optimizers.SGD(0.0))


@pytest.mark.parametrize("workers", [0, 1])
def test_metrics_of_a_validation_are_of_its_own_batches(workers: int) -> None:
    history = fs.fit_generator(
        still(), batches(), 2, 3, 0, validation_data=batches(rows=4), validation_steps=2, workers=workers
    )
    assert history.history["val_loss"] == pytest.approx(losses(range(8), range(8, 16), range(16, 24)))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_validation_sequence_gives_the_same_batches_each_time(workers: int) -> None:
    rows = Rows(17)
    history = fs.fit_generator(still(), batches(), 2, 3, 0, validation_data=rows, workers=1)
    assert history.history["val_loss"] == pytest.approx(losses(range(17)) * 3)
    assert rows.asked == [*range(4)] * 3
    assert rows.ends == 3


def test_validation_steps_take_a_sequences_first_batches_each_time() -> None:
    rows = Rows(17)
    history = fs.fit_generator(still(), batches(), 2, 3, 0, validation_data=rows, validation_steps=2, workers=0)
    assert history.history["val_loss"] == pytest.approx(losses(range(10)) * 3)
    assert rows.asked == [0, 1] * 3
    assert rows.ends == 0


@pytest.mark.parametrize("kind", [tuple, list])
def test_arrays_are_validated_on_with_their_weights(kind: Any) -> None:
    x, y = samples(9)
    history = fs.fit_generator(still(), batches(), 2, 2, 0, validation_data=kind([x, y]))
    assert history.history["val_loss"] == pytest.approx(losses(range(9)) * 2)
    weight = (np.arange(9) < 3).astype(np.float32)
    history = fs.fit_generator(still(), batches(), 2, 1, 0, validation_data=kind([x, y, weight]))
    assert history.history["val_loss"] == pytest.approx([3 / 9])


@pytest.mark.parametrize(("frequency", "times"), [(2, 2), ([1, 4], 2), ([4, 2, 2, 1], 3), (1, 4)])
def test_validation_freq_says_after_which_epochs(frequency: Any, times: int) -> None:
    told: list[Any] = []
    history = fs.fit_generator(
        recorder(), batches(), 1, 4, 0, validation_data=batches(told=told), validation_steps=3,
        validation_freq=frequency, workers=0,
    )  # fmt: skip
    assert len(history.history["val_loss"]) == times
    assert len(told) == 3 * times


@pytest.mark.parametrize("workers", [0, 1])
def test_one_generator_may_train_and_validate_and_each_batch_goes_to_who_asks(workers: int) -> None:
    generator = batches()
    model = recorder()
    fs.fit_generator(model, generator, 2, 2, 0, validation_data=generator, validation_steps=1, workers=workers)
    assert model.ids == [*range(10), *range(15, 25)]
    assert next(generator)[0][0, 0] == 30


# Epochs, callbacks.


def test_initial_epoch_trains_the_epochs_after_it() -> None:
    model = recorder()
    diary = Diary()
    history = fs.fit_generator(model, batches(), 2, epochs=5, initial_epoch=3, verbose=0, callbacks=[diary])
    assert history.epoch == [3, 4]
    assert model.ids == [*range(20)]
    assert [line for line in diary.lines if "epoch" in line] == ["epoch 3", "epoch 4"]


def test_a_shuffled_sequence_goes_on_at_initial_epoch_as_if_it_had_not_stopped() -> None:
    whole = recorder()
    fs.fit_generator(whole, Rows(40), epochs=3, verbose=0)
    rest = recorder()
    fs.fit_generator(rest, Rows(40), epochs=3, initial_epoch=1, verbose=0)
    assert rest.ids == whole.ids[40:]


def test_each_hook_is_called_once_a_batch_and_an_epoch() -> None:
    diary = Diary()
    fs.fit_generator(recorder(), batches(), 2, 2, 0, callbacks=[diary])
    steps = ["<0", "0>", "<1", "1>"]
    assert diary.lines == ["begin", "epoch 0", *steps, "epoch 1", *steps, "end"]


def test_an_evaluation_within_a_step_leaves_the_epoch_as_it_is() -> None:
    class Evaluating(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            fs.evaluate_generator(self.model, batches(), 1)

    model = recorder()
    history = fs.fit_generator(model, batches(), 2, 3, 0, callbacks=[Evaluating()])
    assert model.ids == [*range(30)]
    assert history.epoch == [0, 1, 2]


def test_verbose_1_shows_the_steps_of_an_epoch_and_0_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fs.fit_generator(recorder(), batches(), 2, 2, verbose=0)
    assert capsys.readouterr().out == ""
    fs.fit_generator(recorder(), batches(), 2, 2)
    told = capsys.readouterr().out
    assert "Epoch 2/2" in told
    assert "2/2" in told


# Class weights.


def trained(*arguments: Any, **settings: Any) -> np.ndarray:
    model = one_sided()
    fs.fit_generator(model, *arguments, verbose=0, **settings)
    return weights_of(model)


def test_class_weights_weigh_as_sample_weights_do() -> None:
    x, y = samples(8)
    table = np.array([1.0, 3.0, 0.5])
    expected = trained(iter([(x, y, table[y])]), 1)
    assert trained(iter([(x, y)]), 1, class_weight={1: 3.0, 2: 0.5}) == pytest.approx(expected)
    assert trained(iter([(x, y)]), 1) != pytest.approx(expected)


def test_class_weights_multiply_sample_weights() -> None:
    x, y = samples(8)
    weight = np.linspace(0.5, 2, 8)
    expected = trained(iter([(x, y, np.array([1.0, 3.0, 0.5])[y] * weight)]), 1)
    assert trained(iter([(x, y, weight)]), 1, class_weight={1: 3.0, 2: 0.5}) == pytest.approx(expected)


def test_class_weights_know_one_hot_targets() -> None:
    x, y = samples(8)
    models = []
    for batch, weights in (
        ((x, np.eye(3)[y], np.array([1.0, 3.0, 0.5])[y]), None),
        ((x, np.eye(3)[y]), {1: 3, 2: 0.5}),
    ):
        models.append(one_sided(units=3))
        fs.fit_generator(models[-1], iter([batch]), 1, verbose=0, class_weight=weights)
    assert weights_of(models[0]) == pytest.approx(weights_of(models[1]))


def test_class_weights_may_be_by_name_for_a_sequential_model() -> None:
    x, y = samples(8)
    model = one_sided()
    name = model.layers[-1].name
    fs.fit_generator(model, iter([(x, y)]), 1, verbose=0, class_weight={name: {1: 3.0, 2: 0.5}})
    assert weights_of(model) == pytest.approx(trained(iter([(x, y)]), 1, class_weight={1: 3.0, 2: 0.5}))


@pytest.mark.parametrize("given", [np.array([1.0, 3.0, 0.5]), [1.0, 3.0, 0.5]], ids=["array", "list"])
def test_numbers_are_the_weights_of_the_classes_in_order(given: Any) -> None:
    expected = trained(iter([samples(8)]), 1, class_weight={1: 3.0, 2: 0.5})
    with pytest.warns(UserWarning, match="classes 0 to 2"):
        assert trained(iter([samples(8)]), 1, class_weight=given) == pytest.approx(expected)


def test_class_weights_that_keras_2_ignored_are_ignored_aloud() -> None:
    with pytest.warns(UserWarning, match="'auto' never had a meaning"):
        weighed = trained(iter([samples(8)]), 1, class_weight="auto")
    assert weighed == pytest.approx(trained(iter([samples(8)]), 1))


# Refusals.


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no steps": ({"generator": batches()}, "steps_per_epoch="),
    "no validation steps": ({"steps_per_epoch": 1, "validation_data": batches()}, "validation_steps="),
    "steps 0": ({"steps_per_epoch": 0}, "steps_per_epoch=0 must be"),
    "no workers": ({"steps_per_epoch": 1, "workers": None}, "workers=None"),
    "a table of class weights": ({"steps_per_epoch": 1, "class_weight": np.eye(2)}, "one weight for each class"),
    "epochs as text": ({"steps_per_epoch": 1, "epochs": "2"}, "epochs='2'"),
    "validation of four parts": ({"steps_per_epoch": 1, "validation_data": (1, 2, 3, 4)}, "of 4 parts"),
    "an empty Sequence": ({"generator": Rows(0)}, "0 batches"),
    "an empty generator": ({"generator": iter([]), "steps_per_epoch": 1}, "gives nothing"),
    "both counts": ({"steps_per_epoch": 1, "samples_per_epoch": 5}, "samples_per_epoch= .* and steps_per_epoch="),
    "no such argument": ({"step_per_epoch": 1}, "Did you mean steps_per_epoch="),
    "arrays": ({"generator": samples(5), "steps_per_epoch": 1}, "generator is a tuple"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_before_training(case: str) -> None:
    settings, message = REFUSED[case]
    diary = Diary()
    with pytest.raises(fs.PlanError, match=message):
        fs.fit_generator(recorder(), **{"generator": batches(), "verbose": 0, "callbacks": [diary], **settings})
    assert diary.lines == []


# Datasets.


def test_what_makes_a_dataset_is_fed_through_it() -> None:
    class Flow:
        def as_dataset(self) -> fs.Dataset:
            return fs.from_arrays(samples(23)).batch(5)

    model = recorder()
    fs.fit_generator(model, Flow(), 3, 4, 0, validation_data=Flow(), workers=2)
    assert model.ids == [*range(23), *range(23), *range(10)]
    model = recorder()
    fs.fit_generator(model, Flow(), samples_per_epoch=12, nb_epoch=1, verbose=0)
    assert model.ids == [*range(15)]


def test_a_loader_is_used_as_it_is_and_stays_open() -> None:
    model = recorder()
    with fs.from_arrays(samples(20)).batch(5).loader(workers=1) as loader:
        fs.fit_generator(model, loader, epochs=2, verbose=0)
        assert len(list(loader)) == 4
    assert model.ids == [*range(20)] * 2


@ENDS_EARLY
def test_nothing_is_left_of_a_call_that_failed_while_a_generator_was_read_ahead() -> None:
    with pytest.raises(RuntimeError, match="in a callback"):
        fs.fit_generator(
            recorder(), batches(), 3, 3, 0, [StopAfter(1, RuntimeError("in a callback"))], workers=1, max_queue_size=4
        )
