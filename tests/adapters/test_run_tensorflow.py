"""Names of TensorFlow 1 in programs under `fitstream run`."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorder import keras
from test_run import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the program's losses are TensorFlow's"),
]


def test_sessions_for_settings_are_left_out_and_others_are_refused(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import tensorflow as tf
        from keras.backend.tensorflow_backend import set_session
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        with tf.Session(config=config) as session:
            set_session(session)
        import numpy as np
        from keras.layers import Dense
        from keras.models import Sequential
        model = Sequential([Dense(1, input_dim=2)])
        model.compile('sgd', lambda t, p: tf.reduce_mean(tf.log(1. + tf.square(t - p))))
        model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
        assert not hasattr(tf, 'nonsense')
        graph = tf.get_default_graph()
        """,
    )
    assert "train.py:15: tf.get_default_graph is not in TensorFlow 2. There is one graph for all." in ran.error
    assert any("tf.log -> tf.compat.v1.log" in line for line in ran.told)
    assert any("train.py:6: tf.Session(...) left out" in line for line in ran.told)
    assert any("train.py:7: keras.backend.set_session(...) left out" in line for line in ran.told)
