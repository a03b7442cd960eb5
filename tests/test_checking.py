"""`plan(check=True)`: files that can't be read are found before anything is, and listed together."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fitstream as fs
from fitstream.checking import find_faults, in_threads
from fitstream.sources.files import FileSource, PackedPaths

MakePictures = Callable[..., Path]


def source_of(folder: Path, *names: str, **options: bytes) -> FileSource:
    return FileSource(PackedPaths.of(str(folder), names), None, None, "a test", **options)


def faults_of(folder: Path, *names: str, **options: bytes) -> dict[str, str]:
    found = [fault for _, faults in find_faults(source_of(folder, *names, **options)) for fault in faults]
    return {os.path.relpath(fault.path or "", folder): fault.reason for fault in found}


def test_a_whole_dataset_is_planned_as_without_the_check(tmp_path: Path, make_pictures: MakePictures) -> None:
    ds = fs.from_folder(make_pictures(tmp_path / "photos"), 16).shuffle(0).batch(4)
    assert str(ds.plan("8 MB", 1, check=True)) == str(ds.plan("8 MB", 1))


def test_missing_files_are_listed_together_the_first_ten_and_the_count(
    tmp_path: Path, make_pictures: MakePictures
) -> None:
    ds = fs.from_folder(make_pictures(tmp_path / "photos"), 16)
    for path in (tmp_path / "photos" / "cats").iterdir():
        path.unlink()
    with pytest.raises(fs.SourceError) as raised:
        ds.shuffle(0).batch(4).plan("8 MB", check=True)
    message = str(raised.value)
    assert "12 of 24 samples" in message
    assert re.findall(r"cats/(\d+)\.", message) == [f"{number:03}" for number in range(10)]
    assert message.endswith("and 2 more; `fitstream inspect --csv FILE` lists all.")


def test_the_check_is_limited_to_the_samples_that_the_dataset_takes(
    tmp_path: Path, make_pictures: MakePictures
) -> None:
    ds = fs.from_folder(make_pictures(tmp_path / "photos"), 16)
    (tmp_path / "photos" / "dogs" / "003.png").unlink()
    assert ds.take(15).batch(4).plan("8 MB", check=True).sample_count == 15
    with pytest.raises(fs.SourceError, match="1 of 16 samples"):
        ds.take(16).batch(4).plan("8 MB", check=True)


def test_every_rank_checks_all_samples(tmp_path: Path, make_pictures: MakePictures) -> None:
    ds = fs.from_folder(make_pictures(tmp_path / "photos"), 16)
    (tmp_path / "photos" / "dogs" / "003.png").unlink()
    for rank in range(2):
        with pytest.raises(fs.SourceError, match="1 of 24 samples"):
            ds.shuffle(0).shard(rank, 2).batch(4).plan("8 MB", check=True)


def test_samples_that_are_no_files_pass(tmp_path: Path) -> None:
    assert fs.from_arrays(np.zeros((8, 2))).batch(4).plan(check=True).sample_count == 8


def test_each_fault_has_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "whole.jpg").write_bytes(b"x")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    names = [*(path.name for path in tmp_path.iterdir()), "gone.jpg", "whole.jpg/a"]
    assert faults_of(tmp_path, *names) == {
        "empty.jpg": "the file is empty (0 bytes). Restore it, or leave it out.",
        "folder.jpg": "it is a folder, not a file.",
        "pipe.jpg": "it is a device or pipe, not a file.",
        "circle.jpg": "its symbolic links lead in a circle.",
        "dangling.jpg": "the file does not exist; restore it, or leave its row out.",
        "gone.jpg": "the file does not exist; restore it, or leave its row out.",
        "whole.jpg/a": "the file does not exist: a part of its path is a file, not a folder.",
    }


def test_a_file_that_may_not_be_read_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr("fitstream.sources.files.os.access", lambda path, mode: False)  # root may read all
    assert faults_of(tmp_path, "a.jpg") == {"a.jpg": "permission to read the file is denied."}


def test_a_link_that_leaves_the_root_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"x")
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (inside / "good.jpg").write_bytes(b"x")
    (inside / "near.jpg").symlink_to("good.jpg")
    found = faults_of(inside, "link.jpg", "near.jpg", "good.jpg", inside=os.fsencode(inside.resolve()))
    assert list(found) == ["link.jpg"]
    assert "outside root" in found["link.jpg"]


def test_what_the_check_finds_is_what_reading_says(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for name in ("empty.jpg", "gone.jpg"):
        (reason,) = faults_of(tmp_path, name).values()
        with pytest.raises(fs.SampleError) as raised:
            fs.Dataset(source_of(tmp_path, name))[0]
        assert raised.value.reason == reason


def test_faults_come_in_the_order_of_the_source(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(2000)]
    assert list(faults_of(tmp_path, *names)) == names


def test_an_iterator_that_is_left_early_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def numbers():
        for number in range(10_000):
            taken.append(number)
            yield number

    results = in_threads(lambda number: number, numbers(), 2)
    assert next(results) == 0
    results.close()
    assert len(taken) <= 6


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda number: 1 // number, iter([1, 0, 1]), 2))
