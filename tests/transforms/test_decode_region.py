"""Random crops that the decoder does itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fitstream as fs
from fitstream.operations import stages_of
from fitstream.transforms.images import RandomFlip, RandomResizedCrop


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Smooth pictures, so that a crop at a reduced scale is near to one of the whole picture."""
    rng = np.random.default_rng(1)
    for number in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture = coarse.resize((320, 240), Image.Resampling.BICUBIC)
        (tmp_path / "a").mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = (1, 3, 6, 8, 5, 2)[number]
        suffix, extra = ("png", {}) if number == 0 else ("jpg", {"quality": 95, "exif": exif.tobytes()})
        picture.save(tmp_path / "a" / f"{number}.{suffix}", **extra)
    return tmp_path


def pictures(ds: fs.Dataset, **settings: Any) -> np.ndarray[Any, Any]:
    with ds.batch(6).loader(memory="256 MB", **settings) as loader:
        return np.concatenate([x for x, _ in loader])


def separately(crop: RandomResizedCrop) -> Any:
    def fn(image: Any, label: Any, rng: np.random.Generator) -> Any:
        return crop(image, label, rng=rng)

    return fn


def test_a_crop_behind_the_decoder_becomes_part_of_it(photos: Path) -> None:
    ds = fs.from_folder(photos).map(RandomResizedCrop(32)).map(RandomFlip())
    assert [place for place, _ in stages_of(ds._operations)] == [1, 2]
    assert "cropped at random" in repr(ds.batch(2).plan(memory="64 MB").recipe) or len(stages_of(ds._operations)) == 2
    assert pictures(ds).shape == (6, 32, 32, 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "area", "nearest"])
@pytest.mark.parametrize("size", [(32, 24), (200, 230)])
def test_it_is_the_crop_that_comes_after_decoding_in_full(
    photos: Path, size: tuple[int, int], interpolation: Any
) -> None:
    crop = RandomResizedCrop(size, area=(0.3, 1), interpolation=interpolation)
    for order in range(3):
        fused = pictures(fs.from_folder(photos).shuffle(order).map(crop)).astype(int)
        apart = pictures(fs.from_folder(photos).shuffle(order).map(separately(crop))).astype(int)
        # A reduced scale moves the rectangle by up to half a pixel of the result, and these pictures are smooth.
        assert np.abs(fused - apart).mean() < 5


def test_a_picture_that_is_drawn_several_times_in_a_pass_is_cropped_anew_each_time(photos: Path) -> None:
    crop = RandomResizedCrop((100, 90))
    drawn = fs.from_folder(photos).take(1).sample(6, seed=1)
    fused, apart = pictures(drawn.map(crop)), pictures(drawn.map(separately(crop)))
    assert len({picture.tobytes() for picture in fused}) == 6
    assert np.array_equal(fused, apart)


@pytest.mark.parametrize("interpolation", ["bilinear", "area", "nearest"])
def test_a_png_is_cropped_to_the_same_pixels(photos: Path, interpolation: Any) -> None:
    crop = RandomResizedCrop((100, 90), interpolation=interpolation)
    source = fs.from_folder(photos).take(1)
    with source.map(crop).batch(1).loader(memory="64 MB") as one:
        with source.map(separately(crop)).batch(1).loader(memory="64 MB") as other:
            for _ in range(8):
                np.testing.assert_array_equal(next(iter(one))[0], next(iter(other))[0])


@pytest.mark.parametrize("settings", [{"workers": 2}, {"workers": 2, "processes": 1}])
def test_bytes_are_the_same_in_threads_and_processes(photos: Path, settings: dict[str, Any]) -> None:
    ds = fs.from_folder(photos).shuffle(1).map(RandomResizedCrop(32)).map(RandomFlip())
    np.testing.assert_array_equal(pictures(ds, workers=0), pictures(ds, **settings))


def test_epochs_draw_otherwise_and_resuming_draws_alike(photos: Path) -> None:
    ds = fs.from_folder(photos).map(RandomResizedCrop(32)).batch(3)
    with ds.loader(memory="64 MB") as loader:
        first, second = ([x.tobytes() for x, _ in loader] for _ in range(2))
    assert first != second
    with ds.loader(memory="64 MB") as loader:
        loader.set_epoch(1)
        assert [x.tobytes() for x, _ in loader] == second
        state = loader.state_dict()
    other = fs.from_folder(photos).map(RandomResizedCrop(32, area=(0.5, 1))).batch(3)
    with other.loader(memory="64 MB") as loader, pytest.raises(fs.StateError, match="decode"):
        loader.load_state_dict(state)


def test_a_jpeg_that_only_pillow_reads_is_cropped_alike(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    out = io.BytesIO()
    Image.new("CMYK", (90, 60), (10, 200, 30, 0)).save(out, "JPEG")
    (tmp_path / "a" / "0.jpg").write_bytes(out.getvalue())
    ds = fs.from_folder(tmp_path).map(RandomResizedCrop(16)).batch(1)
    assert ds[0][0].shape == (1, 16, 16, 3)


def test_with_an_image_size_the_crop_comes_after_it(photos: Path) -> None:
    ds = fs.from_folder(photos, image_size=64).map(RandomResizedCrop(32))
    assert [place for place, _ in stages_of(ds._operations)] == [0, 1]
    assert pictures(ds).shape == (6, 32, 32, 3)
