"""The photos that benchmarks read: 500x375 JPEGs of about 44 KB, the same on every machine, made once and kept.

Real photos are used where they are at hand: each is turned to landscape, cropped at a place drawn for this photo, and
mirrored or turned over for further variants, so that no two files are alike. They are not enlarged unless they are too
small. Without the archive the pictures are synthetic: noise smoothed at seven scales under hard-edged lines, which an
encoder finds about as hard as a photo. The JPEG quality is searched so that the mean file has the wanted size, since
decoding time depends on it.

The folder is named after everything that it depends on and appears under its name only when it is complete.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["ARCHIVE", "PhotoSet", "prepare"]

ARCHIVE = Path(__file__).resolve().parents[2] / "shared" / "data" / "clothing10-full.zip"

_FORMAT = 1  # raise it when this file makes other pictures
_SEED = 20240
_TURNS = (None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM)

Picture = Callable[[int], Image.Image]


@dataclasses.dataclass(frozen=True, slots=True)
class PhotoSet:
    """A folder of distinct JPEG photos.

    Attributes:
        folder: Holds `00000.jpg`, `00001.jpg` and so on.
        count: How many.
        width: In pixels, of every photo.
        height: In pixels, of every photo.
        quality: The JPEG quality, 4:2:0.
        mean_bytes: Mean size of a file.
        mean_rgb: Mean colour of all photos, 0 to 255; what any right way of loading them arrives at.
        origin: Where the pictures come from, for the report.
    """

    folder: str
    count: int
    width: int
    height: int
    quality: int
    mean_bytes: int
    mean_rgb: tuple[float, float, float]
    origin: str

    @property
    def paths(self) -> list[str]:
        """The absolute path of each photo, in order."""
        return [os.path.join(self.folder, _name(index)) for index in range(self.count)]


def prepare(
    count: int,
    *,
    width: int = 500,
    height: int = 375,
    target_bytes: int = 44_000,
    archive: Path = ARCHIVE,
    cache: Path | None = None,
) -> PhotoSet:
    """Give the photos, and make them first if they are not there yet (about 20 s for 2,000).

    Args:
        count: How many distinct photos.
        width: In pixels.
        height: In pixels.
        target_bytes: Wanted mean size of a file.
        archive: A zip of real photos; if it is missing the pictures are synthetic.
        cache: Where to keep them; None is `fitstream-bench` in the user's cache folder.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fitstream-bench"
    real = archive.is_file()
    source = [archive.name, archive.stat().st_size] if real else ["synthetic"]
    key = [_FORMAT, _SEED, count, width, height, target_bytes, *source]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    folder = cache / f"photos-{width}x{height}-{count}-{digest}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        if real:
            with zipfile.ZipFile(archive) as photos:
                names = sorted(name for name in photos.namelist() if name.lower().endswith((".jpg", ".jpeg")))
                blobs = [photos.read(name) for name in names]
            origin = f"crops of {len(blobs)} real photos ({archive.name})"
            _make(folder, count, target_bytes, origin, functools.partial(_real, blobs, (width, height)))
        else:
            _make(folder, count, target_bytes, "synthetic pictures", functools.partial(_synthetic, (width, height)))
    facts = json.loads((folder / "photos.json").read_text(encoding="utf-8"))
    mean_rgb = tuple(facts.pop("mean_rgb"))
    return PhotoSet(folder=str(folder), count=count, width=width, height=height, mean_rgb=mean_rgb, **facts)


def _make(folder: Path, count: int, target_bytes: int, origin: str, picture: Picture) -> None:
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        quality = _quality_for(target_bytes, picture, range(0, count, max(1, count // 64)))

        def save(index: int) -> tuple[int, np.ndarray]:
            image = picture(index)
            data = _encode(image, quality)
            (building / _name(index)).write_bytes(data)
            return len(data), np.asarray(image).mean(axis=(0, 1))

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            sizes, colours = zip(*pool.map(save, range(count)), strict=True)
        facts = {
            "quality": quality,
            "mean_bytes": round(sum(sizes) / count),
            "mean_rgb": [round(float(channel), 3) for channel in np.mean(colours, axis=0)],
            "origin": origin,
        }
        (building / "photos.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        try:
            building.rename(folder)
        except OSError:
            # Another run finished the same folder first; anything else is a real error.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _quality_for(target_bytes: int, picture: Picture, sample: Iterable[int]) -> int:
    images = [picture(index) for index in sample]

    def excess(quality: int) -> float:
        return sum(len(_encode(image, quality)) for image in images) / len(images) - target_bytes

    low, high = 30, 98
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return min(low, high, key=lambda quality: abs(excess(quality)))


def _real(blobs: list[bytes], size: tuple[int, int], index: int) -> Image.Image:
    variant, photo = divmod(index, len(blobs))
    rng = np.random.default_rng((_SEED, index))
    with Image.open(io.BytesIO(blobs[photo])) as opened:
        image = opened.convert("RGB")
    if image.height > image.width:
        image = image.transpose(Image.Transpose.ROTATE_90)
    width, height = size
    # A few pixels to spare in both directions, so that every variant is cropped at another place.
    scale = max((width + 8) / image.width, (height + 8) / image.height, 1.0)
    if scale > 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    image = image.crop((left, top, left + width, top + height))
    turn = _TURNS[variant % len(_TURNS)]
    return image if turn is None else image.transpose(turn)


def _synthetic(size: tuple[int, int], index: int) -> Image.Image:
    width, height = size
    rng = np.random.default_rng((_SEED, index))
    canvas = np.full((height, width, 3), 128.0)
    tint = rng.uniform(0.3, 1.0, 3)
    for level in range(7):
        cells = 3 * 2**level
        noise = rng.normal(size=(-(-cells * height // width), cells)).astype(np.float32)
        smooth = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        canvas += np.asarray(smooth)[:, :, None] * (48 / 1.6**level) * np.roll(tint, level)
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 12))):
        corners = [(float(x), float(y)) for x, y in rng.uniform((0, 0), (width, height), (3, 2))]
        colour = tuple(int(channel) for channel in rng.integers(0, 256, 3))
        draw.line([*corners, corners[0]], fill=colour, width=int(rng.integers(1, 9)))
    grain = rng.normal(scale=4.0, size=(height, width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def _name(index: int) -> str:
    return f"{index:05d}.jpg"
