"""Every row of the table in docs/images.md."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np
import PIL
import pytest
from pictures import exif, photo, saved
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from fitstream.spec import aligned
from fitstream.transforms.decode import DecodeError, ImageDecoder
from fitstream.transforms.images import ImageOptions

PHOTO = photo(40, 60)
#: Older versions refuse these two kinds of TIFF themselves.
from_pillow_13 = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="needs Pillow 13")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
GREY16 = np.linspace(0, 65_535, 24, dtype=np.uint16).reshape(4, 6)


def converted(image: Image.Image, channels: int) -> np.ndarray:
    return np.asarray(image.convert(MODES[channels])).reshape(image.height, image.width, channels)


def palette(image: np.ndarray = PHOTO) -> Image.Image:
    return Image.fromarray(image).quantize(64)


def grey_alpha() -> Image.Image:
    image = Image.fromarray(PHOTO).convert("LA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WebP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_lossless_formats_give_the_pixels_themselves(decode, kind, options, channels):
    decoded = decode(saved(PHOTO, kind, **options), channels=channels)
    assert np.array_equal(decoded, converted(Image.fromarray(PHOTO), channels))


def test_lossy_webp_is_read(decode):
    assert np.abs(decode(saved(PHOTO, "WebP", quality=95)).astype(int) - PHOTO).mean() < 4


def test_big_endian_tiff_is_read(decode):
    encoded = b"MM\0*\0\0\0\x08" + saved(PHOTO, "TIFF")[8:]
    with pytest.raises(DecodeError, match="TIFF"):  # the same directory, misread: found by its first bytes alone
        decode(encoded)
    values = GREY16.astype(">u2")
    image = Image.frombytes("I;16B", (6, 4), values.tobytes())
    assert saved(image, "TIFF").startswith(b"MM")
    assert np.array_equal(decode(saved(image, "TIFF"), channels=1)[..., 0], GREY16 >> 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_gives_its_colours(decode, kind, channels):
    image = palette()
    assert np.array_equal(decode(saved(image, kind), channels=channels), converted(image, channels))


@pytest.mark.parametrize("transparency", [5, bytes(range(0, 256, 4))], ids=["one colour", "alpha of each"])
def test_transparency_of_a_palette_is_alpha_or_dropped(decode, transparency):
    encoded = saved(palette(), "PNG", transparency=transparency)
    expected = np.asarray(Image.open(BytesIO(encoded)).convert("RGBA"))
    assert 0 < (expected[..., 3] == 255).mean() < 1 or isinstance(transparency, bytes)
    assert np.array_equal(decode(encoded, channels=4), expected)
    assert np.array_equal(decode(encoded), expected[..., :3])


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_alpha_is_dropped_and_not_composited(decode, kind):
    image = Image.fromarray(np.dstack([PHOTO, np.full((40, 60), 100, np.uint8)]))
    encoded = saved(image, kind, **({"lossless": True} if kind == "WebP" else {}))
    assert np.array_equal(decode(encoded), PHOTO)
    assert np.array_equal(decode(encoded, channels=4), np.asarray(image))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha(decode, kind, channels):
    image = grey_alpha()
    decoded = decode(saved(image, kind), channels=channels)
    grey, alpha = np.moveaxis(np.asarray(image), 2, 0)
    assert all(np.array_equal(decoded[..., channel], grey) for channel in range(min(channels, 3)))
    assert channels < 4 or np.array_equal(decoded[..., 3], alpha)


def test_colour_key_is_alpha_or_dropped(decode):
    picture = PHOTO.copy()
    picture[3, 4] = (1, 2, 3)
    encoded = saved(picture, "PNG", transparency=(1, 2, 3))
    assert np.array_equal(decode(encoded), picture)
    alpha = decode(encoded, channels=4)[..., 3]
    assert alpha[3, 4] == 0
    assert np.count_nonzero(alpha == 0) == 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["PA", pytest.param("YCbCr", marks=from_pillow_13)])
def test_palette_with_alpha_and_ycbcr_tiff_are_converted(decode, mode, channels):
    image = palette().convert("PA") if mode == "PA" else Image.fromarray(PHOTO).convert(mode)
    encoded = saved(image, "TIFF")
    expected = converted(Image.open(BytesIO(encoded)), channels)
    assert np.array_equal(decode(encoded, channels=channels), expected)


@from_pillow_13
def test_premultiplied_grey_is_divided_by_its_alpha(decode):
    straight = grey_alpha()
    encoded = bytearray(saved(straight, "TIFF"))
    extra_samples = encoded.index(b"\x52\x01\x03\x00\x01\x00\x00\x00\x02\x00")  # tag 338: alpha, not multiplied in
    encoded[extra_samples + 8] = 1
    at = Image.open(BytesIO(encoded)).tag_v2[273][0]
    encoded[at : at + 2 * 40 * 60] = straight.convert("La").tobytes()
    assert Image.open(BytesIO(encoded)).mode == "La"
    decoded = decode(bytes(encoded), channels=4)
    grey, alpha = np.moveaxis(np.asarray(straight).astype(int), 2, 0)
    assert np.array_equal(decoded[..., 3], alpha)
    assert np.abs(decoded[..., 0] - grey)[alpha > 127].max() <= 2


def test_sixteen_bits_a_colour_keep_their_high_byte(decode):
    wide = PHOTO.astype(np.uint16) * 256 + 200
    encoded = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
    assert encoded[24] == 16  # bits a sample, in the header
    assert np.array_equal(decode(encoded), PHOTO)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("transform", [0, 2], ids=["CMYK", "YCCK"])
def test_four_component_jpeg_is_converted_as_pillow_does(decode, transform, channels):
    encoded = bytearray(saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=95))
    encoded[encoded.index(b"Adobe") + 11] = transform
    image = Image.open(BytesIO(encoded))
    assert (image.mode, image.info["adobe_transform"]) == ("CMYK", transform)
    assert np.array_equal(decode(bytes(encoded), channels=channels), converted(image, channels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(decode, kind, channels):
    image = Image.fromarray(PHOTO).convert("1")
    decoded = decode(saved(image, kind), channels=channels)
    assert set(np.unique(decoded[..., 0])) == {0, 255}
    assert np.array_equal(decoded, converted(image, channels))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(decode, kind, channels):
    decoded = decode(saved(GREY16, kind), channels=channels)
    for channel in range(min(channels, 3)):
        assert np.array_equal(decoded[..., channel], GREY16 >> 8)
    assert channels < 4 or (decoded[..., 3] == 255).all()


def test_sixteen_bit_tiff_whose_zero_is_white_is_inverted(decode):
    encoded = saved(GREY16, "TIFF", tiffinfo={262: 0})
    assert Image.open(BytesIO(encoded)).tag_v2[262] == 0
    assert np.array_equal(decode(encoded, channels=1)[..., 0], 255 - (GREY16 >> 8))


def test_twelve_bit_tiff_is_scaled_by_its_own_white(decode):
    # Two 12-bit values in 3 bytes, in a 2 x 1 picture; the bits a sample (tag 258) are patched from 16.
    encoded = saved(np.zeros((1, 2), np.uint16), "TIFF")
    entry = encoded.index(b"\x02\x01\x03\x00\x01\x00\x00\x00\x10\x00")
    strip = Image.open(BytesIO(encoded)).tag_v2[273][0]
    twelve = bytearray(encoded)
    twelve[entry + 8] = 12
    twelve[strip : strip + 3] = bytes([0xFF, 0xF8, 0x00])
    assert decode(bytes(twelve), channels=1)[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("I", (4, 4)), "32-bit or signed"),
        (Image.new("F", (4, 4)), "floating-point"),
        (Image.new("LAB", (4, 4)), "CIE"),
    ],
)
def test_samples_without_an_agreed_white_are_refused(decode, image, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(saved(image, "TIFF"))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_cmyk_tiff_is_converted(decode, channels):
    image = Image.fromarray(PHOTO).convert("CMYK")
    assert np.array_equal(decode(saved(image, "TIFF"), channels=channels), converted(image, channels))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WebP", "TIFF"])
def test_first_frame_of_several_is_taken(decode, kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WebP" else {}
    encoded = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(encoded) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_orientation_is_applied_as_pillow_applies_it(decode, kind, orientation):
    options = {"lossless": True} if kind == "WebP" else {}
    encoded = saved(PHOTO, kind, exif=exif(orientation), **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(encoded))))
    assert np.array_equal(decode(encoded), expected)


def test_orientation_in_a_text_chunk_of_imagemagick_is_applied(decode):
    block = exif(6).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    assert decode(saved(PHOTO, "PNG", pnginfo=text)).shape == (60, 40, 3)


def test_tall_picture_is_converted_in_strips_without_a_seam(decode):
    picture = photo(1000, 300)
    assert np.array_equal(decode(saved(picture, "PNG")), picture)
    assert np.array_equal(
        decode(saved(palette(picture), "PNG", transparency=3), channels=4),
        np.asarray(Image.open(BytesIO(saved(palette(picture), "PNG", transparency=3))).convert("RGBA")),
    )


def test_interlaced_png_and_gif_are_read(decode):
    assert np.array_equal(decode(saved(palette(), "GIF", interlace=1)), decode(saved(palette(), "GIF", interlace=0)))


@pytest.mark.parametrize(
    ("encoded", "shown"),
    [
        (b"", "it is empty"),
        (b"Hello, I am a text\n", "begins with b'Hello, I am a te'; it is not a JPEG, PNG, WebP, GIF, BMP or TIFF"),
        (b"\xff\xd8", "begins with b'.xff.xd8'"),
        (b"BM is how this text begins", "begins as a BMP picture, but can't be decoded"),
        (b"P6\n1 1\n255\n\0\0\0", "it is not a"),
    ],
)
def test_other_bytes_are_refused_and_shown(decode, encoded, shown):
    with pytest.raises(DecodeError, match=shown):
        decode(encoded)


def test_format_is_told_by_the_bytes_of_an_allowed_format_only(decode):
    # Pillow itself would open these.
    for kind in ("ICO", "PPM", "TGA", "PCX"):
        encoded = saved(PHOTO, kind)
        Image.open(BytesIO(encoded)).load()
        with pytest.raises(DecodeError, match="it is not a"):
            decode(encoded)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WebP", {}),
        ("WebP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about TIFF tags that are cut off
def test_picture_cut_off_anywhere_is_refused_or_whole(decode, kind, options):
    encoded = saved(PHOTO, kind, **options)
    whole = decode(encoded)
    refused = 0
    for length in range(1, len(encoded), 7):
        try:
            assert np.array_equal(decode(encoded[:length]), whole)
        except DecodeError:
            refused += 1
    assert refused > 0.8 * len(encoded) / 7


def test_the_programs_own_pixel_limit_neither_warns_nor_counts(decode, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert np.array_equal(decode(saved(PHOTO, "PNG")), PHOTO)


def test_truncated_jpeg_is_refused_though_the_program_lets_pillow_fill_it(decode, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    encoded = saved(PHOTO, "JPEG")
    for kept in (0.5, 0.9, 0.99):
        with pytest.raises(DecodeError, match="cut off"):
            decode(encoded[: int(len(encoded) * kept)])


def test_no_global_of_pillow_is_changed(decode):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, dict(Image.OPEN))
    decode(saved(PHOTO, "WebP"))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, dict(Image.OPEN))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WebP"])
def test_too_many_pixels_are_refused_before_decoding(arena, kind):
    encoded = saved(PHOTO, kind)
    decoder = ImageDecoder(ImageOptions(max_pixels=40 * 60 - 1), arena)
    with pytest.raises(DecodeError, match=r"40 x 60 = 2,400 pixels.*max_pixels=2,399"):
        decoder.decode(memoryview(encoded))
    assert arena.peak_bytes <= 3 * aligned(len(encoded))  # no more than copies of the file were charged
    assert ImageDecoder(ImageOptions(max_pixels=40 * 60), arena).decode(memoryview(encoded)).shape == (40, 60, 3)
