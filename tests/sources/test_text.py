"""Text files: lines by their places, and compressed ones in their order."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs
from fitstream.events import IndexProgress


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FITSTREAM_CACHE", str(folder))
    return folder


def codes(line: str) -> np.ndarray:
    """A sample that says all of a line."""
    return np.array([len(line), *map(ord, line[:12].ljust(12, "\0"))], np.int32)


def number(line: str) -> np.float32:
    return np.float32(line)


def told(sample: Any) -> str:
    length, *letters = sample.tolist()
    return "".join(map(chr, letters))[:length]


def lines_of(ds: fs.Dataset, **options: Any) -> list[str]:
    with ds.batch(3).loader(memory="64 MB", **options) as loader:
        return [told(row) for batch in loader for row in batch]


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\nc\n", ["a", "b", "c"]),
        ("a\nb\nc", ["a", "b", "c"]),
        ("a\r\nb\r\nc\r\n", ["a", "b", "c"]),
        ("\n\na\n\r\n\nb\n\n", ["a", "b"]),
        ("a\n \nb", ["a", " ", "b"]),
        ("one\rstill one\n\r\n", ["one\rstill o"]),
        ("é漢😀\n\u2028x\x0by\n", ["é漢😀", "\u2028x\x0by"]),
        ("\ufeffa\nb", ["a", "b"]),
        ("a\n\r", ["a", "\r"]),
    ],
)
def test_lines_end_at_newlines_and_empty_ones_are_passed_over(tmp_path: Path, text: str, lines: list[str]) -> None:
    ds = fs.from_text(write(tmp_path / "x.txt", text), codes)
    assert [told(ds[i])[:11] for i in range(len(ds))] == [line[:11] for line in lines]
    packed = tmp_path / "x.txt.gz"
    packed.write_bytes(gzip.compress((tmp_path / "x.txt").read_bytes()))
    assert [line[:11] for line in lines_of(fs.from_text(packed, codes), workers=0)] == [line[:11] for line in lines]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp037"])
def test_encodings_of_one_two_and_four_bytes(tmp_path: Path, encoding: str) -> None:
    ds = fs.from_text(write(tmp_path / "x.txt", "né\r\n\r\nzwei\nx\n", encoding), codes, encoding=encoding)
    assert [told(ds[i]) for i in range(len(ds))] == ["né", "zwei", "x"]


def test_a_character_that_holds_the_byte_of_a_newline_ends_no_line(tmp_path: Path) -> None:
    # U+0A0A and U+010A have the byte 0x0A in UTF-16.
    ds = fs.from_text(write(tmp_path / "x.txt", "\u0a0a\u010a\nb\n", "utf-16"), codes, encoding="utf-16")
    assert [told(ds[i]) for i in range(len(ds))] == ["\u0a0a\u010a", "b"]


def test_empty_lines_are_kept_where_asked(tmp_path: Path) -> None:
    ds = fs.from_text(write(tmp_path / "x.txt", "a\n\nb\r\n\r\n"), codes, keep_empty=True)
    assert [told(ds[i]) for i in range(len(ds))] == ["a", "", "b", ""]


def test_several_files_patterns_and_headers(tmp_path: Path) -> None:
    for name, text in (("1.txt", "head\na\n\nb"), ("2.txt", ""), ("3.txt", "head\nc\n")):
        write(tmp_path / name, text)
    write(tmp_path / "other.log", "head\nd\n")
    ds = fs.from_text([tmp_path / "*.txt", tmp_path / "other.log"], codes, skip_lines=1)
    assert [told(ds[i]) for i in range(len(ds))] == ["a", "b", "c", "d"]


def test_an_error_of_parse_names_the_file_and_the_line(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", "head\n1\n\n2\n")
    write(tmp_path / "2.txt", "head\n\n3\nfour\n")
    ds = fs.from_text(tmp_path / "?.txt", number, skip_lines=1)
    assert len(ds) == 4
    with pytest.raises(fs.SampleError, match=r"2\.txt, line 4\) failed in map\(.*'four'") as caught:
        ds[3]
    assert caught.value.index == 3
    assert "test_text.py" in str(caught.value.user_line)


@pytest.mark.parametrize("processes", [0, 1])
def test_an_error_of_parse_in_a_compressed_file_names_them_too(tmp_path: Path, processes: int) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"1\n\n2\nthree\n"))
    loader = fs.from_text(path, number).batch(1).loader(workers=1, processes=processes)
    with loader, pytest.raises(fs.SampleError, match=r"x\.txt\.gz, line 4: ValueError: .*'three'") as caught:
        list(loader)
    assert "test_text.py" in str(caught.value.user_line)


def test_bytes_that_are_no_text_name_the_line_and_the_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", b"good\nb\xe4d\n")
    with pytest.raises(fs.SampleError, match=r"x\.txt, line 2\).*byte 1 of it .*utf-8.*latin-1"):
        fs.from_text(path, codes)[1]
    assert told(fs.from_text(path, codes, errors="replace")[1]) == "b\ufffdd"


@pytest.mark.parametrize(("workers", "processes"), [(0, 0), (2, 0), (2, 1), (2, 2)])
def test_shuffled_lines_come_each_once_whoever_reads_them(tmp_path: Path, workers: int, processes: int) -> None:
    path = write(tmp_path / "x.txt", "\n".join(map(str, range(20_000))))
    ds = fs.from_text(path, number).shuffle(3).batch(64)
    alone = np.concatenate([ds[i] for i in range(3)])
    with ds.loader(memory="256 MB", workers=workers, processes=processes) as loader:
        batches = [batch.copy() for batch in loader]
    assert np.array_equal(np.concatenate(batches[:3]), alone)
    assert sorted(np.concatenate(batches).tolist()) == list(range(20_000))


def test_a_loader_goes_on_where_its_state_was_taken(tmp_path: Path) -> None:
    ds = fs.from_text(write(tmp_path / "x.txt", "\n".join(map(str, range(100)))), number)
    ds = ds.shuffle(1).batch(8)
    with ds.loader() as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        rest = [batch.tolist() for batch in batches]
    with ds.loader() as loader:
        loader.load_state_dict(state)
        assert [batch.tolist() for batch in loader] == rest


def test_another_content_is_another_dataset(tmp_path: Path) -> None:
    def state(text: str) -> dict[str, Any]:
        ds = fs.from_text(write(tmp_path / "x.txt", text), number).batch(1)
        with ds.loader() as loader:
            return dict(loader.state_dict())

    before = state("1\n2\n3\n")
    with fs.from_text(write(tmp_path / "y.txt", "1\n2\n4\n"), number).batch(1).loader() as loader:
        with pytest.raises(fs.StateError, match="text"):
            loader.load_state_dict(before)


# The index.


def big(path: Path, count: int = 30_000) -> Path:
    return write(path, "".join(f"{number}\n" for number in range(count)))


def test_the_index_takes_at_most_8_bytes_a_line(tmp_path: Path) -> None:
    ds = fs.from_text(big(tmp_path / "x.txt"), codes)
    assert ds._source.index_bytes <= 8 * len(ds)


def test_the_index_is_kept_in_the_cache_folder_and_not_beside_the_data(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    path = big(tmp_path / "data" / "x.txt")
    first = fs.from_text(path, codes)
    assert [file.name[:6] for file in cache.iterdir()] == ["lines-"]
    assert os.listdir(tmp_path / "data") == ["x.txt"]
    monkeypatch.setattr("fitstream.sources.text_index._Scan.pieces", None)
    again = fs.from_text(path, codes)
    assert len(again) == len(first)
    assert told(again[29_999]) == "29999"


def test_a_changed_file_is_indexed_anew_and_takes_the_old_place(tmp_path: Path, cache: Path) -> None:
    fs.from_text(big(tmp_path / "x.txt"), codes)
    os.utime(big(tmp_path / "x.txt", 40_000), ns=(1, 1))
    assert len(fs.from_text(tmp_path / "x.txt", codes)) == 40_000
    os.utime(write(tmp_path / "x.txt", (tmp_path / "x.txt").read_bytes().replace(b"17\n", b"1\n\n")), ns=(2, 2))
    assert len(fs.from_text(tmp_path / "x.txt", codes)) == 40_000
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "pickle", "grown", "json"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, cache: Path, harm: str) -> None:
    path = big(tmp_path / "x.txt")
    fs.from_text(path, codes)
    (index,) = cache.iterdir()
    data = index.read_bytes()
    harms: dict[str, Callable[[], bytes]] = {
        "cut": lambda: data[: len(data) // 2],
        "flipped": lambda: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        "empty": lambda: b"",
        "pickle": lambda: b"cos\nsystem\n(S'touch harmed'\ntR.",
        "grown": lambda: data + b"x",
        "json": lambda: data.replace(b'"starts"', b'"starto"'),
    }
    index.write_bytes(harms[harm]())
    ds = fs.from_text(path, codes)
    assert [told(ds[i]) for i in (0, 12_345, 29_999)] == ["0", "12345", "29999"]
    assert index.read_bytes() == data


def test_without_a_cache_folder_the_index_is_made_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FITSTREAM_CACHE", str(tmp_path / "file" / "below"))
    ds = fs.from_text(big(tmp_path / "x.txt"), codes)
    assert told(ds[29_999]) == "29999"


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    class Heard(list):
        on_event = list.append

    heard = Heard()
    path = big(tmp_path / "x.txt")
    fs.from_text(path, codes, observers=[heard])
    size = path.stat().st_size
    assert heard[-1] == IndexProgress(str(path), size, size)


def test_lines_across_the_blocks_in_which_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["ab", "", "cdefgh", "i", "", "", "jklm", "\r", "n"]
    for block in (4, 8, 12, 16):
        monkeypatch.setattr("fitstream.sources.text_index._READ_BYTES", block)
        for end in ("\n", "\r\n"):
            for encoding in ("utf-8", "utf-16-le"):
                write(tmp_path / "x.txt", end.join(lines), encoding)
                ds = fs.from_text(tmp_path / "x.txt", codes, encoding=encoding)
                expected = [line for line in lines if line and not (line == "\r" and end == "\n")]
                assert [told(ds[i]) for i in range(len(ds))] == expected


# What is refused.


def length(line: str) -> np.int64:
    return np.int64(len(line))


@pytest.mark.parametrize("processes", [0, 1])
def test_a_line_that_is_far_longer_than_the_first_is_read(tmp_path: Path, processes: int) -> None:
    path = write(tmp_path / "x.txt", "a\n" * 9 + "x" * 2_000_000 + "\nb\n")
    plan = fs.from_text(path, length).batch(11).plan(memory="100 MB", workers=1, processes=processes)
    assert "large samples" in str(plan)
    with fs.from_text(path, length).batch(11).loader(memory="100 MB", workers=1, processes=processes) as loader:
        assert [batch.tolist() for batch in loader] == [[1] * 9 + [2_000_000, 1]]


def test_the_budget_that_a_long_line_s_error_names_suffices(tmp_path: Path) -> None:
    ds = fs.from_text(write(tmp_path / "x.txt", "a\n" + "x" * 2_000_000), length).batch(1)
    with ds.loader(memory="2 MB", workers=0) as loader, pytest.raises(fs.SampleError, match="Use memory >=") as caught:
        list(loader)
    memory = str(caught.value).partition('memory >= "')[2].partition('"')[0]
    with ds.loader(memory=memory, workers=0) as loader:
        assert [batch.tolist() for batch in loader] == [[1], [2_000_000]]


@pytest.mark.parametrize("encoding", ["unicode_escape", "punycode", "iso2022_kr", "undefined"])
def test_encodings_without_lines_of_their_own_are_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(fs.PlanError, match=f"encoding='{encoding}'"):
        fs.from_text(write(tmp_path / "x.txt", "a\nb\n"), codes, encoding=encoding)


@pytest.mark.parametrize("path", [None, 3, ["x.txt", 3], [None]])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(fs.PlanError, match="must be a file, a pattern"):
        fs.from_text(path, codes)


def test_a_path_may_be_bytes(tmp_path: Path) -> None:
    assert len(fs.from_text(bytes(write(tmp_path / "x.txt", "a\nb\n")), codes)) == 2


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_compressed_file_under_a_plain_name_is_said_to_be_one(tmp_path: Path, suffix: str, pack: Any) -> None:
    path = write(tmp_path / "x.txt", pack(b"a\nb\n"))
    for make in (lambda: fs.from_text(path, codes), lambda: fs.from_windows(path, 1)):
        with pytest.raises(fs.SourceError, match=rf"x\.txt: it is compressed.*\{suffix}"):
            make()


def test_text_with_the_mark_of_utf_16_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(fs.SampleError, match='such as "utf-16"'):
        fs.from_text(write(tmp_path / "x.txt", "a\nb\n", "utf-16"), codes)[0]


def test_a_file_that_changes_after_its_lines_were_found_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "a\nb\n")
    ds = fs.from_text(path, codes)
    write(path, "longer\nb\n")
    with pytest.raises(fs.SampleError, match="changed after its lines were found: it has 9 bytes, and had 4"):
        ds[0]


def test_a_file_with_more_lines_at_the_same_size_and_time_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "12345\n" * 20_000)
    fs.from_text(path, codes)
    state = path.stat()
    os.utime(write(path, "12\n45\n" * 20_000), ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(fs.SampleError, match=r"x\.txt: more than one line lies where one was found.*Delete"):
        fs.from_text(path, codes)[7]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.txt", "", "0 bytes"),
        ("x.txt", "\n\n\r\n", "3 empty or skipped lines"),
        ("none-*.txt", None, "no file matches"),
        ("none.txt", None, "does not exist"),
        (".", None, "a folder"),
    ],
)
def test_nothing_to_read_is_refused(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(fs.SourceError, match=says):
        fs.from_text(tmp_path / name, codes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoding": "klingon"}, "unknown encoding"),
        ({"errors": "ignored"}, "unknown error handler"),
        ({"skip_lines": -1}, "from 0 on"),
        ({"parse": None}, "must be a function"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "x.txt", "a\n")
    with pytest.raises(fs.PlanError, match=says):
        fs.from_text(path, **{"parse": codes, **options})


# Compressed files.


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize(("workers", "processes"), [(0, 0), (2, 0), (2, 2)])
def test_compressed_lines_come_in_their_order(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], workers: int, processes: int
) -> None:
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(pack("\n".join(map(str, range(1000))).encode()))
    ds = fs.from_text([path, write(tmp_path / "y.txt", "1000\n1001")], codes)
    with ds.batch(16).loader(memory="256 MB", workers=workers, processes=processes) as loader:
        for _ in range(2):
            assert [told(row) for batch in loader for row in batch] == list(map(str, range(1002)))


def test_compressed_files_say_that_they_are_sequential(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"a\nb\n"))
    with pytest.raises(fs.PlanError, match=r"x\.txt\.gz, which is compressed.*Unpack the file once"):
        fs.from_text(path, codes).shuffle(0)
    with pytest.raises(TypeError, match=r"x\.txt\.gz, which is compressed.*Unpack the file once"):
        len(fs.from_text(path, codes))


def test_zstandard_names_the_extra_or_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt.zst", b"(\xb5/\xfd")
    try:
        import zstandard
    except ImportError:
        with pytest.raises(fs.SourceError, match=r"fitstream\[zstd\]"):
            fs.from_text(path, codes)
        return
    frames = [zstandard.compress(text) for text in (b"a\nb", b"c\nd\n")]
    path.write_bytes(b"".join(frames))
    assert lines_of(fs.from_text(path, codes), workers=0) == ["a", "bc", "d"]
    path.write_bytes(zstandard.compress(os.urandom(1000).hex().encode() * 1000)[:-40])
    with pytest.raises(fs.SourceError, match="cut off or damaged"):
        lines_of(fs.from_text(path, codes), workers=0)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_compressed_file_that_is_cut_says_where(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"x.txt{suffix}"
    path.write_bytes(pack(os.urandom(200_000).hex().encode().replace(b"00", b"\n"))[:-5000])
    with pytest.raises(fs.SourceError, match=rf"x\.txt\{suffix}, line \d+: .*cut off or damaged"):
        lines_of(fs.from_text(path, codes), workers=0)


def test_a_pass_over_a_compressed_file_goes_on_where_its_state_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress("\n".join(map(str, range(100))).encode()))
    ds = fs.from_text(path, number).batch(8)
    with ds.loader() as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        rest = [batch.tolist() for batch in batches]
    with ds.loader() as loader:
        loader.load_state_dict(state)
        assert [batch.tolist() for batch in loader] == rest


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_parse_gets_a_generator_of_its_own_where_it_asks_for_one(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / ("x.txt" if pack is bytes else "x.txt.gz")
    path.write_bytes(pack(b"1\n2\n3\n"))
    ds = fs.from_text(path, lambda line, rng: rng.normal(float(line))).batch(3)
    with ds.loader() as one, ds.loader(workers=0) as other:
        first, again = next(iter(one)).tolist(), next(iter(other)).tolist()
    assert first == again
    assert len(set(first)) == 3


@pytest.mark.parametrize("text", [b"", b"\n\r\n"])
def test_a_compressed_file_without_lines_is_refused(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path / "x.txt.gz", gzip.compress(text))
    with pytest.raises(fs.SourceError, match=r"there is no line to read: .*x\.txt\.gz"):
        fs.from_text(path, codes).batch(1).plan()


@pytest.mark.parametrize("block", [4, 1 << 18])
def test_bytes_that_are_no_text_in_a_compressed_file_name_their_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("fitstream.sources.text_stream._READ_BYTES", block)
    path = write(tmp_path / "x.txt.gz", gzip.compress("one\nzwölf\nnéf".encode() + b"\xff\nlast\n"))
    heard = []
    with fs.from_text(path, codes).batch(1).loader(workers=0) as loader:
        with pytest.raises(fs.SourceError, match=r"x\.txt\.gz, line 3: byte 4 of it \(b'\\xff"):
            heard.extend(told(row) for batch in loader for row in batch)
    assert heard == ["one", "zwölf"]
