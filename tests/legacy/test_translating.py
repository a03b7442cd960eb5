"""Arguments translated as the table says, without a framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fitstream.legacy.program import OldName, program
from fitstream.legacy.renames import read_renames
from fitstream.legacy.translating import arguments


@pytest.fixture(autouse=True)
def a_new_program() -> Iterator[None]:
    yield
    program.__init__()  # type: ignore[misc]


def translated(name: str, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    renames = read_renames()
    return arguments(name.rpartition(".")[2], renames.calls[name], renames.values, args, kwargs)


def test_keywords_get_their_new_names() -> None:
    assert translated("keras.layers.Dense", output_dim=3, init="uniform") == (
        (),
        {"units": 3, "kernel_initializer": "uniform"},
    )


def test_several_arguments_become_one_tuple() -> None:
    assert translated("keras.layers.Conv2D", nb_filter=8, nb_row=3, nb_col=5)[1] == {
        "filters": 8,
        "kernel_size": (3, 5),
    }


def test_positions_are_those_of_keras_1_in_its_programs() -> None:
    program.keras = 1
    assert translated("keras.layers.Conv2D", 8, 3, 5, "uniform") == (
        (),
        {"filters": 8, "kernel_initializer": "uniform", "kernel_size": (3, 5)},
    )


def test_sides_are_joined_in_programs_for_keras_2_as_it_did() -> None:
    assert translated("keras.layers.Conv2D", 8, 3, 5) == ((8, (3, 5)), {})


def test_positions_stay_in_programs_for_the_keras_of_tensorflow() -> None:
    program.tensorflow = True
    assert translated("keras.layers.Conv2D", 8, 3, 2) == ((8, 3, 2), {})


def test_a_call_as_keras_3_takes_it_stays() -> None:
    program.keras = 1
    assert translated("keras.layers.Conv2D", 8, (3, 3), padding="same") == ((8, (3, 3)), {"padding": "same"})


def test_values_are_translated_by_the_new_name_of_their_argument() -> None:
    assert translated("keras.layers.MaxPooling2D", dim_ordering="th")[1] == {"data_format": "channels_first"}
    assert translated("keras.layers.MaxPooling2D", dim_ordering="default")[1] == {}


def test_what_has_no_use_any_more_is_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert translated("keras.layers.LSTM", 8, consume_less="gpu") == ((8,), {})
    assert "LSTM(consume_less=) left out" in capsys.readouterr().err


def test_only_a_value_that_means_nothing_is_left_out() -> None:
    assert translated("keras.layers.BatchNormalization", mode=0)[1] == {}
    with pytest.raises(OldName, match=r"BatchNormalization\(mode=2\) can't be translated. Modes 1 and 2"):
        translated("keras.layers.BatchNormalization", mode=2)


def test_what_cannot_be_translated_names_the_line_the_old_name_and_the_way() -> None:
    with pytest.raises(OldName) as caught:
        translated("keras.Model.compile", "adam", "mse", target_tensors=[1])
    error = caught.value
    assert error.file == __file__
    assert f"{__file__}:{error.line}: " in str(error)
    assert error.old == "compile(target_tensors=[1])"
    assert "targets to fit" in error.way


def test_compile_takes_metrics_third_as_all_did_before_keras_3() -> None:
    program.tensorflow = True
    assert translated("keras.Model.compile", "adam", "mse", ["acc"])[1] == {
        "optimizer": "adam",
        "loss": "mse",
        "metrics": ["acc"],
    }


def test_a_default_is_what_it_was() -> None:
    assert translated("keras.optimizers.Adadelta") == ((), {"learning_rate": 1.0})
    assert translated("keras.optimizers.Adadelta", lr=0.5) == ((), {"learning_rate": 0.5})
    program.tensorflow = True
    assert translated("keras.optimizers.Adadelta") == ((), {})


def test_sgd_takes_decay_third() -> None:
    assert translated("keras.optimizers.SGD", 0.1, 0.9, 1e-6, True)[1] == {
        "learning_rate": 0.1,
        "momentum": 0.9,
        "decay": 1e-6,
        "nesterov": True,
    }


def test_a_sequence_s_shape_is_told_by_its_length_and_features() -> None:
    assert translated("keras.layers.LSTM", 8, input_dim=5, input_length=7) == ((8,), {"input_shape": (7, 5)})
    assert translated("keras.layers.Embedding", 100, 8, input_length=7) == ((100, 8), {"input_shape": (7,)})


def test_an_argument_given_by_both_names_is_refused() -> None:
    with pytest.raises(TypeError, match="units"):
        translated("keras.layers.Dense", output_dim=3, units=4)


def test_each_translation_is_told_once_with_the_program_s_line(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        translated("keras.layers.Dense", output_dim=3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"fitstream run: {__file__}:")
    assert lines[0].endswith(": output_dim= -> units=")
