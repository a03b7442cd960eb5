"""Every parser of ours on made-up, cut-off and changed bytes: a result of the right kind, or the typed error.

Short by default; `--hypothesis-profile=soak` (`make soak`) tries ten times as much.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from fitstream.engine import messages
from fitstream.errors import PlanError, SampleError, SourceError
from fitstream.packing import Damaged, Unpackable, pack_samples, unpack_samples
from fitstream.scratch import Allowance, Arena, TooLarge
from fitstream.sources.files import FileSource
from fitstream.sources.labels import ClassEncoder, Labels, NumberEncoder
from fitstream.sources.table import read_table
from fitstream.spec import parse_bytes
from fitstream.transforms.decode import ImageDecoder
from fitstream.transforms.images import FORMATS, DecodeError, ImageOptions
from fitstream.transforms.jpeg import JPEG_START, JpegHeader, exif_orientation, read_jpeg_header
from fitstream.transforms.pillow import picture_format
from fitstream.transforms.trimming import parts_of

STARTS = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF"]


def picture(name: str, seed: int) -> bytes:
    """A small picture with notes; each seed in another way."""
    rng = np.random.default_rng(seed)
    mode = ["RGB", "L", "RGB", "L"][seed % 4] if name != "GIF" else "P"
    shape = (13, 17, 3) if mode == "RGB" else (13, 17)
    image = Image.fromarray(rng.integers(0, 255, shape).astype(np.uint8) // 64 * 64).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 1 + seed % 8
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"progressive": seed % 2 == 1, "exif": exif, "comment": b"note", "quality": 60},
        "PNG": {"exif": exif, "bits": 8},
        "WebP": {"lossless": seed % 2 == 0, "exif": exif},
        "GIF": {"comment": b"note", "interlace": seed % 2},
        "TIFF": {"compression": ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"][seed % 4], "exif": exif},
    }
    file = BytesIO()
    image.save(file, name, **options.get(name, {}))
    return file.getvalue()


def changed(data: bytes, seed: int) -> bytes:
    """The bytes with some changed, put in, taken out or cut off."""
    rng = random.Random(seed)
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        place = rng.randrange(len(found) + 1)
        match rng.randrange(5):
            case 0:
                found[place:place] = rng.randbytes(rng.choice((1, 4)))
            case 1:
                del found[place : place + rng.choice((1, 4))]
            case 2 if rng.random() < 0.2:
                del found[place:]
            case 3:
                found[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f" + b"\xff" * 3))
            case _ if place < len(found):
                found[place] ^= 1 << rng.randrange(8)
    return bytes(found)


pictures = st.builds(picture, st.sampled_from(FORMATS), st.integers(0, 7))
seeds = st.integers(0, 2**32)
nearly_pictures = (
    st.builds(changed, pictures, seeds)
    | st.builds(lambda start, rest: start + rest, st.sampled_from(STARTS), st.binary())
    | st.binary()
)


# Pictures.


@given(nearly_pictures)
def test_the_format_is_told_or_refused(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert picture_format(memoryview(data)) in FORMATS


@given(nearly_pictures)
def test_a_jpeg_header_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        header = read_jpeg_header(memoryview(JPEG_START + data[3:]))
        assert isinstance(header, JpegHeader)
        assert 1 <= header.orientation <= 8
        assert min(header) >= 0


@given(st.binary() | st.builds(lambda start, rest: start + rest, st.sampled_from([b"II*\0", b"MM\0*"]), st.binary()))
def test_any_block_of_exif_has_an_orientation(data: bytes) -> None:
    assert 1 <= exif_orientation(data) <= 8


@given(st.sampled_from(FORMATS), nearly_pictures)
def test_parts_of_a_file_lie_in_it_in_order(name: str, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        parts, copied_bytes = parts_of(name, memoryview(data))
        places = [place for part in parts for place in part]
        assert places == sorted(places)
        assert places[0] == 0
        assert copied_bytes >= 0
        assert sum(len(data[start:stop]) for start, stop in parts) <= len(data)


@given(pictures)
def test_parts_of_a_whole_picture_decode_as_the_whole(data: bytes) -> None:
    name = picture_format(memoryview(data))
    chosen = b"".join(data[start:stop] for start, stop in parts_of(name, memoryview(data)).parts)
    with Image.open(BytesIO(data)) as whole, Image.open(BytesIO(chosen)) as part:
        assert whole.convert("RGBA").tobytes() == part.convert("RGBA").tobytes()


@given(nearly_pictures, st.sampled_from([1, 3, 4]), st.sampled_from([None, (5, 9)]))
def test_a_picture_is_decoded_or_refused(data: bytes, channels: int, size: tuple[int, int] | None) -> None:
    options = ImageOptions(size, channels, max_pixels=1_000_000)
    with Arena(Allowance(1 << 20, 1 << 24, 1 << 24)) as arena, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of tags that are odd
        with contextlib.suppress(DecodeError, TooLarge):
            pixels = ImageDecoder(options, arena).decode(memoryview(data))
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == channels
            assert size is None or pixels.shape[:2] == size


# Tables.


def unescaped(text: bytes) -> bytes:
    """What the text stands for in Python."""
    return text.decode("unicode_escape").encode("latin-1")


pieces_of_tables = st.sampled_from(
    rb'path label , \t ; " "" \n \r\n \r a.jpg 1 -1 1.5 nan \0 \xef\xbb\xbf \xff\xfe \xe9 \xe2\x80\xa8 1e999 /'.split()
).map(unescaped) | st.sampled_from([b" ", b"9" * 400])
pieces_of_json = st.sampled_from(
    rb"""[ ] { } : , "path" "label" "a.jpg" 1 null true NaN -Infinity 1e999 \n " \\ \\ud800 \0 \xff""".split()
).map(unescaped) | st.sampled_from([b" ", b"9" * 4400, b"[" * 2000, b'{"path": "a", "label": 1}'])


def read_or_refuse(data: bytes, suffix: str, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table" + suffix)
        table.write_bytes(data)
        try:
            source = read_table(table, **options)
        except SourceError as refused:
            error = refused
        else:
            assert isinstance(source, FileSource)
            source.path(len(source) - 1)
            return
        assert error.file is None or os.path.samefile(error.file, table)
        assert error.line is None or 1 <= error.line <= data.count(b"\n") + data.count(b"\r") + 1
        assert len(str(error)) < 5000


modes = st.sampled_from(["int", "categorical", "binary", "raw", None])


@given(st.lists(pieces_of_tables).map(b"".join) | st.binary(), st.sampled_from([".csv", ".tsv"]), modes)
def test_text_is_a_table_or_refused(data: bytes, suffix: str, mode: Any) -> None:
    read_or_refuse(data, suffix, label_mode=mode)
    comma = b"\t" if suffix == ".tsv" else b","
    read_or_refuse(b"path" + comma + b"label\n" + data, suffix, label_mode=mode)


@given(st.lists(pieces_of_json).map(b"".join) | st.binary(), st.sampled_from([".json", ".jsonl"]), modes)
def test_json_is_a_table_or_refused(data: bytes, suffix: str, mode: Any) -> None:
    read_or_refuse(data, suffix, label_mode=mode)
    row = b'{"path": "a", "label": 1}'
    read_or_refuse(
        row + b"\n" + data if suffix == ".jsonl" else b"[" + row + b"," + data + b"]", suffix, label_mode=mode
    )


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
values = st.recursive(
    leaves | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2) | st.tuples(inner),
    max_leaves=4,
)


def blame(row: int, column: str, message: str) -> SourceError:
    return SourceError(f"{row} {column} {message}")


@given(st.lists(values, min_size=1), st.sampled_from(["int", "categorical", "binary"]), st.none() | st.just(["a", "b"]))
def test_class_labels_are_encoded_or_refused(labels: list[Any], mode: Any, classes: list[str] | None) -> None:
    encoder = ClassEncoder("label", mode, classes, blame)
    with contextlib.suppress(SourceError):
        encoder.extend([labels])
        found = encoder.finish()
        assert isinstance(found, Labels)
        assert found.values.dtype == np.int64
        assert found.values.min() >= 0
        assert found.values.max() < found.class_count


@given(st.lists(values, min_size=1), st.booleans())
def test_number_labels_are_encoded_or_refused(labels: list[Any], vector: bool) -> None:
    encoder = NumberEncoder(["label"], vector, blame)
    with contextlib.suppress(SourceError):
        encoder.extend([labels])
        assert np.isfinite(encoder.finish().values).all()


@given(
    st.text()
    | st.from_regex(r"\s*[0-9.]{1,30}\s?[kKmMgGtT]?i?[bB]?\s*")
    | st.integers()
    | st.floats()
    | st.just("9" * 5000)
)
def test_a_size_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(PlanError):
        assert 0 < parse_bytes(value) < 2**63


# What processes say to each other.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of old names of dtypes
@given(st.lists(st.recursive(values, lambda inner: st.tuples(inner, st.just(np.arange(3)))), max_size=3), seeds)
def test_samples_from_shared_memory_are_read_or_refused(samples: list[Any], seed: int) -> None:
    area = np.zeros(1 << 14, np.uint8)
    try:
        pack_samples(samples, area)
    except Unpackable:
        assume(False)
    used = int(np.flatnonzero(area)[-1]) + 1
    damaged = np.frombuffer(changed(area[:used].tobytes(), seed), np.uint8)
    with contextlib.suppress(Damaged):
        assert isinstance(unpack_samples(damaged), list)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(st.binary() | st.binary().map(lambda data: len(data).to_bytes(8, "little") + data))
def test_any_bytes_in_shared_memory_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Damaged):
        unpack_samples(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(
    "nodes",
    [
        [["a", "|O", [1]]],
        [["n", "|O"]],
        [["a", "<f8", [1 << 40]]],
        [["a", "<f8", [-1]]],
        [["a", "V8", [1]]],
        [["a", "<f8,<f8", [1]]],
        [["a", ",", [1]]],
        [["a", ["<f8"], [1]]],
        [["i", "x"]],
        [["x"]],
        [[]],
        [["d", [["l"]], 1]],
        [["d", ["a", "b"], 1]],
        {"a": 1},
        5,
    ],
)
def test_a_header_that_asks_for_what_is_not_there_is_refused(nodes: Any) -> None:
    header = json.dumps(nodes).encode()
    area = np.frombuffer(len(header).to_bytes(8, "little") + header + bytes(256), np.uint8)
    with pytest.raises(Damaged):
        unpack_samples(area)


READERS: dict[str, Callable[[bytes], object]] = {
    "Fill": messages.Fill.read,
    "Done": messages.Done.read,
    "note": messages.read_note,
    "failure": messages.read_failure,
}
jsons = st.sampled_from(
    [b" 5", b" []", b" {}", b' {"a": 1}', b' {"traceback": 1, "reason": 2, "x": 3}', b" " + b"[" * 9999]
)
WRITTEN = [
    messages.failure_text(SampleError("why", index=3, path="a", stage="read"), "Traceback"),
    messages.write_note(messages.READY, reserved_bytes=5),
]


@pytest.mark.parametrize("reader", READERS)
@given(
    st.binary()
    | st.builds(changed, st.sampled_from(WRITTEN), seeds)
    | values.map(lambda v: b" " + repr(v).encode()[:99])
)
def test_a_message_is_read_or_refused(reader: str, data: bytes) -> None:
    with contextlib.suppress(messages.BadMessage):
        READERS[reader](data)
