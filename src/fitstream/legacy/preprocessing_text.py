"""What `keras.preprocessing.text` offered, under its names and with its argument names.

Keras 3 still has it, in private, with the first argument of some functions renamed. Keras 1's `nb_words` is put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fitstream.legacy.keras_kept import text as kept

__all__ = ["Tokenizer", "base_filter", "hashing_trick", "one_hot", "text_to_word_sequence", "tokenizer_from_json"]

_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'

hashing_trick = kept.hashing_trick


def base_filter() -> str:
    """The characters that are taken out of texts, as Keras 1 gave them."""
    return _FILTERS


def text_to_word_sequence(text: str, filters: str = _FILTERS, lower: bool = True, split: str = " ") -> list[str]:
    """The words of a text.

    Args:
        text: The text.
        filters: Characters that separate words, as `split` does.
        lower: Make it lower case first.
        split: Between words.
    """
    words: list[str] = kept.text_to_word_sequence(text, filters=filters, lower=lower, split=split)
    return words


def one_hot(
    text: str,
    n: int,
    filters: str = _FILTERS,
    lower: bool = True,
    split: str = " ",
    analyzer: Callable[[str], Iterable[str]] | None = None,
) -> list[int]:
    """Numbers from 1 to n - 1 for the words of a text, by Python's `hash`, which is another in each process.

    Args:
        text: As in `text_to_word_sequence`, like all that aren't told here.
        n: Numbers to choose from, 0 included.
        filters: See there.
        lower: See there.
        split: See there.
        analyzer: Finds the words instead.
    """
    numbers: list[int] = kept.one_hot(text, n, filters=filters, lower=lower, split=split, analyzer=analyzer)
    return numbers


class Tokenizer(kept.Tokenizer):
    """Words to numbers and back, as in Keras 1 and 2. Takes `nb_words` for `num_words`."""

    @property
    def nb_words(self) -> int | None:
        """Keras 1's name of `num_words`."""
        words: int | None = self.num_words
        return words


def tokenizer_from_json(json_string: str) -> Tokenizer:
    """A tokenizer from what `Tokenizer.to_json` gave."""
    loaded: Any = kept.tokenizer_from_json(json_string)
    tokenizer = Tokenizer()
    tokenizer.__dict__.update(loaded.__dict__)
    return tokenizer
