"""Photos and contenders of `large_photos.py`, and the program of its child processes.

The pictures come from a folder of the user's. JPEG files are copied as they are, anything else becomes JPEG of quality
90 once, and both are kept in the cache folder under a name made from all that they depend on. Beside them lies what
Pillow makes of each: decoded in full and resized with antialiasing, which is what differences are told from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import _loaders
import numpy as np
from _harness import Contender, child_main
from _photo_peers import PEERS
from _photo_work import SIDE

__all__ = ["CONTENDERS", "FITSTREAM", "LIMIT", "LargePhotos", "prepare"]

LIMIT = dataclasses.replace(_loaders.LIMIT, title="bare limit: two plain threads, bilinear")
_LIMIT_AREA = Contender(
    "limit-area",
    "two plain threads, area",
    partial(_loaders.bare_limit, area=True),
    ("own",),
    ("cv2", "simplejpeg"),
)
_BILINEAR = _loaders.fitstream_contenders()
FITSTREAM = _BILINEAR[0]
CONTENDERS = (
    LIMIT,
    _LIMIT_AREA,
    *_BILINEAR,
    *_loaders.fitstream_contenders("-area", " area", "area"),
    *PEERS,
)

_FORMAT = 1  # raise it when this file makes other pictures
_LEAST_PIXELS, _MOST_PIXELS = 4_000_000, 15_000_000
_QUALITY = 90
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclasses.dataclass(frozen=True, slots=True)
class LargePhotos:
    """A folder of distinct large JPEG pictures.

    Attributes:
        folder: Holds `00000.jpg`, `00001.jpg` and so on, and `reference.npy`.
        count: How many.
        converted: How many of them were no JPEG.
        least_pixels: Of the smallest.
        mean_pixels: Of all.
        most_pixels: Of the largest.
        mean_bytes: Mean size of a file.
        mean_rgb: Mean colour of all after Pillow, 0 to 255.
    """

    folder: str
    count: int
    converted: int
    least_pixels: int
    mean_pixels: int
    most_pixels: int
    mean_bytes: int
    mean_rgb: tuple[float, float, float]

    @property
    def reference(self) -> str:
        """Path of what Pillow makes of each: uint8 `(count, height, width, 3)`."""
        return str(Path(self.folder, "reference.npy"))


def prepare(folder: Path, most: int | None = None) -> LargePhotos:
    """Give the pictures of a folder that have 4 to 15 megapixels; made first if they are not there yet.

    Args:
        folder: Searched with all below it; links are passed over.
        most: How many to use; None for all. Either way the last ones are left out to a multiple of eight.
    Raises:
        SystemExit: If there are none.
    """
    found = _find(folder)[:most]
    found = found[: len(found) // 8 * 8]
    if not found:
        raise SystemExit(
            f"{folder} holds no eight pictures of 4 to 15 megapixels (.jpg, .png, .webp). Debian's package "
            "plasma-workspace-wallpapers has some: apt-get install plasma-workspace-wallpapers. Or name a folder of "
            "photos: --folder ~/Pictures"
        )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fitstream-bench"
    key = [_FORMAT, SIDE, _QUALITY, *((str(path), path.stat().st_size, path.stat().st_mtime) for path in found)]
    target = cache / f"large-{len(found)}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        _make(target, found)
    facts = json.loads((target / "photos.json").read_text(encoding="utf-8"))
    return LargePhotos(folder=str(target), **{**facts, "mean_rgb": tuple(facts["mean_rgb"])})


def _find(folder: Path) -> list[Path]:
    from PIL import Image

    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.is_symlink():
            with Image.open(path) as image:
                turned = image.getexif().get(0x0112, 1) != 1  # some contenders turn such photos, some don't
                if _LEAST_PIXELS <= image.width * image.height <= _MOST_PIXELS and not turned:
                    found.append(path)
    return found


def _make(target: Path, found: list[Path]) -> None:
    from PIL import Image

    building = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        reference = np.empty((len(found), SIDE, SIDE, 3), np.uint8)
        sizes, pixels, converted = [], [], 0
        for index, path in enumerate(found):
            copy = building / f"{index:05d}.jpg"
            with Image.open(path) as image:
                if image.format == "JPEG" and image.mode == "RGB":
                    shutil.copyfile(path, copy)
                else:
                    image.convert("RGB").save(copy, "JPEG", quality=_QUALITY)
                    converted += 1
            with Image.open(copy) as image:
                pixels.append(image.width * image.height)
                reference[index] = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            sizes.append(copy.stat().st_size)
        np.save(building / "reference.npy", reference)
        facts: dict[str, Any] = {
            "count": len(found),
            "converted": converted,
            "least_pixels": min(pixels),
            "mean_pixels": round(float(np.mean(pixels))),
            "most_pixels": max(pixels),
            "mean_bytes": round(float(np.mean(sizes))),
            "mean_rgb": [round(float(channel), 3) for channel in reference.mean(axis=(0, 1, 2))],
        }
        (building / "photos.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


if __name__ == "__main__":
    child_main(CONTENDERS, sys.argv[1:])
