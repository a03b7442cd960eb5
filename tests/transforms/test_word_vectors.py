"""Files of word vectors, and looking words up."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import fitstream as fs
from fitstream.events import IndexProgress
from fitstream.transforms.sequences import Vocabulary, WordVectors, pad

WORDS = ["the", "a", "é", "漢字", ". . .", "1990", "in"]
ROWS = np.random.default_rng(0).normal(size=(len(WORDS), 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FITSTREAM_CACHE", str(folder))
    return folder


def lines() -> list[str]:
    return [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, ROWS, strict=True)]


def write(tmp_path: Path, form: str) -> Path:
    path = tmp_path / "vectors"
    if form == "glove":
        path.write_text("\n".join(lines()) + "\n")
    elif form == "word2vec":
        path.write_text("\n".join(["7 5", *lines()]))
    elif form == "word2vec with spaces at the end":
        path.write_text(" \n".join(["7 5", *lines()]) + " \n\n")
    else:
        end = b"\n" if "lines" in form else b""
        words = [word.replace(" ", "_").encode() for word in WORDS]
        path.write_bytes(
            b"7 5\n" + b"".join(word + b" " + row.tobytes() + end for word, row in zip(words, ROWS, strict=True))
        )
    return path


def test_reading_leaves_the_filters_of_warnings_alone_which_are_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read, seen = list(warnings.filters), np.fromstring, []

    def looking(*args: object, **options: object) -> object:
        seen.append(list(warnings.filters) == before)
        return read(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(np, "fromstring", looking)
    (tmp_path / "x").write_text("a 1 2\nb 3 4\n")
    assert WordVectors(tmp_path / "x")["b"].tolist() == [3, 4]
    assert seen
    assert all(seen)


@pytest.mark.filterwarnings("ignore:string or file could not be read to its end:DeprecationWarning")
def test_a_number_too_many_is_not_made_up_for_by_one_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a 1 2\nb 3\t4 5\nc 6 x\n")
    with pytest.raises(fs.SourceError, match="line 2"):
        WordVectors(tmp_path / "x")


FORMS = ["glove", "word2vec", "word2vec with spaces at the end", "binary", "binary with lines"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_vectors(tmp_path: Path, form: str) -> None:
    vectors = WordVectors(write(tmp_path, form))
    assert (len(vectors), vectors.dimension) == (7, 5)
    words = [word.replace(" ", "_") if "binary" in form else word for word in WORDS]
    assert list(vectors) == words
    for word, row in zip(words, ROWS, strict=True):
        assert np.array_equal(vectors[word], row)
    assert "dog" not in vectors
    assert vectors.get("dog") is None
    with pytest.raises(fs.SourceError, match="'dog' isn't among the 7 of 'vectors'"):
        vectors["dog"]


def test_lists_of_words_give_rows_and_zeros(tmp_path: Path) -> None:
    vectors = WordVectors(write(tmp_path, "glove"))
    found = vectors(["a", "dog", "the"])
    assert np.array_equal(found, [ROWS[1], np.zeros(5), ROWS[0]])
    assert found.dtype == np.float32
    with pytest.raises(fs.SourceError, match=r"text\.split"):
        vectors("a dog")


def test_the_matrix_of_a_vocabulary(tmp_path: Path) -> None:
    vectors = WordVectors(write(tmp_path, "word2vec"))
    vocabulary = Vocabulary(["dog", "a", "cat", "in"])
    made = vectors.matrix(vocabulary)
    assert np.array_equal(made, [np.zeros(5), np.zeros(5), np.zeros(5), ROWS[1], np.zeros(5), ROWS[6]])
    drawn = vectors.matrix(vocabulary, missing="normal", seed=1)
    assert drawn[2].any()
    assert not drawn[0].any()
    assert np.array_equal(drawn, vectors.matrix(vocabulary, missing="normal", seed=1))
    assert np.array_equal(drawn[3], ROWS[1])


def test_of_a_word_that_is_there_twice_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a 1 2\nb 3 4\na 5 6\n")
    assert WordVectors(tmp_path / "x")["a"].tolist() == [1, 2]


def test_the_file_is_read_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "glove")
    WordVectors(path)
    assert [file.name[:8] for file in cache.iterdir()] == ["vectors-"]
    monkeypatch.setattr("fitstream.transforms.word_vectors.read_rows", None)
    assert np.array_equal(WordVectors(path)["in"], ROWS[6])


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "glove")
    WordVectors(path)
    path.write_text("a 1 2\n")
    os.utime(path, ns=(1, 1))
    assert WordVectors(path)["a"].tolist() == [1, 2]


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    class Heard(list):
        on_event = list.append

    heard = Heard()
    path = write(tmp_path, "glove")
    WordVectors(path, observers=[heard])
    assert heard == [IndexProgress(str(path), path.stat().st_size, path.stat().st_size)]


def test_a_damaged_row_is_found_when_it_is_read(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path, "glove")
    WordVectors(path)
    (kept,) = cache.iterdir()
    data = kept.read_bytes()
    at = data.index(ROWS[1].tobytes())
    kept.write_bytes(data[: at + 2] + bytes([data[at + 2] ^ 1]) + data[at + 3 :])
    vectors = WordVectors(path)
    assert np.array_equal(vectors["the"], ROWS[0])
    with pytest.raises(fs.SourceError, match="damaged"):
        vectors["a"]


@pytest.mark.parametrize("at", [0.0, 0.5, 0.8, 1.0])
def test_damaged_tables_are_made_anew(tmp_path: Path, cache: Path, at: float) -> None:
    path = write(tmp_path, "glove")
    WordVectors(path)
    (kept,) = cache.iterdir()
    data = bytearray(kept.read_bytes())
    data = data[:-5] if at == 1.0 else data
    data[int(at * (len(data) - 1))] ^= 255
    kept.write_bytes(data)
    vectors = WordVectors(path)
    assert list(vectors) == WORDS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3 2\na 1 2\nb 1\nc 1 2\n", r"line 3: the vector has 1 numbers, and the others have 2"),
        ("a 1 2\nb 1 2 3\n", r"line 2: the vector has 3 numbers, and the others have 2"),
        ("a 1 2\n\nb 1 x\n", r"line 3: .*(b'x' is no finite number|has 0 numbers)"),
        ("a 1 2\nb nan 2\n", r"line 2: b'nan' is no finite number"),
        ("a 1 2\nb 1e39 2\n", r"line 2: b'1e39' is no finite number"),
        ("2 2\na x 2\nb 1 2\n", r"line 2: b'x' is no finite number"),
        ("3 2\na 1 2\nb 1 2\n", r"line 1: its first line declares 3 vectors, but 2 follow"),
        ("1 2\na 1 2\nb 1 2\n", r"line 1: its first line declares 1 vectors, but 2 follow"),
        ("2 99999999\na 1 2\n", r"line 1: it declares 2 vectors of 99,999,999 numbers"),
        ("5 2\n", r"line 1: .*cut off, or no file of vectors"),
        ("", "empty"),
        ("just some text\n", r"line 1: it is no file of word vectors"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, cache: Path, text: str, says: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(fs.SourceError, match=rf"x\.txt(, |: it is ){says}"):
        WordVectors(path)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-30], r"vector 6 of 7 is cut off|take at least"),
        (lambda data: data + b"x 1234", "bytes follow the 7 vectors"),
        (
            lambda data: data.replace(ROWS[2].tobytes(), struct.pack("<5f", 1, 2, float("nan"), 3, 4)),
            "vector 3 .*finite",
        ),
        (lambda data: b"700" + data[1:], "declares 700 vectors"),
    ],
)
def test_damaged_binary_files_are_refused(tmp_path: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path, "binary")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(fs.SourceError, match=says):
        WordVectors(path)


@pytest.mark.parametrize("text", ["a 1 2\nb 3 4\n", "2 2\na 1 2\nb 3 4\n"])
def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8-sig")
    assert WordVectors(path)["a"].tolist() == [1, 2]
    path.write_text(text + "c 5\n", encoding="utf-8-sig")
    with pytest.raises(fs.SourceError, match=rf"line {text.count(chr(10)) + 1}: the vector has 1 numbers"):
        WordVectors(path)


@pytest.mark.parametrize("word", [b"cat", 7, ["cat"]])
def test_what_is_no_text_is_refused_and_not_an_unknown_word(tmp_path: Path, word: object) -> None:
    (tmp_path / "x.txt").write_text("cat 1 2\n")
    for encode in (Vocabulary(["cat"]), WordVectors(tmp_path / "x.txt")):
        with pytest.raises(fs.SourceError, match=r"words are text, and this is a (bytes|int|list)"):
            encode([word])  # type: ignore[list-item]


def test_compressed_files_are_said_to_be_that(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(gzip.compress(b"a 1 2\n"))
    with pytest.raises(fs.SourceError, match="it is compressed"):
        WordVectors(path)


def test_what_is_no_file_and_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fs.PlanError, match="path=None"):
        WordVectors(None)  # type: ignore[arg-type]
    with pytest.raises(fs.PlanError, match="takes a Vocabulary, not a list"):
        WordVectors(write(tmp_path, "glove")).matrix(["a"])  # type: ignore[arg-type]


def test_a_binary_file_is_one_also_where_its_first_bytes_read_as_a_line(tmp_path: Path) -> None:
    path, rows = tmp_path / "x.bin", np.random.default_rng(0).normal(size=(20, 50)).astype("<f4")
    rows[0, 0] = np.frombuffer(b"ABC\n", "<f4")[0]
    path.write_bytes(b"20 50\n" + b"".join(b"w%d %s\n" % (i, row.tobytes()) for i, row in enumerate(rows)))
    assert np.array_equal(WordVectors(path)([f"w{i}" for i in range(20)]), rows)


def test_a_cache_folder_that_can_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FITSTREAM_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(fs.SourceError, match="FITSTREAM_CACHE"):
        WordVectors(write(tmp_path, "glove"))


@pytest.mark.parametrize("processes", [0, 2])
def test_words_are_looked_up_in_worker_processes(tmp_path: Path, processes: int) -> None:
    vectors = WordVectors(write(tmp_path, "glove"))
    path = tmp_path / "x.txt"
    path.write_text("the a in\n" * 100)
    ds = fs.from_text(path, str.split).map(vectors).map(pad(4)).batch(25)
    with ds.loader(memory="256 MB", workers=2, processes=processes) as loader:
        batches = [batch.copy() for batch in loader]
    assert np.array_equal(np.concatenate(batches)[:, :3], np.stack([ROWS[[0, 1, 6]]] * 100))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_whatever_is_looked_up_little_stays_in_memory(tmp_path: Path) -> None:
    program = f"""
import sys
import numpy as np
from fitstream.transforms.sequences import WordVectors

count = 60_000
path = {str(tmp_path / "v.bin")!r}
rng = np.random.default_rng(0)
with open(path, "wb") as file:
    file.write(b"%d 100\\n" % count)
    for number in range(count):
        file.write(b"word%d " % number + rng.random(100, np.float32).tobytes())
vectors = WordVectors(path)
most = 0
for number in rng.permutation(count)[:4000].tolist():
    vectors[f"word{{number}}"]
    if number % 16 == 0:
        kept = [0]
        for line in open("/proc/self/smaps"):
            if "-" in line.split()[0] and ":" not in line.split()[0]:
                mapped = line.rstrip().endswith(".kept")
            elif mapped and line.startswith("Rss:"):
                kept.append(int(line.split()[1]))
        most = max(most, sum(kept))
print(most)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300)
    assert 100 < int(done.stdout) < 14_000, "KiB of 25 MB"
