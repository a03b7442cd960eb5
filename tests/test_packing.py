"""Raw samples through shared memory: what comes out is what went in."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fitstream.packing import TooBig, Unpackable, pack_samples, unpack_samples
from fitstream.spec import ALIGNMENT


def through(samples: list[Any], area_bytes: int = 1 << 20) -> list[Any]:
    area = np.full(area_bytes, 0xAA, np.uint8)
    pack_samples(samples, area)
    return unpack_samples(area)


def assert_same(got: Any, expected: Any) -> None:
    """Equal in structure, type, dtype, shape and every bit."""
    assert type(got) is type(expected)
    if isinstance(expected, (tuple, list)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert_same(list(got), list(expected))
        assert_same(list(got.values()), list(expected.values()))
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()
    elif isinstance(expected, (float, complex)):
        parts = [(each.real, each.imag) for each in (got, expected)]
        assert math.isnan(got.real) == math.isnan(expected.real)
        for one, other in zip(*parts, strict=True):
            assert (math.isnan(one) and math.isnan(other)) or struct.pack("d", one) == struct.pack("d", other)
    else:
        assert got == expected


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.unicode_string_dtypes(max_len=5),
    hnp.byte_string_dtypes(max_len=5),
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
VIEWS = st.one_of(ARRAYS, ARRAYS.map(np.transpose), ARRAYS.map(lambda a: a[..., ::-1] if a.ndim else a))
LEAVES = st.one_of(
    VIEWS,
    hnp.arrays(DTYPES, (1,)).map(lambda array: array[0]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | TEXT | st.binary(max_size=8),
)
TREES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(TEXT | st.integers(), children, max_size=3),
    ),
    max_leaves=8,
)


@given(st.lists(TREES, max_size=4))
def test_every_sample_comes_back_as_it_was(samples: list[Any]) -> None:
    assert_same(through(samples), samples)


@pytest.mark.parametrize(
    "sample",
    [
        math.nan,
        -math.inf,
        -0.0,
        1 << 20_000,
        -(2**63) - 1,
        "\ud83d\ude00",  # two lone surrogates, which are not the one character that they would be in UTF-16
        "\N{GRINNING FACE}\0",
        complex(math.nan, -0.0),
        b"\x00\xff\x00",
        np.str_("ends in a zero\0"),
        np.bytes_(b"\0a\0"),
        np.datetime64("NaT"),
        np.array(3.5),
        np.zeros((0, 3), ">f8"),
        np.arange(6, dtype=">i4"),
        {2: "b", 1: "a", "1": (), 2**70: []},
        ("a", [1, 2], {"i": "i"}),
    ],
    ids=lambda sample: type(sample).__name__,
)
def test_what_json_would_change_comes_back_as_it_was(sample: Any) -> None:
    with_neighbours = [(np.ones(3), sample, np.arange(2))]
    assert_same(through(with_neighbours), with_neighbours)


def test_not_a_numbers_keep_their_bits_in_arrays() -> None:
    array = np.array([0x7FF8000000000001, 0xFFF0000000000123], np.uint64).view(np.float64)
    assert through([array])[0].view(np.uint64).tolist() == array.view(np.uint64).tolist()


def test_rows_that_are_not_contiguous_come_back_equal() -> None:
    array = np.arange(60, dtype=np.int16).reshape(5, 12)[::2, 1::3]
    assert_same(through([array]), [array])


def test_rows_of_a_memmap_come_back_as_a_plain_array(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "rows", np.int32, "w+", shape=(4, 2))
    mapped[...] = np.arange(8).reshape(4, 2)
    assert_same(through([mapped[1:3]]), [np.array([[2, 3], [4, 5]], np.int32)])


def test_arrays_are_aligned_writable_views_of_the_area() -> None:
    memory = np.zeros(4096 + ALIGNMENT, np.uint8)
    area = memory[-memory.ctypes.data % ALIGNMENT :][:4096]
    pack_samples([(np.zeros(3, np.uint8), np.zeros(5))], area)
    for array in unpack_samples(area)[0]:
        assert array.ctypes.data % ALIGNMENT == 0
        assert np.shares_memory(array, area)
        assert array.flags.writeable


def test_too_little_room_says_how_much_suffices_and_writes_nothing() -> None:
    samples = [(np.arange(1000, dtype=np.float64), 1), (np.zeros((0, 2)), "é")]
    area = np.full(64, 7, np.uint8)
    with pytest.raises(TooBig) as caught:
        pack_samples(samples, area)
    assert (area == 7).all()
    assert_same(through(samples, caught.value.need_bytes), samples)
    with pytest.raises(TooBig):
        through(samples, caught.value.need_bytes - 1)


class Pair(NamedTuple):
    image: int
    label: int


def endless() -> list[Any]:
    sample: list[Any] = []
    sample.append(sample)
    return sample


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        (({"mask": object()}, 1), r"the sample's part \[0\]\['mask'\] is a object,"),
        (Pair(1, 2), r"the sample is a test_packing\.Pair,"),
        ((1, np.array([None])), r"part \[1\] is a numpy\.ndarray of dtype object,"),
        (np.zeros(2, [("x", "i4")]), "of dtype .*'x'"),
        (np.ma.masked_array([1, 2], [True, False]), r"the sample is a numpy\.ma.*MaskedArray of dtype int64,"),
        ([1, {"a": {1.5: 1}}], r"a key of the sample's part \[1\]\['a'\], 1\.5, is a float,"),
        ({True: 1}, r"a key of the sample, True, is a bool,"),
        ({"s": {1}}, r"part \['s'\] is a set,"),
        (endless(), r"nested more than 50 deep"),
    ],
    ids=["object", "subclass", "objects", "fields", "masked", "key", "bool-key", "set", "endless"],
)
def test_what_has_no_fixed_form_is_refused_with_its_place(sample: Any, told: str) -> None:
    area = np.full(4096, 7, np.uint8)
    with pytest.raises(Unpackable, match=told):
        pack_samples([1, sample], area)
    assert (area == 7).all()


def test_samples_as_deep_as_is_allowed_come_back() -> None:
    sample: Any = 1
    for _ in range(50):
        sample = (sample,)
    assert_same(through([sample]), [sample])
