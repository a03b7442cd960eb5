"""Labels: which values become which numbers, and which are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitstream.errors import PlanError, SourceError
from fitstream.sources.class_names import check_labelling
from fitstream.sources.labels import ClassEncoder, NumberEncoder


def blame(row, column, message):
    return SourceError(f"row {row}: {message}", column=column)


def encode(*pieces, mode="int", classes=None):
    encoder = ClassEncoder("label", mode, check_labelling(mode, classes), blame)
    for piece in pieces:
        encoder.extend([piece])
    return encoder.finish()


def numbers(*pieces, vector=False):
    """Encode pieces, each one list or array a column."""
    encoder = NumberEncoder([f"c{i}" for i in range(len(pieces[0]))], vector, blame)
    for piece in pieces:
        encoder.extend(piece)
    return encoder.finish().values


def values_of(*pieces, **options):
    return encode(*pieces, **options).values.tolist()


#: Text that is neither missing nor a number.
word = st.text(st.characters(exclude_categories=["Cs", "Nd"], exclude_characters="\0"), min_size=1).filter(
    lambda text: text.strip() not in ("", "nan", "NaN", "NAN")
)


@settings(deadline=None)
@given(st.lists(word, min_size=1), st.integers(1, 5))
def test_the_class_name_at_each_label_is_the_text_that_was_read(words, pieces):
    size = -(-len(words) // pieces)
    labels = encode(*(words[i : i + size] for i in range(0, len(words), size)))
    assert labels.class_names == sorted(set(words))
    assert [labels.class_names[label] for label in labels.values] == words
    assert labels.class_count == len(labels.class_names)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1), st.booleans())
def test_whole_numbers_stay_as_they_are_also_as_text(labels, as_text):
    found = encode([str(label) for label in labels] if as_text else labels)
    assert found.values.tolist() == labels
    assert found.values.dtype == np.int64
    assert found.class_names is None
    assert found.class_count == max(labels) + 1


@settings(deadline=None)
@given(st.lists(word, min_size=1, unique=True), st.data())
def test_classes_give_each_label_its_place(classes, data):
    words = data.draw(st.lists(st.sampled_from(classes), min_size=1))
    labels = encode(words, classes=classes)
    assert labels.values.tolist() == [classes.index(text) for text in words]
    assert labels.class_names == classes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", " 3 ", "+1"], [7, 3, 1]),
        (["3.0", "1e2"], [3, 100]),
        ([3.0, 1], [3, 1]),
        ([True, False], [1, 0]),
        (np.array([2, 0], np.uint8), [2, 0]),
        (np.array([2.0, 0.0], np.float32), [2, 0]),
        ([np.int64(2), np.float32(1), np.str_("3")], [2, 1, 3]),
    ],
)
def test_what_reads_as_a_whole_number_is_one(values, expected):
    assert values_of(values) == expected


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (["cat", "10", "9"], ["10", "9", "cat"], [2, 0, 1]),
        (["cat", 10, 2.0], ["10", "2", "cat"], [2, 0, 1]),
        (["None", "null", "inf"], ["None", "inf", "null"], [0, 2, 1]),
        (["a ", "a"], ["a", "a "], [1, 0]),
        (["1_000", "٣"], ["1_000", "٣"], [0, 1]),
    ],
)
def test_one_label_of_other_text_makes_all_text(values, names, expected):
    labels = encode(values)
    assert labels.class_names == names
    assert labels.values.tolist() == expected


@pytest.mark.parametrize("missing", [None, "", "  ", "nan", "NaN", float("nan"), np.float32("nan")])
@pytest.mark.parametrize("other", ["cat", 1])
def test_a_missing_label_is_an_error_that_names_the_row(missing, other):
    with pytest.raises(SourceError, match="row 3: the label is missing"):
        encode([other, other], [other, missing, missing])


def test_the_text_nan_may_be_a_class_that_is_named():
    assert values_of(["nan", "roti"], classes=["roti", "nan"]) == [1, 0]


@pytest.mark.parametrize("value", [[1, 2], (1, 2), {"a": 1}, b"cat", ([],), 1j])
def test_a_label_that_is_no_text_and_no_number_is_an_error(value):
    with pytest.raises(SourceError, match=f"row 1: the label is of type {type(value).__name__};"):
        encode(["cat", value])


@pytest.mark.parametrize("value", [-1, "-1", 0.5, "0.5", float("inf"), 2**63, "9" * 30, "9" * 5000])
def test_a_number_that_is_no_class_index_is_an_error_with_both_ways_out(value):
    with pytest.raises(SourceError, match=r'row 1: .*is not a class index.*label_mode="raw".* or classes=\['):
        encode([1, value])


def test_the_advice_for_negative_labels_lists_the_classes():
    with pytest.raises(SourceError, match=r"classes=\['-1', '1'\] if"):
        encode([1, -1])


def test_text_that_is_not_utf8_is_an_error():
    with pytest.raises(SourceError, match=r"row 1: .* is not valid UTF-8"):
        encode(["a", "caf\udce9"])


# The argument `classes`


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        ([0, 1, 0], ["no", "yes"], [0, 1, 0]),
        (["0", "1"], ["no", "yes"], [0, 1]),
        ([1, 2, 3], ["1", "2", "3"], [0, 1, 2]),
        ([1, 0], ["1", "0"], [0, 1]),
        ([7, 3], [3, 7], [1, 0]),
        (["-1", "1"], ["-1", "1"], [0, 1]),
        ([-1, 1], [-1, 1], [0, 1]),
        ([True, False], ["yes", "no"], [1, 0]),
        ([True, False], ["true", "false"], [0, 1]),
        ([True, False], ["True", "False"], [0, 1]),
        ([2.0, 1.0], ["2.0", "1.0"], [0, 1]),
        (["0.5", "1.5"], ["0.5", "1.5"], [0, 1]),
    ],
)
def test_labels_are_names_in_classes_or_else_places_in_it(values, classes, expected):
    assert values_of(values, classes=classes) == expected


@pytest.mark.parametrize(
    ("values", "classes", "label"),
    [
        (["cat", "cow"], ["cat", "dog"], "'cow'"),
        ([0, 2], ["no", "yes"], "2"),
        ([1, 0], ["1", "2"], "0"),
        ([0, -1], ["no", "yes"], "-1"),
    ],
)
def test_a_label_that_is_not_in_classes_is_an_error_that_names_it(values, classes, label):
    with pytest.raises(SourceError, match=rf"row 1: the label {label} is not in classes \('{classes[0]}', "):
        encode(values, classes=classes)


def test_a_label_close_to_a_class_is_recognised():
    with pytest.raises(SourceError, match="Did you mean 'giraffe'"):
        encode(["girafe"], classes=["ape", "giraffe"])


def test_many_classes_are_not_all_listed_in_the_error():
    with pytest.raises(SourceError, match=r"'c7', \.\.\. 1000 in all\)"):
        encode(["x"], classes=[f"c{i}" for i in range(1000)])


def test_classes_count_even_where_no_label_has_them():
    assert encode(["a"], classes=["a", "b", "c"], mode="categorical").class_count == 3


def test_categorical_without_classes_counts_to_the_largest_label():
    assert encode([0, 5], mode="categorical").class_count == 6


@pytest.mark.parametrize("mode", ["Int", "one-hot", "", 3])
def test_a_label_mode_that_is_unknown_is_refused(mode):
    with pytest.raises(PlanError, match=r"must be one of 'int', 'categorical', 'binary', 'raw' or None"):
        check_labelling(mode, None)


def test_binary_refuses_three_names_before_anything_is_read():
    with pytest.raises(PlanError, match=r"at most 2 classes, but classes= names 3"):
        check_labelling("binary", ["a", "b", "c"])


# Binary labels


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 1], [0, 1]), (["b", "a"], [1, 0]), ([True, True], [1, 1]), (["only"], [0])]
)
def test_binary_labels_are_0_and_1(values, expected):
    assert values_of(values, mode="binary") == expected


def test_binary_labels_that_are_not_0_and_1_are_an_error_with_the_classes_that_help():
    with pytest.raises(SourceError, match=r"row 1: .*but this is 2.*Name them with classes=\['1', '2'\]"):
        encode([1, 2], mode="binary")


def test_more_than_two_labels_are_not_binary():
    with pytest.raises(SourceError, match=r'row 2: .*there are 3 labels .*label_mode="int"'):
        encode(["a", "b", "c"], mode="binary")


# Numbers


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["1", " 2 "], np.int64),
        (["1", "2.5"], np.float32),
        (["9" * 30], np.float32),
        ([1, 2], np.int64),
        ([1, 0.5], np.float32),
        ([1, 2**70], np.float32),
        (["1", 2.5], np.float32),
        ([True, False], np.bool_),
        ([np.float64(1), np.float64(2)], np.float64),
        (np.array([1, 2], np.uint8), np.uint8),
        (np.array([1, 2], np.float64), np.float64),
        (np.array([1, 2], np.float16), np.float16),
    ],
)
def test_raw_labels_keep_a_typed_column_and_read_others_as_int64_or_float32(values, dtype):
    found = numbers([values])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(values, np.float64).astype(dtype))


def test_whole_and_other_numbers_in_different_pieces_are_float32():
    found = numbers([["1"]], [["2.5"]], [["3"]])
    assert found.dtype == np.float32
    assert found.tolist() == [1, 2.5, 3]


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_raw_text_reads_as_the_number_that_was_written(values):
    np.testing.assert_array_equal(numbers([[repr(value) for value in values]]), np.float32(values))


def test_several_columns_make_one_float32_vector():
    found = numbers([["1", "2"], np.array([0.5, 1.5])], [["3"], np.array([2.5])], vector=True)
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 0.5], [2, 1.5], [3, 2.5]]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["1", "x"], "'x' is not a number"),
        ([1, "x"], "'x' is not a number"),
        ([1, [2, 3]], r"\[2, 3\] is not a number"),
        ([0, [1]], r"\[1\] is not a number"),
        (["1", ""], "is missing"),
        ([1, None], "is missing"),
        ([1.0, float("nan")], "is missing"),
        (["1", "nan"], "is missing"),
        (np.array([1, np.nan]), "is missing"),
        (np.array([1, np.nan], np.float32), "is missing"),
        (np.array([1, np.inf]), "inf.* is not a finite float64"),
        (["1", "1e39"], "'1e39' is not a finite float32"),
        ([1, 10**400], "is not a number"),
    ],
)
def test_raw_labels_that_are_no_finite_numbers_are_an_error_that_names_the_row(values, reason):
    with pytest.raises(SourceError, match=f"row 3: the label .*{reason}"):
        numbers([[0, 0]], [values])


def test_the_error_in_one_of_several_columns_names_the_column():
    with pytest.raises(SourceError, match=r"row 1: .* 'x' is not a number") as caught:
        numbers([[1, 2], [1, "x"]], vector=True)
    assert caught.value.column == "c1"


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ({"dog": 1, "cat": 0}, r"not a dict\. Perhaps you mean classes=\['cat', 'dog'\]"),
        ({0: "cat", 1: "dog"}, r"not a dict\. Perhaps you mean classes=\['cat', 'dog'\]"),
        ({"dog", "cat"}, r"a set has no order\. Perhaps you mean classes=\['cat', 'dog'\]"),
        (61, r"classes=61 must be a list"),
        ([["cat"]], r"must be a list of names"),
    ],
)
def test_classes_without_an_order_of_their_own_are_refused(classes, told):
    with pytest.raises(PlanError, match=told):
        check_labelling("int", classes)


def test_classes_may_be_anything_that_can_be_gone_through_once():
    assert check_labelling("int", (name for name in ("b", "a"))) == ["b", "a"]
    assert check_labelling("categorical", range(3)) == ["0", "1", "2"]


def test_a_number_that_is_no_class_is_not_taken_for_a_name_that_is_like_it():
    encoder = ClassEncoder(
        "label", "int", [str(number) for number in range(61)], lambda row, column, told: SourceError(told)
    )
    encoder.extend([[0, 61]])
    with pytest.raises(SourceError) as caught:
        encoder.finish()
    assert "Did you mean" not in str(caught.value)
