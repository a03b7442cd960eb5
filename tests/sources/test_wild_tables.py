"""Tables as people have them: nested columns, lists of labels, paths without labels, long JSON lists."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

import fitstream as fs
from fitstream.sources import json_text
from fitstream.sources.table import read_table

NESTED = [
    {"meta": {"文件": "叶/甲.jpg", "boxes": [{"class": "healthy"}]}, "disease.class": 3},
    {"meta": {"文件": "叶/乙.jpg", "boxes": [{"class": "rust"}]}, "disease.class": 60},
]


def kinds_of(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The same rows as every kind of table that can hold them."""
    (folder / "t.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    return {
        "json": folder / "t.json",
        "jsonl": folder / "t.jsonl",
        "parquet": folder / "t.parquet",
        "dicts": rows,
        "pandas": pd.DataFrame(rows),
        "arrow": pa.Table.from_pylist(rows),
    }


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "dicts", "pandas", "arrow"])
def test_dotted_paths_name_nested_columns(kind: str, tmp_path: Path) -> None:
    source = read_table(kinds_of(NESTED, tmp_path)[kind], image="meta.文件", label="meta.boxes.0.class", root=tmp_path)
    assert source.path(1) == str(tmp_path / "叶/乙.jpg")
    assert source.class_names == ["healthy", "rust"]


def test_a_column_whose_own_name_has_a_dot_comes_first(tmp_path: Path) -> None:
    source = read_table(NESTED, image="meta.文件", label="disease.class")
    labels = source.labels()
    assert labels is not None
    assert labels.tolist() == [3, 60]


def test_a_nested_name_that_is_missing_is_told_with_row_and_what_is_there(tmp_path: Path) -> None:
    rows = [*NESTED, {"meta": {"name": "x.jpg"}, "disease.class": 1}]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with pytest.raises(fs.SourceError, match=r"no '文件' in 'meta', which has the names 'name'") as caught:
        read_table(tmp_path / "t.jsonl", image="meta.文件", label="disease.class")
    assert caught.value.line == 3


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "dicts", "pandas", "arrow"])
def test_lists_of_numbers_become_one_vector(kind: str, tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "one_hot": [0, 1, 0]}, {"path": "b.jpg", "one_hot": [0, 0, 1]}]
    labels = read_table(kinds_of(rows, tmp_path)[kind], label="one_hot").labels()
    assert labels is not None
    assert labels.dtype == np.float32
    assert labels.tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [([1, 2], r"has 2 numbers, and the first one has 3"), (5, "is no list"), ([1, "x", 2], "is no finite number")],
)
def test_a_list_that_differs_is_told_with_its_row(wrong: Any, told: str) -> None:
    with pytest.raises(fs.SourceError, match=f"row 1 .*{told}"):
        read_table([{"path": "a", "label": [0, 1, 0]}, {"path": "b", "label": wrong}])


def test_classes_with_lists_of_numbers_are_refused() -> None:
    with pytest.raises(fs.PlanError, match="classes= is for one class a sample, but a list"):
        read_table([{"path": "a", "label": [0, 1]}], classes=["x", "y"])


# Classes from paths.


def test_a_list_of_paths_gets_classes_from_a_function() -> None:
    source = read_table(["cat.1.jpg", Path("dog.2.jpg")], path_to_class=lambda path: path.split(".")[0])
    assert source.class_names == ["cat", "dog"]
    assert source.path(1).endswith("/dog.2.jpg")


def test_a_frame_without_labels_gets_classes_from_a_function() -> None:
    frame = pd.DataFrame({"file": ["x_1.png", "x_0.png"]})
    ds = fs.from_table(frame, image="file", path_to_class=lambda path: int(path[2]), label_mode="categorical")
    assert ds._source.labels().tolist() == [1, 0]  # type: ignore[union-attr]


def test_a_function_that_fails_is_told_with_row_and_path() -> None:
    with pytest.raises(fs.SourceError, match=r"row 1 of a list of paths.*path_to_class\('b'\) failed with IndexError"):
        read_table(["a_1", "b"], path_to_class=lambda path: path.split("_")[1])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path_to_class": "x"}, "must be a function"),
        ({"path_to_class": len, "label": "kind"}, "label='kind' contradicts it"),
        ({"path_to_class": len, "label_mode": None}, "label_mode=None contradicts it"),
    ],
)
def test_what_contradicts_path_to_class_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(fs.PlanError, match=told):
        read_table(["a"], **settings)


def test_paths_alone_need_classes_or_no_label() -> None:
    with pytest.raises(fs.SourceError, match=r"has paths only.*path_to_class="):
        read_table(["a.jpg"])
    assert len(fs.from_table(["a.jpg"], label=None)) == 1


# Long JSON lists.


def test_a_long_json_list_is_never_held_as_a_whole(tmp_path: Path) -> None:
    rows = [{"disease_class": i % 61, "image_id": f"番茄叶霉病_一般_{i:06d}.jpg"} for i in range(40_000)]
    (tmp_path / "t.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    json_bytes = (tmp_path / "t.json").stat().st_size
    tracemalloc.start()
    source = read_table(tmp_path / "t.json", image="image_id", label="disease_class")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.path(39_999).endswith("番茄叶霉病_一般_039999.jpg")
    assert source._class_count == 61
    assert peak < 3.5 * json_bytes  # as objects it is nine times as large


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("piece", [1, 7, 64])
def test_json_lists_are_read_alike_in_pieces_of_any_length(
    piece: int, indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fitstream.sources.json_text._PIECE_CHARACTERS", piece)
    rows = [{"path": f"{i}}},{{.jpg", "label": i, "deep": [{"a": 1}, {"b": [i]}]} for i in range(20)]
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    source = read_table(tmp_path / "t.json", label="deep.1.b.0")
    labels = source.labels()
    assert labels is not None
    assert labels.tolist() == list(range(20))
    assert source.path(3).endswith("3},{.jpg")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"path": "a", "label": 0},]', "not valid JSON"),
        ('[{"path": "a", "label": 0} {"path": "b", "label": 1}]', "not valid JSON"),
        ('[{"path": "a", "label": 0}', "not valid JSON"),
        ('[{"path": "a", "label": 0}]]', "Extra data"),
        ('{"images": []}', "an object with the names"),
        ("", "not valid JSON"),
    ],
)
def test_json_that_is_no_list_of_objects_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(fs.SourceError, match=told):
        read_table(tmp_path / "t.json")


def test_a_label_that_is_out_of_range_is_told_with_line_and_classes(tmp_path: Path) -> None:
    rows = [{"path": "a", "label": 0}, {"path": "b", "label": 61}]
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=1))
    with pytest.raises(fs.SourceError, match="the label 61 is not in classes") as caught:
        read_table(tmp_path / "t.json", classes=[f"class {i}" for i in range(61)])
    assert caught.value.line == 6


@pytest.mark.parametrize(
    "given",
    [
        pd.Series(["a/1.jpg", "b/2.jpg"]),
        np.array(["a/1.jpg", "b/2.jpg"]),
        np.array(["a/1.jpg", "b/2.jpg"], np.dtypes.StringDType()),
    ],
    ids=["pandas", "numpy", "numpy of any length"],
)
def test_a_column_of_paths_is_a_list_of_paths(given: Any) -> None:
    source = read_table(given, path_to_class=lambda path: path[0])
    assert source.class_names == ["a", "b"]
    assert len(source) == 2


def test_columns_of_a_frame_may_be_named_by_numbers() -> None:
    frame = pd.DataFrame([["a.jpg", 3, 0.5], ["b.jpg", 5, 1.5]])
    one, two = read_table(frame, image=0, label=1).labels(), read_table(frame, image=0, label=[1, 2]).labels()
    assert one is not None
    assert one.tolist() == [3, 5]
    assert two is not None
    assert two.tolist() == [[3, 0.5], [5, 1.5]]


def nested_list(path: Path, count: int) -> Path:
    rows = [
        {"image": {"file": f"a/{number:060d}.jpg"}, "boxes": [{"at": [1, 2, 3, 4], "class": {"name": number % 61}}]}
        for number in range(count)
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_objects_with_others_inside_are_decoded_many_by_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = []
    decode = json_text._Text._value
    monkeypatch.setattr(json_text._Text, "_value", lambda self: (alone.append(1), decode(self))[1])
    labels = read_table(nested_list(tmp_path / "t.json", 5000), image="image.file", label="boxes.0.class.name").labels()
    assert labels is not None
    assert labels.tolist() == [number % 61 for number in range(5000)]
    assert len(alone) < 20


def test_a_list_whose_objects_begin_with_differing_names_is_read(tmp_path: Path) -> None:
    rows = [{"path": f"{n}.jpg", "label": n} if n % 3 else {"label": n, "path": f"{n}.jpg"} for n in range(9000)]
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    labels = read_table(tmp_path / "t.json").labels()
    assert labels is not None
    assert labels.tolist() == list(range(9000))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_what_a_nested_list_leaves_behind_is_its_index(tmp_path: Path) -> None:
    path, small = nested_list(tmp_path / "t.json", 40_000), nested_list(tmp_path / "small.json", 40)
    code = """if True:
        import sys
        import fitstream as fs
        def own_bytes():
            fields = open("/proc/self/statm").read().split()
            return int(fields[1]) * 4096
        fs.from_table(sys.argv[2], image="image.file", label="boxes.0.class.name")  # imports what it takes
        before = own_bytes()
        ds = fs.from_table(sys.argv[1], image="image.file", label="boxes.0.class.name")
        print(own_bytes() - before)
    """
    done = subprocess.run([sys.executable, "-c", code, path, small], capture_output=True, text=True, check=True)
    # 3.4 MB are the index. Pieces of more rows left 15 MB of holes in the heap.
    assert int(done.stdout) < 12_000_000


def test_lists_of_labels_are_held_once(tmp_path: Path) -> None:
    rows = [{"path": "a.jpg", "label": [0.0] * 200} for _ in range(8000)]
    tracemalloc.start()
    labels = read_table(rows, label="label").labels()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels is not None
    assert peak < 2.5 * labels.nbytes


def test_lists_of_numbers_may_be_text_in_a_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('path,label\na.jpg,"[0, 1, 0]"\nb.jpg,"[0.5, 0, 0]"\n')
    labels = read_table(tmp_path / "t.csv").labels()
    assert labels is not None
    assert labels.tolist() == [[0, 1, 0], [0.5, 0, 0]]
    (tmp_path / "t.csv").write_text('path,label\na.jpg,"[0, 1, 0]"\nb.jpg,"[0, 1]"\n')
    with pytest.raises(fs.SourceError, match=r"line 3.*\[0, 1\] has 2 numbers, and the first one has 3"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("names", [["[a]", "[b]"], ["[1]", "[2]"], ["[", "[1,"]])
def test_other_text_in_brackets_is_a_name(names: list[str]) -> None:
    assert read_table([["a.jpg", names[0]], ["b.jpg", names[1]]]).class_names == names
    assert read_table([["a.jpg", "[1, 2]"]], classes=["[1, 2]"]).class_names == ["[1, 2]"]


def test_an_empty_list_is_no_label() -> None:
    with pytest.raises(fs.SourceError, match=r"row 0 .*the label is an empty list"):
        read_table([{"path": "a.jpg", "label": []}])
