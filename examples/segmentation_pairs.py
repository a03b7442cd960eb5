"""Pictures and their masks, transformed together, to train a small segmentation network.

Writes 900 pairs of PNG files from scikit-learn's handwritten digits (a digit in a random colour on a noisy ground, and
the mask of its strokes), reads them from disk within 64 MB, and turns, flips and crops both alike. Expected: the masks
of new pictures overlap the true ones by more than 0.9 (intersection over union); marking all pixels gives about 0.4.

    python examples/segmentation_pairs.py            # some seconds on two cores, once Keras has started
    python examples/segmentation_pairs.py --quick    # fewer pairs, for the tests: more than 0.8
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import fitstream as fs
from fitstream.transforms.images import Augment, ColorJitter, RandomCrop, RandomFlip, RandomRotation

QUICK = "--quick" in sys.argv
COUNT, EPOCHS, LEAST = (300, 4, 0.8) if QUICK else (900, 6, 0.9)


def write_pairs(root: Path) -> None:
    """`root/images/0.png` (RGB) and `root/masks/0.png` (0 or 1 for each pixel)."""
    rng = np.random.default_rng(0)
    (digits, _), _ = fs.datasets.digits()
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(COUNT):
        mask = np.kron(digits[number] > 7, np.ones((5, 5))).astype(np.uint8)
        picture = rng.integers(0, 100, (40, 40, 3))
        picture[mask == 1] = rng.integers(120, 256, 3)
        Image.fromarray(picture.astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")


class Pairs:
    """What `from_sequence` needs: a length, and one pair at a time. It is sent to worker processes as it is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(path.name for path in (root / "images").iterdir())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        name = self.names[index]
        with Image.open(self.root / "images" / name) as image, Image.open(self.root / "masks" / name) as mask:
            return np.array(image), np.array(mask)[..., np.newaxis]


#: One draw for both parts: pixels of the mask are moved, never mixed, and keep their colours.
AUGMENT = Augment(
    [
        RandomFlip(0.5, 0.5),
        RandomRotation(20),
        RandomCrop(32),
        ColorJitter(brightness=0.2, contrast=0.2, hue=0.5),
    ],
    parts=("image", "mask"),
)


def overlap(model: keras.Model, data: fs.Dataset, *, everything: bool = False) -> float:
    """Intersection over union of the masks that are found."""
    both = either = 0
    with data.loader(memory="64 MB") as loader:
        for images, masks in loader:
            found = np.ones_like(masks) if everything else model.predict(images, verbose=0) > 0.5
            both += np.logical_and(found, masks).sum()
            either += np.logical_or(found, masks).sum()
    return float(both / either)


def main() -> None:
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder))
        train, test = fs.from_sequence(Pairs(Path(folder))).split(0.8, seed=0)
        train = train.shuffle(seed=0).map(AUGMENT).batch(16, last="drop")
        test = test.map(Augment([RandomCrop(32)], ("image", "mask"))).batch(16)
        layers = keras.layers
        model = keras.Sequential(
            [
                layers.Input((32, 32, 3)),
                layers.Rescaling(1 / 255),
                layers.Conv2D(12, 3, padding="same", activation="relu"),
                layers.Conv2D(12, 3, padding="same", activation="relu"),
                layers.Conv2D(1, 1, activation="sigmoid"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
        fs.fit(model, train, epochs=EPOCHS, memory="64 MB", verbose=0)
        everything, found = overlap(model, test, everything=True), overlap(model, test)
    print(f"overlap with the true masks: {found:.2f} (all pixels: {everything:.2f})")
    assert found > LEAST > everything, (found, everything)


main()
