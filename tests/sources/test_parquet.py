"""Rows of Parquet files by row group, and Arrow tables by from_sequence."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import fitstream as fs

ROWS = 1000


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def written(folder: Path, group_rows: int = 64, name: str = "t.parquet", first: int = 0, **more: Any) -> Path:
    i = np.arange(first, first + ROWS)
    columns = {
        "index": i,
        "x": (i % 7).astype(np.float32),
        "flag": i % 2 == 0,
        "fixed": pa.FixedSizeListArray.from_arrays(np.repeat(i, 3).astype(np.float32), 3),
        "list": [[float(n), n + 0.5] for n in i],
        "matrix": [[[n, n], [n, n + 1], [1, 2]] for n in i.tolist()],
        "ragged": [list(range(n % 4)) for n in i],
        "photo": [png(n % 200) for n in i],
        "kind": [["cat", "dog", "eel"][n % 3] for n in i],
        **more,
    }
    parquet.write_table(pa.table(columns), folder / name, row_group_size=group_rows)
    return folder / name


def batches(ds: fs.Dataset, **options: Any) -> list[Any]:
    with ds.loader(memory="128 MB", **options) as loader:
        return list(loader)


def test_columns_of_numbers_and_lists_are_arrays(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path), "index", "x", "flag", "fixed", "list", "matrix")
    assert len(ds) == ROWS
    assert repr(ds.spec) == "(int64(), float32(), bool(), float32(3), float64(2), int64(3, 2))"
    index, x, flag, fixed, pair, matrix = ds[777]
    assert (index, x, flag) == (777, 0, False)
    assert fixed.tolist() == [777] * 3
    assert pair.tolist() == [777, 777.5]
    assert matrix.tolist() == [[777, 777], [777, 778], [1, 2]]


def test_lists_of_varying_length_keep_theirs(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path), "ragged")
    assert [ds[i].tolist() for i in (3, 4, 5)] == [[0, 1, 2], [], [0]]


def test_one_name_gives_rows_and_a_dict_gives_dicts(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert fs.from_parquet(path, "index")[5] == 5
    assert fs.from_parquet(path, {"a": "index", "b": "x"})[5] == {"a": 5, "b": 5.0}


def test_pictures_are_decoded_and_text_becomes_classes(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path), "photo", "kind", classes=["cat", "dog", "eel"], image_size=4)
    image, label = ds[301]
    assert (image.shape, image[0, 0, 0], label) == ((4, 4, 3), 101, 1)
    assert ds.class_names == ["cat", "dog", "eel"]
    train, _ = ds.split(0.9, stratify=True)
    assert np.ptp(list(train.class_weights().values())) < 0.01


def test_pictures_as_hugging_face_stores_them_are_decoded(tmp_path: Path) -> None:
    photos = pa.array([{"bytes": png(n), "path": None} for n in range(10)])
    parquet.write_table(pa.table({"image": photos, "label": range(10)}), tmp_path / "h.parquet")
    image, label = fs.from_parquet(tmp_path / "h.parquet", "image", "label")[7]
    assert (image.shape, image[0, 0, 0], label) == ((6, 5, 3), 7, 7)


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "processes": 0}, {"workers": 2, "processes": 1}])
@pytest.mark.parametrize("within", [None, "chunks"])
def test_an_epoch_gives_each_row_once_whatever_the_lanes(within: Any, options: dict[str, Any], tmp_path: Path) -> None:
    paths = [written(tmp_path, 50), written(tmp_path, 64, "u.parquet", ROWS)]
    ds = fs.from_parquet(paths, "index", "fixed").shuffle(3, within=within).batch(48)
    found = batches(ds, **options)
    order = np.concatenate([index for index, _ in found])
    assert sorted(order.tolist()) == list(range(2 * ROWS))
    assert order.tolist() == ds._order().indices(0, np.arange(2 * ROWS)).tolist()
    assert all((fixed == index[:, None]).all() for index, fixed in found)


def test_shuffling_by_chunk_decodes_each_group_once_in_a_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitstream.sources.parquet_files import OpenedFile

    read: list[int] = []
    real = OpenedFile.pieces
    monkeypatch.setattr(OpenedFile, "pieces", lambda self, group, names: read.append(group) or real(self, group, names))
    ds = fs.from_parquet(written(tmp_path, 50), "index").shuffle(1, within="chunks", window_blocks=4).batch(16)
    with ds.loader(memory="64 MB", workers=0) as loader:
        read.clear()
        list(loader)
    assert len(read) <= 20 + 4  # a batch across two windows may drop a group too early


def test_decoding_a_row_group_takes_little_more_than_what_is_kept_of_it(tmp_path: Path) -> None:
    x = pa.FixedSizeListArray.from_arrays(
        np.random.default_rng(0).standard_normal(20_000 * 256).astype(np.float32), 256
    )
    parquet.write_table(pa.table({"x": x.cast(pa.list_(pa.float32()))}), tmp_path / "x.parquet")
    code = """if True:
        import sys
        import fitstream as fs
        import pyarrow as pa
        reader = fs.from_parquet(sys.argv[1], "x")._source.open()
        rows = [reader.read(index, None) for index in range(0, 20_000, 500)]
        print(pa.default_memory_pool().max_memory(), len(rows))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.parquet")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[0]) < 1.5 * 20_000 * 256 * 4


def test_a_window_of_more_row_groups_than_there_are_costs_no_more(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path, 500), "list")
    needed = [
        ds.shuffle(0, within="chunks", window_blocks=count).batch(8).plan(memory="500 MB", workers=1).projected_bytes
        for count in (1, 2, 500)
    ]
    assert needed[0] < needed[1] == needed[2]


def test_it_goes_on_from_a_state(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path), "index").shuffle(1, within="chunks").batch(64)
    whole = [batch.tolist() for batch in batches(ds, workers=0)]
    with ds.loader(memory="64 MB", workers=0) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with ds.loader(memory="64 MB", workers=2, processes=0) as loader:
        loader.load_state_dict(state)
        assert [batch.tolist() for batch in loader] == whole[1:]
    other = fs.from_parquet(written(tmp_path, 50), "index").shuffle(1, within="chunks").batch(64)
    with other.loader(memory="64 MB", workers=0) as loader:
        with pytest.raises(fs.StateError, match="row groups changed"):
            loader.load_state_dict(state)


def test_a_state_is_of_the_same_dataset_in_another_process(tmp_path: Path) -> None:
    code = """if True:
        import json, sys
        import fitstream as fs
        loader = fs.from_parquet(sys.argv[1], "index", "photo", "kind", classes=["cat", "dog", "eel"]).map(
            lambda index, photo, kind: (index, kind)).batch(100).loader(memory="64 MB", workers=0)
        json.loads(sys.argv[2]) and loader.load_state_dict(json.loads(sys.argv[2]))
        print(next(iter(loader))[0][0], json.dumps(loader.state_dict()), sep="\\n")
    """
    written(tmp_path)
    state = "{}"
    for first in ("0", "100"):
        command = [sys.executable, "-c", code, str(tmp_path / "t.parquet"), state]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found, state = done.stdout.splitlines()
        assert found == first


def test_pandas_is_not_imported_to_read(tmp_path: Path) -> None:
    code = """if True:
        import sys
        import fitstream as fs
        ds = fs.from_parquet(sys.argv[1], "index", "flag", "list", "ragged", "holes")
        source = ds._source.open()
        assert source.read(1, None)[4] == 1
        assert "pandas" not in sys.modules
    """
    path = written(tmp_path, holes=[None if n % 3 == 0 else float(n) for n in range(ROWS)])
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rows_of_an_arrow_table_are_read_in_workers_without_pandas(tmp_path: Path) -> None:
    def imported(row: dict[str, Any]) -> tuple[Any, bool]:
        return row["index"], "pandas" in sys.modules

    ds = fs.from_sequence(parquet.read_table(written(tmp_path), columns=["index"])).map(imported).batch(100)
    with ds.loader(memory="200 MB", workers=1, processes=1) as loader:
        assert not any(there.any() for _, there in loader)
        assert loader.stats().peak_bytes <= loader.stats().projected_bytes


def test_pieces_of_arrow_arrays_are_their_own_part(tmp_path: Path) -> None:
    table = parquet.read_table(written(tmp_path), columns=["index", "x", "flag", "fixed", "list", "ragged"])
    ds = fs.from_sequence(table.slice(501, 300))
    row = ds[5]
    assert (row["index"], row["x"], row["flag"]) == (506, 506 % 7, True)
    assert (row["fixed"].tolist(), row["list"].tolist(), row["ragged"].tolist()) == ([506] * 3, [506, 506.5], [0, 1])


# What is wrong.


@pytest.mark.parametrize(
    ("columns", "settings", "told"),
    [
        (["label"], {}, r"there is no column 'label'. Its 9 columns: 'index', 'x'"),
        (["kind"], {}, r"the column is text.*classes="),
        (["when"], {}, r"the column holds timestamp"),
    ],
)
def test_wrong_columns_are_told_with_file_and_column(
    columns: list[str], settings: dict[str, Any], told: str, tmp_path: Path
) -> None:
    more = {"when": pa.array([0] * ROWS, pa.timestamp("s"))} if columns == ["when"] else {}
    with pytest.raises(fs.SourceError, match=told) as caught:
        fs.from_parquet(written(tmp_path, **more), *columns, **settings)
    assert caught.value.file == str(tmp_path / "t.parquet")
    assert caught.value.column == columns[0]


def test_no_column_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(fs.PlanError, match=r"needs names of columns.*Its 9 columns"):
        fs.from_parquet(written(tmp_path))


def test_what_is_no_parquet_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(fs.SourceError, match="not readable as Parquet"):
        fs.from_parquet(tmp_path / "t.parquet", "x")
    with pytest.raises(fs.SourceError, match="does not exist"):
        fs.from_parquet(tmp_path / "u.parquet", "x")


def test_a_folder_is_told_how_to_name_its_files(tmp_path: Path) -> None:
    with pytest.raises(
        fs.SourceError, match=r"it is a folder\. Name the files in it, by a pattern such as '.*\*\.parquet'"
    ):
        fs.from_parquet(tmp_path, "x")


def test_files_that_differ_tell_in_which_column(tmp_path: Path) -> None:
    for name, columns in (("a", {"x": [1], "y": [1]}), ("b", {"x": [1.5], "z": [1]})):
        parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(fs.SourceError, match=r"b\.parquet: column 'x' holds double, and int64 in '.*a\.parquet'"):
        fs.from_parquet(paths, "x")
    with pytest.raises(
        fs.SourceError, match=r"b\.parquet: there is no column 'y', as there is in '.*a\.parquet'. Its 2"
    ):
        fs.from_parquet(paths, "y")


def test_a_damaged_page_is_told_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    options = {"write_page_checksum": True, "use_dictionary": False, "compression": "none"}
    parquet.write_table(pa.table({"x": np.arange(1000.0)}), path, **options)
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    with pytest.raises(fs.SampleError, match=r"x\.parquet.*row group 0 can't be read.*(?i:crc|checksum)"):
        list(fs.from_parquet(path, "x").batch(10).loader(memory="16 MB", workers=0))


def test_a_null_is_an_error_of_its_row_alone(tmp_path: Path) -> None:
    values = [[1.0, 2.0]] * 20
    values[7] = None  # type: ignore[call-overload]
    values[9] = [1.0, None]  # type: ignore[list-item]
    parquet.write_table(pa.table({"x": values}), tmp_path / "n.parquet")
    ds = fs.from_parquet(tmp_path / "n.parquet", "x")
    assert ds[8].tolist() == [1, 2]
    for index in (7, 9):
        with pytest.raises(fs.SampleError, match=r"its value is null") as caught:
            ds[index]
        assert caught.value.index == index


def test_a_label_out_of_range_is_told_with_its_row(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path), "x", "index", classes=["a", "b", "c"])
    assert ds[2][1] == 2
    with pytest.raises(fs.SampleError, match="the label 3 is not in classes") as caught:
        ds[3]
    assert caught.value.index == 3


def test_nan_is_told_with_row_and_part(tmp_path: Path) -> None:
    x = np.ones(ROWS)
    x[300] = np.nan
    ds = fs.from_parquet(written(tmp_path, odd=x), "index", "odd").batch(50)
    with pytest.raises(fs.SampleError, match=r"t\.parquet\) failed in read: its column 'odd' holds nan") as caught:
        batches(ds, workers=0)
    assert caught.value.index == 300
    allowed = fs.from_parquet(tmp_path / "t.parquet", "index", "odd", allow_nan=True).batch(50)
    assert len(batches(allowed, workers=0)) == 20


def test_row_groups_that_the_budget_cannot_hold_are_refused_before_they_are_read(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": np.zeros(4_000_000)}), tmp_path / "big.parquet", row_group_size=4_000_000)
    with pytest.raises(fs.PlanError, match=r"The plan needs 1\d\d MB"):
        fs.from_parquet(tmp_path / "big.parquet", "x").batch(8).plan(memory="60 MB")


def test_a_file_that_is_written_anew_meanwhile_is_refused(tmp_path: Path) -> None:
    ds = fs.from_parquet(written(tmp_path, 64), "index")
    os.utime(written(tmp_path, 64, first=1), ns=(1, 1))
    with pytest.raises(fs.SampleError, match="written anew since it was given"):
        ds[0]


def test_names_of_classes_that_repeat_are_held_once(tmp_path: Path) -> None:
    names = [f"a long name of the class of number {n:02d}" for n in range(38)]
    kind = [names[n % 38] for n in range(ROWS)]
    path = written(tmp_path, 250, kind=kind, category=pa.array(kind).dictionary_encode())
    for column in ("kind", "category"):
        ds = fs.from_parquet(path, "index", column, classes=names).shuffle(3).batch(32)
        for index, label in batches(ds, workers=2):
            assert (label == index % 38).all()


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (1.7, r"column 'label': the label 1\.7 is not in classes \('a', 'b'\)"),
        (np.nan, r"column 'label': the label nan is not in classes"),
        (2.0, r"the label 2\.0 is not in classes"),
        (-1, "the label -1 is not in classes"),
    ],
)
def test_a_number_that_is_no_index_of_a_class_is_refused(label: Any, told: str, tmp_path: Path) -> None:
    path = written(tmp_path, label=[label if n == 9 else type(label)(n % 2) for n in range(ROWS)])
    ds = fs.from_parquet(path, "index", "label", classes=["a", "b"])
    assert [ds[n][1] for n in range(4)] == [0, 1, 0, 1]
    with pytest.raises(fs.SampleError, match=told):
        ds[9]


@pytest.mark.parametrize("column", ["list", "photo"])
def test_classes_are_for_one_name_or_index_a_row(column: str, tmp_path: Path) -> None:
    with pytest.raises(fs.SourceError, match=r"classes= names what the last column holds") as caught:
        fs.from_parquet(written(tmp_path), "index", column, classes=["a", "b"])
    assert caught.value.column == column


def test_columns_inside_others_have_a_dotted_path(tmp_path: Path) -> None:
    boxes = [None if n == 5 else {"left": n, "size": {"both": [n, 2.0]}} for n in range(ROWS)]
    path = written(tmp_path, box=boxes)
    ds = fs.from_parquet(path, "index", "box.left", "box.size.both")
    assert ds[700][1] == 700
    assert ds[700][2].tolist() == [700, 2]
    with pytest.raises(fs.SampleError, match=r"t\.parquet\) failed in read: column 'box\.left': its value is null"):
        ds[5]
    with pytest.raises(fs.SourceError, match=r"there is no column 'box\.top'"):
        fs.from_parquet(path, "box.top")
    with pytest.raises(fs.SourceError, match=r"the column holds struct.*by a dotted path"):
        fs.from_parquet(path, "box")


def test_a_pattern_means_its_files_in_their_order(tmp_path: Path) -> None:
    for part in (2, 0, 1):
        written(tmp_path, name=f"part-{part}.parquet", first=part * ROWS)
    ds = fs.from_parquet(tmp_path / "part-*.parquet", "index")
    assert [ds[0], ds[ROWS], ds[3 * ROWS - 1]] == [0, ROWS, 3 * ROWS - 1]
    with pytest.raises(fs.SourceError, match="no file matches"):
        fs.from_parquet(tmp_path / "none-*.parquet", "index")
    for part in (9, 11):
        written(tmp_path, name=f"1-{part:03d}.parquet", first=part * ROWS)
    with pytest.raises(fs.SourceError, match=r"1-010\.parquet: the file does not exist"):
        fs.from_parquet(tmp_path / "1-{009..011}.parquet", "index")
    written(tmp_path, name="1-010.parquet", first=0)
    ds = fs.from_parquet(tmp_path / "1-{009..011}.parquet", "index")
    assert [ds[0], ds[ROWS], ds[2 * ROWS]] == [9 * ROWS, 0, 11 * ROWS]
    with pytest.raises(fs.SourceError, match=r"\{5\.\.2\} must rise"):
        fs.from_parquet("part-{5..2}.parquet", "index")


def test_labels_are_looked_up_only_where_the_last_column_is_one_number_a_row(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert fs.from_parquet(path, "index", "flag").class_weights() == {0: 1.0, 1: 1.0}
    for last in ("photo", "list"):
        with pytest.raises(fs.PlanError, match="known"):
            fs.from_parquet(path, "index", last).split(0.5, stratify=True)


def test_a_label_that_is_no_class_is_told_with_file_and_column_when_classes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(fs.SourceError, match=r"the label 'eel' is not in classes") as caught:
        fs.from_parquet(written(tmp_path), "index", "kind", classes=["cat", "dog"]).sample(10, balance=True)
    assert (caught.value.file, caught.value.column) == (str(tmp_path / "t.parquet"), "kind")


# Arrow tables.


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1, "processes": 1}])
def test_rows_of_an_arrow_table_are_dicts_of_arrays(options: dict[str, Any], tmp_path: Path) -> None:
    table = parquet.read_table(written(tmp_path), columns=["index", "fixed"])
    ds = fs.from_sequence(table).shuffle(0).batch(100)
    found = batches(ds, **options)
    assert sorted(np.concatenate([batch["index"] for batch in found]).tolist()) == list(range(ROWS))
    assert all((batch["fixed"] == batch["index"][:, None]).all() for batch in found)
