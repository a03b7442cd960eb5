"""The callback that writes text after each epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs

keras = pytest.importorskip("keras")

# On PyTorch, Keras makes arrays of tensors in a way that NumPy will change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TEXT = "abcd" * 100


def model_of(classes: int, window: int, *, one_hot: bool, sequence: bool, softmax: bool) -> Any:
    layers = [keras.layers.Input((window, classes) if one_hot else (window,))]
    layers += [] if one_hot else [keras.layers.Embedding(classes, 8)]
    layers += [keras.layers.GRU(16, return_sequences=sequence)]
    layers += [keras.layers.Dense(classes, activation="softmax" if softmax else None)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    model.compile(keras.optimizers.Adam(0.03), loss)
    return model


@pytest.mark.parametrize(("one_hot", "sequence", "softmax"), [(True, False, True), (False, True, False)])
def test_a_model_goes_on_with_what_it_has_learned(one_hot: bool, sequence: bool, softmax: bool) -> None:
    ds = fs.from_windows(TEXT, 6, target="sequence" if sequence else "next")
    if one_hot:
        ds = ds.map(lambda window, following: (np.eye(4, dtype=np.float32)[window], following))
    written: list[str] = []
    assert ds.class_names is not None
    samples = fs.text.TextSamples(
        ds.class_names, "abcdab", 8, (0, 0.1), one_hot=one_hot, from_logits=not softmax, every=2, write=written.append
    )
    model = model_of(4, 6, one_hot=one_hot, sequence=sequence, softmax=softmax)
    fs.fit(model, ds.shuffle(0).batch(32), epochs=4, callbacks=[samples], verbose=0, workers=0)
    assert samples.texts == {0: "cdabcdab", 0.1: "cdabcdab"}
    assert len(written) == 4
    assert written[-1] == "epoch 4, temperature 0.1: 'abcdab' goes on 'cdabcdab'"


def test_training_is_the_same_with_and_without_it() -> None:
    ds = fs.from_windows(TEXT, 6)

    def losses(callbacks: list[Any]) -> list[float]:
        keras.utils.set_random_seed(0)
        model = model_of(4, 6, one_hot=False, sequence=False, softmax=False)
        history = fs.fit(model, ds.shuffle(0).batch(64), epochs=2, callbacks=callbacks, verbose=0, workers=0)
        return list(history.history["loss"])

    samples = fs.text.TextSamples(list("abcd"), "abcdab", 3, (1.0,), write=len)
    assert np.allclose(losses([samples]), losses([]), rtol=1e-5)


def test_what_it_writes_has_a_seed(tmp_path: Path) -> None:
    model = model_of(4, 6, one_hot=False, sequence=False, softmax=False)
    samples = fs.text.TextSamples(list("abcd"), "abcdabcdab", 30, (1.0,), window=6)
    samples.set_model(model)
    assert samples.generate(5) == samples.generate(5)
    assert samples.generate(5) != samples.generate(6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": "abx"}, "has 'x', which isn't in the alphabet of 4"),
        ({"window": 7}, "start= has 3 characters, and the model's window has 7"),
        ({"temperatures": ()}, r"temperatures=\(\) must be a list of at least one"),
        ({"temperatures": 0.5}, "temperatures=0.5 must be a list"),
        ({"write": None}, "write=None must be a function"),
        ({"temperatures": (-1.0,)}, "temperature=-1"),
        ({"length": 0}, "length=0"),
        ({"every": 0}, "every=0"),
        ({"start": ""}, "window=0"),
    ],
)
def test_what_can_not_be_written_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(fs.PlanError, match=says):
        fs.text.TextSamples(**{"alphabet": "abcd", "start": "abc", **options})


def test_a_model_of_other_classes_is_named() -> None:
    samples = fs.text.TextSamples("abcd", "abcdab")
    samples.set_model(model_of(5, 6, one_hot=False, sequence=False, softmax=False))
    with pytest.raises(fs.PlanError, match=r"\(4, 5\).*a row of 4 classes"):
        samples.generate(0)


def test_without_window_it_is_as_long_as_the_model_s_input() -> None:
    model = model_of(4, 6, one_hot=False, sequence=False, softmax=False)
    longer = fs.text.TextSamples("abcd", "abcdabcdab", 5, (0,))
    told = fs.text.TextSamples("abcd", "abcdabcdab", 5, (0,), window=6)
    for samples in (longer, told):
        samples.set_model(model)
    assert longer.generate(0) == told.generate(0)
    short = fs.text.TextSamples("abcd", "abc", 5, (0,))
    short.set_model(model)
    with pytest.raises(fs.PlanError, match="start= has 3 characters, and the model's window has 6"):
        short.generate(0)


@pytest.mark.parametrize("softmax", [True, False])
def test_logits_and_probabilities_that_are_mistaken_are_told(softmax: bool) -> None:
    model = model_of(4, 6, one_hot=False, sequence=False, softmax=softmax)
    model.layers[-1].bias.assign([-9.0, 0.0, 0.0, 0.0])
    samples = fs.text.TextSamples("abcd", "abcdab", 5, (1.0,), from_logits=softmax)
    samples.set_model(model)
    if softmax:
        with pytest.warns(UserWarning, match=r"probabilities.*from_logits=False"):
            samples.generate(0)
    else:
        with pytest.raises(fs.PlanError, match=r"no probabilities\. Use from_logits=True"):
            samples.generate(0)
