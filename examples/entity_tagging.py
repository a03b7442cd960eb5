"""Tagging names in sentences, with word vectors and a bidirectional LSTM.

What is real: the names of places are those of the time zone database. The rest is made: sentences by the grammar below
(a template, with names of places, people and firms put in), and word vectors by a singular value decomposition of how
often words stand beside each other in 8,000 untagged sentences of the same grammar. The vectors are written as a file
of word2vec and read by `WordVectors`. A third of the names is in no sentence of the training, and where the sentence
doesn't tell ("they spoke of Oslo"), only the vectors do.

    python examples/entity_tagging.py            # 8,000 sentences, 4 epochs, about a minute
    python examples/entity_tagging.py --quick    # 2,000 sentences, 2 epochs

Needs: pip install "fitstream[tensorflow]"     (or [torch], or [jax])
Expected: token accuracy of at least 0.97 on 500 sentences, a third of whose names were never seen with a tag; always to
say "no name" gives about 0.7. Real sentences are harder: these are made by a grammar.
"""

from __future__ import annotations

import argparse
import tempfile
import zoneinfo
from pathlib import Path

import keras
import numpy as np

import fitstream as fs
from fitstream.transforms.sequences import Vocabulary, WordVectors, pad

TAGS = Vocabulary(["O", "PLACE", "PERSON", "FIRM"], padding=None, unknown=None)
LONGEST = 16
GRAMMAR = """
the PERSON of FIRM went to PLACE last week
PERSON and PERSON met in PLACE
FIRM opened an office near PLACE , said PERSON
flights from PLACE to PLACE were late again
shares of FIRM fell after PERSON left
last year PERSON moved to PLACE to work for FIRM
nobody in PLACE had heard of FIRM before
ANY was in the news today
they spoke of ANY , ANY and ANY
"""
TEMPLATES = [line.split() for line in GRAMMAR.strip().splitlines()]


def names() -> dict[str, list[str]]:
    zones = [zone for zone in zoneinfo.available_timezones() if zone.startswith(("America/", "Asia/", "Europe/"))]
    cities = sorted({zone.rpartition("/")[2] for zone in zones})
    starts = ["Mar", "Jo", "An", "Pe", "Lu", "Ka", "Ro", "Mi", "Da", "El"]
    people = [start + end for start in starts for end in ("ta", "nas", "ria", "ter", "cia", "lin", "man", "la", "sa")]
    firms = [start.upper() + end for start in starts for end in ("tech", "bank", "air", "soft")]
    return {"PLACE": cities, "PERSON": people, "FIRM": firms}


def sentences(count: int, known: dict[str, list[str]], rng: np.random.Generator) -> list[list[str]]:
    """Words with their tags: ["in/O", "Oslo/PLACE"]."""
    made = []
    for number in rng.integers(len(TEMPLATES), size=count):
        tags = [rng.choice(list(known)) if word == "ANY" else word for word in TEMPLATES[number]]
        made.append([f"{rng.choice(known[tag])}/{tag}" if tag in known else f"{tag}/O" for tag in tags])
    return made


def write_vectors(path: Path, texts: list[list[str]], dimension: int = 32) -> None:
    """Vectors of words, from how often they stand beside each other, as a text file of word2vec."""
    vocabulary = Vocabulary.of(texts, padding=None, unknown=None)
    counts = np.zeros((len(vocabulary), len(vocabulary)))
    for text in texts:
        numbers = vocabulary(text)
        np.add.at(counts, (numbers[:-1], numbers[1:]), 1)
        np.add.at(counts, (numbers[1:], numbers[:-1]), 1)
    sums = counts.sum(1)
    information = np.log1p(counts * counts.sum() / np.outer(sums, sums))
    left, values, _ = np.linalg.svd(information)
    rows = left[:, :dimension] * np.sqrt(values[:dimension])
    lines = [f"{word} {' '.join(f'{x:.5f}' for x in row)}" for word, row in zip(vocabulary, rows, strict=True)]
    path.write_text("\n".join([f"{len(vocabulary)} {dimension}", *lines]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    known = names()
    seen = {tag: sorted(rng.permutation(words)[: len(words) * 2 // 3]) for tag, words in known.items()}

    with tempfile.TemporaryDirectory() as folder:
        train, test, path = Path(folder, "train.txt"), Path(folder, "test.txt"), Path(folder, "vectors.txt")
        for file, count, which in ((train, 2000 if quick else 8000, seen), (test, 500, known)):
            file.write_text("\n".join(map(" ".join, sentences(count, which, rng))), encoding="utf-8")
        untagged = [[word.partition("/")[0] for word in text] for text in sentences(8_000, known, rng)]
        write_vectors(path, untagged)
        vectors = WordVectors(path)

        def parse(line: str) -> tuple[np.ndarray, np.ndarray]:
            words, tags = zip(*(word.split("/") for word in line.split()), strict=True)
            return vectors(words), TAGS(tags)

        padded = [fs.from_text(file, parse).map(pad(LONGEST, parts=(0, 1), mask=True)) for file in (train, test)]
        tagger = keras.Sequential([keras.layers.Input((LONGEST, vectors.dimension))])
        tagger.add(keras.layers.Bidirectional(keras.layers.LSTM(24, return_sequences=True)))
        tagger.add(keras.layers.Dense(len(TAGS), activation="softmax"))
        tagger.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
        fs.fit(tagger, padded[0].shuffle(0).batch(32), epochs=2 if quick else 4, verbose=0, memory="128 MB")
        result = fs.evaluate(tagger, padded[1].batch(32), return_dict=True, verbose=0, memory="128 MB")

        tags = [word.partition("/")[2] for word in test.read_text(encoding="utf-8").split()]
    majority = tags.count("O") / len(tags)
    print(f"{vectors}; {len(tags):,} words: accuracy {result['accuracy']:.3f}, always O {majority:.3f}")
    assert result["accuracy"] >= 0.97, "the expected result"


if __name__ == "__main__":
    main()
