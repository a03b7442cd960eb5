"""Tables and folders whose paths lead out, whose files never end, or whose text is more than text."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary import SECRET, Hostile, read
from PIL import Image

import fitstream as fs

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices of POSIX")


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return path


def link(hostile: Hostile, name: str, target: Path) -> str:
    (hostile.root / name).parent.mkdir(exist_ok=True)
    (hostile.root / name).symlink_to(target)
    return name


def chain(hostile: Hostile) -> str:
    link(hostile, "third.jpg", hostile.secret)
    link(hostile, "second.jpg", hostile.root / "third.jpg")
    return link(hostile, "first.jpg", hostile.root / "second.jpg")


def through_a_folder_and_back(hostile: Hostile) -> str:
    (hostile.root / "inner").mkdir()
    return link(hostile, "inner/away", hostile.outside) + "/../outside/secret.jpg"


def circle(hostile: Hostile) -> str:
    link(hostile, "a.jpg", hostile.root / "b.jpg")
    return link(hostile, "b.jpg", hostile.root / "a.jpg")


def pipe(hostile: Hostile) -> str:
    os.mkfifo(hostile.root / "pipe.jpg")
    return "pipe.jpg"


def sibling(hostile: Hostile) -> str:
    """A folder whose name begins as the root's does."""
    beside = hostile.root.with_name("root of others")
    beside.mkdir()
    (beside / "x.jpg").write_text(SECRET)
    return f"../{beside.name}/x.jpg"


PATHS: dict[str, tuple[Callable[[Hostile], str], str]] = {
    "absolute": (lambda h: str(h.secret), "leaves root"),
    "one up": (lambda h: "../outside/secret.jpg", "leaves root"),
    "down and up": (lambda h: "a/b/../../../outside/secret.jpg", "leaves root"),
    "a sibling with the root's name": (sibling, "leaves root"),
    "a linked file": (lambda h: link(h, "x.jpg", h.secret), "symbolic link to .*secret.jpg"),
    "a chain of links": (chain, "symbolic link to .*secret.jpg"),
    "a linked folder": (lambda h: link(h, "away", h.outside) + "/secret.jpg", "leaves root"),
    "a linked folder and back": (through_a_folder_and_back, "leaves root"),
    "links in a circle": (circle, "in a circle"),
    "a device": (lambda h: "/dev/zero", "leaves root"),
    "a linked device": (lambda h: link(h, "x.jpg", Path("/dev/zero")), "symbolic link to"),
    "a pipe": (pipe, "device or pipe"),
    "the memory of this process": (lambda h: "/proc/self/mem", "leaves root"),
    "the root itself": (lambda h: ".", "a folder, not a file"),
    "the folder above": (lambda h: "..", "leads to .* outside root"),
    "a URL": (lambda h: "https://host/x.jpg", "it is a URL"),
    "a file URL": (lambda h: f"file://{h.secret}", "it is a URL"),
    "a zero byte": (lambda h: f"x.jpg\0{h.secret}", "zero byte"),
    "100,000 characters": (lambda h: "x" * 100_000, "File name too long"),
    "a path of 5,000 folders": (lambda h: "x/" * 5000 + "y.jpg", "File name too long|does not exist"),
    "a drive": (lambda h: r"C:\Windows\win.ini", "does not exist"),
    "a share": (lambda h: r"\\host\share\x.jpg", "does not exist"),
    "a command": (lambda h: f"|touch '{h.mark}'", "does not exist"),
    "an expansion": (lambda h: f"$(touch '{h.mark}')~/x.jpg", "does not exist"),
}


@pytest.mark.parametrize("kind", PATHS)
def test_a_path_that_leaves_the_root_or_is_no_file_is_refused(hostile: Hostile, kind: str) -> None:
    make, told = PATHS[kind]
    rows = [[make(hostile), 0]]
    hostile.refused(lambda: fs.from_table(rows, root=hostile.root, image_size=8), told)


@pytest.mark.parametrize("kind", ["a device", "a pipe", "the memory of this process", "a URL"])
def test_what_is_no_file_is_refused_without_a_root_too(hostile: Hostile, kind: str) -> None:
    path = os.path.join(hostile.root, PATHS[kind][0](hostile))
    hostile.refused(lambda: fs.from_table([[path, 0]], image_size=8), "a device or pipe|is empty|it is a URL")


def test_a_folder_that_becomes_a_link_after_the_table_was_read_leads_nowhere(hostile: Hostile) -> None:
    (hostile.outside / "x.jpg").write_text(SECRET)
    picture(hostile.root / "cats/x.jpg")
    dataset = fs.from_table([["cats/x.jpg", 0]], root=hostile.root, image_size=8)
    assert len(read(dataset)) == 1
    (hostile.root / "cats").rename(hostile.root / "moved")
    (hostile.root / "cats").symlink_to(hostile.outside)
    hostile.refused(lambda: dataset, "leads to .*outside/x.jpg.*outside root")


def test_links_that_stay_inside_are_followed(hostile: Hostile) -> None:
    picture(hostile.root / "real/x.png", 7)
    link(hostile, "folder", hostile.root / "real")
    link(hostile, "x.png", hostile.root / "folder/x.png")
    rows = [["real/x.png", 0], ["folder/x.png", 0], ["x.png", 0], ["real/../folder/x.png", 0]]
    batches = read(fs.from_table(rows, root=hostile.root, image_size=8))
    assert [int(images.max()) for images, _ in batches] == [7, 7, 7, 7]


def test_allow_outside_lets_paths_leave(hostile: Hostile) -> None:
    path = picture(hostile.outside / "x.png", 7)
    dataset = fs.from_table([[path, 0]], root=hostile.root, image_size=8, allow_outside=True)
    assert read(dataset)[0][0].max() == 7


@pytest.mark.parametrize("linked", ["a file", "a folder"])
def test_links_in_a_folder_lead_out_only_where_that_is_allowed(hostile: Hostile, linked: str) -> None:
    outside = picture(hostile.outside / "cats/x.png", 7)
    picture(hostile.root / "dogs/x.png")
    link(hostile, "cats/x.png", outside) if linked == "a file" else link(hostile, "cats", outside.parent)
    for label_mode in ("int", None):
        assert len(read(fs.from_folder(hostile.root, image_size=8, label_mode=label_mode))) == 2
        hostile.refused(
            lambda mode=label_mode: fs.from_folder(hostile.root, 8, mode, allow_outside=False), "outside root"
        )


def archive(path: Path, kind: str) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("../../escaped.jpg", "x")
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as made:
            member = tarfile.TarInfo("../../escaped.jpg")
            made.addfile(member)
    return path


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive_is_not_unpacked(hostile: Hostile, name: str) -> None:
    path = archive(hostile.root / name, "zip" if name.endswith("zip") else "tar")
    hostile.refused(lambda: fs.from_folder(path, image_size=8), "Unpack it")
    hostile.refused(lambda: fs.from_table(path, image_size=8), "not supported")
    assert not list(hostile.root.parent.rglob("escaped*"))


def parquet_of_pickles(hostile: Hostile) -> bytes:
    """A column whose type names itself a pickled class, which old versions of pyarrow made anew when they read it."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": hostile.pickled}
    schema = pa.schema(
        [pa.field("path", pa.binary(), metadata=extension), pa.field("label", pa.binary(), metadata=extension)]
    )
    file = pa.BufferOutputStream()
    parquet.write_table(pa.table({"path": [b"x.jpg"], "label": [hostile.pickled]}, schema=schema), file)
    return file.getvalue().to_pybytes()


def lines(*rows: Any) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


RUNS = {"__reduce__": ["os.system", ["touch x"]], "py/object": "os.system", "__class__": "x", "$type": "y"}
TABLES: dict[str, tuple[str, Callable[[Hostile], bytes], str]] = {
    "JSON nested deeply": ("x.json", lambda h: b"[" * 200_000, "nested too deeply|not valid JSON"),
    "JSON lines nested deeply": ("x.jsonl", lambda h: b'{"a":' * 200_000, "nested too deeply|not valid JSON"),
    "a number of 100,000 digits": (
        "x.json",
        lambda h: b'[{"path": "x.jpg", "label": ' + b"9" * 100_000 + b"}]",
        "not readable as JSON",
    ),
    "objects that name classes": ("x.jsonl", lambda h: lines({"path": RUNS, "label": 0}), "of type dict, not a path"),
    "labels that name classes": ("x.jsonl", lambda h: lines({"path": "x.jpg", "label": RUNS}), "x.jsonl"),
    "a pickle as JSON": ("x.json", lambda h: h.pickled, "x.json"),
    "a pickle as CSV": ("x.csv", lambda h: h.pickled, "x.csv"),
    "a pickle as Parquet": ("x.parquet", lambda h: h.pickled, "not readable as Parquet"),
    "Parquet with pickled types": ("x.parquet", parquet_of_pickles, "x.parquet|x.jpg"),
    "a formula as path": (
        "x.csv",
        lambda h: f"path,label\n\"=cmd|'/c touch {h.mark}'!A1\",0\n".encode(),
        "does not exist",
    ),
    "a field of 50 MB": ("x.csv", lambda h: b'path,label\n"' + b"x" * 50_000_000, "x.csv.*malformed"),
    "a header of 200,000 names": ("x.csv", lambda h: b"a," * 200_000 + b"b\n", "there 200000 times|no column"),
    "a class number beyond memory": (
        "x.csv",
        lambda h: b"path,label\nx.jpg,999999999999\n",
        r"needs 4\.00 TB|needs 4 TB",
    ),
    "a class number of 40 digits": ("x.csv", lambda h: b"path,label\nx.jpg," + b"9" * 40 + b"\n", "x.csv|does not"),
    "a class number of 10,000 digits": (
        "x.csv",
        lambda h: b"path,label\nx.jpg," + b"9" * 10_000 + b"\n",
        "x.csv|does not",
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_hostile_table_is_refused(hostile: Hostile, kind: str) -> None:
    name, make, told = TABLES[kind]
    picture(hostile.root / "x.jpg")
    (hostile.root / name).write_bytes(make(hostile))
    hostile.refused(
        lambda: fs.from_table(hostile.root / name, root=hostile.root, image_size=8, label_mode="categorical"), told
    )


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl", "x.parquet"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_a_table_that_never_ends_is_not_read(hostile: Hostile, name: str, kind: str) -> None:
    if kind == "a pipe":
        os.mkfifo(hostile.root / name)
    else:
        link(hostile, name, Path("/dev/zero"))
    hostile.refused(lambda: fs.from_table(hostile.root / name, image_size=8), "a device or pipe")


def test_a_hostile_table_does_not_reach_the_interpreter(hostile: Hostile) -> None:
    modules = set(sys.modules)
    (hostile.root / "x.jsonl").write_bytes(lines({"path": "x.jpg", "label": "os.system"}, {"path": "y", "label": "z"}))
    dataset = fs.from_table(hostile.root / "x.jsonl", root=hostile.root)
    assert dataset.class_names == ["os.system", "z"]
    assert {name for name in set(sys.modules) - modules if not name.startswith(("fitstream", "PIL", "cv2"))} == set()
