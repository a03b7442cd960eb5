"""Files as samples: packed paths, reading into scratch, labels as they are handed out."""

import os
import pickle
import stat
import tracemalloc
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitstream.errors import SourceError
from fitstream.memory import HAS_SHARED_MEMORY, block_of
from fitstream.scratch import Allowance, Arena, TooLarge
from fitstream.sources import files
from fitstream.sources.files import FileSource, PackedPaths, PathPacker

#: Text that `os.fsdecode` can give: any characters but lone surrogates, and bytes that are not UTF-8.
any_path = st.binary(max_size=40).map(os.fsdecode) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def arena():
    return Arena(Allowance(10_000, 0, 10_000))


def source_of(folder: Path, *names: str, labels=None, **options) -> FileSource:
    return FileSource(PackedPaths.of(str(folder), names), labels, None, "a test", **options)


def read(folder, name, arena):
    return source_of(folder, name).open().read(0, arena)


@settings(deadline=None)
@given(st.lists(any_path))
def test_packed_paths_give_back_every_path(paths):
    packed = PackedPaths.of("", paths)
    assert list(packed) == paths


@settings(deadline=None)
@given(st.lists(st.text("ab/é.", min_size=1).filter(lambda path: not path.startswith("/"))))
def test_relative_paths_start_at_the_root(paths):
    assert list(PackedPaths.of("/data", paths)) == [f"/data/{path}" for path in paths]


def test_an_absolute_path_does_not_start_at_the_root():
    assert PackedPaths.of("/data", ["/other/a.jpg"])[0] == "/other/a.jpg"


@pytest.mark.parametrize("index", [-1, 2])
def test_packed_paths_refuse_an_index_that_is_not_there(index):
    with pytest.raises(IndexError):
        PackedPaths.of("/", ["a", "b"])[index]


def test_index_bytes_are_the_memory_that_the_index_holds(monkeypatch):
    monkeypatch.setattr(files, "shared_copy", np.array)  # memory that tracemalloc sees
    names = [f"class_{i % 10}/photo_number_{i:030d}.jpg" for i in range(20_000)]
    labels = np.arange(20_000)
    tracemalloc.start()
    source = source_of(Path("/data/photos"), *names, labels=labels)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(held - source.index_bytes) < 4096
    assert source.index_bytes / len(source) < 70


def sent(source: FileSource) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """What goes to a worker process, and the memory that goes as descriptors."""
    buffers = []
    return cloudpickle.dumps(source, protocol=5, buffer_callback=buffers.append), buffers


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
def test_the_index_of_many_files_lies_in_memory_that_workers_map():
    source = source_of(Path("/data"), *map(str, range(50_000)), labels=np.arange(50_000))
    data, buffers = sent(source)
    assert len(data) < 2000
    blocks = [block_of(memoryview(buffer).obj) for buffer in buffers]
    assert None not in blocks
    assert sum(block.count_bytes for block, _ in blocks) + len("/data") == source.index_bytes


@pytest.mark.parametrize("count", [3, 50_000])
def test_a_source_that_was_sent_has_the_same_paths_and_labels(count):
    source = source_of(Path("/data"), *(f"{i}.jpg" for i in range(count)), labels=np.arange(count))
    data, buffers = sent(source)
    copy = pickle.loads(data, buffers=buffers)
    assert [copy.path(i) for i in (0, 2, count - 1)] == ["/data/0.jpg", "/data/2.jpg", f"/data/{count - 1}.jpg"]
    assert np.array_equal(copy.labels(), source.labels())
    assert (len(copy), repr(copy), copy.index_bytes) == (count, repr(source), source.index_bytes)


def test_paths_packed_in_pieces_are_those_packed_at_once():
    packer = PathPacker()
    for piece in ([b"a", b"bcd"], [], [b"", b"ef"]):
        packer.extend(piece)
    assert list(packer.packed(b"")) == ["a", "bcd", "", "ef"]


def test_reading_gives_the_bytes_of_the_file(tmp_path, arena):
    (tmp_path / "a.jpg").write_bytes(b"encoded")
    data = read(tmp_path, "a.jpg", arena)
    assert isinstance(data, memoryview)
    assert bytes(data) == b"encoded"


def test_a_file_is_read_into_the_arena(tmp_path, arena):
    (tmp_path / "a.jpg").write_bytes(b"x" * 1000)
    read(tmp_path, "a.jpg", arena)
    assert arena.peak_bytes == 1024


def test_a_file_larger_than_the_arena_is_too_large(tmp_path, arena):
    (tmp_path / "a.jpg").write_bytes(b"x" * 20_000)
    with pytest.raises(TooLarge):
        read(tmp_path, "a.jpg", arena)


@pytest.mark.parametrize(
    "name", ["a photo.jpg", "写真/猫.jpg", "📷 émoji.png", os.fsdecode(b"not \xff utf-8.jpg"), "a\nb"]
)
def test_any_name_of_a_file_can_be_read(tmp_path, arena, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"1")
    assert bytes(read(tmp_path, name, arena)) == b"1"


def test_files_do_not_leak_descriptors(tmp_path, arena):
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "empty.jpg").touch()
    before = len(os.listdir("/proc/self/fd"))
    read(tmp_path, "a.jpg", arena)
    with pytest.raises(SourceError):
        read(tmp_path, "empty.jpg", arena)
    assert len(os.listdir("/proc/self/fd")) == before


def _missing(path: Path) -> None:
    del path


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "does not exist"),
        (Path.mkdir, "is a folder"),
        (Path.touch, "is empty"),
        (_pipe, "a device or pipe"),
        (_loop, "lead in a circle"),
    ],
)
def test_what_is_no_readable_file_is_refused_with_the_reason(tmp_path, arena, make, reason):
    make(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match=reason):
        read(tmp_path, "a.jpg", arena)


@pytest.mark.parametrize(("told", "reason"), [(5, "grew while it was read, beyond 5 bytes"), (20, "from 20 to 10")])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, arena, monkeypatch, told, reason):
    (tmp_path / "a.jpg").write_bytes(b"x" * 10)
    status = list(os.stat(tmp_path / "a.jpg"))
    status[stat.ST_SIZE] = told
    monkeypatch.setattr(files.os, "fstat", lambda descriptor: os.stat_result(status))
    with pytest.raises(SourceError, match=reason):
        read(tmp_path, "a.jpg", arena)


def test_a_file_that_arrives_in_pieces_is_read_whole(tmp_path, arena, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"0123456789")
    whole = os.readv
    monkeypatch.setattr(files.os, "readv", lambda descriptor, buffers: whole(descriptor, [buffers[0][:3]]))
    assert bytes(read(tmp_path, "a.jpg", arena)) == b"0123456789"


def test_a_linked_file_inside_the_root_is_read(tmp_path, arena):
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    reader = source_of(tmp_path, "b.jpg", inside=os.fsencode(tmp_path.resolve())).open()
    assert bytes(reader.read(0, arena)) == b"1"


def test_a_linked_file_that_leads_out_of_the_root_is_refused(tmp_path, arena):
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.jpg").symlink_to("../secret")
    reader = source_of(tmp_path / "root", "a.jpg", inside=os.fsencode(tmp_path.resolve() / "root")).open()
    with pytest.raises(SourceError, match=r"outside root .* allow_outside=True"):
        reader.read(0, arena)


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        ("int", np.array([0, 2]), np.array(2)),
        ("binary", np.array([0, 1]), np.array([1], np.float32)),
        ("categorical", np.array([0, 2]), np.array([0, 0, 1, 0], np.float32)),
        ("raw", np.array([0.5, 1.5]), np.array(1.5)),
        ("raw", np.array([[1, 2], [3, 4]], np.float32), np.array([3, 4], np.float32)),
    ],
)
def test_a_label_is_handed_out_as_its_kind_says(tmp_path, arena, kind, labels, expected):
    (tmp_path / "a").write_bytes(b"1")
    source = source_of(tmp_path, "a", "a", labels=labels, label_kind=kind, class_count=4)
    _, label = source.open().read(1, arena)
    assert label.dtype == expected.dtype
    np.testing.assert_array_equal(label, expected, strict=False)
    assert np.shape(label) == expected.shape


def test_labels_of_a_source_cannot_be_changed():
    labels = source_of(Path("/"), "a", labels=np.array([3])).labels()
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1


def test_the_path_of_a_sample_is_told_whole(tmp_path):
    assert source_of(tmp_path, "a.jpg").path(0) == str(tmp_path / "a.jpg")


def test_the_repr_tells_where_and_how_many():
    source = FileSource(PackedPaths.of("", ["a"] * 1234), np.zeros(1234, int), ["x", "y"], "folder '/data'")
    assert repr(source) == "folder '/data': 1,234 files, 2 classes"


# Files that change after they were listed.


def changed_of(source, arena):
    reader = source.open()
    for index in range(len(source)):
        reader.read(index, arena)
        arena.reset()
    return reader.changed_count, reader.changed_index


def test_files_written_right_before_they_are_listed_are_not_changed(tmp_path, arena):
    # The system's stamps lag behind the clock, by up to 10 ms; they must never lie after the moment of listing.
    for number in range(200):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(b"x")
        assert changed_of(source_of(tmp_path, path.name), arena) == (0, -1)


def test_a_file_written_after_it_was_listed_is_counted_at_each_reading(tmp_path, arena):
    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
    source = source_of(tmp_path, "a", "b", "c")
    until_stamped_later(tmp_path / "b", source)
    reader = source.open()
    for index in (0, 1, 2, 1):
        reader.read(index, arena)
    assert (reader.changed_count, reader.changed_index) == (2, 1)


def test_a_file_replaced_by_another_is_counted(tmp_path, arena):
    (tmp_path / "a").write_bytes(b"x")
    source = source_of(tmp_path, "a")
    until_stamped_later(tmp_path / "new", source)
    (tmp_path / "new").replace(tmp_path / "a")
    assert changed_of(source, arena) == (1, 0)


def test_a_file_that_is_renamed_linked_or_opened_to_others_is_not_changed(tmp_path, arena):
    (tmp_path / "a").write_bytes(b"x")
    source = source_of(tmp_path, "b")
    until_stamped_later(tmp_path / "other", source)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "link").hardlink_to(tmp_path / "b")
    (tmp_path / "b").chmod(0o600)
    assert changed_of(source, arena) == (0, -1)


def test_a_file_that_was_given_a_time_in_the_future_is_not_changed(tmp_path, arena):
    (tmp_path / "a").write_bytes(b"x")
    os.utime(tmp_path / "a", (2**32, 2**32))
    assert changed_of(source_of(tmp_path, "a"), arena) == (0, -1)


def test_the_moment_of_listing_goes_with_the_source(tmp_path, arena):
    (tmp_path / "a").write_bytes(b"x")
    source = source_of(tmp_path, "a")
    until_stamped_later(tmp_path / "a", source)
    assert changed_of(cloudpickle.loads(cloudpickle.dumps(source)), arena) == (1, 0)


def until_stamped_later(path, source):
    """Write a file until the system's clock, which moves in steps of milliseconds, is past the source's listing."""
    while not (path.exists() and path.stat().st_mtime_ns > source._listed_ns):
        path.write_bytes(b"y")
