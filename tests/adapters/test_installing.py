"""`fitstream.legacy.install()`: the methods on models, names where old imports look, log keys of both ages."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_programs import one_sided
from old_rows import Rows, batches
from recorder import KERAS_WARNINGS, keras, recorder, samples

import fitstream as fs
from fitstream.legacy import GeneratorEnqueuer, OrderedEnqueuer, Sequence, install, old_files
from fitstream.legacy.logs import with_old_names

pytestmark = KERAS_WARNINGS

PLACES = {
    keras.Model: ("fit", "evaluate", "predict", "fit_generator", "evaluate_generator", "predict_generator"),
    keras.utils: ("Sequence", "GeneratorEnqueuer", "OrderedEnqueuer"),
    keras.callbacks.CallbackList: (
        "on_epoch_end", "_on_train_batch_end", "_on_test_batch_end", "on_test_end", "on_train_end",
    ),
    keras.callbacks.EarlyStopping.__mro__[1]: ("_set_monitor_op",),
}  # fmt: skip


@pytest.fixture(autouse=True)
def taken_back() -> Iterator[None]:
    before = {(place, name): vars(place).get(name) for place, names in PLACES.items() for name in names}
    yield
    for (place, name), value in before.items():
        if value is not None:
            setattr(place, name, value)
        elif name in vars(place):
            delattr(place, name)


def test_models_have_the_methods() -> None:
    install()
    model: Any = recorder()
    model.fit_generator(batches(), 3, 2, verbose=0)
    assert model.ids == [*range(30)]
    assert len(model.evaluate_generator(Rows(12))) == 2
    assert model.predict_generator(batches(), 2).shape == (10, 3)


def test_old_imports_find_the_classes() -> None:
    install()
    for place in ("keras.utils", "keras.utils.data_utils", "keras.engine.training"):
        module = importlib.import_module(place)
        assert (module.Sequence, module.GeneratorEnqueuer) == (Sequence, GeneratorEnqueuer)
        assert module.OrderedEnqueuer is OrderedEnqueuer


def test_keras_1_counts_samples_where_positions_count() -> None:
    install(keras=1)
    model: Any = recorder()
    model.fit_generator(batches(), 12, 2, 0)
    assert model.ids == [*range(30)]
    assert model.predict_generator(batches(), 12).shape == (15, 3)
    install(keras=2)
    model.fit_generator(batches(), 1, 1, 0)
    assert len(model.ids) == 35


def test_installing_again_changes_nothing() -> None:
    install()
    methods = [getattr(keras.Model, name) for name in PLACES[keras.Model]]
    install()
    assert [getattr(keras.Model, name) for name in PLACES[keras.Model]] == methods


def test_another_keras_is_refused() -> None:
    with pytest.raises(fs.PlanError, match="keras=3"):
        install(keras=3)  # type: ignore[arg-type]


def test_names_are_where_old_imports_look() -> None:
    install()
    for kind in (Sequence, GeneratorEnqueuer, OrderedEnqueuer):
        assert getattr(keras.utils, kind.__name__) is kind


def test_fit_evaluate_and_predict_take_generators_and_sequences() -> None:
    install()
    model: Any = recorder()
    model.fit(batches(), steps_per_epoch=3, epochs=2, verbose=0, max_queue_size=2, workers=1)
    assert model.ids == [*range(30)]
    model.fit(Rows(10), verbose=0, shuffle=False)
    assert model.ids[30:] == [*range(10)]
    assert len(model.evaluate(Rows(10), verbose=0)) == 2
    assert model.predict(Rows(12), verbose=0).shape == (12, 3)


@pytest.mark.parametrize("name", ["fit", "fit_generator"])
def test_a_warning_points_at_the_programs_own_line(name: str) -> None:
    install(keras=1)
    with pytest.warns(UserWarning, match="ended early") as told:
        getattr(recorder(), name)(batches(1), steps_per_epoch=2, verbose=0)
    assert [each.filename for each in told if "ended early" in str(each.message)] == [__file__]


def test_arrays_are_validated_with_a_generator_that_goes_on() -> None:
    install()
    model: Any = recorder()
    told: list[Any] = []
    x, y = samples(12)
    history = model.fit(x, y, 4, 2, 0, validation_data=batches(told=told), validation_steps=2)
    assert len(history.history["val_loss"]) == 2
    assert len(told) in (4, 5)  # one may wait in the queue
    assert sorted(model.ids) == sorted([*range(12)] * 2)


@pytest.mark.parametrize("processes", [False, True])
def test_arrays_are_validated_with_a_sequence(processes: bool) -> None:
    install()
    model: Any = recorder()
    rows = Rows(7)
    x, y = samples(12)
    history = model.fit(
        x, y, epochs=2, validation_freq=2, validation_data=rows, verbose=0, workers=2, use_multiprocessing=processes
    )
    assert len(history.history["val_loss"]) == 1
    assert rows.ends == 1
    assert history.history["val_loss"] == pytest.approx(model.evaluate(rows, verbose=0)[:1])


def test_a_generator_for_validation_that_ends_early_is_told() -> None:
    install()
    x, y = samples(12)
    with pytest.warns(UserWarning, match="3 batches were asked .* 2 came, 1 .* missing"):
        recorder().fit(x, y, validation_data=batches(2), validation_steps=3, verbose=0)


def test_values_by_name_where_they_are_asked_for() -> None:
    install()
    model: Any = recorder()
    values = model.evaluate(Rows(10), verbose=0)
    assert [*model.evaluate(Rows(10), verbose=0, return_dict=True).values()] == pytest.approx(values[::-1])
    assert set(model.evaluate(batches(), steps=2, verbose=0, return_dict=True)) == {"accuracy", "loss"}


def test_arrays_go_to_keras_as_before() -> None:
    install()
    model: Any = recorder()
    x, y = samples(12)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, shuffle=False)
    assert model.ids == [*range(12)] * 2
    fs.fit(model, fs.from_arrays(samples(12)).batch(4), verbose=0)
    assert len(model.ids) == 36


def test_fs_fit_still_works_beside_it() -> None:
    install()
    model: Any = one_sided()
    history = fs.fit(model, samples(12), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


@pytest.mark.parametrize("metric", ["acc", "accuracy"])
@pytest.mark.parametrize("by_generator", [True, False], ids=["fit_generator", "fit"])
def test_callbacks_find_the_accuracy_under_both_names(metric: str, by_generator: bool, tmp_path: Path) -> None:
    install()
    told: list[set[str]] = []

    class Look(keras.callbacks.Callback):
        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            told.append(set(logs))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            told.append(set(logs))

    model: Any = recorder()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[metric])
    callbacks = [
        Look(),
        keras.callbacks.EarlyStopping(monitor="val_acc", patience=9),
        keras.callbacks.ReduceLROnPlateau(monitor="val_acc"),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch:02d}-{val_acc:.2f}.weights.h5"), save_weights_only=True),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
    ]
    if by_generator:
        history = model.fit_generator(batches(), 2, 2, 0, callbacks, validation_data=samples(8))
    else:
        history = model.fit(*samples(10), epochs=2, verbose=0, callbacks=callbacks, validation_data=samples(8))
    assert {"acc", "accuracy", "val_acc", "val_accuracy", "loss", "val_loss"} <= set(history.history)
    assert history.history["acc"] == history.history["accuracy"]
    assert all({"acc", "accuracy"} <= names for names in told)
    assert len(list(tmp_path.glob("*.weights.h5"))) == 2
    assert "val_acc" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")


def test_metrics_that_never_had_another_name_have_none() -> None:
    logs = {"out_accuracy": 1.0, "val_out_acc": 2.0, "binary_accuracy": 3.0, "val_top_k_categorical_accuracy": 4.0}
    told = with_old_names({**logs, "learning_rate": 5.0, "loss": 6.0})
    more = {"out_acc": 1.0, "val_out_accuracy": 2.0, "lr": 5.0}
    assert told == {**logs, "learning_rate": 5.0, "loss": 6.0, **more}


def test_predictions_of_arrays_are_keras_own() -> None:
    model: Any = recorder()
    x, _ = samples(7)
    before = model.predict(x, verbose=0)
    install()
    assert np.array_equal(model.predict(x, verbose=0), before)


def test_a_file_gets_the_permissions_of_new_ones_without_asking_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "umask", None)  # to ask is to change it, for all threads
    with old_files._beside(tmp_path / "model", ".h5") as written:
        written.write_bytes(b"weights")
    (tmp_path / "other").touch()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "other"]
