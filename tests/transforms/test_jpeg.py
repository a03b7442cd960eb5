from __future__ import annotations

import re
import struct
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from pictures import exif, insert_before_tables, jpeg, photo, saved
from PIL import Image, ImageOps

from fitstream.scratch import Allowance, Arena, TooLarge
from fitstream.transforms.decode import DecodeError, ImageDecoder
from fitstream.transforms.images import ImageOptions
from fitstream.transforms.jpeg import exif_orientation, read_jpeg_header


#: EXIF block, little-endian, with one entry: orientation of the given type and raw value.
def orientation_block(kind: int, value: bytes, order: str = "<") -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value.ljust(4, b"\0") + bytes(4)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_header_is_read_as_pillow_reads_it(mode, progressive):
    picture = Image.fromarray(photo(33, 50)).convert(mode)
    encoded = saved(picture, "JPEG", progressive=progressive, exif=exif(6))
    header = read_jpeg_header(memoryview(encoded))
    assert header[:4] == (33, 50, len(picture.getbands()), 6)
    assert (header.coefficient_bytes > 0) == progressive


@pytest.mark.parametrize(
    ("subsampling", "expected"),
    # 33 x 50 pixels are 5 x 7 blocks of 8 x 8, or 3 x 4 units of 16 x 16; 64 coefficients of 2 bytes a block.
    [(0, 5 * 7 * 3 * 128), (2, 3 * 4 * 6 * 128)],
)
def test_coefficients_of_a_progressive_jpeg_are_counted_in_whole_units(subsampling, expected):
    encoded = jpeg(33, 50, progressive=True, subsampling=subsampling)
    assert read_jpeg_header(memoryview(encoded)).coefficient_bytes == expected


def test_header_is_found_behind_stray_and_fill_bytes():
    encoded = jpeg(20, 30)
    stuffed = insert_before_tables(encoded, b"\xff\xff\xfe\x00\x04ab" + b"\x00stray\xff\x00\xff")
    assert read_jpeg_header(memoryview(stuffed))[:2] == (20, 30)


def test_header_cut_off_anywhere_is_refused():
    encoded = jpeg(20, 30, exif=exif(3))
    scan = encoded.index(b"\xff\xda")
    for length in range(3, scan):
        with pytest.raises(DecodeError, match="cut off"):
            read_jpeg_header(memoryview(encoded[:length]))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "I"), (9, "i")])
def test_orientation_is_read_in_either_byte_order_and_any_integer_type(order, kind, code):
    assert exif_orientation(orientation_block(kind, struct.pack(order + code, 7), order)) == 7


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"no block at all",
        orientation_block(3, b"\0\0"),
        orientation_block(3, b"\x09\0"),
        orientation_block(2, b"6"),
        orientation_block(3, b"\x06\0")[:15],
        b"II*\0\xff\xff\xff\xff",
        b"II*\0" + struct.pack("<IH", 8, 65_535),
    ],
)
def test_broken_exif_counts_as_upright(block):
    assert exif_orientation(block) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_is_turned_as_pillow_turns_it(decode, orientation, channels):
    encoded = jpeg(24, 40, exif=exif(orientation))
    shown = ImageOps.exif_transpose(Image.open(BytesIO(encoded)))
    expected = np.asarray(shown.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])).reshape(
        shown.height, shown.width, channels
    )
    decoded = decode(encoded, channels=channels)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(17, 23), (30, 9), (100, 101)])
def test_turning_after_resizing_gives_what_turning_first_would(decode, orientation, resize, size):
    stored = photo(61, 44)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(saved(stored, "PNG", exif=exif(orientation))))))
    late = decode(saved(stored, "PNG", exif=exif(orientation)), size=size, resize=resize)
    first = decode(saved(turned, "PNG"), size=size, resize=resize)
    assert np.abs(late.astype(int) - first).max() <= 1  # OpenCV rounds along the rows first


def test_reduced_jpeg_is_close_to_the_full_one_averaged(decode):
    encoded = jpeg(512, 640)
    reduced = decode(encoded, size=(60, 70), interpolation="area")
    full = np.asarray(Image.open(BytesIO(encoded)).resize((70, 60), Image.Resampling.BOX))
    assert np.abs(reduced.astype(int) - full).mean() < 1


@pytest.mark.parametrize(
    ("size", "interpolation", "scale"),
    [
        ((64, 80), "bilinear", 8),
        ((65, 80), "bilinear", 4),
        ((65, 80), "area", 4),
        ((129, 80), "lanczos", 2),
        ((64, 321), "cubic", 1),
        ((64, 80), "nearest", 1),
        (None, "bilinear", 1),
    ],
)
def test_scratch_shows_at_which_scale_a_jpeg_is_decoded(arena, size, interpolation, scale):
    decoder = ImageDecoder(ImageOptions(size=size, interpolation=interpolation), arena)
    decoder.decode(memoryview(jpeg(512, 640)))
    decoded_into_the_result = size is None or scale == 8
    assert arena.peak_bytes == (0 if decoded_into_the_result else 512 * 640 * 3 // scale**2)


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("height", [97, 128, 201])
@pytest.mark.parametrize("size", [(24, 24), (25, 83), (12, 41), (50, 50)])
def test_reduced_picture_lies_where_the_full_one_does_at_sizes_that_are_no_multiple(decode, resize, height, size):
    encoded = jpeg(height, 333)
    reduced = decode(encoded, size=size, resize=resize, interpolation="area")
    full = decode(saved(decode(encoded), "PNG"), size=size, resize=resize, interpolation="area")
    assert np.abs(reduced.astype(int) - full).mean() < 2


@pytest.mark.parametrize("height", [97, 128, 201, 203])
def test_reduced_crop_is_within_half_a_pixel_of_the_centre(decode, height):
    ramp = np.broadcast_to(np.linspace(0, 255, height)[:, None, None], (height, 130, 3)).astype(np.uint8)
    encoded = saved(ramp, "JPEG", quality=100)
    cropped = decode(encoded, size=(11, 32), resize="crop", interpolation="area")[..., 0].mean()
    pixel = (130 / 32) * (255 / height)  # levels from one row of the result to the next
    assert abs(cropped - ramp.mean()) < 0.5 * pixel + 1


def test_stray_bytes_are_read_by_pillow_and_counted(arena):
    encoded = jpeg(40, 60)
    decoder = ImageDecoder(ImageOptions(), arena)
    whole = decoder.decode(memoryview(encoded))
    assert decoder.fallback_count == 0
    arena.reset()
    stray = decoder.decode(memoryview(insert_before_tables(encoded, b"stray")))
    assert decoder.fallback_count == 1
    assert np.abs(stray.astype(int) - whole).max() <= 2


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(arena):
    encoded = jpeg(40, 60)
    decoder = ImageDecoder(ImageOptions(), arena)
    assert np.array_equal(decoder.decode(memoryview(encoded + b"a thumbnail")), decoder.decode(memoryview(encoded)))
    assert decoder.fallback_count == 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_jpeg_cut_off_at_any_offset_is_refused(decode, options):
    encoded = jpeg(40, 56, **options)
    for length in range(1, len(encoded), 3):
        with pytest.raises(DecodeError):
            decode(encoded[:length], size=(20, 20))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_jpeg_cut_off_but_ended_in_form_is_refused(decode, options):
    # Pillow would fill the rest with grey and say nothing.
    encoded = jpeg(40, 56, **options)
    scans = [match.start() for match in re.finditer(b"\xff\xda", encoded)] + [len(encoded)]
    for start, end in pairwise(scans):
        # Within a scan: between two of them a progressive JPEG is whole, only coarser.
        length = (start + 16 + end) // 2
        with pytest.raises(DecodeError):
            decode(encoded[:length].rstrip(b"\xff") + b"\xff\xd9", size=(20, 20))


def test_adobe_cmyk_jpeg_gets_the_colours_pillow_gives_it(arena):
    picture = Image.fromarray(photo(40, 60)).convert("CMYK")
    encoded = saved(picture, "JPEG", quality=95)
    assert b"Adobe" in encoded
    decoder = ImageDecoder(ImageOptions(), arena)
    decoded = decoder.decode(memoryview(encoded))
    assert np.abs(decoded.astype(int) - np.asarray(picture.convert("RGB"))).mean() < 3
    assert decoder.fallback_count == 0


def test_jpeg_in_stored_rgb_is_read(decode):
    encoded = jpeg(40, 60, keep_rgb=True)
    assert np.abs(decode(encoded).astype(int) - photo(40, 60)).max() < 12


def test_grey_jpeg_fills_all_channels(decode):
    grey = Image.fromarray(photo(20, 30)).convert("L")
    rgba = decode(saved(grey, "JPEG", quality=95), channels=4)
    assert np.array_equal(rgba[..., 0], rgba[..., 2])
    assert (rgba[..., 3] == 255).all()


def test_memory_of_a_progressive_jpeg_is_charged(arena):
    encoded = memoryview(jpeg(64, 64, progressive=True, subsampling=0))
    ImageDecoder(ImageOptions(), arena).decode(encoded)
    assert arena.peak_bytes == 64 * 64 * 3 * 2


def test_nearest_is_refused_rather_than_reduced_when_memory_is_short():
    # Were the scale to depend on the memory at hand, so would the bytes of the batch.
    arena = Arena(Allowance(lane_bytes=512 * 640 * 3 - 1, large_bytes=0, budget_bytes=10**9))
    encoded = memoryview(jpeg(512, 640))
    with pytest.raises(TooLarge):
        ImageDecoder(ImageOptions(size=(64, 64), interpolation="nearest"), arena).decode(encoded)
    assert ImageDecoder(ImageOptions(size=(64, 64)), arena).decode(encoded).shape == (64, 64, 3)
