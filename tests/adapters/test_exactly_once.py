"""Whatever the settings: training sees each sample of a Sequence or generator once a pass."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from old_rows import Rows, Varying, batches
from recorder import BACKEND, KERAS_WARNINGS, recorder

import fitstream as fs

pytestmark = [
    pytest.mark.slow,
    KERAS_WARNINGS,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:.*a generator runs once, in one thread:UserWarning"),
]
EPOCHS = 5
#: One size, since JAX compiles for each.
SIZE = 4
#: Compiling a model costs a second or more, so that few examples are made; `make soak` makes 200.
FEW = settings(
    max_examples=12 if settings().max_examples <= 100 else 200,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)

MODELS: dict[bool, Any] = {}


def model_for(built: bool) -> Any:
    """A model with nothing recorded; a built one is used again, since that is what it costs to compile."""
    if not built:
        return recorder()
    model = MODELS.setdefault(built, recorder(built=True))
    model.count.assign(0)
    return model


@FEW
@given(
    workers=st.sampled_from([0, 1, 3]),
    processes=st.booleans(),
    built=st.booleans(),
    shuffle=st.booleans(),
    count=st.integers(1, 20),
    more=st.integers(-2, 2),
    validates=st.booleans(),
)
@example(workers=3, processes=True, built=True, shuffle=True, count=18, more=1, validates=True)
@example(workers=1, processes=False, built=False, shuffle=False, count=4, more=0, validates=False)
def test_each_sample_of_a_sequence_once_a_pass(
    workers: int, processes: bool, built: bool, shuffle: bool, count: int, more: int, validates: bool
) -> None:
    rows = Varying(count, SIZE)
    length = len(rows)
    steps = None if more == 0 else max(1, length + more)
    model = model_for(built)
    fs.fit_generator(
        model, rows, steps, EPOCHS, 0, validation_data=Rows(8, SIZE) if validates else None, workers=workers,
        use_multiprocessing=processes, shuffle=shuffle,
    )  # fmt: skip
    passes, rest = divmod((steps or length) * EPOCHS, length)
    for number in range(passes):
        assert sorted(model.ids[number * count : (number + 1) * count]) == [*range(count)]
    over = Counter(model.ids[passes * count :])
    assert set(over.values()) <= {1}
    assert math.ceil(len(over) / SIZE) <= rest <= len(over)
    assert rows.ends == passes


@FEW
@given(
    workers=st.sampled_from([0, 1, 3]),
    processes=st.booleans(),
    built=st.booleans(),
    steps=st.integers(1, 5),
    validates=st.booleans(),
)
def test_each_sample_of_a_generator_once_in_order(
    workers: int, processes: bool, built: bool, steps: int, validates: bool
) -> None:
    model = model_for(built)
    generator = batches(rows=SIZE)
    fs.fit_generator(
        model, generator, steps, EPOCHS, 0, validation_data=batches(rows=SIZE) if validates else None,
        validation_steps=2 if validates else None, workers=workers, use_multiprocessing=processes,
    )  # fmt: skip
    assert model.ids == [*range(SIZE * steps * EPOCHS)]
    assert next(generator)[0][0, 0] == len(model.ids)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras has no steps_per_execution on PyTorch")
def test_several_steps_an_execution_are_refused_on_jax_and_keep_epochs_apart_on_tensorflow() -> None:
    model = recorder(steps_per_execution=2)
    if BACKEND == "jax":
        with pytest.raises(fs.PlanError, match="steps_per_execution=2"):
            fs.fit_generator(model, Rows(25), epochs=2, verbose=0)
    else:
        fs.fit_generator(model, Rows(25), epochs=2, verbose=0, shuffle=False)
        assert model.ids == [*range(25)] * 2
