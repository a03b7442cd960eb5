from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from fitstream.legacy import GeneratorEnqueuer, OrderedEnqueuer


class Counted(keras.utils.PyDataset):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.passes = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 3), index), np.full((2, 1), self.passes)

    def on_epoch_end(self) -> None:
        self.passes += 1


class CountedByProperty(keras.utils.PyDataset):
    @property
    def num_batches(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 3), index), np.full((2, 1), index)


def taken(batches: Any, count: int) -> list[tuple[int, int]]:
    return [(int(x[0, 0]), int(y[0, 0])) for x, y in (next(batches) for _ in range(count))]


@pytest.mark.parametrize("use_multiprocessing", [False, True])
def test_a_dataset_of_keras_3_is_taken_as_a_sequence(use_multiprocessing: bool) -> None:
    enqueuer = OrderedEnqueuer(Counted(workers=3), use_multiprocessing)
    enqueuer.start(2, 4)
    assert taken(enqueuer.get(), 8) == [(place, number) for number in (0, 1) for place in range(4)]
    enqueuer.stop()


def test_a_dataset_of_keras_3_may_tell_its_length_by_num_batches() -> None:
    enqueuer = OrderedEnqueuer(CountedByProperty())
    enqueuer.start(2, 4)
    assert taken(enqueuer.get(), 6) == [(place, place) for place in (0, 1, 2, 3, 0, 1)]
    enqueuer.stop()


def test_batches_of_an_enqueuer_train_a_model() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    enqueuer = GeneratorEnqueuer((np.full((2, 3), 0.1), np.ones((2, 1))) for _ in range(5))
    enqueuer.start(1, 4)
    losses = [float(model.train_on_batch(x, y)) for x, y in enqueuer.get()]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
