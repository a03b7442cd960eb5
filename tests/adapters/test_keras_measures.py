"""What fit, evaluate and predict compute, against Keras on the same arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recorder import KERAS_WARNINGS, keras, recorder, samples, shuffled

import fitstream as fs

pytestmark = KERAS_WARNINGS
WEIGHTS = {0: 3.0, 2: 0.25}
X, LABELS = samples(23)
GIVEN = np.linspace(0.5, 2, 23).astype(np.float32)


def weights_after(train: Callable[[Any], Any], loss: str, units: int, two: bool = False) -> list[Any]:
    """Train a model that always starts the same; return its weights."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((2,))
    outputs = [keras.layers.Dense(units, activation="sigmoid", name=name)(inputs) for name in ("a", "b")[: 1 + two]]
    model = keras.Model(inputs, dict(zip(("a", "b"), outputs, strict=True)) if two else outputs[0])
    model.compile(keras.optimizers.SGD(0.05), {"a": loss, "b": loss} if two else loss)
    train(model)
    return [keras.ops.convert_to_numpy(weight.value) for weight in model.weights]


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)


def train_ours(*parts: Any, **settings: Any) -> Callable[[Any], Any]:
    dataset = fs.from_arrays(parts).batch(5)
    return lambda model: fs.fit(model, dataset, epochs=2, verbose=0, workers=1, **settings)


def train_theirs(x: Any, y: Any, **settings: Any) -> Callable[[Any], Any]:
    return lambda model: model.fit(x, y, epochs=2, batch_size=5, shuffle=False, verbose=0, **settings)


TARGETS = {
    "integer": (LABELS, "sparse_categorical_crossentropy", 3),
    "one-hot": (np.eye(3, dtype=np.float32)[LABELS], "categorical_crossentropy", 3),
    "binary": ((LABELS == 2).astype(np.float32)[:, None], "binary_crossentropy", 1),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_class_weights_train_as_those_of_keras_do(kind: str) -> None:
    y, loss, units = TARGETS[kind]
    weights = {0: 3.0, 1: 0.25} if kind == "binary" else WEIGHTS
    ours = weights_after(train_ours(X, y, class_weight=weights), loss, units)
    assert_same(ours, weights_after(train_theirs(X, y, class_weight=weights), loss, units))
    with pytest.raises(AssertionError):
        assert_same(ours, weights_after(train_theirs(X, y), loss, units))


def test_class_weights_and_sample_weights_are_multiplied() -> None:
    loss = "sparse_categorical_crossentropy"
    both = GIVEN * np.array([WEIGHTS.get(int(label), 1.0) for label in LABELS], np.float32)
    ours = weights_after(train_ours(X, LABELS, GIVEN, class_weight=WEIGHTS), loss, 3)
    assert_same(ours, weights_after(train_theirs(X, LABELS, sample_weight=both), loss, 3))


def test_class_weights_of_one_output_of_two_leave_the_other_alone() -> None:
    loss = "sparse_categorical_crossentropy"
    y = {"a": LABELS, "b": LABELS}
    by_class = np.array([WEIGHTS.get(int(label), 1.0) for label in LABELS], np.float32)
    ours = weights_after(train_ours(X, y, class_weight={"a": WEIGHTS}), loss, 3, two=True)
    expected = {"a": by_class, "b": np.ones(23, np.float32)}
    assert_same(ours, weights_after(train_theirs(X, y, sample_weight=expected), loss, 3, two=True))


def test_the_mask_of_padding_keeps_it_out_of_training() -> None:
    loss = "sparse_categorical_crossentropy"
    padded = fs.from_arrays((X, LABELS)).batch(5, last="pad", mask=True)
    ours = weights_after(lambda model: fs.fit(model, padded, epochs=2, verbose=0, workers=1), loss, 3)
    rows = [np.zeros((2, *part.shape[1:]), part.dtype) for part in (X, LABELS)]
    x, y = (np.concatenate([part, row]) for part, row in zip((X, LABELS), rows, strict=True))
    weight = np.array([1.0] * 23 + [0.0] * 2, np.float32)
    assert_same(ours, weights_after(train_theirs(x, y, sample_weight=weight), loss, 3))


def test_several_inputs_and_outputs_go_by_name() -> None:
    first, second = keras.Input((2,), name="first"), keras.Input((1,), name="second")
    joined = keras.layers.Concatenate()([first, second])
    model = keras.Model([first, second], {"sum": keras.layers.Dense(1, name="sum")(joined)})
    model.compile("sgd", {"sum": "mse"})
    x = {"second": X[:, :1], "first": X}
    y = {"sum": X.sum(axis=1, keepdims=True)}
    dataset = fs.from_arrays((x, y)).batch(5)
    expected = model.evaluate(x, y, batch_size=5, verbose=0)
    assert fs.evaluate(model, dataset, verbose=0) == pytest.approx(expected, 1e-5)
    np.testing.assert_allclose(
        fs.predict(model, dataset, verbose=0)["sum"], model.predict(x, verbose=0)["sum"], rtol=1e-4, atol=1e-6
    )
    assert np.isfinite(fs.fit(model, fs.from_arrays((x, y)).shuffle(0).batch(5), verbose=0).history["loss"]).all()


def test_a_model_may_be_trained_on_inputs_alone() -> None:
    class Shrink(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            out = self.dense(x / 25)
            self.add_loss(keras.ops.mean(keras.ops.square(out - x / 25)))
            return out

    model = Shrink()
    model.compile("sgd")
    history = fs.fit(model, fs.from_arrays(X).batch(5), epochs=3, verbose=0)
    assert history.history["loss"][2] < history.history["loss"][0]


DATA: dict[str, Callable[[], Any]] = {
    "dataset": lambda: fs.from_arrays((X, LABELS)).batch(5),
    "padded": lambda: fs.from_arrays((X, LABELS)).batch(5, last="pad", mask=True),
    "one batch": lambda: fs.from_arrays((X, LABELS)).batch(23),
    "generator": lambda: fs.from_generator(lambda: zip(X, LABELS, strict=True)).batch(5),
    "arrays": lambda: (X, LABELS),
}


@pytest.mark.parametrize("kind", DATA)
def test_evaluation_and_prediction_are_those_of_keras(kind: str) -> None:
    model = recorder()
    data = DATA[kind]()
    predicted = fs.predict(model, data, verbose=0)
    np.testing.assert_allclose(predicted, model.predict(X, verbose=0), rtol=1e-4, atol=1e-6)
    if kind != "padded":  # Keras counts padding as samples of weight 0 in the mean of the loss
        expected = model.evaluate(X, LABELS, batch_size=5, verbose=0, return_dict=True)
        measured = fs.evaluate(model, data, verbose=0, return_dict=True)
        assert measured == pytest.approx(expected, 1e-5)
        assert fs.evaluate(model, data, verbose=0) == pytest.approx([expected["loss"], expected["accuracy"]], 1e-5)


def test_steps_limit_evaluation_and_prediction() -> None:
    model = recorder()
    with fs.from_arrays((X, LABELS)).batch(5).loader(workers=1) as loader:
        assert fs.predict(model, loader, steps=2, verbose=0).shape == (10, 3)
        expected = model.evaluate(X[:10], LABELS[:10], batch_size=5, verbose=0)
        assert fs.evaluate(model, loader, steps=2, verbose=0) == pytest.approx(expected, 1e-5)
        assert len(list(loader)) == 5
        with pytest.raises(fs.PlanError, match="steps=6, but a pass has 5 batches"):
            fs.evaluate(model, loader, steps=6, verbose=0)


def test_wrapped_batches_give_one_prediction_a_sample() -> None:
    model = recorder()
    wrapped = fs.from_arrays((X, LABELS)).batch(5, last="wrap")
    np.testing.assert_allclose(fs.predict(model, wrapped, verbose=0), model.predict(X, verbose=0), rtol=1e-4, atol=1e-6)


def test_prediction_on_a_shuffled_dataset_warns_and_keeps_its_order() -> None:
    model = recorder(built=True)
    with pytest.warns(UserWarning, match="shuffled order"):
        predicted = fs.predict(model, shuffled(23), verbose=0)
    with shuffled(23).loader(workers=0) as loader:
        x = np.concatenate([x for x, _ in loader])
    np.testing.assert_allclose(predicted, model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


def test_a_model_that_is_not_compiled_can_predict() -> None:
    model = keras.Sequential([keras.layers.Dense(2)])
    assert fs.predict(model, X, verbose=0).shape == (23, 2)


def test_keras_bar_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    model = recorder()
    fs.evaluate(model, (X, LABELS), verbose=2)
    assert "1/1 - " in capsys.readouterr().out
    fs.evaluate(model, (X, LABELS))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("function", [fs.evaluate, fs.predict])
def test_a_sample_that_fails_is_a_sample_error(function: Any) -> None:
    def fail(x: Any, y: Any) -> Any:
        if x[0] == 17:
            raise KeyError("no such thing")
        return x, y

    model = recorder(built=True)
    with pytest.raises(fs.SampleError, match="Sample 17"):
        function(model, fs.from_arrays((X, LABELS)).map(fail).batch(5), verbose=0)
    assert np.isfinite(model.predict(X, verbose=0)).all()


def test_padding_counts_neither_in_evaluate_nor_in_validation() -> None:
    x = np.arange(50, dtype=np.float32)[:, None]
    y = (x[:, 0] % 3).astype(np.float32)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    model.optimizer.learning_rate = 0.0
    expected = fs.evaluate(model, fs.from_arrays((x, y)).batch(8), verbose=0)
    for mask in (False, True):
        padded = fs.from_arrays((x, y)).batch(8, last="pad", mask=mask)
        assert np.allclose(fs.evaluate(model, padded, verbose=0), expected, rtol=1e-5)
        history = fs.fit(model, padded, validation_data=padded, epochs=1, verbose=0).history
        assert np.allclose([history["val_loss"][0], history["val_mae"][0]], expected, rtol=1e-5)
