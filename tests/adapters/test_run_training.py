"""What models of programs under `fitstream run` train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_run import run

pytestmark = pytest.mark.timeout(200)


def test_a_model_trains_what_was_trainable_when_it_was_compiled(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras.layers import Dense, Input
        from keras.models import Model, Sequential
        from keras.optimizers import Adam
        optimizer = Adam(0.01, 0.5)
        judge = Sequential([Dense(4, input_dim=3), Dense(1, activation='sigmoid')])
        judge.compile(loss='binary_crossentropy', optimizer=optimizer, metrics=['accuracy'])
        maker = Sequential([Dense(3, input_dim=2)])
        noise = Input((2,))
        judge.trainable = False
        both = Model(noise, judge(maker(noise)))
        both.compile(loss='binary_crossentropy', optimizer=optimizer)
        def changes(model, train):
            before = [weight.copy() for weight in model.get_weights()]
            train()
            return any((a != b).any() for a, b in zip(before, model.get_weights()))
        x, z, y = np.random.rand(8, 3), np.random.rand(8, 2), np.ones((8, 1))
        for _ in range(2):
            assert changes(judge, lambda: judge.train_on_batch(x, [1] * 8))
            assert changes(judge, lambda: judge.fit(x, y, verbose=0))
            assert not changes(judge, lambda: changes(maker, lambda: both.train_on_batch(z, y)) or 1 / 0)
        assert not judge.trainable and not judge.trainable_weights
        """,
    )
    assert ran.code == 0, ran.error
    assert any("trainable was changed after compile" in line for line in ran.told)


def test_a_loss_of_tensors_is_added_to_a_functional_model(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras import backend as K
        from keras.layers import Dense, Input, Lambda
        from keras.losses import mse
        from keras.models import Model
        x = Input((3,))
        mean, spread = Dense(2)(x), Dense(2)(x)
        def draw(args):
            return args[0] + K.exp(args[1]) * K.random_normal(K.shape(args[0]))
        out = Dense(3)(Lambda(draw, output_shape=(2,))([mean, spread]))
        model = Model(x, out)
        model.add_loss(K.mean(mse(x, out) - K.sum(spread - K.square(mean) - K.exp(spread), axis=-1)))
        model.compile('adam')
        losses = model.fit(np.random.rand(32, 3), epochs=5, verbose=0).history['loss']
        assert losses[-1] < losses[0] and len(model.get_weights()) == 6, losses
        both = Model(x, out)
        both.add_loss(K.mean(K.square(mean)) * 0. + 7.)
        both.compile('sgd', 'mse')
        assert both.evaluate(np.random.rand(8, 3), np.random.rand(8, 3), verbose=0) > 7
        """,
    )
    assert ran.code == 0, ran.error
