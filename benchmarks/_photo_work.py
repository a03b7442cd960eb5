"""The work of `jpeg_feed.py` and `large_photos.py`: which photos in which order, how they are decoded, what is checked.

Each contender reads a `Listing` and delivers batches of images and labels to a `Delivery`. `Decoder` is what the bare
limit decodes with, and every other contender in the setting "same". All of them take what they need from the job's
`inputs`:

    folder, count   `00000.jpg`, `00001.jpg` and so on
    passes          how often the photos are laid end to end in one epoch
    batch           samples of a batch
    mean_rgb        the mean colour that any right way of loading arrives at
    large           whether they are photos of many megapixels, decoded at a reduced scale
    reference       `.npy` of what Pillow makes of each photo, to tell the difference from; None for none
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _harness import Contender, Job, Measurement, measure

__all__ = ["LANES", "SIDE", "Decoder", "Delivery", "Images", "Listing", "Stream", "peer", "run"]

LANES = 2
SIDE = 224

Images = npt.NDArray[np.uint8]
Stream = Callable[[], Iterator[Any]]


class Listing:
    """One epoch: the photos end to end, as often as the job says. A sample's label is its place, so it is unique."""

    def __init__(self, job: Job) -> None:
        folder, count = Path(job.inputs["folder"]), int(job.inputs["count"])
        self.photos = [str(folder / f"{index:05d}.jpg") for index in range(count)]
        self.paths = self.photos * int(job.inputs["passes"])
        self.order = np.random.default_rng(0).permutation(len(self.paths))
        self.batch = int(job.inputs["batch"])

    def __len__(self) -> int:
        return len(self.paths)


class Delivery:
    """The consumer: touches each image, and checks what was delivered.

    Args:
        job: Says what is to come.
        facts: Gets the mean difference from the reference, where there is one.
    """

    def __init__(self, job: Job, facts: dict[str, Any]) -> None:
        listing = Listing(job)
        self._facts = facts
        self._batch = listing.batch
        self._seen = np.zeros(len(listing), bool)
        self._short = len(listing) % self._batch
        self._sorted = True
        # Only the run for memory lasts to the end of the epoch; looking at every colour would cost time in the others.
        self._look = job.seconds is None
        self._colours: list[npt.NDArray[np.float64]] = []
        self._expected = np.asarray(job.inputs["mean_rgb"])
        reference = job.inputs["reference"]
        self._reference = np.load(reference, mmap_mode="r") if reference and self._look else None
        self._differences: list[float] = []
        self._touched = 0.0

    def take(self, batch: Any) -> int:
        """Touch one byte of each image of `(images, labels)`; images are uint8, or float32 of 0 to 1."""
        images, labels = batch[0], np.asarray(batch[1]).reshape(-1)
        count = len(labels)
        if tuple(images.shape) != (count, SIDE, SIDE, 3) or str(images.dtype).split(".")[-1] not in _SCALES:
            raise ValueError(f"{count} labels, but images are {images.dtype} {tuple(images.shape)}.")
        if count not in (self._batch, self._short):
            raise ValueError(f"a batch of {count}; all have {self._batch}, and one of the epoch what is left over.")
        if count == self._short:
            self._short = self._batch
        self._touched += float(images[:, 0, 0, 0].sum())
        if len(set(labels.tolist())) != count or self._seen[labels].any():
            raise ValueError("a sample came twice.")
        self._seen[labels] = True
        self._sorted = self._sorted and bool((np.diff(labels) > 0).all())
        if self._look:
            self._examine(images, labels)
        return count

    def _examine(self, images: Any, labels: npt.NDArray[Any]) -> None:
        scale = _SCALES[str(images.dtype).split(".")[-1]]
        self._colours.append(np.asarray(images[:, ::4, ::4]).mean(axis=(1, 2)) * scale)
        if self._reference is not None:
            for image, label in zip(np.asarray(images), labels, strict=True):
                wanted = self._reference[label % len(self._reference)].astype(np.float32)
                self._differences.append(float(np.abs(image * np.float32(scale) - wanted).mean()))

    def finish(self, *, complete: bool) -> None:
        """Check the order; after a complete epoch also that all samples came, and their mean colour."""
        if self._sorted:
            raise ValueError("the samples were not shuffled.")
        if complete and not self._seen.all():
            raise ValueError(f"{np.count_nonzero(~self._seen)} of {len(self._seen)} samples never came.")
        if self._look:
            colour = np.concatenate(self._colours).mean(axis=0)
            if np.abs(colour - self._expected).max() > 2:
                raise ValueError(f"the mean colour is {colour.round(1)}, not {self._expected.round(1)}.")
        if self._differences:
            self._facts["mean_difference"] = round(float(np.mean(self._differences)), 3)


#: What an image is multiplied with to reach from 0 to 255, by its dtype.
_SCALES = {"uint8": 1, "float32": 255}


class Decoder:
    """What fitstream's decoding amounts to: nothing is allocated, and nothing is copied twice.

    A large photo is decoded at 1/2, 1/4 or 1/8 of its size, as long as it stays at least as large as needed.

    Args:
        job: Says whether the photos are large.
        area: Antialias exactly what is left of the reduction, instead of interpolating.
    """

    def __init__(self, job: Job, *, area: bool = False) -> None:
        import cv2
        import simplejpeg

        cv2.setNumThreads(1)
        self._job, self._area = job, area
        self._large = bool(job.inputs["large"])
        self._resize = partial(cv2.resize, interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
        self._decode = simplejpeg.decode_jpeg
        self._header = simplejpeg.decode_jpeg_header
        self._kept = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Decoder, area=self._area), (self._job,)  # to a worker process; what is kept stays here

    def into(self, path: str, row: Images) -> None:
        """Decode a JPEG file into `row`, `(height, width, 3)`.

        It has at most 1 MB and 500x375 pixels; or, where photos are large, 16 MB, and 4 megapixels after the reduction.
        """
        kept = self._kept
        if not hasattr(kept, "file"):
            kept.file = memoryview(bytearray(16_000_000 if self._large else 1_000_000))
            kept.pixels = np.empty((4_000_000 if self._large else 375 * 500) * 3, np.uint8)
        file = os.open(path, os.O_RDONLY)
        try:
            size_bytes = os.readv(file, [kept.file])
        finally:
            os.close(file)
        data, least = kept.file[:size_bytes], (0, 0)
        if self._large:
            height, width, _, _ = self._header(data)
            scale = max(scale for scale in (8, 4, 2, 1) if scale == 1 or min(height, width) >= scale * SIDE)
            least = (-(-height // scale), -(-width // scale))
        picture = self._decode(data, "RGB", False, False, *least, 1.0, kept.pixels)
        self._resize(picture, (SIDE, SIDE), dst=row)

    def fresh(self, path: str) -> Images:
        """The same for a loader that stacks its samples itself."""
        image = np.empty((SIDE, SIDE, 3), np.uint8)
        self.into(path, image)
        return image


def run(prepare: Callable[[Job, dict[str, Any]], Stream], job: Job) -> Measurement:
    """Measure a loader in the child.

    Args:
        prepare: Imports what it needs and gives the generator function; may put what the loader says of itself into
            the dict.
        job: What to do.
    """
    facts: dict[str, Any] = {}
    return measure(job, prepare(job, facts), Delivery(job, facts), facts)


def peer(key: str, title: str, prepare: Callable[[Job], Stream], *requires: str, same: bool = True) -> Contender:
    """A contender that decodes in its usual way and, where it can, with the bare limit's decoder."""
    settings = ("usual", "same") if same else ("usual",)
    return Contender(key, title, partial(run, partial(_without_facts, prepare)), settings, requires)


def _without_facts(prepare: Callable[[Job], Stream], job: Job, facts: dict[str, Any]) -> Stream:
    return prepare(job)
