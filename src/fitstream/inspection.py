"""What a set of picture files holds: `fitstream inspect` without its words.

Two passes. The first looks at each file: its status, its first bytes. What is wrong with it then is told, and it takes
no part in the second, which decodes the others as a training run would: by a loader that leaves out bad samples, with
its budget, lanes and worker processes, so that even a picture that crashes a decoder is only a line in the result.

Faults are handed on as they are found. Kept are a number a file for its bytes and for its pixels, 16 bytes a file in
all, since medians need them, and the list of the files to be decoded.
"""

from __future__ import annotations

import os
import warnings
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from fitstream.checking import Fault, blocks_of, in_threads
from fitstream.dataset import Dataset
from fitstream.errors import SampleError
from fitstream.events import BadSampleFound, Event
from fitstream.operations import Decode
from fitstream.sampling import Indices
from fitstream.sources.files import FileSource, PathPacker, encode_path
from fitstream.transforms.heads import HEAD_BYTES, picture_size
from fitstream.transforms.images import DecodeError, ImageOptions
from fitstream.transforms.pillow import picture_format

__all__ = ["Findings", "decode_all", "look_at_all"]

_THREADS = 8
_BLOCK_SAMPLES = 256
_BATCH_SIZE = 32


@final
@dataclass(slots=True)
class Findings:
    """What was seen of the files that can be looked at.

    Attributes:
        formats: How many there are of each.
        sizes_bytes: Of the files.
        pixels: Height times width of each picture whose first bytes tell.
        readable: Paths of all that seem to be pictures.
    """

    formats: Counter[str] = field(default_factory=Counter)
    sizes_bytes: array[int] = field(default_factory=lambda: array("q"))
    pixels: array[int] = field(default_factory=lambda: array("q"))
    readable: PathPacker = field(default_factory=PathPacker)


class _Look(NamedTuple):
    fault: Fault | None
    path: str
    name: str = ""
    size_bytes: int = 0
    pixels: int = -1


def look_at_all(source: FileSource, found: Callable[[Fault], None], looked: Callable[[int], None]) -> Findings:
    """Look at the status and the first bytes of every file.

    Args:
        source: The files.
        found: Called with each fault, in the source's order.
        looked: Called with the number of files that were looked at since its last call.
    """

    def look(indices: Indices) -> list[_Look]:
        return [_look(source, index) for index in indices.tolist()]

    findings = Findings()
    for looks in in_threads(look, blocks_of(source, (), _BLOCK_SAMPLES), _THREADS):
        for one in looks:
            if one.fault is not None:
                found(one.fault)
                continue
            findings.formats[one.name] += 1
            findings.sizes_bytes.append(one.size_bytes)
            if one.pixels >= 0:
                findings.pixels.append(one.pixels)
        findings.readable.extend([encode_path(one.path) for one in looks if one.fault is None])
        looked(len(looks))
    return findings


def _look(source: FileSource, index: int) -> _Look:
    path = source.path(index)
    reason = source.fault(index)
    if reason is None:
        try:
            with open(path, "rb", buffering=0) as file:
                head = file.read(HEAD_BYTES)
                size_bytes = os.fstat(file.fileno()).st_size
            name = picture_format(memoryview(head))
        except OSError as error:
            reason = f"the file cannot be read: {error.strerror}."
        except DecodeError as error:
            reason = str(error)
        else:
            height, width = picture_size(name, head) or (-1, 1)
            return _Look(None, path, name, size_bytes, height * width)
    return _Look(Fault(index, path, reason), path)


def decode_all(
    findings: Findings,
    options: ImageOptions,
    settings: dict[str, Any],
    found: Callable[[Fault], None],
    decoded: Callable[[int], None],
) -> None:
    """Decode every file that seemed to be a picture.

    Args:
        findings: Of `look_at_all`; their list of paths is used up.
        options: What the pictures become.
        settings: Of `Dataset.loader`: memory, workers, processes.
        found: Called with each picture that can't be decoded, in the source's order.
        decoded: Called with the number of pictures that were tried since its last call.
    Raises:
        PlanError: If the budget doesn't suffice.
    """
    count = len(findings.readable)
    files = FileSource(findings.readable.packed(b"/"), None, None, "files")
    pictures = Dataset(files, (Decode(options),))
    telling = _Telling(found, decoded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are bad samples is what this tells
        try:
            # fmt: off
            loader = pictures.batch(min(_BATCH_SIZE, count)).loader(
                **settings, on_bad_sample="skip", max_bad_fraction=1.0, observers=[telling])
            # fmt: on
        except SampleError:  # A plan needs one that can be decoded, and looks at the first ones only.
            for index in range(count):
                try:
                    pictures[index]
                except SampleError as error:
                    telling.tell(error.index, error.path, error.reason)
                else:
                    decoded(1)
            return
        with loader:
            for batch in loader:
                decoded(len(batch))


@final
class _Telling:
    """Hands on what was found to be bad."""

    def __init__(self, found: Callable[[Fault], None], decoded: Callable[[int], None]) -> None:
        self._found = found
        self._decoded = decoded

    def on_event(self, event: Event) -> None:
        if isinstance(event, BadSampleFound):
            self.tell(event.bad.index, event.bad.path, event.bad.reason)

    def tell(self, index: int | None, path: str | None, reason: str) -> None:
        self._found(Fault(index or 0, path, reason))
        self._decoded(1)
