"""Listing folders: which files are samples, which class they have, in which order."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from fitstream.errors import PlanError, SourceError
from fitstream.sources.folder import list_folder


def fill(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"1")
    return root


def listed(root: Path, **options) -> list[str]:
    source = list_folder(root, **options)
    return [os.path.relpath(source.path(i), root) for i in range(len(source))]


def labelled(root: Path, **options) -> dict[str, int]:
    return dict(zip(listed(root, **options), list_folder(root, **options).labels().tolist(), strict=True))


def test_each_sub_folder_is_a_class(tmp_path):
    fill(tmp_path, "dog/1.jpg", "cat/2.jpg", "cat/1.png")
    source = list_folder(tmp_path)
    assert source.class_names == ["cat", "dog"]
    assert labelled(tmp_path) == {"cat/1.png": 0, "cat/2.jpg": 0, "dog/1.jpg": 1}
    assert source.labels().dtype == np.int64


def test_classes_are_sorted_as_text(tmp_path):
    assert list_folder(fill(tmp_path, "10/a.jpg", "9/a.jpg", "B/a.jpg", "a/a.jpg")).class_names == ["10", "9", "B", "a"]


def test_the_order_does_not_depend_on_how_the_system_lists(tmp_path, monkeypatch):
    fill(tmp_path, *(f"{name}/{i}.jpg" for name in "cab" for i in range(5)), "a/deep/1.jpg", "a/deep/0.jpg")
    forward = listed(tmp_path)
    scan = os.scandir

    class Backward:
        def __init__(self, folder):
            self.folder = folder

        def __enter__(self):
            with scan(self.folder) as entries:
                return iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(os, "scandir", Backward)
    assert listed(tmp_path) == forward
    assert forward == sorted(forward)


def test_deeper_pictures_belong_to_the_class_above(tmp_path):
    assert labelled(fill(tmp_path, "a/x/y/1.jpg", "b/1.jpg")) == {"a/x/y/1.jpg": 0, "b/1.jpg": 1}


def test_deeper_pictures_are_left_out_without_recursive(tmp_path):
    assert listed(fill(tmp_path, "a/1.jpg", "a/x/2.jpg"), recursive=False) == ["a/1.jpg"]


def test_only_deeper_pictures_without_recursive_is_an_error_that_says_so(tmp_path):
    with pytest.raises(SourceError, match=r"Deeper folders \(1\) were not entered: recursive=True"):
        list_folder(fill(tmp_path, "a/x/2.jpg"), recursive=False)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "jpe", "jfif", "Png", "webp", "gif", "bmp", "tif", "TIFF"])
def test_pictures_are_known_by_suffix_in_any_case(tmp_path, suffix):
    assert listed(fill(tmp_path, f"a/1.{suffix}")) == [f"a/1.{suffix}"]


@pytest.mark.parametrize("extensions", [[".ppm"], ["PPM"], "ppm"])
def test_extensions_say_what_is_a_picture(tmp_path, extensions):
    assert listed(fill(tmp_path, "a/1.ppm", "a/1.jpg"), extensions=extensions) == ["a/1.ppm"]


@pytest.mark.parametrize("extensions", [[], [""], ["."], [1]])
def test_extensions_that_are_none_are_refused(tmp_path, extensions):
    with pytest.raises(PlanError, match="must be suffixes"):
        list_folder(fill(tmp_path, "a/1.jpg"), extensions=extensions)


@pytest.mark.parametrize(
    "junk",
    ["a/.hidden.jpg", "a/._1.jpg", "a/.cache/1.jpg", ".git/1.jpg", "__MACOSX/a/1.jpg", "a/Thumbs.db", "readme.md"],
)
def test_hidden_files_and_litter_are_no_samples(tmp_path, junk):
    assert listed(fill(tmp_path, "a/1.jpg", junk), extensions=[".jpg", ".db"]) == ["a/1.jpg"]


def test_without_labels_all_pictures_below_the_root_are_samples(tmp_path):
    source = list_folder(fill(tmp_path, "1.jpg", "a/2.jpg", "a/b/3.jpg"), label_mode=None)
    assert listed(tmp_path, label_mode=None) == ["1.jpg", "a/2.jpg", "a/b/3.jpg"]
    assert source.labels() is None
    assert source.class_names is None


def test_without_labels_and_recursive_only_the_root_itself_counts(tmp_path):
    assert listed(fill(tmp_path, "1.jpg", "a/2.jpg"), label_mode=None, recursive=False) == ["1.jpg"]


def test_names_that_are_not_text_are_listed(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    assert listed(fill(tmp_path, f"猫 🐈/{name}")) == [f"猫 🐈/{name}"]


def test_a_relative_root_holds_after_the_current_folder_changes(tmp_path, monkeypatch):
    fill(tmp_path, "data/a/1.jpg")
    monkeypatch.chdir(tmp_path)
    source = list_folder("data")
    monkeypatch.chdir("/")
    assert source.path(0) == str(tmp_path / "data/a/1.jpg")


# The argument `classes`


def test_classes_give_the_order_of_labels(tmp_path):
    source = list_folder(fill(tmp_path, "a/1.jpg", "b/1.jpg"), classes=["b", "a"])
    assert source.class_names == ["b", "a"]
    assert [Path(source.path(0)).parent.name, source.labels()[0]] == ["b", 0]


def test_a_class_without_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match=r"no sub-folder 'bird'.*Its sub-folders: 'a', 'b'"):
        list_folder(fill(tmp_path, "a/1.jpg", "b/1.jpg"), classes=["a", "bird"])


def test_classes_of_another_folder_keep_their_index_where_a_folder_is_lacking(tmp_path):
    source = list_folder(fill(tmp_path, "b/1.jpg"), classes=["a", "b", "c"], may_lack_classes=True)
    assert (source.class_names, list(source.labels())) == (["a", "b", "c"], [1])


def test_a_folder_that_lacks_all_classes_of_another_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"no sub-folder 'a'.*Its sub-folders: 'x'"):
        list_folder(fill(tmp_path, "x/1.jpg"), classes=["a", "b"], may_lack_classes=True)


def test_a_folder_of_pictures_that_is_not_in_classes_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match=r"'b' \(2 pictures\) is not in classes \('a'\). Add it"):
        list_folder(fill(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg"), classes=["a"])


def test_a_folder_without_pictures_that_is_not_in_classes_is_passed_over(tmp_path):
    assert listed(fill(tmp_path, "a/1.jpg", "annotations/1.xml"), classes=["a"]) == ["a/1.jpg"]


def test_a_named_class_without_pictures_keeps_its_index(tmp_path):
    fill(tmp_path, "a/1.jpg", "c/1.jpg")
    (tmp_path / "b").mkdir()
    assert labelled(tmp_path, classes=["a", "b", "c"]) == {"a/1.jpg": 0, "c/1.jpg": 2}


@pytest.mark.parametrize("classes", [[], "a", ["a", "a"], [None]])
def test_classes_that_are_no_list_of_different_names_are_refused(tmp_path, classes):
    with pytest.raises(PlanError, match="classes="):
        list_folder(fill(tmp_path, "a/1.jpg"), classes=classes)


def test_classes_without_labels_contradict(tmp_path):
    with pytest.raises(PlanError, match="label_mode=None has none"):
        list_folder(fill(tmp_path, "a/1.jpg"), classes=["a"], label_mode=None)


def test_binary_labels_need_at_most_two_folders(tmp_path):
    with pytest.raises(SourceError, match="at most 2 classes, but there are 3"):
        list_folder(fill(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg"), label_mode="binary")


@pytest.mark.parametrize("label_mode", ["raw", "integer"])
def test_a_label_mode_that_folders_do_not_have_is_refused(tmp_path, label_mode):
    with pytest.raises(PlanError, match="label_mode="):
        list_folder(fill(tmp_path, "a/1.jpg"), label_mode=label_mode)


# What is wrong with a folder


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(SourceError, match=r"does not exist\. Relative paths start at"):
        list_folder(tmp_path / "nothing")


@pytest.mark.parametrize(("name", "advice"), [("photos.zip", "Unpack it"), ("list.csv", "Use from_table")])
def test_a_file_in_place_of_the_folder_is_an_error_with_advice(tmp_path, name, advice):
    with pytest.raises(SourceError, match=f"a file, not a folder. {advice}"):
        list_folder(fill(tmp_path, name) / name)


@pytest.mark.parametrize("label_mode", ["int", None])
def test_an_empty_folder_is_an_error(tmp_path, label_mode):
    with pytest.raises(SourceError, match="holds no pictures"):
        list_folder(tmp_path, label_mode=label_mode)


def test_a_folder_without_pictures_tells_what_it_has_instead(tmp_path):
    with pytest.raises(SourceError, match=r"other files: 2 \.heic, 1 \.txt\. .*extensions=\[...\] names others"):
        list_folder(fill(tmp_path, "a/1.heic", "b/2.HEIC", "b/x.txt"))


def test_a_class_folder_without_pictures_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SourceError, match=r"1 of 2 sub-folders hold no pictures: 'annotations'.*classes="):
        list_folder(fill(tmp_path, "a/1.jpg", "annotations/1.xml"))


@pytest.mark.parametrize(
    ("parts", "advised"), [(["Train", "val"], "Train"), (["test", "train", "validation"], "train"), (["test"], "test")]
)
def test_parts_of_a_data_set_are_not_taken_for_classes(tmp_path, parts, advised):
    fill(tmp_path, *(f"{part}/cat/1.jpg" for part in parts))
    with pytest.raises(SourceError, match=rf"parts of a data set, not as classes\. Use one of them, .*/{advised}'"):
        list_folder(tmp_path)
    assert list_folder(tmp_path, classes=parts).class_names == parts


def test_a_class_may_be_named_as_a_part_of_a_data_set(tmp_path):
    assert list_folder(fill(tmp_path, "train/1.jpg", "bus/1.jpg")).class_names == ["bus", "train"]


def test_pictures_without_class_folders_are_an_error_that_suggests_no_labels(tmp_path):
    with pytest.raises(SourceError, match=r"directly in it \(2, such as '1\.jpg'\), and none.*label_mode=None"):
        list_folder(fill(tmp_path, "1.jpg", "2.jpg"))


def test_pictures_beside_class_folders_are_an_error_that_counts_them(tmp_path):
    with pytest.raises(SourceError, match=r"directly in it \(1, such as 'plot\.png'\), beside the class folders \(2\)"):
        list_folder(fill(tmp_path, "a/1.jpg", "b/1.jpg", "plot.png"))


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.jpg", "a/locked/1.jpg")
    scan = os.scandir

    def guarded(folder):
        if folder.rstrip(b"/").endswith(b"locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SourceError, match=r"locked/?: the folder cannot be listed: Permission denied"):
        list_folder(tmp_path)


# Symbolic links


def test_linked_files_and_folders_are_followed(tmp_path):
    fill(tmp_path, "store/x/1.jpg", "store/2.jpg", "root/b/1.jpg")
    (tmp_path / "root/a").symlink_to(tmp_path / "store/x")
    (tmp_path / "root/b/2.jpg").symlink_to(tmp_path / "store/2.jpg")
    assert labelled(tmp_path / "root") == {"a/1.jpg": 0, "b/1.jpg": 1, "b/2.jpg": 1}


@pytest.mark.parametrize("target", ["a", "a/x", ".", "..", "/"])
def test_a_link_to_a_folder_around_it_is_not_followed(tmp_path, target):
    root = fill(tmp_path / "root", "a/1.jpg", "a/x/2.jpg", "b/3.jpg")
    (root / "a/x/loop").symlink_to(os.path.join(root, target))
    assert listed(root) == ["a/1.jpg", "a/x/2.jpg", "b/3.jpg"]


def test_a_link_in_the_root_to_itself_is_no_class(tmp_path):
    (fill(tmp_path, "a/1.jpg") / "self").symlink_to(tmp_path)
    assert list_folder(tmp_path).class_names == ["a"]


def test_links_between_folders_do_not_list_a_picture_twice(tmp_path):
    fill(tmp_path, *(f"a/{folder}/1.jpg" for folder in "pqrs"))
    for folder in "pqrs":
        for other in "pqrs":
            (tmp_path / "a" / folder / f"to_{other}").symlink_to(tmp_path / "a" / other)
    assert listed(tmp_path) == [f"a/{folder}/1.jpg" for folder in "pqrs"]


@pytest.mark.parametrize("target", ["nowhere.jpg", "2.jpg"])
def test_a_broken_link_named_as_a_picture_is_listed_and_fails_when_read(tmp_path, target):
    (fill(tmp_path, "a/1.jpg") / "a/2.jpg").symlink_to(target)
    assert listed(tmp_path) == ["a/1.jpg", "a/2.jpg"]
