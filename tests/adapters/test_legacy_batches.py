"""What the batches of old programs may look like, for each of the three methods, and what can't be one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from old_programs import one_sided, two_sided, weights_of
from old_rows import batches
from recorder import BACKEND, KERAS_WARNINGS, keras, recorder, samples

import fitstream as fs

pytestmark = KERAS_WARNINGS


def parts(rows: int = 6) -> tuple[Any, Any, Any, Any]:
    """Inputs `a`, `b` and targets `c`, `d` of `two_sided`; `a`, `b` and `d` are float64."""
    rng = np.random.default_rng(0)
    return rng.random((rows, 2)), rng.random((rows, 2)), rng.integers(0, 3, rows), rng.random((rows, 1))


A, B, C, D = parts()
W = np.linspace(0.5, 2, 6)

FORMS: dict[str, Any] = {
    "tuple of lists": ([A, B], [C, D]),
    "list of lists": [[A, B], [C, D]],
    "tuples": ((A, B), (C, D)),
    "dicts by name": ({"b": B, "a": A}, {"d": D, "c": C}),
    "dict and list": ({"a": A, "b": B}, [C, D]),
    "weights None": ([A, B], [C, D], None),
}


def two_sided_at_start() -> Any:
    keras.utils.set_random_seed(0)
    return two_sided()


def trained_on(batch: Any, **settings: Any) -> np.ndarray:
    model = two_sided_at_start()
    fs.fit_generator(model, iter([batch]), 1, verbose=0, **settings)
    return weights_of(model)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """Weights after one step of Keras's own."""
    model = two_sided_at_start()
    floats = [array.astype(np.float32) for array in (A, B, D)]
    model.train_on_batch([floats[0], floats[1]], [C, floats[2]])
    return weights_of(model)


@pytest.mark.parametrize("form", FORMS)
def test_several_inputs_and_outputs_come_as_lists_tuples_or_dicts(form: str, expected: np.ndarray) -> None:
    assert trained_on(FORMS[form]) == pytest.approx(expected, rel=1e-5)


def test_sample_weights_by_output_may_be_a_list_a_dict_or_none_for_one() -> None:
    by_list = trained_on(([A, B], [C, D], [W, None]))
    assert trained_on(([A, B], [C, D], {"c": W})) == pytest.approx(by_list)
    assert trained_on(([A, B], [C, D], [W, np.ones(6)])) == pytest.approx(by_list)
    assert trained_on(([A, B], [C, D])) != pytest.approx(by_list)


def test_class_weights_by_output_weigh_that_output() -> None:
    by_class = np.array([1.0, 4.0, 0.25])[C]
    by_weights = trained_on(([A, B], [C, D], [by_class, None]))
    assert trained_on(([A, B], [C, D]), class_weight={"c": {1: 4.0, 2: 0.25}}) == pytest.approx(by_weights)
    assert trained_on(([A, B], [C, D]), class_weight=[{1: 4.0, 2: 0.25}, None]) == pytest.approx(by_weights)
    both = trained_on(([A, B], [C, D], [by_class * W, W]))
    assert trained_on(([A, B], [C, D], [W, W]), class_weight={"c": {1: 4.0, 2: 0.25}}) == pytest.approx(both)


def test_lists_of_numbers_are_arrays() -> None:
    models = []
    for batch in (([[1.0, 2.0], [3.0, 4.0]], [1, 2]), (np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 2]))):
        models.append(one_sided())
        fs.fit_generator(models[-1], iter([batch]), 1, verbose=0)
    assert weights_of(models[0]) == pytest.approx(weights_of(models[1]))
    assert np.abs(weights_of(models[0])).max() > 0


def test_a_list_of_one_array_is_that_array() -> None:
    x, y = samples(6)
    models = []
    for batch in (([x], [y]), (x, y)):
        models.append(one_sided())
        fs.fit_generator(models[-1], iter([batch]), 1, verbose=0)
    assert weights_of(models[0]) == pytest.approx(weights_of(models[1]))


def test_inputs_without_names_are_known_by_keras_2s() -> None:
    inputs = [keras.Input((2,)), keras.Input((2,))]
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs[0]))
    given = fs.predict_generator(model, iter([{"input_8": A, "input_7": B}]), 1)
    assert given == pytest.approx(model.predict([B, A], verbose=0), rel=1e-5)


# Predicting.


PREDICTED: dict[str, Any] = {
    "list of inputs": [A, B],
    "dict of inputs": {"a": A, "b": B},
    "tuple with targets": ([A, B], [C, D]),
    "tuple with targets and weights": ([A, B], [C, D], [W, W]),
    "tuple of inputs alone": ([A, B],),
}


@pytest.mark.parametrize("form", PREDICTED)
def test_predictions_use_the_inputs_of_a_batch(form: str) -> None:
    model = two_sided()
    given = fs.predict_generator(model, iter([PREDICTED[form]] * 2), 2)
    for mine, theirs in zip(given, model.predict([A, B], verbose=0), strict=True):
        assert mine == pytest.approx(np.concatenate([theirs, theirs]), rel=1e-5)


@pytest.mark.parametrize("form", ["bare", "list with targets"])
def test_predictions_of_one_input_take_a_bare_array_and_a_list_of_parts(form: str) -> None:
    model = one_sided()
    model.set_weights([np.ones((2, 1)), np.zeros(1)])
    generator = (x if form == "bare" else [x, y] for x, y in batches(3, rows=4))
    assert fs.predict_generator(model, generator, 3)[:, 0] == pytest.approx([i + i % 3 for i in range(12)])


def test_predictions_keep_the_last_partial_batch_and_the_order() -> None:
    class Last(fs.Sequence):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return samples(2 if index == 2 else 5, 5 * index)[0]

    model = one_sided()
    model.set_weights([np.array([[1.0], [0.0]]), np.zeros(1)])
    for settings in ({"workers": 0}, {"workers": 3}, {"workers": 2, "use_multiprocessing": True}):
        assert fs.predict_generator(model, Last(), **settings)[:, 0] == pytest.approx(np.arange(12.0))


def test_an_evaluation_weighs_batches_by_their_size() -> None:
    model = one_sided(loss="mae", optimizer="sgd", metrics=["mse"])
    x, y = samples(7)
    loss, metric = fs.evaluate_generator(model, iter([(x[:6], y[:6]), (x[6:], y[6:] + 10)]), 2)
    wanted = np.append(y[:6], 10)
    assert loss == pytest.approx(wanted.mean())
    assert metric == pytest.approx((wanted**2).mean())


# Batches that can't be.


def after_two(bad: Any) -> Iterator[Any]:
    yield samples(5)
    yield samples(5, 5)
    yield bad
    yield samples(5, 10)


BAD: dict[str, tuple[Any, str]] = {
    "None": (None, "it is None"),
    "a number": (3, "it is a int"),
    "no parts": ((), "0 parts"),
    "four parts": ((1, 2, 3, 4), "4 parts"),
    "unequal rows": ((samples(5)[0], samples(4)[1]), "4, 5 rows"),
    "no rows": ((np.zeros((0, 2)), np.zeros(0)), "is empty"),
    "objects": ((np.array([None, 1]), np.zeros(2)), "dtype object"),
    "another tree": ((*samples(5), np.ones(5)), "doesn't match the first one"),
    "inputs alone": (samples(5)[:1], "loss needs targets"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_batch_is_an_error_at_its_turn_that_names_it(case: str, workers: int) -> None:
    bad, why = BAD[case]
    model = recorder()
    with pytest.raises(fs.SampleError, match=f"(?s)Batch 2 of the generator.*{why}") as caught:
        fs.fit_generator(model, after_two(bad), 2, 2, 0, workers=workers)
    assert isinstance(caught.value, ValueError)
    assert caught.value.index == 2
    assert model.ids == [*range(10)]


def test_inputs_alone_train_a_model_that_has_no_loss_of_targets() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            y = self.dense(x)
            self.add_loss(keras.ops.mean(y**2))
            return y

    model = Own()
    model.compile("sgd")
    history = fs.fit_generator(model, (samples(5)[0] for _ in range(2)), 2, verbose=0)
    assert history.history["loss"][0] > 0


@pytest.mark.parametrize("call", [fs.evaluate_generator, fs.predict_generator])
def test_a_bad_batch_is_an_error_in_the_other_methods_too(call: Any) -> None:
    with pytest.raises(fs.SampleError, match="Batch 2"):
        call(recorder(), after_two(None), 4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow is told the shapes before")
def test_a_batch_of_another_shape_is_an_error_with_both_shapes() -> None:
    wide = np.zeros((5, 3), np.float32), np.zeros(5, np.int64)
    with pytest.raises(fs.SampleError, match=r"Batch 2.*\(5, 3\).*\(\?, 2\)"):
        fs.fit_generator(recorder(), after_two(wide), 4, verbose=0)


def test_axes_that_the_model_leaves_open_may_vary() -> None:
    model = keras.Sequential([keras.Input((None, 2)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    made = [(rng.random((4, length, 2)), rng.integers(0, 3, (4, length))) for length in (3, 5, 2, 7)]
    history = fs.fit_generator(model, iter(made), 2, 2, 0)
    assert len(history.history["loss"]) == 2
    fs.fit_generator(model, iter([(x, y, np.ones(y.shape)) for x, y in made]), 4, verbose=0)


def texts(*lengths: int) -> Iterator[Any]:
    for length in lengths:
        yield np.ones((2, length), np.int64), np.ones((2, 1))


def test_a_sequential_that_begins_with_an_embedding_takes_texts_of_any_length() -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Embedding(9, 3), layers.GlobalMaxPooling1D(), layers.Dense(1)])
    model.compile("sgd", "mse")
    assert fs.fit_generator(model, texts(4, 7, 2, 4), 2, 2, verbose=0).epoch == [0, 1]
    assert fs.predict_generator(model, texts(3, 5), 2).shape == (4, 1)


def test_one_that_needs_texts_of_one_length_is_built_by_the_first_batch() -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Embedding(9, 3), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    assert fs.fit_generator(model, texts(4, 4), 1, 2, verbose=0).epoch == [0, 1]


def test_numbers_are_cast_to_the_first_batchs_type_if_none_is_lost() -> None:
    x, y = samples(5)
    model = one_sided()
    fs.fit_generator(model, iter([(x, y.astype(np.float64)), (x.astype(np.float16), y.astype(np.int32))]), 2, verbose=0)
    assert np.isfinite(weights_of(model)).all()


# Errors of the program's own code.


def failing(error: BaseException) -> Iterator[Any]:
    yield samples(5)
    yield samples(5, 5)
    raise error


class OwnError(Exception):
    def __init__(self, number: int, name: str) -> None:
        super().__init__(f"{name} {number}")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error", [RuntimeError("no disk"), KeyError("no disk"), OSError(2, "no disk"), OwnError(1, "no disk")], ids=repr
)
def test_what_a_generator_raises_is_a_sample_error_and_of_its_own_type(error: Exception, workers: int) -> None:
    model = recorder()
    with pytest.raises(fs.SampleError, match="no disk") as caught:
        fs.fit_generator(model, failing(error), 3, 2, 0, workers=workers)
    assert isinstance(caught.value, type(error))
    assert caught.value.__cause__ is error
    assert model.ids == [*range(10)]
    fs.fit_generator(model, batches(), 1, verbose=0)
    assert len(model.ids) == 15


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}])
def test_what_a_sequence_raises_is_of_its_own_type_in_worker_processes_too(settings: dict[str, Any]) -> None:
    class Failing(fs.Sequence):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise RuntimeError("no disk")
            return samples(5, 5 * index)

    model = recorder()
    with pytest.raises(fs.SampleError, match="no disk") as caught:
        fs.fit_generator(model, Failing(), epochs=2, verbose=0, shuffle=False, **settings)
    assert isinstance(caught.value, RuntimeError)
    assert model.ids == [*range(10)]
