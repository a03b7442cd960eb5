"""Windows over texts, tokens and time series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fitstream as fs

TEXT = "the quick brown fox jumps over the lazy dog; né 漢字 😀\r\n" * 400


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FITSTREAM_CACHE", str(folder))
    return folder


def spelled(ds: fs.Dataset, numbers: Any) -> str:
    assert ds.class_names is not None
    return "".join(ds.class_names[number] for number in np.atleast_1d(numbers))


def file_of(tmp_path: Path, text: str = TEXT, encoding: str = "utf-8") -> Path:
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", None])
def test_windows_over_characters_and_what_follows(tmp_path: Path, encoding: str | None) -> None:
    source: Any = TEXT if encoding is None else file_of(tmp_path, TEXT, encoding)
    ds = fs.from_windows(source, 10, encoding=encoding or "utf-8")
    assert len(ds) == len(TEXT) - 10
    assert ds.class_names == sorted(set(TEXT))
    for i in (0, 1, 48, 8191, 8192, len(ds) - 1):
        window, following = ds[i]
        assert spelled(ds, window) == TEXT[i : i + 10]
        assert spelled(ds, following) == TEXT[i + 10]
        assert (window.dtype, window.shape, following.shape) == (np.int64, (10,), ())


def test_a_string_that_names_a_file_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_of(tmp_path, "from the file")
    monkeypatch.chdir(tmp_path)
    ds = fs.from_windows("x.txt", 4)
    assert spelled(ds, ds[0][0]) == "from"


def test_sequences_are_shifted_by_one_and_strides_leave_out(tmp_path: Path) -> None:
    ds = fs.from_windows(TEXT, 5, 3, target="sequence")
    assert len(ds) == (len(TEXT) - 6) // 3 + 1
    window, shifted = ds[7]
    assert (spelled(ds, window), spelled(ds, shifted)) == (TEXT[21:26], TEXT[22:27])
    alone = fs.from_windows("abcabc", 3, 3, target=None)
    assert [spelled(alone, alone[i]) for i in range(len(alone))] == ["abc", "abc"]


@pytest.mark.parametrize("target", ["next", "sequence"])
def test_one_hot(target: Any) -> None:
    plain = fs.from_windows(TEXT, 6, target=target)
    ds = fs.from_windows(TEXT, 6, target=target, one_hot=True)
    for part, numbers in zip(ds[11], plain[11], strict=True):
        assert part.dtype == np.float32
        assert np.array_equal(part, np.eye(len(set(TEXT)), dtype=np.float32)[numbers])


def test_the_alphabet_may_be_given() -> None:
    ds = fs.from_windows("abba", 2, alphabet="_ba")
    assert ds.class_names == ["_", "b", "a"]
    assert ds[0][0].tolist() == [2, 1]
    with pytest.raises(fs.SourceError, match=r"the text has 1 characters that the alphabet of 2 lacks: 'b'"):
        fs.from_windows("abba", 2, alphabet="xa")


def test_tokens_in_memory_mapped_and_in_files(tmp_path: Path) -> None:
    tokens = (np.arange(1000) * 7 % 50).astype(np.uint16)
    np.save(tmp_path / "x.npy", tokens)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=tokens, chunks=(64,), compression="gzip")
    with h5py.File(tmp_path / "x.h5", "r") as file:
        sources = [tokens, tokens.tolist(), tmp_path / "x.npy", str(tmp_path / "x.npy"),
                   np.load(tmp_path / "x.npy", mmap_mode="r"), file["x"]]  # fmt: skip
        for source in sources:
            window, following = fs.from_windows(source, 8)[500]
            assert window.dtype == np.int64
            assert window.tolist() == tokens[500:508].tolist()
            assert following == tokens[508]


def test_time_series_keep_their_channels_and_dtype() -> None:
    series = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    window, following = fs.from_windows(series, 24, stride=2)[5]
    assert np.array_equal(window, series[10:34])
    assert np.array_equal(following, series[34])
    window, shifted = fs.from_windows(series[:, 0], 24, target="sequence")[5]
    assert np.array_equal(shifted, series[6:30, 0])
    assert window.dtype == np.float32


@pytest.mark.parametrize(("workers", "processes"), [(0, 0), (2, 0), (2, 1), (2, 2)])
@pytest.mark.parametrize("kind", ["file", "text", "series"])
def test_each_window_comes_once_whoever_reads_it(tmp_path: Path, workers: int, processes: int, kind: str) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    source: Any = {"file": file_of(tmp_path, text), "text": text, "series": np.arange(3000.0)}[kind]
    ds = fs.from_windows(source, 5).shuffle(2).batch(32)
    with ds.loader(memory="256 MB", workers=workers, processes=processes) as loader:
        starts = []
        for window, following in loader:
            assert (np.diff(window, axis=1) == 1).all()
            assert np.array_equal(following, window[:, -1] + 1)
            starts += window[:, 0].tolist()
    assert sorted(starts) == list(range(2995))


def test_a_loader_of_windows_goes_on_where_its_state_was_taken(tmp_path: Path) -> None:
    ds = fs.from_windows(file_of(tmp_path), 9).shuffle(1).batch(512)
    with ds.loader() as loader:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        rest = [batch[0].copy() for batch in batches]
    with ds.loader() as loader:
        loader.load_state_dict(state)
        assert all(np.array_equal(one[0], other) for one, other in zip(loader, rest, strict=True))


def test_the_index_of_a_text_file_is_small_and_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path, TEXT * 20)
    first = fs.from_windows(path, 9)
    assert [file.name[:11] for file in cache.iterdir()] == ["characters-"]
    monkeypatch.setattr("fitstream.sources.characters.CharacterFile._scan", None)
    again = fs.from_windows(path, 9)
    assert (len(again), again.class_names) == (len(first), first.class_names)
    assert np.array_equal(again[400_000][0], first[400_000][0])


def test_a_damaged_index_is_made_anew(tmp_path: Path, cache: Path) -> None:
    path = file_of(tmp_path, TEXT * 20)
    fs.from_windows(path, 9)
    (index,) = cache.iterdir()
    data = bytearray(index.read_bytes())
    data[200] ^= 1
    index.write_bytes(data)
    ds = fs.from_windows(path, 9)
    assert spelled(ds, ds[300_000][0]) == (TEXT * 20)[300_000:300_009]


@pytest.mark.parametrize(
    ("source", "length", "says"),
    [
        ("", 4, "no characters"),
        ("abc", 4, r"a window of 4 and the next one takes 5 characters, but there are 3\. Use length <= 2"),
        ("abcd", 4, "takes 5 characters, but there are 4"),
        ("not there.txt", 40, r"but there are 13.*There is no file 'not there\.txt'"),
        (np.zeros(3, int), 3, "takes 4 tokens, but there are 3"),
        (np.zeros((3, 2)), 3, "takes 4 rows, but there are 3"),
        (np.zeros(0), 3, "no rows"),
        ([], 3, "no rows"),
    ],
)
def test_what_is_too_short_is_refused_with_its_numbers(source: Any, length: int, says: str) -> None:
    with pytest.raises(fs.SourceError, match=says):
        fs.from_windows(source, length)


def test_an_empty_text_file_and_a_short_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(fs.SourceError, match=r"x\.txt' has no characters \(0 bytes\)"):
        fs.from_windows(file_of(tmp_path, ""), 3)
    with pytest.raises(fs.SourceError, match="takes 4 characters, but there are 2"):
        fs.from_windows(file_of(tmp_path, "漢字"), 3)
    with pytest.raises(fs.SourceError, match="does not exist"):
        fs.from_windows(tmp_path / "none.txt", 3)


def test_bytes_that_are_no_text_name_their_place(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"x" * 10_000 + b"\xff" + b"x" * 10_000)
    with pytest.raises(fs.SourceError, match=r"x\.txt: byte 1,808 of it .*from byte 8,192 on"):
        fs.from_windows(tmp_path / "x.txt", 3)


def test_a_text_file_that_changes_is_refused(tmp_path: Path) -> None:
    ds = fs.from_windows(file_of(tmp_path), 3)
    file_of(tmp_path, "other")
    with pytest.raises(fs.SourceError, match="changed after it was listed"):
        ds[0]


def test_tokens_out_of_range_name_their_place() -> None:
    ds = fs.from_windows(np.array([0, 1, 2, 9, 1, 0]), 2, class_count=3)
    ds[0]
    with pytest.raises(fs.SampleError, match="token 3 is 9, and class_count=3 allows 0 to 2"):
        ds[1]


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("abc", {"length": 0}, "length=0"),
        ("abc", {"length": 1, "stride": 0}, "stride=0"),
        ("abc", {"length": 1, "target": "all"}, "target="),
        ("abc", {"length": 1, "class_count": 3}, "is for tokens"),
        ("abc", {"length": 1, "encoding": "klingon"}, "unknown encoding"),
        (np.arange(9), {"length": 1, "alphabet": "ab"}, "is for text"),
        (np.arange(9), {"length": 1, "one_hot": True}, "needs class_count="),
        (np.zeros(9), {"length": 1, "one_hot": True}, "are for tokens"),
    ],
)
def test_wrong_arguments_are_refused(source: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(fs.PlanError, match=says):
        fs.from_windows(source, **options)


@pytest.mark.parametrize("encoding", ["iso2022_jp", "hz"])
def test_encodings_that_keep_a_state_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(("中" * 20_000).encode(encoding))
    with pytest.raises(fs.SourceError, match=r"x\.txt: in .* depends on those before.*UTF-8"):
        fs.from_windows(path, 4, encoding=encoding)


@pytest.mark.parametrize("processes", [0, 1])
def test_what_is_not_finite_in_a_time_series_is_found(processes: int) -> None:
    series = np.zeros((40, 2), np.float32)
    series[30, 1] = np.nan
    with fs.from_windows(series, 4).batch(8).loader(workers=1, processes=processes) as loader:
        with pytest.raises(fs.SampleError, match=r"Sample 26 .*\[1\] holds nan at \[1\].*allow_nan=True"):
            list(loader)
    with fs.from_windows(series, 4, allow_nan=True).batch(8).loader(workers=1, processes=processes) as loader:
        assert sum(int(np.isnan(following).sum()) for _, following in loader) == 1


@pytest.mark.parametrize("name", ["corpus.txt", "data/series.npy"])
def test_the_name_of_a_file_that_is_not_there_is_no_text(name: str) -> None:
    with pytest.raises(fs.SourceError, match=rf"{name}: the file does not exist"):
        fs.from_windows(name, 2)


@pytest.mark.parametrize("source", [None, 3, b"text", {"x": [1, 2]}, [[1, 2], [3]]])
def test_what_is_no_array_is_refused(source: Any) -> None:
    with pytest.raises(fs.SourceError, match=f"windows go over .*{type(source).__name__}"):
        fs.from_windows(source, 1)


@pytest.mark.parametrize(("alphabet", "says"), [("abca", "'a' twice"), (["ab", "c"], "'ab'; it must"), ([1], "has 1;")])
def test_an_alphabet_is_single_characters_each_once(alphabet: Any, says: str) -> None:
    with pytest.raises(fs.PlanError, match=says):
        fs.from_windows("abcabc", 2, alphabet=alphabet)


def test_a_window_of_an_array_file_that_holds_nan_is_told_with_the_file_and_its_first_row(tmp_path: Path) -> None:
    series = np.zeros((100, 2), np.float32)
    series[50, 1] = np.nan
    np.save(tmp_path / "series.npy", series)
    ds = fs.from_windows(tmp_path / "series.npy", 10, stride=8).batch(3)
    with ds.loader(memory="1 MB", workers=0) as loader, pytest.raises(fs.SampleError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"Sample 5 ({tmp_path}/series.npy, row 40) failed in read")
    assert "array[1] holds nan at [1]" in str(caught.value)


def test_nan_in_a_time_series_is_found_in_the_first_pass(tmp_path: Path) -> None:
    series = np.arange(100, dtype=np.float32)
    series[50] = np.nan
    np.savez(tmp_path / "s.npz", x=series, y=series[:9])
    for options in ({"workers": 0}, {"workers": 1, "processes": 1}):
        ds = fs.from_windows(f"{tmp_path}/s.npz/x", 10).batch(8)
        with pytest.raises(fs.SampleError, match=r"Sample 40 \(.*s\.npz, row 40\) .*array\[1\] holds nan"):
            list(ds.loader(memory="128 MB", **options))
    assert len(list(fs.from_windows(series, 10, allow_nan=True).batch(8).loader())) == 12
    with pytest.raises(fs.SourceError, match="holds 2 arrays; windows go over one"):
        fs.from_windows(tmp_path / "s.npz", 10)
