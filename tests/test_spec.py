"""Sizes as text, trees of samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitstream.errors import PlanError
from fitstream.spec import ALIGNMENT, ArraySpec, Layout, Structure, array_spec, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("512 MB", 512 * 10**6), ("1.5 GiB", 3 * 2**29), ("64MB", 64 * 10**6), ("100", 100), ("2kb", 2000), (7, 7)],
)
def test_sizes_are_read(text: int | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MB", "5 XB", "-5 MB", "0", 0, -1, True, 1.5, None, "1e3 MB"])
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(PlanError, match="memory="):
        parse_bytes(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1500, "1.5 kB"), (45_400_000, "45.4 MB"), (3.1e9, "3.1 GB"), (2e15, "2000 TB")]
)
def test_sizes_are_written_for_people(count: float, text: str) -> None:
    assert format_bytes(count) == text


trees = st.recursive(
    st.integers(0, 9),
    lambda node: st.one_of(
        st.lists(node, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), node, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@given(trees)
def test_a_tree_taken_apart_and_built_again_is_the_same(tree: object) -> None:
    structure = Structure(tree)
    assert structure.build(structure.flatten(tree)) == tree


@given(trees, trees)
def test_a_tree_of_another_structure_is_refused(tree: object, other: object) -> None:
    structure, second = Structure(tree), Structure(other)
    if structure.names == second.names:
        return
    with pytest.raises(TypeError, match="the sample"):
        structure.flatten(other)


def test_a_dict_in_another_order_is_the_same_sample() -> None:
    assert Structure({"a": 1, "b": 2}).flatten({"b": 4, "a": 3}) == [3, 4]


@pytest.mark.parametrize("leaf", ["text", None, object(), [[1], [1, 2]], np.array(["a"])])
def test_leaves_without_a_fixed_size_in_numbers_are_refused(leaf: object) -> None:
    with pytest.raises(TypeError):
        array_spec(leaf)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["u1", "f4", "f8", "i2"])), min_size=1, max_size=5),
    st.integers(1, 9),
)
def test_leaves_of_a_layout_are_aligned_and_do_not_overlap(kinds: list[tuple[int, str]], rows: int) -> None:
    layout = Layout([ArraySpec((length,), np.dtype(kind)) for length, kind in kinds], rows)
    memory = np.zeros(layout.slot_bytes + ALIGNMENT, np.uint8)
    root = memory[-memory.ctypes.data % ALIGNMENT :][: layout.slot_bytes]
    leaves = layout.leaves(root, rows)
    for number, leaf in enumerate(leaves):
        leaf[...] = number + 1
        assert leaf.size == 0 or leaf.ctypes.data % ALIGNMENT == 0
    assert all((leaf == number + 1).all() for number, leaf in enumerate(leaves))
