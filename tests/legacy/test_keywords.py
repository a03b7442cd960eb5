"""Keras 1's keywords and positional arguments."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest

import fitstream as fs
from fitstream.legacy.keywords import by_keras_1, takes_old_keywords


@takes_old_keywords
def fit_generator(
    model: Any,
    generator: Any,
    steps_per_epoch: Any = None,
    epochs: int = 1,
    verbose: int = 1,
    callbacks: Any = None,
    validation_data: Any = None,
    validation_steps: Any = None,
    class_weight: Any = None,
    max_queue_size: int = 10,
    workers: int = 1,
    use_multiprocessing: bool = False,
    initial_epoch: int = 0,
    *,
    samples_per_epoch: Any = None,
    nb_val_samples: Any = None,
) -> dict[str, Any]:
    return {name: value for name, value in locals().items() if name != "model"}


def test_old_names_mean_the_new_ones() -> None:
    given = fit_generator("m", "g", nb_epoch=3, max_q_size=4, nb_worker=2, pickle_safe=True, samples_per_epoch=100)
    expected = {"epochs": 3, "max_queue_size": 4, "workers": 2, "use_multiprocessing": True, "samples_per_epoch": 100}
    assert expected.items() <= given.items()
    assert given["steps_per_epoch"] is None


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((), {"nb_epoch": 1, "epochs": 2}, "epochs= and epochs=|nb_epoch= and epochs="),
        ((5, 2), {"nb_epoch": 2}, "nb_epoch= and epochs="),
        ((5,), {"samples_per_epoch": 10}, "samples_per_epoch= .*samples.* and steps_per_epoch= .*batches"),
        ((), {"validation_steps": 1, "nb_val_samples": 10}, "nb_val_samples= .* and validation_steps="),
        ((), {"stepsperepoch": 1}, r"no argument stepsperepoch=\. Did you mean steps_per_epoch="),
        ((), {"zzz": 1}, r"no argument zzz=\. It takes generator, steps_per_epoch"),
    ],
)
def test_what_is_given_twice_or_unknown_is_refused_with_its_name(
    arguments: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(fs.PlanError, match=message):
        fit_generator("m", "g", *arguments, **settings)


def test_keras_1s_positional_arguments_are_samples_and_epochs() -> None:
    call = by_keras_1(fit_generator)
    given = call("m", "g", 2000, 10, 2, None, "v", 800, {0: 1.0}, 5, 3, True, 4)
    assert given == {
        "generator": "g", "samples_per_epoch": 2000, "epochs": 10, "verbose": 2, "callbacks": None,
        "validation_data": "v", "nb_val_samples": 800, "class_weight": {0: 1.0}, "max_queue_size": 5, "workers": 3,
        "use_multiprocessing": True, "initial_epoch": 4, "steps_per_epoch": None, "validation_steps": None,
    }  # fmt: skip
    assert call("m", "g", steps_per_epoch=3)["steps_per_epoch"] == 3


def test_class_weights_stand_where_keras_2_0_to_2_2_had_them() -> None:
    call = inspect.signature(fs.fit_generator).replace(return_annotation=inspect.Signature.empty)

    @takes_old_keywords
    @functools.wraps(fs.fit_generator)
    def later(*args: Any, **given: Any) -> dict[str, Any]:
        return dict(call.bind(*args, **given).arguments)

    shared = ("m", "g", 5, 2, 1, None, "v", 3)
    before = later(*shared, {0: 1.0}, 8, 2, True, False, 1)
    after = later(*shared, 1, {0: 1.0}, 8, 2, True, False, 1)
    assert before == after
    assert before["class_weight"] == {0: 1.0}
    assert before["initial_epoch"] == 1
    assert later(*shared, None)["class_weight"] is None
    assert later(*shared, [2])["validation_freq"] == [2]


def test_too_many_or_doubled_arguments_of_keras_1_are_refused() -> None:
    with pytest.raises(fs.PlanError, match="takes 12 arguments, but 13"):
        by_keras_1(fit_generator)("m", *range(13))
    with pytest.raises(fs.PlanError, match="nb_epoch twice"):
        by_keras_1(fit_generator)("m", "g", 10, 2, nb_epoch=3)
