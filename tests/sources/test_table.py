"""Tables: every kind reads alike, and no path leaves a root that was given."""

import csv
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitstream.errors import PlanError, SourceError
from fitstream.scratch import Allowance, Arena
from fitstream.sources import columns
from fitstream.sources.table import read_table

PATHS = ["a.jpg", "b/c d.jpg", "b/猫.jpg"]
NAMES = ["dog", "cat", "dog"]
RECORDS = [{"path": path, "label": name} for path, name in zip(PATHS, NAMES, strict=True)]


def paths_of(source, folder="/"):
    return [os.path.relpath(source.path(i), folder) for i in range(len(source))]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _csv(folder):
    return write(folder / "t.csv", "path,label\n" + "".join(f"{r['path']},{r['label']}\n" for r in RECORDS))


def _tsv(folder):
    return write(folder / "t.tsv", "label\tpath\n" + "".join(f"{r['label']}\t{r['path']}\n" for r in RECORDS))


def _json(folder):
    return write(folder / "t.json", json.dumps(RECORDS))


def _jsonl(folder):
    return write(folder / "t.jsonl", "\n".join(json.dumps(record) for record in RECORDS))


def _ndjson(folder):
    return write(folder / "t.NDJSON", "\n\n".join(json.dumps(record) for record in RECORDS) + "\n")


def _parquet(folder):
    pq.write_table(pa.Table.from_pylist(RECORDS), folder / "t.parquet")
    return folder / "t.parquet"


def _rows(folder):
    return [[folder / path, name] for path, name in zip(PATHS, NAMES, strict=True)]


def _array(folder):
    return np.array([[str(path), name] for path, name in _rows(folder)])


def _absolute(folder):
    return [{"path": str(folder / record["path"]), "label": record["label"]} for record in RECORDS]


TABLES = {
    "csv": _csv,
    "tsv": _tsv,
    "json": _json,
    "jsonl": _jsonl,
    "ndjson": _ndjson,
    "parquet": _parquet,
    "rows": _rows,
    "tuples": lambda folder: [tuple(row) for row in _rows(folder)],
    "array": _array,
    "objects": lambda folder: _array(folder).astype(object),
    "dicts": _absolute,
    "pandas": lambda folder: pd.DataFrame(_absolute(folder)),
    "pandas categories": lambda folder: pd.DataFrame(_absolute(folder)).astype({"label": "category"}),
    "pandas with an index": lambda folder: pd.DataFrame(_absolute(folder)).set_index(pd.Index([7, 7, 9])),
    "polars": lambda folder: pl.DataFrame(_absolute(folder)),
    "pyarrow": lambda folder: pa.Table.from_pylist(_absolute(folder)),
    "record batch": lambda folder: pa.RecordBatch.from_pylist(_absolute(folder)),
}


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize("kind", TABLES)
def test_every_kind_of_table_gives_the_same_samples(tmp_path, kind):
    source = read_table(TABLES[kind](tmp_path))
    assert paths_of(source, tmp_path) == PATHS
    assert source.labels().tolist() == [1, 0, 1]
    assert source.class_names == ["cat", "dog"]


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize(
    "make",
    [
        lambda records: records,
        pd.DataFrame,
        pl.DataFrame,
        pa.Table.from_pylist,
        lambda records: pd.DataFrame(records).convert_dtypes(),
    ],
    ids=["dicts", "pandas", "polars", "pyarrow", "pandas nullable"],
)
def test_typed_columns_of_numbers_are_read(make):
    table = make([{"path": "a", "label": i, "x": i / 2} for i in range(5)])
    assert read_table(table).labels().tolist() == [0, 1, 2, 3, 4]
    assert read_table(table, label=["label", "x"]).labels().tolist() == [[i, i / 2] for i in range(5)]
    assert read_table(table, label="x", label_mode="raw").labels().tolist() == [0, 0.5, 1, 1.5, 2]


def test_parquet_keeps_the_dtype_of_raw_labels(tmp_path):
    pq.write_table(pa.table({"path": ["a"], "label": pa.array([1.5], pa.float64())}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", label_mode="raw").labels().dtype == np.float64


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@settings(deadline=None)
@given(st.lists(st.tuples(cell, cell.filter(lambda text: text.strip().lower() not in ("", "nan"))), min_size=1))
def test_any_text_that_csv_writes_is_read_back(tmp_path_factory, rows):
    table = tmp_path_factory.mktemp("csv") / "t.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label"), *rows, ("last", "no number")])
    source = read_table(table)
    assert [os.fsencode(source.path(i)) for i in range(len(rows))] == [
        os.path.join(os.fsencode(table.parent), path.encode()) for path, _ in rows
    ]
    assert [source.class_names[label] for label in source.labels()[:-1]] == [label for _, label in rows]


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1).filter(lambda path: not set(path) & set(b'\0\r\n,"')), min_size=1))
def test_a_table_lists_names_that_are_not_text(tmp_path_factory, names):
    table = write(tmp_path_factory.mktemp("csv") / "t.csv", b"path,label\n" + b"".join(n + b",1\n" for n in names))
    source = read_table(table)
    assert [os.fsencode(source.path(i)) for i in range(len(names))] == [
        os.path.join(os.fsencode(table.parent), name) for name in names
    ]


@pytest.mark.parametrize(
    "text",
    [b"\xef\xbb\xbfpath,label\r\na,1\r\nb,2\r\n", b"\n\npath,label\n\na,1\n\n\nb,2\n\n", b"path,label\ra,1\rb,2"],
)
def test_marks_line_ends_and_blank_lines_of_other_programs_are_understood(tmp_path, text):
    source = read_table(write(tmp_path / "t.csv", text))
    assert paths_of(source, tmp_path) == ["a", "b"]
    assert source.labels().tolist() == [1, 2]


def test_other_columns_do_not_matter(tmp_path):
    source = read_table(write(tmp_path / "t.csv", "x,file,y,,kind,\n1,a,,,5,\n"), image="file", label="kind")
    assert paths_of(source, tmp_path) == ["a"]
    assert source.labels().tolist() == [5]


@pytest.mark.parametrize("options", [{"label_mode": None}, {"label": None}])
@pytest.mark.parametrize("table", [[{"path": "a"}], [["a"]], [["a", "not a label"]]])
def test_a_table_without_labels_gives_paths_alone(table, options):
    source = read_table(table, **options)
    assert source.labels() is None
    assert source.class_names is None


def test_rows_with_several_labels_make_a_vector():
    labels = read_table([["a", 1, 0.5], ["b", 2, 1.5]]).labels()
    assert labels.dtype == np.float32
    assert labels.tolist() == [[1, 0.5], [2, 1.5]]


def test_one_column_in_a_list_is_a_vector_of_one():
    assert read_table([{"path": "a", "x": 2}], label=["x"]).labels().tolist() == [[2]]


@pytest.mark.parametrize("options", [{"label_mode": "categorical"}, {"label_mode": "binary"}, {"classes": ["a"]}])
def test_several_label_columns_are_no_classes(options):
    with pytest.raises(PlanError, match="is for one class a sample, but 2 columns"):
        read_table([["a", 1, 2]], **options)


@pytest.mark.parametrize("label", ["", [], ["x", "x"], [1], 3])
def test_a_label_that_is_no_list_of_columns_is_refused(label):
    with pytest.raises((PlanError, SourceError), match=r"label=.* must be a column|no column ''"):
        read_table([{"path": "a", "x": 1}], label=label)


def test_categorical_labels_are_made_when_they_are_read(tmp_path):
    write(tmp_path / "a.jpg", "1")
    source = read_table([[str(tmp_path / "a.jpg"), 2]], label_mode="categorical")
    _, label = source.open().read(0, Arena(Allowance(1000, 0, 1000)))
    assert label.tolist() == [0, 0, 1]


# Where paths start, and the root that they do not leave


def test_paths_in_a_file_start_at_its_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data/t.csv", "path,label\n../x/a.jpg,1\n")
    monkeypatch.chdir(tmp_path)
    source = read_table("data/t.csv")
    monkeypatch.chdir("/")
    assert os.path.normpath(source.path(0)) == str(tmp_path / "x/a.jpg")


def test_paths_in_memory_start_at_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = read_table([["a.jpg", 1]])
    monkeypatch.chdir("/")
    assert source.path(0) == str(tmp_path / "a.jpg")


def test_paths_start_at_the_root_that_is_given(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    assert read_table(_csv(tmp_path), root=root).path(0) == str(root / "a.jpg")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "rootless").mkdir()
    (tmp_path / "root/out").symlink_to(tmp_path)
    return tmp_path / "root"


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "/a.jpg", "../a.jpg", "sub/../../a.jpg", "../rootless/a.jpg", "out/a.jpg", "out/x/y/a.jpg"],
)
def test_a_path_that_leaves_the_root_is_an_error(root, path):
    table = write(root / "t.csv", f"path,label\nsub/ok.jpg,1\n{path},1\n")
    with pytest.raises(SourceError, match=r"t\.csv, line 3, column 'path': .* leaves root .*allow_outside=True"):
        read_table(table, root=root)
    assert len(read_table(table, root=root, allow_outside=True)) == 2
    assert len(read_table(table)) == 2


@pytest.mark.parametrize(
    "path", ["a.jpg", "sub/../a.jpg", "./sub//a.jpg", "..a/b.jpg", "missing/a.jpg", "{root}/sub/a.jpg"]
)
def test_a_path_inside_the_root_is_taken(root, path):
    assert len(read_table([[path.format(root=root), 1]], root=root)) == 1


def test_a_root_that_is_itself_a_link_holds_its_paths(tmp_path, root):
    (tmp_path / "link").symlink_to(root)
    assert len(read_table([["sub/a.jpg", 1]], root=tmp_path / "link")) == 1


def test_a_linked_file_that_leaves_the_root_is_refused_when_it_is_read(tmp_path, root):
    write(tmp_path / "secret", "1")
    (root / "a.jpg").symlink_to(tmp_path / "secret")
    arena = Arena(Allowance(1000, 0, 1000))
    with pytest.raises(SourceError, match=r"symbolic link to .* outside root"):
        read_table([["a.jpg", 1]], root=root).open().read(0, arena)
    image, _ = read_table([["a.jpg", 1]], root=root, allow_outside=True).open().read(0, arena)
    assert bytes(image) == b"1"


@pytest.mark.parametrize(("name", "reason"), [("nothing", "does not exist"), ("t.csv", "is not a folder")])
def test_a_root_that_is_no_folder_is_an_error(tmp_path, name, reason):
    with pytest.raises(SourceError, match=f"root=.*{reason}"):
        read_table(_csv(tmp_path), root=tmp_path / name)


def test_a_long_table_is_read_without_being_held(tmp_path):
    count = 30_000
    table = write(tmp_path / "t.csv", "path,label\n" + "".join(f"folder/{i:036d}.jpg,{i % 9}\n" for i in range(count)))
    tracemalloc.start()
    source = read_table(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.index_bytes / count < 65
    # Rows held as lists of text would take over 200 bytes each.
    assert peak / count < 120 + columns.CHUNK_ROWS * 300 / count


def test_reading_a_table_imports_no_frame_library(tmp_path):
    code = (
        "import sys; from fitstream.sources.table import read_table; read_table(sys.argv[1]); "
        "print({'pandas', 'polars', 'pyarrow', 'cv2', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, _csv(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
