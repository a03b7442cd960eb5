"""Class weights as sample weights: the arithmetic, without Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitstream import PlanError
from fitstream.adapters.class_weights import ClassWeights
from fitstream.spec import ArraySpec

X = np.zeros((4, 2), np.float32)
LABELS = np.array([0, 2, 1, 7])
WEIGHTS = {0: 0.5, 2: 3.0, 9: 8.0}
EXPECTED = [0.5, 3.0, 1.0, 1.0]


def specs(*parts: Any) -> Any:
    def spec(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: spec(child) for name, child in node.items()}
        return tuple(map(spec, node)) if isinstance(node, tuple) else ArraySpec((None, *node.shape[1:]), node.dtype)

    return tuple(spec(part) for part in parts)


@pytest.mark.parametrize(
    "y",
    [
        LABELS,
        LABELS.astype(np.uint8),
        LABELS.astype(np.float32) + 0.2,
        LABELS[:, None],
        LABELS[:, None].astype(np.float32),
        np.eye(8, dtype=np.float32)[LABELS],
        np.eye(8, dtype=np.int64)[LABELS],
    ],
    ids=["int64", "uint8", "float32", "column", "float column", "one-hot", "integer one-hot"],
)
def test_classes_are_read_as_keras_reads_them(y: Any) -> None:
    weigh = ClassWeights(WEIGHTS, specs(X, y))
    x, same, weights = weigh((X, y))
    assert x is X
    assert same is y
    assert weights.dtype == np.float32
    assert weights.tolist() == EXPECTED
    assert weigh.spec[2] == ArraySpec((None,), np.dtype(np.float32))


def test_classes_of_each_step_of_a_sequence_have_weights_of_their_own() -> None:
    y = np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]
    assert ClassWeights({1: 4.0}, specs(X, y))((X[:2], y))[2].tolist() == [[1, 4], [1, 1]]


@pytest.mark.parametrize("given", [np.array([2.0, 1, 0, 4]), np.array([2, 1, 0, 4])], ids=["float64", "int64"])
def test_sample_weights_are_multiplied(given: Any) -> None:
    weights = ClassWeights(WEIGHTS, specs(X, LABELS, given))((X, LABELS, given))[2]
    assert weights.dtype == np.float32
    assert weights.tolist() == [1.0, 3.0, 0.0, 4.0]


def test_sample_weights_with_more_axes_are_multiplied_row_by_row() -> None:
    given = np.array([[1.0, 2], [1, 2], [1, 2], [1, 2]], np.float32)
    weigh = ClassWeights(WEIGHTS, specs(X, LABELS, given))
    assert weigh((X, LABELS, given))[2].tolist() == [[0.5, 1], [3, 6], [1, 2], [1, 2]]
    assert weigh.spec[2] == ArraySpec((None, 2), np.dtype(np.float32))


def test_outputs_by_name_and_by_place_are_weighed_each_by_its_own() -> None:
    ones = [1.0] * 4
    named = {"a": LABELS, "b": LABELS[::-1]}
    assert _tolist(ClassWeights({"a": WEIGHTS}, specs(X, named))((X, named))[2]) == {"a": EXPECTED, "b": ones}
    placed = (LABELS, LABELS[::-1])
    assert _tolist(ClassWeights([None, WEIGHTS], specs(X, placed))((X, placed))[2]) == (ones, EXPECTED[::-1])
    by_name = ClassWeights({"b": WEIGHTS}, specs(X, placed), ["a", "b"])
    assert _tolist(by_name((X, placed))[2]) == (ones, EXPECTED[::-1])
    given = np.full(4, 2.0, np.float32)
    doubled = [2 * one for one in EXPECTED]
    weigh = ClassWeights({"a": WEIGHTS}, specs(X, named, given))
    assert _tolist(weigh((X, named, given))[2]) == {"a": doubled, "b": [2.0] * 4}
    assert weigh.spec[2]["b"] == ArraySpec((None,), np.dtype(np.float32))


def test_one_output_may_be_named_or_listed() -> None:
    for weights in ({"out": WEIGHTS}, [WEIGHTS]):
        assert ClassWeights(weights, specs(X, LABELS), ["out"])((X, LABELS))[2].tolist() == EXPECTED


NAMED = {"a": LABELS, "b": LABELS}


@pytest.mark.parametrize(
    ("weights", "parts", "message"),
    [
        (WEIGHTS, (X,), r"needs batches \(x, y\)"),
        ({"c": WEIGHTS}, (X, NAMED), "'c'.*'a', 'b'"),
        (WEIGHTS, (X, NAMED), "targets are a dict"),
        ([WEIGHTS], (X, (LABELS, LABELS)), "1 entries for 2 targets"),
        ({"a": WEIGHTS}, (X, (LABELS, LABELS)), "Give a list"),
        ({"a": WEIGHTS}, (X, LABELS), "names the outputs 'a'"),
        ({"cat": 2.0}, (X, LABELS), "not a dict of class to weight"),
        ([2.0], (X, LABELS), "not a dict of class to weight"),
        (np.array([1.0, 2.0]), (X, LABELS), r"not a dict of class to weight.*dict\(enumerate\(weights\)\)"),
    ],
)
def test_weights_that_do_not_match_the_targets_are_refused(weights: Any, parts: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        ClassWeights(weights, specs(*parts))


def _tolist(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _tolist(child) for name, child in tree.items()}
    return tuple(map(_tolist, tree)) if isinstance(tree, tuple) else tree.tolist()
