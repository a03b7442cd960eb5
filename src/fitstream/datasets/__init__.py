"""Well-known datasets in the form that their users know, as memory-mapped arrays.

    (x_train, y_train), (x_test, y_test) = fs.datasets.cifar10("~/data")

On first use the original files are taken from the folder, or downloaded there and compared with the checksum that
their publishers state; they are read strictly, and converted once to four `.npy` files, which are mapped from then on.
CIFAR is read in its *binary* version: the better-known "python version" holds pickles, which are never loaded.
"""

from __future__ import annotations

from fitstream.datasets.ready import Arrays, cifar10, cifar100, digits, fashion_mnist, mnist

__all__ = ["Arrays", "cifar10", "cifar100", "digits", "fashion_mnist", "mnist"]
