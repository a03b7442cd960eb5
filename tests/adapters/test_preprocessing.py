"""Functions for texts and sequences as old programs call them: what Keras 3's private module is relied on for."""

from __future__ import annotations

import numpy as np
import pytest

from fitstream.legacy import preprocessing_sequence as sequence
from fitstream.legacy import preprocessing_text as text
from fitstream.legacy.sequence import is_sequence

TEXTS = ["The cat sat on the mat.", "The dog sat on the log.", "Dogs and cats living together."]


def test_texts_become_words_under_the_old_argument_name() -> None:
    assert text.text_to_word_sequence(text="Hello, World!") == ["hello", "world"]
    assert text.text_to_word_sequence("A-b", filters="", lower=False) == ["A-b"]
    assert "!" in text.base_filter()


def test_words_become_numbers_below_n() -> None:
    numbers = text.one_hot(text=TEXTS[0], n=5)
    assert len(numbers) == 6
    assert set(numbers) <= {1, 2, 3, 4}
    assert text.hashing_trick(TEXTS[0], 9, "md5") == text.hashing_trick(TEXTS[0], 9, "md5")


@pytest.mark.filterwarnings("ignore:The `nb_words` argument")
@pytest.mark.parametrize("name", ["num_words", "nb_words"])
def test_a_tokenizer_takes_either_name(name: str) -> None:
    tokenizer = text.Tokenizer(**{name: 10})
    tokenizer.fit_on_texts(TEXTS)
    assert tokenizer.num_words == tokenizer.nb_words == 10
    assert tokenizer.word_index["the"] == 1
    assert tokenizer.texts_to_sequences(["the cat"])[0][0] == 1
    for mode in ("binary", "count", "tfidf", "freq"):
        assert tokenizer.texts_to_matrix(TEXTS, mode).shape == (3, 10)


def test_a_tokenizer_comes_back_from_json() -> None:
    tokenizer = text.Tokenizer(oov_token="?")
    tokenizer.fit_on_texts(TEXTS)
    loaded = text.tokenizer_from_json(tokenizer.to_json())
    assert isinstance(loaded, text.Tokenizer)
    assert loaded.texts_to_sequences(["the unicorn sat"]) == tokenizer.texts_to_sequences(["the unicorn sat"])


def test_sequences_are_padded() -> None:
    padded = sequence.pad_sequences([[1], [2, 3], [4, 5, 6]], maxlen=2)
    assert padded.tolist() == [[0, 1], [2, 3], [5, 6]]


def test_skipgrams_pair_words_of_one_window() -> None:
    couples, labels = sequence.skipgrams([1, 2, 3], vocabulary_size=4, window_size=1, negative_samples=0, shuffle=False)
    assert couples == [[1, 2], [2, 1], [2, 3], [3, 2]]
    assert labels == [1, 1, 1, 1]
    table = sequence.make_sampling_table(100)
    assert table.shape == (100,)
    assert np.all(np.diff(table[1:]) >= 0)


def test_a_time_series_is_a_sequence_of_windows() -> None:
    data = np.arange(50).reshape(-1, 1)
    windows = sequence.TimeseriesGenerator(data, data, length=10, sampling_rate=2, batch_size=2)
    assert is_sequence(windows)
    x, y = windows[0]
    assert x[0, :, 0].tolist() == [0, 2, 4, 6, 8]
    assert y[:, 0].tolist() == [10, 11]
    assert len(windows) == 20


def test_a_time_series_tells_its_configuration() -> None:
    windows = sequence.TimeseriesGenerator(np.arange(9), np.arange(9), length=3, batch_size=2)
    assert windows.get_config()["length"] == 3
    assert '"class_name": "TimeseriesGenerator"' in windows.to_json()
