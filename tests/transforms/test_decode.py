from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import exif, insert_before_tables, jpeg, photo, saved
from PIL import Image

from fitstream.scratch import Allowance, Arena, TooLarge
from fitstream.transforms.decode import DecodeError, ImageDecoder
from fitstream.transforms.images import ImageOptions

KINDS = {"JPEG": {"quality": 95}, "PNG": {}, "WebP": {}, "TIFF": {}}
INTERPOLATIONS = ["bilinear", "area", "nearest", "cubic", "lanczos"]

options = st.builds(
    ImageOptions,
    size=st.one_of(st.none(), st.tuples(st.integers(1, 40), st.integers(1, 40))),
    channels=st.sampled_from([1, 3, 4]),
    resize=st.sampled_from(["stretch", "crop", "pad"]),
    interpolation=st.sampled_from(INTERPOLATIONS),
    dtype=st.sampled_from(["uint8", "float32"]),
)


def roomy() -> Arena:
    return Arena(Allowance(lane_bytes=16_000_000, large_bytes=0, budget_bytes=10**9))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    options=options,
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    orientation=st.integers(1, 8),
    kind=st.sampled_from(["JPEG", "PNG", "WebP"]),
    progressive=st.booleans(),
)
def test_any_picture_under_any_options_fills_its_row_and_no_other(
    options, height, width, orientation, kind, progressive
):
    extra = {**KINDS[kind], "exif": exif(orientation)} | ({"progressive": progressive} if kind == "JPEG" else {})
    encoded = memoryview(saved(photo(height, width), kind, **extra))
    shown = (width, height) if orientation >= 5 else (height, width)
    shape = (*(options.size or shown), options.channels)
    arena = roomy()
    decoder = ImageDecoder(options, arena)

    alone = decoder.decode(encoded)
    arena.reset()
    assert alone.shape == shape
    assert alone.dtype == options.dtype
    assert alone.flags.c_contiguous
    assert not np.shares_memory(alone, arena._block)
    if options.dtype == "float32":
        assert 0 <= alone.min() <= alone.max() <= 1

    batch = np.full((3, *shape), 77, options.dtype)
    row = batch[1]
    assert decoder.decode(encoded, row) is row
    assert np.array_equal(batch[1], alone)
    assert (batch[0] == 77).all()
    assert (batch[2] == 77).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_floats_are_the_bytes_over_255_exactly(decode, kind, interpolation):
    encoded = saved(photo(40, 60), kind, **KINDS[kind])
    common = {"size": (30, 31), "interpolation": interpolation}
    as_bytes = decode(encoded, **common)
    assert np.array_equal(decode(encoded, dtype="float32", **common), as_bytes / np.float32(255))


@pytest.mark.parametrize("kind", KINDS)
def test_row_of_another_size_is_refused_with_both_sizes_and_advice(decode, kind):
    encoded = saved(photo(40, 60), kind, **KINDS[kind])
    with pytest.raises(DecodeError, match=r"40 x 60 .* 3 channels.* holds 60 x 40 with 3.*image_size="):
        decode(encoded, np.empty((60, 40, 3), np.uint8))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_enlarging_is_what_pillow_makes_of_it(decode, interpolation):
    # At these sizes no pixel lies halfway between two, where libraries differ.
    picture = photo(30, 41)
    expected = np.asarray(Image.fromarray(picture).resize((100, 92), Image.Resampling[interpolation.upper()]))
    decoded = decode(saved(picture, "PNG"), size=(92, 100), interpolation=interpolation)
    assert np.abs(decoded - expected.astype(int)).max() <= 1


def test_area_averages_all_pixels(decode):
    noise = np.random.default_rng(0).integers(0, 256, (90, 77, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((20, 30), Image.Resampling.BOX))
    decoded = decode(saved(noise, "PNG"), size=(30, 20), interpolation="area")
    assert np.abs(decoded.astype(int) - expected).mean() < 6  # Pillow's box takes whole pixels, area takes parts


def test_area_is_bilinear_where_the_picture_grows(decode):
    encoded = saved(photo(30, 40), "PNG")
    assert np.array_equal(
        decode(encoded, size=(31, 40), interpolation="area"), decode(encoded, size=(31, 40), interpolation="bilinear")
    )


def test_nearest_invents_no_value(decode):
    labels = np.random.default_rng(0).integers(0, 5, (64, 64, 1), dtype=np.uint8) * 50
    decoded = decode(saved(labels[..., 0], "PNG"), size=(20, 27), channels=1, interpolation="nearest")
    assert set(np.unique(decoded)) <= {0, 50, 100, 150, 200}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("height", "width"), [(80, 40), (40, 80), (44, 80), (200, 40)])
def test_crop_shows_the_centre_undistorted(decode, kind, height, width):
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = photo(height, width)
    expected = np.asarray(
        Image.fromarray(picture[top : top + side, left : left + side]).resize((20, 20), Image.Resampling.BOX)
    )
    decoded = decode(saved(picture, kind, **KINDS[kind]), size=(20, 20), resize="crop", interpolation="area")
    assert np.abs(decoded.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("height", "width", "inner"),
    [
        (80, 40, (slice(None), slice(7, 22))),
        (40, 80, (slice(7, 22), slice(None))),
        (300, 3, (slice(None), slice(14, 15))),
    ],
)
def test_pad_shows_the_whole_picture_with_black_around(decode, kind, height, width, inner):
    encoded = saved(np.full((height, width, 3), 200, np.uint8), kind, **KINDS[kind])
    batch = np.full((3, 30, 30, 3), 77, np.uint8)
    decode(encoded, batch[1], size=(30, 30), resize="pad")
    assert np.abs(batch[1][inner].astype(int) - 200).max() <= 1
    outside = batch[1].copy()
    outside[inner] = 0
    assert not outside.any()


def test_jpeg_of_the_right_size_is_decoded_into_the_row_itself(arena):
    row = np.zeros((48, 64, 3), np.uint8)
    ImageDecoder(ImageOptions(size=(48, 64)), arena).decode(memoryview(jpeg(48, 64)), row)
    assert arena.peak_bytes == 0
    assert row.any()


def test_flips_need_no_scratch_and_quarter_turns_a_result(arena):
    decoder = ImageDecoder(ImageOptions(size=(48, 64)), arena)
    decoder.decode(memoryview(jpeg(48, 64, exif=exif(3))))
    assert arena.peak_bytes == 0
    decoder.decode(memoryview(jpeg(64, 48, exif=exif(6))))
    assert arena.peak_bytes == 2 * 48 * 64 * 3


@pytest.mark.parametrize(
    "encoded",
    [jpeg(100, 100), jpeg(100, 100, exif=exif(6)), jpeg(100, 100, progressive=True), saved(photo(100, 100), "PNG")],
    ids=["plain", "turned", "progressive", "png"],
)
def test_what_a_picture_took_is_enough_and_no_less(encoded):
    options = ImageOptions(size=(60, 70), dtype="float32")
    with roomy() as arena:
        ImageDecoder(options, arena).decode(memoryview(encoded))
        need = arena.peak_bytes
    with Arena(Allowance(need, 0, 10**9)) as arena:
        ImageDecoder(options, arena).decode(memoryview(encoded))
    with Arena(Allowance(need - 64, 0, 10**9)) as arena, pytest.raises(TooLarge):
        ImageDecoder(options, arena).decode(memoryview(encoded))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [None, (300, 200)])
def test_the_scratch_that_the_options_foretell_covers_a_plain_jpeg(size, dtype):
    options = ImageOptions(size=size, dtype=dtype)
    foretold = options.scratch_bytes(250 * 310)
    with roomy() as arena:
        ImageDecoder(options, arena).decode(memoryview(jpeg(250, 310)))
        assert arena.peak_bytes <= foretold + 128  # each cut is rounded up to 64 bytes
    assert options.largest_pixels(foretold) == 250 * 310


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_bomb_is_refused_before_anything_is_allocated(arena, progressive):
    encoded = bytearray(jpeg(20, 20, progressive=progressive))
    frame = encoded.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    encoded[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(DecodeError, match=r"4,294,836,225 pixels.*89,478,485"):
        ImageDecoder(ImageOptions(), arena).decode(memoryview(bytes(encoded)))
    assert arena.peak_bytes == 0


def test_jpeg_without_pixels_is_refused(decode):
    encoded = bytearray(jpeg(20, 20))
    encoded[encoded.index(b"\xff\xc0") + 5 : encoded.index(b"\xff\xc0") + 7] = b"\0\0"
    with pytest.raises(DecodeError, match="0 x 20"):
        decode(bytes(encoded))


def test_decoders_of_several_threads_do_not_disturb_each_other():
    pictures = [
        jpeg(90, 120, seed=1),
        jpeg(120, 90, seed=2, exif=exif(6)),
        jpeg(100, 100, seed=3, progressive=True),
        insert_before_tables(jpeg(80, 80, seed=4), b"stray"),
        saved(Image.fromarray(photo(70, 90, 5)).convert("CMYK"), "JPEG"),
        saved(photo(60, 80, 6), "PNG"),
        saved(photo(60, 80, 7), "WebP"),
        saved(Image.fromarray(photo(60, 80, 8)).quantize(32), "GIF"),
    ]
    options = ImageOptions(size=(50, 50))

    def lane(seed: int) -> list[np.ndarray]:
        arena = roomy()
        decoder = ImageDecoder(options, arena)
        results: list[np.ndarray] = [np.empty(0)] * len(pictures)
        for number in np.random.default_rng(seed).permutation(np.repeat(np.arange(len(pictures)), 20)):
            with arena:
                results[number] = decoder.decode(memoryview(pictures[number]))
        return results

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            lanes = list(threads.map(lane, range(4)))
    finally:
        sys.setswitchinterval(interval)
    expected = lane(4)
    for results in lanes:
        assert all(np.array_equal(*pair) for pair in zip(results, expected, strict=True))
