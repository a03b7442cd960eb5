"""The demo's data: the 1,797 handwritten digits that scikit-learn carries, as the files that people have.

They are real (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998), small enough to come with a package, and large enough that 0.97 of right answers has to be learned.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitstream.errors import PlanError

__all__ = ["write_digits"]


def write_digits(folder: Path) -> int:
    """Write each digit as a grey PNG of 8x8 pixels, `folder/<digit>/<number>.png`.

    Returns:
        How many.
    Raises:
        PlanError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise PlanError('the demo needs scikit-learn. Use: pip install "fitstream[demo]"') from error
    from PIL import Image

    digits = load_digits()
    # The scans count 0 to 16 dark pixels in each block of 4x4.
    pictures = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for label in range(10):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for number, (picture, label) in enumerate(zip(pictures, digits.target, strict=True)):
        Image.fromarray(picture).save(folder / str(label) / f"{number:04}.png")
    return len(pictures)
