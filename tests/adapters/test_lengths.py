"""Batches that differ in length, in training, evaluation and prediction, on models that are built and that aren't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorder import KERAS_WARNINGS, keras

import fitstream as fs

pytestmark = KERAS_WARNINGS

LENGTHS = [(2, 5, 9)[i % 3] for i in range(22)]


def samples(tagged: bool) -> list[Any]:
    """Tokens, and for each sample whether it holds a 7; or that for each token."""
    rng = np.random.default_rng(0)
    tokens = [rng.integers(1, 10, length).astype("int32") for length in LENGTHS]
    return [(each, (each == 7).astype("int32") if tagged else np.int32(7 in each)) for each in tokens]


def model(tagged: bool, built: bool) -> Any:
    layers = [keras.layers.Embedding(10, 4), keras.layers.LSTM(5, return_sequences=tagged), keras.layers.Dense(2)]
    made = keras.Sequential([keras.Input((None,), dtype="int32"), *layers] if built else layers)
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
    return made


@pytest.mark.parametrize("built", [True, False], ids=["built", "unbuilt"])
@pytest.mark.parametrize("tagged", [True, False], ids=["a label a token", "a label a sample"])
def test_a_model_trains_on_batches_of_many_lengths(tagged: bool, built: bool) -> None:
    pad: Any = True if tagged else [0]
    batched = fs.from_sequence(samples(tagged)).shuffle(1).batch(4, pad=pad, bucket_by=LENGTHS, mask=tagged)
    trained = model(tagged, built)
    history = fs.fit(trained, batched, validation_data=batched, epochs=2, workers=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(history.history["val_loss"]).all()
    assert trained.input_shape == (None, None)


@pytest.mark.parametrize("lengths", [LENGTHS, [2] * 8 + [9] * 8], ids=["mixed", "the first ones alike"])
def test_keras_s_own_fit_takes_batches_of_many_lengths(lengths: list[int]) -> None:
    data = [(np.ones(length, "int32"), np.int32(length % 2)) for length in lengths]
    with fs.from_sequence(data).batch(4, pad=[0], max_length=11).loader(workers=1) as loader:
        history = model(tagged=False, built=True).fit(loader.keras(), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


def test_predictions_come_in_order_whatever_the_lengths() -> None:
    trained = model(tagged=False, built=True)
    batched = fs.from_sequence([(tokens,) for tokens, _ in samples(tagged=False)]).batch(1, pad=True, max_length=9)
    found = fs.predict(trained, batched, workers=1)
    expected = [trained.predict(tokens[None], verbose=0)[0] for tokens, _ in samples(tagged=False)[:3]]
    assert found.shape == (22, 2)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-4, atol=1e-5)


def test_a_mask_of_places_for_a_label_a_sample_is_refused_before_training() -> None:
    batched = fs.from_sequence(samples(tagged=False)).batch(4, pad=[0], bucket_by=LENGTHS, mask=True)
    with pytest.raises(fs.PlanError, match=r"weighs each place.*int32\(\?\), one a sample.*mask_zero=True"):
        fs.fit(model(tagged=False, built=True), batched, workers=1, verbose=0)
    with batched.loader(workers=1) as loader, pytest.raises(fs.PlanError, match="weighs each place"):
        loader.keras()


def test_predictions_in_the_order_of_buckets_are_warned_of() -> None:
    tokens = [(each,) for each, _ in samples(tagged=False)]
    batched = fs.from_sequence(tokens).batch(4, pad=True, bucket_by=len)
    with pytest.warns(UserWarning, match="bucket_by= joins samples of like length"):
        fs.predict(model(tagged=False, built=True), batched, workers=1)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="gives a RaggedTensor")
def test_predictions_of_many_lengths_that_can_not_be_joined_say_what_to_do() -> None:
    batched = fs.from_sequence([(each,) for each, _ in samples(tagged=True)]).batch(1, pad=True, max_length=9)
    with pytest.raises(fs.PlanError, match="predict_on_batch"):
        fs.predict(model(tagged=True, built=True), batched, workers=1)


def two_inputs() -> list[Any]:
    """Tokens beside their count, which is one number in all samples."""
    return [({"count": np.float32([len(x)]), "tokens": x}, label) for x, label in samples(tagged=False)]


def test_one_input_of_several_is_padded_by_its_name() -> None:
    tokens, count = keras.Input((None,), name="tokens", dtype="int32"), keras.Input((1,), name="count")
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(tokens))
    joined = keras.Model(
        {"tokens": tokens, "count": count}, keras.layers.Dense(2)(keras.layers.Concatenate()([mean, count]))
    )
    joined.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batched = fs.from_sequence(two_inputs()).batch(4, pad=["tokens"], bucket_by=LENGTHS)
    history = fs.fit(joined, batched, validation_data=batched, epochs=2, workers=1, verbose=0)
    assert np.isfinite(history.history["loss"] + history.history["val_loss"]).all()


class Placed(keras.Model):
    """Adds a vector for each place, of nine."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense = keras.layers.Embedding(10, 4), keras.layers.Dense(2)
        self.table = self.add_weight(shape=(9, 4))

    def call(self, tokens: Any) -> Any:
        length = keras.ops.shape(tokens)[1]
        if isinstance(length, int) and length > 9:
            raise ValueError(f"{length} places, and there are 9")
        return self.dense(keras.ops.mean(self.embedding(tokens) + self.table[:length], axis=1))


def test_no_blank_batch_is_longer_than_batches_get() -> None:
    placed = Placed()
    placed.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batched = fs.from_sequence(samples(tagged=False)).batch(4, pad=[0], max_length=9)
    history = fs.fit(placed, batched, epochs=1, workers=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    with batched.loader(workers=1) as loader:
        assert np.isfinite(placed.fit(loader.keras(), verbose=0).history["loss"]).all()
