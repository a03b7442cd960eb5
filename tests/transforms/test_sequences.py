"""Vocabularies, padding, one-hot rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.transforms.sequences import Vocabulary, one_hot, pad

TEXTS = [["the", "cat", "sat"], ["the", "dog", "sat"], ["a", "cat"]]


def test_frequent_words_come_first_and_equal_ones_by_their_letters() -> None:
    vocabulary = Vocabulary.of(TEXTS)
    assert vocabulary.words == ("<pad>", "<unk>", "cat", "sat", "the", "a", "dog")
    assert vocabulary(["the", "bird", "cat"]).tolist() == [4, 1, 2]
    assert vocabulary([]).dtype == np.int64
    assert vocabulary.decode([4, 1, 0]) == ["the", "<unk>", "<pad>"]
    assert "cat" in vocabulary
    assert "bird" not in vocabulary


def test_rare_words_are_left_out() -> None:
    assert Vocabulary.of(TEXTS, max_size=4).words == ("<pad>", "<unk>", "cat", "sat")
    assert Vocabulary.of(TEXTS, min_count=2, padding=None).words == ("<unk>", "cat", "sat", "the")
    with pytest.raises(fs.PlanError, match="max_size=2 leaves no room"):
        Vocabulary.of(TEXTS, max_size=2)
    with pytest.raises(fs.PlanError, match="5 different words, and none that is there 9 times"):
        Vocabulary.of(TEXTS, min_count=9)


def test_without_an_unknown_word_others_are_an_error() -> None:
    vocabulary = Vocabulary(["B", "I", "O"], padding=None, unknown=None)
    assert vocabulary(["O", "B"]).tolist() == [2, 0]
    with pytest.raises(fs.SourceError, match="'X' isn't in the vocabulary of 3 words"):
        vocabulary(["X"])


def test_words_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("The cat\nthe dog\n\n")
    vocabulary = Vocabulary.from_file(tmp_path / "x.txt", lambda line: line.lower().split())
    assert vocabulary.words[2:] == ("the", "cat", "dog")
    (tmp_path / "x.txt").write_bytes(b"a\nb\xff")
    with pytest.raises(fs.SourceError, match=r"x\.txt, line \d: it is no text in utf-8"):
        Vocabulary.from_file(tmp_path / "x.txt")


@pytest.mark.parametrize("name", ["x.json", "x.txt"])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, name: str) -> None:
    vocabulary = Vocabulary.of([["é", "漢字", "\u2028", " b "]])
    vocabulary.save(tmp_path / name)
    assert Vocabulary.load(tmp_path / name) == vocabulary


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.json", "{"), ("x.json", "[1]"), ("x.json", '{"format": "x"}'), ("x.txt", "a\na\n"), ("x.json", "\x80\x04.")],
)
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, "latin-1")
    with pytest.raises(fs.SourceError, match=name):
        Vocabulary.load(tmp_path / name)


def test_a_word_with_a_line_end_can_only_be_saved_as_json(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["a\nb"])
    with pytest.raises(fs.SourceError, match=r"'a\\nb' can't stand on a line"):
        vocabulary.save(tmp_path / "x.txt")
    vocabulary.save(tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text())["words"][-1] == "a\nb"


@pytest.mark.parametrize("wrong", ["text", [1, 2], ["a", "a"]])
def test_words_must_be_texts_and_each_there_once(wrong: Any) -> None:
    with pytest.raises(fs.PlanError):
        Vocabulary(wrong)


@pytest.mark.parametrize("processes", [0, 2])
def test_words_are_encoded_and_padded_in_worker_processes(tmp_path: Path, processes: int) -> None:
    path = tmp_path / "x.txt"
    path.write_text("".join(f"w{number} w{number + 1}\n" for number in range(300)))
    vocabulary = Vocabulary.from_file(path)
    ds = fs.from_text(path, str.split).map(vocabulary).map(pad(3, mask=True)).batch(32)
    with ds.loader(memory="256 MB", workers=2, processes=processes) as loader:
        words = [vocabulary.decode(row) for numbers, _ in loader for row in numbers]
    assert words == [[f"w{number}", f"w{number + 1}", "<pad>"] for number in range(300)]


def test_pad_at_either_end() -> None:
    assert pad(5)([1, 2, 3]).tolist() == [1, 2, 3, 0, 0]
    assert pad(5, value=-1, side="pre")([1, 2, 3]).tolist() == [-1, -1, 1, 2, 3]
    assert pad(2)([1, 2, 3]).tolist() == [1, 2]
    assert pad(2, truncate="pre")([1, 2, 3]).tolist() == [2, 3]
    assert pad(2)(np.ones((3, 4), np.float16)).shape == (2, 4)
    assert pad(3)(np.ones((1, 4), np.float16)).dtype == np.float16


def test_pad_gives_a_mask_on_request() -> None:
    padded, label, mask = pad(4, mask=True)([1, 2], 7)
    assert (padded.tolist(), label, mask.tolist()) == ([1, 2, 0, 0], 7, [1, 1, 0, 0])
    assert mask.dtype == np.float32
    assert pad(4, side="pre", mask=True)([1])[1].tolist() == [0, 0, 0, 1]
    assert pad(1, mask=True)([1, 2])[1].tolist() == [1]


def test_pad_takes_several_parts_of_one_length() -> None:
    words, tags = pad(3, parts=(0, 1))([1, 2], [5, 6])
    assert (words.tolist(), tags.tolist()) == ([1, 2, 0], [5, 6, 0])
    with pytest.raises(fs.SourceError, match=r"need one length, and have \[1, 2\]"):
        pad(3, parts=(0, 1))([1, 2], [5])
    with pytest.raises(fs.SourceError, match="names part 1, and the sample has 1"):
        pad(3, parts=(0, 1))([1, 2])


def test_what_can_not_be_padded_is_refused() -> None:
    with pytest.raises(fs.SourceError, match="Encode words before"):
        pad(3)(["a"])
    with pytest.raises(fs.SourceError, match="single number 5"):
        pad(3)(5)
    for options in ({"max_length": 0}, {"max_length": 3, "truncate": "end"}, {"max_length": 3, "parts": "a"}):
        with pytest.raises(fs.PlanError):
            pad(**options)  # type: ignore[arg-type]


def test_one_hot_of_chosen_parts() -> None:
    assert one_hot(3)(2).tolist() == [0, 0, 1]
    assert one_hot(3)([0, 2]).dtype == np.float32
    image, label = one_hot(3, parts=-1)("image", 1)
    assert (image, label.tolist()) == ("image", [0, 1, 0])
    assert one_hot(2)(np.zeros((4, 5), np.uint8)).shape == (4, 5, 2)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range_name_the_sample(label: int) -> None:
    ds = fs.from_arrays((np.zeros((4, 2)), np.array([0, 1, label, 2]))).map(one_hot(3, parts=1))
    with pytest.raises(fs.SampleError, match=rf"Sample 2 .*map\(OneHot\): the label {label} is out of range.*0 to 2"):
        ds[2]


def test_one_hot_needs_whole_numbers() -> None:
    with pytest.raises(fs.SourceError, match="needs whole numbers, and got float64"):
        one_hot(3)(1.5)
    with pytest.raises(fs.PlanError, match="count=0"):
        one_hot(0)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, -1), (np.int32, 0.5), (np.int64, float("nan")), (bool, 2)])
def test_padding_is_never_another_number_than_was_asked_for(dtype: Any, value: float) -> None:
    with pytest.raises(fs.SourceError, match=f"value={value}.* can't fill an array of {np.dtype(dtype)}"):
        pad(3, value=value)(np.zeros(2, dtype))


def test_padding_that_fits_is_taken() -> None:
    assert pad(3, value=-1)([5]).tolist() == [5, -1, -1]
    assert pad(3, value=0.1)(np.float32([5])).tolist() == [5, np.float32(0.1), np.float32(0.1)]
    with pytest.raises(fs.PlanError, match="value='x' must be a number"):
        pad(3, value="x")  # type: ignore[arg-type]


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfthe cat\r\nthe\r\n")
    assert Vocabulary.from_file(path).words[2:] == ("the", "cat")


def test_bytes_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"word\n" * 5_000 + b"w\xe4rd\n")
    with pytest.raises(fs.SourceError, match=r"x\.txt, line 5001: it is no text in utf-8"):
        Vocabulary.from_file(path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_size": 2.5}, "max_size=2.5 must be a whole number"),
        ({"min_count": "2"}, "min_count='2' must be a whole number"),
        ({"encoding": "klingon"}, "unknown encoding"),
        ({"tokenize": None}, "tokenize=None must be a function"),
    ],
)
def test_arguments_that_can_not_be_used_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    (tmp_path / "x.txt").write_text("the cat\n")
    with pytest.raises(fs.PlanError, match=says):
        Vocabulary.from_file(tmp_path / "x.txt", **options)


def test_a_vocabulary_takes_no_set_whose_order_differs_from_run_to_run() -> None:
    with pytest.raises(fs.PlanError, match=r"differs each run. Use sorted\(words\)"):
        Vocabulary({"cat", "dog"})
    assert Vocabulary(dict.fromkeys(["dog", "cat"])).words[2:] == ("dog", "cat")
