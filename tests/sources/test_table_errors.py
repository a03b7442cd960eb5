"""Wrong tables: the error says what is wrong, in which file, line and column, and what to do."""

import contextlib
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitstream.errors import SourceError
from fitstream.sources import columns
from fitstream.sources.table import read_table

#: Case -> file name, content, options, message.
MALFORMED = {
    "empty file": ("t.csv", "", {}, r"t\.csv: the table is empty"),
    "no rows": ("t.csv", "path,label\n", {}, r"t\.csv: the table has no rows"),
    "only blank lines": ("t.csv", "path,label\n\n\n", {}, r"t\.csv: the table has no rows"),
    "empty list": ("t.json", "[]", {}, r"t\.json: the table is empty"),
    "no lines": ("t.jsonl", "\n", {}, r"t\.jsonl: the table is empty"),
    "no column": (
        "t.csv",
        "path,y\na,1\n",
        {},
        r"t\.csv, line 1: there is no column 'label'. Its 2 columns: 'path', 'y'. Name",
    ),
    "close column": ("t.csv", "path, Label\na,1\n", {}, r"Did you mean label=' Label'\?"),
    "close image": ("t.csv", "paths,label\na,1\n", {}, r"Did you mean image='paths'\?"),
    "no header": ("t.csv", "x/a.jpg,0\nx/b.jpg,1\n", {}, "The first row looks like data"),
    "same header": ("t.csv", "path,label,label\na,1,2\n", {}, r"the column 'label' is there 2 times"),
    "semicolons": ("t.csv", "path;label\na;1\n", {}, r"no ',' but 1 times ';'.*sep=';'"),
    "tabs": ("t.csv", "path\tlabel\na\t1\n", {}, r"no ',' but 1 times '\\t'"),
    "commas in tsv": ("t.tsv", "path,label\na,1\n", {}, r"no '\\t' but 1 times ','"),
    "few fields": ("t.csv", "path,label\na,1\nb\n", {}, r"t\.csv, line 3: the row has 1 fields, the header 2"),
    "many fields": ("t.csv", "path,label\n\na,1\nb,2,3\n", {}, r"t\.csv, line 4: the row has 3 fields"),
    "after lines in a field": ("t.csv", 'path,label\n"a\nb",1\n"c\n",2\nx\n', {}, r"t\.csv, line 6: the row has 1 fi"),
    "open quote": (
        "t.csv",
        'path,label\na,1\n"b,1\nc,1\nd,1\n',
        {},
        r"t\.csv, line 3: the row is malformed: unexpected",
    ),
    "stray quote": (
        "t.csv",
        'path,label\na,1\n"b"x,1\nc,1\n',
        {},
        r"t\.csv, line 3: the row is malformed: ',' expected",
    ),
    "quote in header": ("t.csv", '"path"x,label\na,1\n', {}, r"t\.csv, line 1: the header is malformed"),
    "utf-16": ("t.csv", "path,label\na,1\n".encode("utf-16"), {}, r"t\.csv: the table is UTF-16.*Save it as UTF-8"),
    "no path": ("t.csv", "path,label\na,1\n,1\n", {}, r"t\.csv, line 3, column 'path': the path is empty"),
    "null path": ("t.json", '[{"path": null, "label": 1}]', {}, r"line 1, column 'path': the path is missing"),
    "zero byte": ("t.csv", "path,label\na\0b,1\n", {}, r"line 2, column 'path': .*zero byte"),
    "surrogate": ("t.json", r'[{"path": "\ud83d", "label": 1}]', {}, r"no file name can have"),
    "number as path": (
        "t.json",
        '[{"path": 3, "label": 1}]',
        {},
        r"line 1, column 'path': 3 is of type int, not a path",
    ),
    "no label": ("t.csv", "path,label\na,1\nb,\n", {}, r"t\.csv, line 3, column 'label': the label is missing"),
    "no raw label": (
        "t.csv",
        "path,label\na,1\nb,\n",
        {"label_mode": "raw"},
        r"line 3, column 'label': the label is mi",
    ),
    "label not in classes": (
        "t.csv",
        "path,label\na,x\nb,y\n",
        {"classes": ["x"]},
        r"line 3, column 'label': .*'y' is",
    ),
    "latin label": (
        "t.csv",
        "path,label\na,café\n".encode("latin-1"),
        {},
        r"line 2, column 'label': .*not valid UTF-8",
    ),
    "json syntax": (
        "t.json",
        '[{"path": "a",\n "label" 1}]',
        {},
        r"t\.json, line 2, column 10: not valid JSON: Expecting",
    ),
    "json lines as json": (
        "t.json",
        "{}\n{}\n",
        {},
        r"line 2, column 1: not valid JSON: Extra data.*name the file .jsonl",
    ),
    "json object": (
        "t.json",
        '{"info": 1, "images": []}',
        {},
        r"an object with the names \['info', 'images'\], not a list of objects.*json\.load\(file\)\['images'\]",
    ),
    "json objects by name": (
        "t.json",
        '{"a.jpg": {"path": "a.jpg", "label": 0}}',
        {},
        r"If each object in it is a row, pass list\(json\.load\(file\)\.values\(\)\).*pandas\.read_json",
    ),
    "json list of text": ("t.json", '["a"]', {}, r"t\.json: the first row is of type str, not an object"),
    "deep json": ("t.json", "[" * 100_000, {}, r"t\.json: the JSON is nested too deeply"),
    "json row without label": (
        "t.json",
        '[\n{"path": "a, [", "label": 1},\n\n{"path": "b"}]',
        {},
        r"t\.json, line 4, column 'label': it is missing; this row has \['path'\]",
    ),
    "json row of another kind": (
        "t.json",
        '[{"path": "a", "label": 1}, 5]',
        {},
        r"line 1: this is of type int, not an object",
    ),
    "jsonl syntax": (
        "t.jsonl",
        '{"path": "a", "label": 1}\n\n{"path"\n',
        {},
        r"t\.jsonl, line 3, column 8: not valid JSON",
    ),
    "jsonl label": (
        "t.jsonl",
        '{"path": "a", "label": 1}\n\n{"path": "b", "label": null}',
        {},
        r"line 3, column 'label'",
    ),
    "jsonl row": ("t.jsonl", '{"path": "a", "label": 1}\n[]\n', {}, r"line 2: this is of type list, not an object"),
    "duplicate header": ("t.csv", "\npath,label,label\na,1,2\n", {}, r"line 2, column 'label': .* is there 2 times"),
    "utf-16 with a mark": ("t.csv", "path,label\na,1\n".encode("utf-16"), {}, "UTF-16 or UTF-32 text"),
    "utf-16 without a mark": (
        "t.csv",
        "path,label\na,1\n".encode("utf-16-le"),
        {},
        "line 1: the first line holds zero",
    ),
    "utf-16 json": ("t.json", '[{"path": 1}]'.encode("utf-16-be"), {}, "line 1: the first line holds zero bytes"),
    "binary": ("t.csv", bytes(range(256)), {}, "line 1: the first line holds zero bytes"),
    "zero byte in a path": ("t.csv", "path,label\na,1\nb\0,1\n", {}, r"line 3, column 'path': .*zero byte"),
    "zero byte in a label": ("t.csv", "path,label\na,1\nb,1\0\n", {}, r"line 3, column 'label': .*zero byte"),
    "quote open over many rows": (
        "t.csv",
        'path,label\n"a,1\n' + "b,2\n" * 100_000,
        {},
        r"line 2: the row is malformed: a field is longer than 131,072 characters, perhaps because a quote",
    ),
    "huge number as text": (
        "t.csv",
        f"path,label\na,{'9' * 5000}\n",
        {},
        r"9\.\.\. \(5,002 characters\) is not a class",
    ),
    "huge number in json": ("t.json", f'[{{"path": "a", "label": {"9" * 5000}}}]', {}, "over 4,300 digits"),
    "huge number in jsonl": (
        "t.jsonl",
        f'{{"path": "a", "label": {"9" * 5000}}}',
        {},
        "line 1: not readable as JSON: a number",
    ),
    "name twice in json": ("t.json", '[{"path": "a", "path": "b"}]', {}, "column 'path': an object has the name twice"),
    "name twice in jsonl": (
        "t.jsonl",
        '{"path": "a", "label": 1}\n{"path": "b", "label": 1, "label": 2}',
        {},
        r"line 2, column 'label': an object has the name twice: \{'path': 'b', 'label': 2\}",
    ),
    "infinity in json": ("t.json", '[{"path": "a", "label": Infinity}]', {"label_mode": "raw"}, "inf is not a finite"),
    "cut-off jsonl": ("t.jsonl", '{"path": "a", "label": 1}\n{"path": "b", "la', {}, "line 2, column 15: not valid"),
    "zeros at the end of jsonl": ("t.jsonl", '{"path": "a", "label": 1}\n\0\0', {}, "line 2, column 1: not valid JSON"),
    "deep jsonl": ("t.jsonl", '{"path": "a", "label": 1}\n' + "[" * 100_000, {}, "line 2: the JSON is nested too deep"),
    "not parquet": ("t.parquet", "path,label\na,1\n", {}, r"t\.parquet: the table is not readable as Parquet"),
    "spreadsheet": ("t.xlsx", "", {}, r"'.xlsx' is not supported. Supported are .csv, .tsv, .json, .*pandas"),
    "no suffix": ("table", "", {}, r"without a suffix' is not supported"),
}


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("case", MALFORMED)
def test_a_wrong_table_is_an_error_that_says_what_and_where(tmp_path, case):
    name, content, options, message = MALFORMED[case]
    table = tmp_path / name
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=message):
        read_table(table, **options)


def test_the_error_of_a_row_has_file_line_and_column_as_attributes(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label\na,1\nb,-1\n")
    with pytest.raises(SourceError) as caught:
        read_table(table)
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(table), 3, "label")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "the table has no rows"),
        (np.zeros((0, 2)), "the table has no rows"),
        (pd.DataFrame({"path": [], "label": []}), "the table has no rows"),
        (pd.DataFrame(), "the table is empty"),
        (pd.DataFrame([["a", 1, 2]], columns=["path", "label", "label"]), "the column 'label' is there 2 times"),
        ([{"path": "a"}], "a list of dicts: there is no column 'label'"),
        ([{"path": "a", "label": 1}, {"path": "b"}], "row 1 of a list of dicts, column 'label': it is missing"),
        (
            pd.DataFrame({"path": ["a", "b"], "label": [1, None]}),
            "row 1 of a pandas.DataFrame, column 'label'.*missing",
        ),
        (pd.DataFrame({"path": ["a", None], "label": [1, 1]}), "row 1 of a pandas.DataFrame, column 'path'.*missing"),
        (
            pl.DataFrame({"path": ["a", "b"], "label": [1, None]}),
            "row 1 of a polars.DataFrame, column 'label'.*missing",
        ),
        (pa.table({"path": ["a", "b"], "label": [1, None]}), "row 1 of a pyarrow.Table, column 'label'.*missing"),
        (pd.DataFrame({"path": ["a"], "label": [pd.Timestamp(0)]}), "the label is of type Timestamp"),
        ([["a", 1], ["b"]], r"row 1 of a list of rows: \['b'\] is not a row of 2 cells"),
        ([["a", 1], "b1"], "row 1 of a list of rows: 'b1' is not a row"),
        ([["a"]], r"has paths only.*label=None"),
        (np.ones((3, 2)), r"row 0 of a 2-D array, column 'column 0': 1\.0 is of type float, not a path"),
        (["a.jpg"], r"a list of paths has paths only.*path_to_class="),
        (np.zeros(3), "type ndarray is not a table"),
        ({"path": ["a"]}, r"type dict is not a table. Supported are .csv, .*list of dicts"),
        (pl.LazyFrame({"path": ["a"]}), r"\.collect\(\)"),
    ],
)
def test_a_wrong_table_in_memory_is_an_error_that_says_what_and_where(table, message):
    with pytest.raises(SourceError, match=message):
        read_table(table)


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"t\.csv: the table does not exist"):
        read_table(tmp_path / "t.csv")


def test_a_folder_in_place_of_the_table_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="Use from_folder"):
        read_table(tmp_path)


def test_parquet_without_pyarrow_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": ["a"], "label": [1]}), table)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"fitstream\[parquet\]"):
        read_table(table)


def test_a_wrong_row_late_in_a_long_table_is_named_by_its_line(tmp_path):
    count = columns.CHUNK_ROWS * 2
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "a,1\n" * count + "a\n" + "a,1\n")
    with pytest.raises(SourceError) as caught:
        read_table(table)
    assert caught.value.line == count + 2


@pytest.mark.parametrize("label_mode", ["int", "raw"])
def test_a_label_that_python_cannot_write_is_named_by_its_bits(label_mode):
    with pytest.raises(SourceError, match="a number of 16,610 bits"):
        read_table([{"path": "a", "label": 10**5000}], label_mode=label_mode)


def test_a_parquet_file_with_any_byte_changed_is_read_or_an_error(tmp_path):
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": ["a", "b"], "label": [1, 2]}), table)
    whole = table.read_bytes()
    for place in range(0, len(whole), 5):
        table.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with contextlib.suppress(SourceError):
            read_table(table)


def test_a_parquet_file_cut_off_anywhere_is_an_error(tmp_path):
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": ["a", "b"], "label": [1, 2]}), table)
    whole = table.read_bytes()
    for place in range(0, len(whole), 50):
        table.write_bytes(whole[:place])
        with pytest.raises(SourceError, match="not readable as Parquet"):
            read_table(table)


@pytest.mark.parametrize("image", [3, None])
def test_a_column_that_is_no_text_is_looked_for_and_told(image, tmp_path):
    (tmp_path / "t.csv").write_text("path,label\na.jpg,1\n")
    with pytest.raises(SourceError, match=f"there is no column {image}. Its 2 columns: 'path', 'label'"):
        read_table(tmp_path / "t.csv", image=image)
