"""WebDataset tars: indexed once, read where they lie, and refused where they are no data set."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fitstream as fs
from fitstream.sources import tar_index

COUNT = 300


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FITSTREAM_CACHE", str(tmp_path / "cache"))


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((6, 5, 3), value % 256, np.uint8)).save(out, "PNG")
    return out.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def written(folder: Path, name: str = "a.tar", first: int = 0, count: int = COUNT, **options: Any) -> Path:
    with tarfile.open(folder / name, "w", **options) as tar:
        for n in range(first, first + count):
            add(tar, f"set/样本{n:05d}.png", png(n))
            add(tar, f"set/样本{n:05d}.cls", b"%d\n" % (n % 7))
            add(tar, f"set/样本{n:05d}.vec.npy", npy(np.full(3, n, np.float32)))
            add(tar, f"set/样本{n:05d}.txt", b"text %d" % n)
    return folder / name


def test_parts_are_chosen_by_ending(tmp_path: Path) -> None:
    ds = fs.from_webdataset(written(tmp_path), "jpg;png", "cls", "vec.npy", image_size=4)
    assert len(ds) == COUNT
    image, label, vector = ds[123]
    assert (image.shape, image[0, 0, 0], label, vector.tolist()) == ((4, 4, 3), 123, 4, [123] * 3)
    assert fs.from_webdataset(tmp_path / "a.tar", ("png", "cls"), image_size=4)[123][1] == 4
    assert fs.from_webdataset(tmp_path / "a.tar", "txt").map(lambda text: np.int64(text.split()[1]))[5] == 5


def test_labels_are_known_without_reading_pictures(tmp_path: Path) -> None:
    ds = fs.from_webdataset(written(tmp_path), "png", "cls", classes=[f"kind {i}" for i in range(7)])
    train, _ = ds.split(0.8, stratify=True)
    assert sorted(train.class_weights()) == list(range(7))
    assert ds.class_names == [f"kind {i}" for i in range(7)]


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 2, "processes": 0}, {"workers": 2, "processes": 1}])
def test_an_epoch_by_chunks_gives_each_sample_once_whatever_the_lanes(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fitstream.sources.tars._BLOCK_SAMPLES", 50)
    tars = [written(tmp_path), written(tmp_path, "b.tar", COUNT, 210)]
    ds = fs.from_webdataset(tars, "vec.npy").shuffle(3, within="chunks", window_blocks=2).batch(16)
    with ds.loader(memory="128 MB", **options) as loader:
        order = np.concatenate([batch[:, 0].astype(int) for batch in loader])
    assert sorted(order.tolist()) == list(range(510))
    assert len({*order[:64] // 50}) <= 4


def test_headers_are_read_once_and_again_when_the_tar_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    real: Callable[..., Any] = tar_index._read
    monkeypatch.setattr(tar_index, "_read", lambda path, size: reads.append(path) or real(path, size))
    path = written(tmp_path)
    for _ in range(3):
        assert fs.from_webdataset(path, "vec.npy")[7].tolist() == [7] * 3
    assert len(reads) == 1
    os.utime(written(tmp_path, first=100), ns=(1, 1))
    assert fs.from_webdataset(path, "vec.npy")[7].tolist() == [107] * 3
    assert len(reads) == 2


def test_a_kept_index_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    path = written(tmp_path)
    fs.from_webdataset(path, "vec.npy")
    (index,) = (tmp_path / "cache").iterdir()
    data = bytearray(index.read_bytes())
    data[200:300] = bytes(100)
    index.write_bytes(data)
    assert fs.from_webdataset(path, "vec.npy")[7].tolist() == [7] * 3


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_format_are_read(kind: int, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        for n in range(3):
            add(tar, f"{'d' * 90}/{'n' * 60}{n}.id", b"%d" % (n * 5))
    assert [fs.from_webdataset(tmp_path / "a.tar", "id")[n] for n in range(3)] == [0, 5, 10]


@pytest.mark.parametrize(
    ("name", "attributes", "told"),
    [
        ("../a.cls", {}, "points outside of the tar"),
        ("/etc/a.cls", {}, "points outside of the tar"),
        ("a/../../b.cls", {}, "points outside of the tar"),
        (r"..\a.cls", {}, "points outside of the tar"),
        (r"C:\a.cls", {}, "points outside of the tar"),
        ("../a", {"type": tarfile.DIRTYPE}, "points outside of the tar"),
        ("a.cls", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link to '/etc/passwd'"),
        ("a.cls", {"type": tarfile.LNKTYPE, "linkname": "b.cls"}, "is a link to 'b.cls'"),
        ("a.cls", {"type": tarfile.CHRTYPE}, "is a device"),
        ("a.cls", {"type": tarfile.FIFOTYPE}, "is a device, a pipe"),
    ],
)
def test_members_that_are_no_plain_files_within_are_refused(
    name: str, attributes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "ok.cls", b"1")
        add(tar, name, **attributes)
    with pytest.raises(fs.SourceError, match=told) as caught:
        fs.from_webdataset(tmp_path / "a.tar", "cls")
    assert caught.value.file == str(tmp_path / "a.tar")


def test_a_tar_that_is_cut_off_or_damaged_or_packed_is_told(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        boundary = tar.getmember(f"set/样本{200:05d}.png").offset
    bad = tmp_path / "bad.tar"
    for data, told in (
        (whole[:100_000], "cut off|unexpected end"),
        (whole[:5120] + b"x" * 512 + whole[5632:], "damaged"),
        (gzip.compress(whole), "gunzip"),
        (b"nothing of the kind" * 100, "no tar file"),
        (bytes(10240), "holds no files"),
        (whole[:boundary], "without the mark that ends a tar"),
        (whole + whole, "more follows its end.*tar -A"),
    ):
        bad.write_bytes(data)
        with pytest.raises(fs.SourceError, match=told):
            fs.from_webdataset(bad, "cls")


def test_a_header_that_declares_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.cls", b"1", pax_headers={"comment": "x" * 2_000_000})
    with pytest.raises(fs.SourceError, match=r"declares 2,000,\d+ bytes, and 1,048,576 are allowed"):
        fs.from_webdataset(tmp_path / "a.tar", "cls")


def test_a_sample_without_a_part_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        fs.SourceError,
        match=r"sample 0 of the tar \(that of '.*00000\.png'\) has no part 'json'. There are 'png', 'cls'",
    ):
        fs.from_webdataset(written(tmp_path), "png", "json")


def test_parts_of_a_sample_that_stand_apart_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.cls", "b.cls", "a.id"):
            add(tar, name, b"1")
    with pytest.raises(fs.SourceError, match="'a' don't stand together"):
        fs.from_webdataset(tmp_path / "a.tar", "cls")


@pytest.mark.parametrize(
    ("data", "part", "told"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "npy", "holds Python objects"),
        (b"cat", "cls", "'cat', no whole number"),
        (b"9" * 100, "cls", "has 100 bytes and is no number"),
    ],
)
def test_parts_that_are_not_what_their_ending_says_are_told(data: bytes, part: str, told: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, f"a.{part}", data)
    with pytest.raises(fs.SampleError, match=told) as caught:
        fs.from_webdataset(tmp_path / "a.tar", part)[0]
    assert caught.value.index == 0


def test_a_tar_that_is_written_anew_meanwhile_is_refused(tmp_path: Path) -> None:
    ds = fs.from_webdataset(written(tmp_path), "vec.npy")
    written(tmp_path, count=290)
    with pytest.raises(fs.SampleError, match="written anew"):
        ds[0]


def test_no_sample_of_a_tar_that_is_written_anew_is_read_after_the_first_was_refused(tmp_path: Path) -> None:
    ds = fs.from_webdataset(written(tmp_path), "cls").take(20).batch(5)
    loader = ds.loader(memory="64 MB", workers=0, on_bad_sample="skip", max_bad_fraction=1)
    written(tmp_path, first=3)
    with loader, pytest.warns(RuntimeWarning, match="written anew"):
        assert list(loader) == []
    assert len(loader.stats().bad_samples) == 20


@pytest.mark.parametrize("name", ["file/a.tar", "a\0b.tar"])
def test_a_path_that_no_file_can_have_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(fs.SourceError, match=r"the file can't be read: (Not a directory|embedded null byte)"):
        fs.from_webdataset(f"{tmp_path}/{name}", "cls")


def test_json_is_what_it_says(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for n in range(20):
            add(tar, f"{n:02d}.json", f'{{"label": {n}, "name": "叶{n}", "boxes": [[1, 2], [3]]}}'.encode())
            add(tar, f"{n:02d}.vec.npy", npy(np.full(2, n)))
    ds = fs.from_webdataset(tmp_path / "a.tar", "json", "vec.npy")
    assert ds[7][0] == {"label": 7, "name": "叶7", "boxes": [[1, 2], [3]]}
    told = ds.map(lambda told, vector: (np.int64(told["label"]), vector)).shuffle(1).batch(5)
    with told.loader(memory="128 MB", workers=1, processes=1) as loader:
        for label, vector in loader:
            assert (vector[:, 0] == label).all()


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_bad_sample_is_told_by_the_name_of_its_member(tmp_path: Path, kind: int) -> None:
    name = "folder/" + "叶" * (9 if kind == tarfile.USTAR_FORMAT else 70) + ".cls"
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
        add(tar, "0.cls", b"1")
        add(tar, name, b"dog")
    with pytest.raises(fs.SampleError, match=rf"a\.tar@\d+ '{name}'\) failed in read: its part 'cls' is 'dog'"):
        fs.from_webdataset(tmp_path / "a.tar", "cls")[1]


@pytest.mark.parametrize(("data", "told"), [(b'{"a": ', "line 1, column 7: not valid JSON"), (b"\xff", "not UTF-8")])
def test_json_that_is_none_is_told_with_its_part(tmp_path: Path, data: bytes, told: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.json", data)
    with pytest.raises(fs.SampleError, match=rf"a\.tar@512 '0\.json'\) failed in read: its part 'json'.*{told}"):
        fs.from_webdataset(tmp_path / "a.tar", "json")[0]


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": 1, "processes": 1}])
def test_nan_in_an_array_is_found_in_the_first_pass(tmp_path: Path, options: dict[str, Any]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for n in range(20):
            add(tar, f"{n:02d}.vec.npy", npy(np.array([1.0, np.nan if n == 7 else 2.0])))
            add(tar, f"{n:02d}.meta.json", b'{"at": NaN}' if n == 9 else b'{"at": 1.5}')
    for part, index, told in (("vec.npy", 7, r"its part 'vec\.npy' holds nan at \[1\]"), ("meta.json", 9, "'at'")):
        ds = fs.from_webdataset(tmp_path / "a.tar", part).batch(4)
        with pytest.raises(fs.SampleError, match=told) as caught, ds.loader(memory="128 MB", **options) as loader:
            list(loader)
        assert caught.value.index == index
        assert len(list(fs.from_webdataset(tmp_path / "a.tar", part, allow_nan=True).batch(4).loader())) == 5
