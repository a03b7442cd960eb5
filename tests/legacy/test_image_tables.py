"""Pictures listed by a table: which rows count, and what becomes of their columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitstream.errors import PlanError
from fitstream.legacy.images import DataFrameIterator, ImageDataGenerator

MakePictures = Callable[..., Path]
Table = dict[str, list[Any]]


@pytest.fixture
def photos(tmp_path: Path, make_pictures: MakePictures) -> str:
    return str(make_pictures(tmp_path / "photos", count=3))


@pytest.fixture
def table() -> Table:
    return {
        "file": [f"{name}/{file}" for name in ("cats", "dogs") for file in ("000.png", "001.jpg", "002.jpg")],
        "kind": ["cat"] * 3 + ["dog"] * 3,
        "age": [1.5, 2, 3, 4, 5, 6],
        "legs": [4, 4, 3, 4, 4, 4],
        "weight": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        "tags": [["a"], ["b", "a"], ["c"], ["b"], ["c", "b"], ["a"]],
    }


def of(table: Any, photos: str, generator: ImageDataGenerator | None = None, **options: Any) -> DataFrameIterator:
    options = {"x_col": "file", "y_col": "kind", "target_size": (8, 8), "shuffle": False} | options
    return (generator or ImageDataGenerator()).flow_from_dataframe(table, photos, **options)


@pytest.mark.parametrize("class_mode", ["sparse", "binary"])
def test_text_becomes_the_number_of_its_class(
    table: Table, photos: str, class_mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    iterator = of(table, photos, class_mode=class_mode)
    assert capsys.readouterr().out == "Found 6 validated image filenames belonging to 2 classes.\n"
    assert iterator.class_indices == {"cat": 0, "dog": 1}
    assert iterator.classes == [0, 0, 0, 1, 1, 1]
    assert iterator[0][1].tolist() == [0, 0, 0, 1, 1, 1]


def test_several_classes_a_sample_become_a_row_of_ones(table: Table, photos: str) -> None:
    _, y = of(table, photos, y_col="tags")[0]
    assert y.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize("class_mode", ["raw", "other"])
def test_numbers_stay_as_they_are(table: Table, photos: str, class_mode: str) -> None:
    assert of(table, photos, y_col="age", class_mode=class_mode)[0][1].tolist() == [1.5, 2, 3, 4, 5, 6]
    _, y = of(table, photos, y_col=["age", "legs"], class_mode=class_mode)[0]
    assert y.shape == (6, 2)


def test_several_outputs_come_as_a_list(table: Table, photos: str) -> None:
    iterator = of(table, photos, y_col=["age", "legs"], class_mode="multi_output")
    _, y = iterator[0]
    assert isinstance(y, list)
    assert y[1].tolist() == table["legs"]
    _, y = iterator.as_dataset()[0]
    assert y[0].tolist() == table["age"]


def test_weights_are_handed_out(table: Table, photos: str) -> None:
    iterator = of(table, photos, weight_col="weight")
    assert iterator[0][2].tolist() == table["weight"]
    assert iterator.sample_weight is not None


def test_rows_without_a_picture_are_left_out_and_told(table: Table, photos: str) -> None:
    table["file"][1] = "cats/none.jpg"
    table["file"][4] = "dogs/notes.txt"
    with pytest.warns(UserWarning, match=r"2 of 6 paths .* 'cats/none\.jpg'"):
        iterator = of(table, photos, y_col="legs", class_mode="raw", weight_col="weight")
    assert iterator.filenames == ["cats/000.png", "cats/002.jpg", "dogs/000.png", "dogs/002.jpg"]
    assert iterator[0][1].tolist() == [4, 3, 4, 4]
    assert iterator[0][2].tolist() == [0.1, 0.3, 0.4, 0.6]


def test_without_validation_a_missing_file_fails_when_it_is_read(table: Table, photos: str) -> None:
    table["file"][1] = "cats/none.jpg"
    iterator = of(table, photos, validate_filenames=False, class_mode=None)
    assert iterator.samples == 6
    with pytest.raises(Exception, match=r"cats/none\.jpg"):
        iterator[0]


def test_classes_choose_rows_and_their_order(table: Table, photos: str) -> None:
    iterator = of(table, photos, y_col="tags", classes=["c", "b"])
    assert iterator.class_indices == {"c": 0, "b": 1}
    assert iterator[0][1].tolist() == [[0, 1], [1, 0], [0, 1], [1, 1]]


def test_subsets_are_the_first_and_the_last_rows(table: Table, photos: str) -> None:
    generator = ImageDataGenerator(validation_split=0.34)
    validation = of(table, photos, generator, subset="validation", class_mode="raw", y_col="legs")
    training = of(table, photos, generator, subset="training", class_mode="raw", y_col="legs")
    assert validation.filenames == ["cats/000.png", "cats/001.jpg"]
    assert training.filenames == ["cats/002.jpg", "dogs/000.png", "dogs/001.jpg", "dogs/002.jpg"]


def test_names_without_suffix_are_looked_up(photos: str) -> None:
    names = {"file": ["002", "000"], "kind": ["x", "y"]}
    assert of(names, f"{photos}/cats", has_ext=False).filenames == ["002.jpg", "000.png"]


def test_duplicates_are_dropped_where_asked(table: Table, photos: str) -> None:
    table["file"][1] = table["file"][0]
    assert of(table, photos).samples == 6
    assert of(table, photos, drop_duplicates=True).samples == 5


def test_paths_need_no_folder(table: Table, photos: str) -> None:
    table["file"] = [f"{photos}/{name}" for name in table["file"]]
    iterator = ImageDataGenerator().flow_from_dataframe(table, x_col="file", y_col="kind", target_size=(8, 8))
    assert iterator[0][0].shape == (6, 8, 8, 3)


def test_a_pandas_table_works_with_any_index(table: Table, photos: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table, index=list("uvwxyz"))
    assert np.array_equal(of(frame, photos)[0][1], of(table, photos)[0][1])
    assert of(frame[frame.legs == 4], photos, y_col=["age"], class_mode="raw").samples == 5


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"y_col": "age"}, TypeError, "must be text, or a list of texts"),
        ({"y_col": "age", "class_mode": "sparse"}, TypeError, "must be text"),
        ({"x_col": "age"}, TypeError, "x_col='age' must be text"),
        ({"class_mode": "multi_output"}, TypeError, "list of columns"),
        ({"weight_col": "kind"}, TypeError, "must hold numbers"),
        ({"x_col": "path"}, PlanError, "no column 'path'"),
        ({"y_col": "kind", "class_mode": "raw"}, PlanError, "numbers are needed"),
        ({"y_col": "file", "class_mode": "binary"}, PlanError, "2 classes"),
        ({"class_mode": "dense"}, PlanError, "class_mode"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(
    table: Table, photos: str, options: dict[str, Any], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told) as caught:
        of(table, photos, **options)
    assert isinstance(caught.value, PlanError)


def test_classes_that_do_nothing_are_warned_of(table: Table, photos: str) -> None:
    with pytest.warns(UserWarning, match="classes= does nothing"):
        of(table, photos, y_col="age", class_mode="raw", classes=["a"])
