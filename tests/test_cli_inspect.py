"""`fitstream inspect`: what it finds, what it tells, and how it ends."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fitstream.checking import Fault
from fitstream.cli import main
from fitstream.inspection import decode_all, look_at_all
from fitstream.sources.folder import list_folder
from fitstream.transforms.heads import picture_size
from fitstream.transforms.images import ImageOptions

MakePictures = Callable[..., Path]


@pytest.fixture(autouse=True)
def keep_the_handler_of_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fitstream.cli.watch_for_interrupts", lambda: None)


@pytest.fixture
def photos(tmp_path: Path, make_pictures: MakePictures) -> Path:
    return make_pictures(tmp_path / "photos")


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str | Path) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["inspect", "--memory", "16MB", "--image-size", "16", *map(str, arguments)])
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    return run


Inspect = Callable[..., tuple[int, str]]


def test_a_whole_folder_is_told_of_and_ends_with_0(inspect: Inspect, photos: Path) -> None:
    code, out = inspect(photos)
    assert code == 0
    assert f"{photos}: 24 files" in out
    assert "classes  2: cats 12, dogs 12" in out
    assert "formats  JPEG 16, PNG 8" in out
    assert "pixels   min 768, median 768, max 768" in out
    assert "bad      0; --decode tries to decode them" in out
    assert "24 samples a pass in 1 batches" in out


def test_missing_and_odd_files_are_listed_and_end_with_1(inspect: Inspect, photos: Path) -> None:
    (photos / "cats/001.jpg").unlink()
    (photos / "cats/001.jpg").symlink_to("gone")
    (photos / "cats/002.jpg").write_bytes(b"")
    (photos / "dogs/004.jpg").write_bytes(b"<html>not found</html>")
    code, out = inspect(photos)
    assert code == 1
    assert "bad      3\n" in out
    assert f"{photos}/cats/001.jpg: the file does not exist" in out
    assert f"{photos}/cats/002.jpg: the file is empty" in out
    assert f"{photos}/dogs/004.jpg: it begins with b'<html>not found<'" in out


def test_damaged_pictures_are_found_by_decoding_alone(inspect: Inspect, photos: Path) -> None:
    whole = (photos / "dogs/004.jpg").read_bytes()
    (photos / "dogs/004.jpg").write_bytes(whole[:-100])
    assert inspect(photos)[0] == 0
    code, out = inspect(photos, "--decode")
    assert code == 1
    assert "bad      1\n" in out
    assert f"{photos}/dogs/004.jpg: it is a JPEG whose picture data are cut off" in out


@pytest.mark.parametrize("options", [("--workers", "0"), ("--workers", "2"), ("--workers", "2", "--processes", "1")])
def test_every_bad_picture_is_found_wherever_it_is_decoded(
    inspect: Inspect, photos: Path, options: tuple[str, ...]
) -> None:
    for path in photos.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes()[:-100])
    code, out = inspect(photos, "--decode", "--memory", "200MB", *options)
    assert code == 1
    assert "bad      16\n" in out
    assert "and 6 more; --csv FILE lists all" in out


@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize("spared", [0, 1, 23, 24])
def test_it_matters_not_how_many_are_bad_nor_where(
    spared: int, batch_size: int, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fitstream.inspection._BATCH_SIZE", batch_size)
    monkeypatch.setattr("fitstream.planning._MOST_TRIES", 4)
    bad = sorted(photos.glob("*/*"))[: 24 - spared]
    for path in bad:
        path.write_bytes(path.read_bytes()[:-100])
    found: list[Fault] = []
    tried: list[int] = []
    findings = look_at_all(list_folder(photos), found.append, tried.append)
    decode_all(findings, ImageOptions((16, 16)), {"memory": "16 MB", "workers": 1}, found.append, tried.append)
    assert [fault.path for fault in found] == [str(path) for path in bad]
    assert sum(tried) == 48


def test_the_csv_lists_all_bad_files_once(inspect: Inspect, photos: Path, tmp_path: Path) -> None:
    for path in photos.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes()[:-100])
    (photos / "cats/001.jpg").write_bytes(b"")
    os.rename(photos / "cats/002.jpg", os.fsencode(photos) + b"/cats/\xff.jpg")
    code, _ = inspect(photos, "--decode", "--csv", tmp_path / "bad.csv")
    with open(tmp_path / "bad.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert code == 1
    assert header == ["path", "reason"]
    assert sorted(path for path, _ in rows) == sorted(str(path) for path in photos.glob("*/*.jpg"))
    assert sum("empty" in reason for _, reason in rows) == 1
    assert [path for path in tmp_path.iterdir() if path.name.startswith("bad")] == [tmp_path / "bad.csv"]


def test_a_csv_that_can_t_be_written_is_said(inspect: Inspect, photos: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(photos), "--csv", str(tmp_path / "no" / "bad.csv")])
    assert ended.value.code == 1
    assert "bad.csv: the file can't be written" in capsys.readouterr().err


def test_a_table_s_missing_files_are_listed_the_first_ten_and_the_count(inspect: Inspect, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{number}.jpg,{number % 2}\n" for number in range(30)))
    code, out = inspect(tmp_path / "t.csv")
    assert code == 1
    assert "bad      30\n" in out
    assert f"{tmp_path}/9.jpg: the file does not exist" in out
    assert f"{tmp_path}/10.jpg" not in out
    assert "and 20 more" in out


def test_the_parts_of_a_data_set_are_inspected_one_by_one(
    inspect: Inspect, tmp_path: Path, make_pictures: MakePictures
) -> None:
    make_pictures(tmp_path / "data/train", count=3)
    make_pictures(tmp_path / "data/validation", count=2)
    make_pictures(tmp_path / "data/test", count=1)
    code, out = inspect(tmp_path / "data")
    assert code == 0
    assert [line for line in out.splitlines() if line.endswith(" files") and not line.startswith(" ")] == [
        f"{tmp_path}/data/test: 2 files",
        f"{tmp_path}/data/train: 6 files",
        f"{tmp_path}/data/validation: 4 files",
    ]


def test_pictures_without_classes_are_inspected_with_a_note(inspect: Inspect, photos: Path) -> None:
    code, out = inspect(photos / "cats")
    assert code == 0
    assert "cats: 12 files" in out
    assert "no classes:" in out


def test_what_can_t_be_used_hides_nothing_else(inspect: Inspect, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("path\n")
    code, out = inspect(
        tmp_path / "nowhere", tmp_path / "bad.csv", photos, photos / "cats/000.png", tmp_path / "gone.jpg"
    )
    assert code == 1
    assert "nowhere: there is no such file or folder" in out
    assert "bad.csv, line 1: there is no column 'label'" in out
    assert f"{photos}: 24 files" in out
    assert "pictures: 2 files" in out
    assert "gone.jpg: the file does not exist" in out


def test_faults_and_numbers_of_many_blocks_come_in_order(
    tmp_path: Path, make_pictures: MakePictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = list_folder(make_pictures(tmp_path / "photos", count=50))
    for number in (3, 40):
        (tmp_path / f"photos/cats/{number:03}.png").unlink(missing_ok=True)
        (tmp_path / f"photos/cats/{number:03}.jpg").unlink(missing_ok=True)
    monkeypatch.setattr("fitstream.inspection._BLOCK_SAMPLES", 7)
    faults: list[Fault] = []
    looked: list[int] = []
    findings = look_at_all(source, faults.append, looked.append)
    assert [fault.index for fault in faults] == [3, 40]
    assert sum(looked) == 100
    assert len(findings.readable) == len(findings.pixels) == findings.formats.total() == 98


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("WebP", {}),
    ("WebP", {"lossless": True}),
    ("WebP", {"save_all": True, "append_images": [Image.new("L", (9, 7))]}),
]


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_the_size_of_a_picture_is_told_by_its_first_bytes(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    Image.new("RGB", (9, 7)).save(tmp_path / "a", name, **options)
    assert picture_size(name, (tmp_path / "a").read_bytes()) == (7, 9)
    assert picture_size(name, (tmp_path / "a").read_bytes()[:8]) is None


WAITING = """
import threading
import fitstream.cli, fitstream.interrupts
from fitstream.sources.files import FileSource

fitstream.interrupts._INTERRUPT_S = 300  # what an orderly end leaves is the question

def wait(self, index):
    print("ready", flush=True)
    threading.Event().wait(60)

FileSource.fault = wait
fitstream.cli.main(["inspect", "photos", "--csv", "bad.csv"])
"""


def test_ctrl_c_ends_at_once_and_leaves_no_file(photos: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=photos.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.split() == ["Interrupted."]
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]
