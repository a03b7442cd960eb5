"""What models of programs under `fitstream run` train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_run import run

pytestmark = pytest.mark.slow


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
            return args[0] + K.exp(args[1])
        out = Dense(3)(Lambda(draw, output_shape=(2,))([mean, spread]))
        model = Model(x, out)
        model.add_loss(K.mean(mse(x, out) - K.sum(spread - K.square(mean) - K.exp(spread), axis=-1)))
        model.compile('adam')
        before = model.get_weights()
        model.fit(np.random.rand(32, 3), epochs=1, verbose=0)
        assert all((one != other).any() for one, other in zip(before, model.get_weights()))
        def loss(y_true, y_pred):
            return K.sum(K.square(y_true - y_pred), axis=-1) + K.sum(K.square(mean), axis=-1)
        reading = Model(x, [out])
        reading.compile('sgd', loss=loss)
        reading.fit(np.random.rand(8, 3), np.random.rand(8, 3), validation_split=.5, verbose=0)
        rows, values = np.random.rand(8, 3), Model(x, mean)
        wanted = (values.predict(rows) ** 2).sum(axis=1).mean()
        assert reading.evaluate(rows, np.random.rand(8, 3), verbose=0) > wanted > 0
        both = Model(x, out)
        both.add_loss(K.mean(K.square(mean)) * 0. + 7.)
        both.compile('sgd', 'mse')
        assert both.evaluate(np.random.rand(8, 3), np.random.rand(8, 3), verbose=0) > 7
        """,
    )
    assert ran.code == 0, ran.error


def test_callbacks_know_validation_data_samples_metrics_and_sizes(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras.callbacks import Callback
        from keras.layers import Dense
        from keras.models import Sequential
        class Asking(Callback):
            def on_train_begin(self, logs={}):
                self.sizes = []
            def on_batch_begin(self, batch, logs={}):
                assert logs['batch'] == batch
            def on_batch_end(self, batch, logs={}):
                self.sizes.append(logs['size'])
            def on_epoch_end(self, epoch, logs={}):
                assert set(self.params['metrics']) <= set(logs), (self.params, logs)
                wanted = self.model.evaluate(self.validation_data[0], self.validation_data[1], verbose=0)
                assert np.allclose(wanted[0], logs['val_loss'], atol=1e-4)
        x = np.random.rand(50, 3)
        y = (x.sum(axis=1) > 1.5).astype(int)
        model = Sequential([Dense(1, activation='sigmoid', input_dim=3)])
        model.compile('sgd', 'binary_crossentropy', metrics=['accuracy'])
        assert model.metrics_names == ['loss', 'accuracy']
        asking = Asking()
        model.fit(x, y, epochs=1, batch_size=16, validation_split=0.2, callbacks=[asking], verbose=2)
        assert asking.sizes == [16, 16, 8] and len(asking.validation_data[0]) == 10
        assert asking.params['samples'] == 40
        assert asking.params['metrics'] == ['loss', 'accuracy', 'val_loss', 'val_accuracy']
        model.fit(x, y, epochs=1, validation_data=(x, y), callbacks=[asking], verbose=0)
        assert len(asking.validation_data) == 3 and asking.validation_data[0] is x
        class Later(Asking):
            def on_batch_begin(self, batch, logs={}): pass
            def on_batch_end(self, batch, logs={}): pass
        later = Later()
        model.fit_generator(((x, y) for _ in range(2)), 2, 1, callbacks=[later], validation_data=(x, y), verbose=0)
        assert later.validation_data[1] is y
        """,
    )
    assert ran.code == 0, ran.error
    assert "size:" not in ran.out


def test_layers_take_what_they_took(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras import backend as K
        from keras.engine.topology import Layer
        from keras.layers import LSTM, Dense, Reshape
        from keras.models import Sequential
        class Scale(Layer):
            def build(self, input_shape):
                self.scale = K.variable(np.ones(input_shape[-1]))
                self.trainable_weights = [self.scale]
                super(Scale, self).build(input_shape)
            def call(self, x, mask=None):
                return x * self.scale
        shape = (2, 3)
        model = Sequential([Dense(np.prod(shape), input_dim=4), Scale(), Reshape(shape)])
        assert len(model.trainable_weights) == 3, model.trainable_weights
        model.compile('sgd', 'mse')
        model.fit(np.ones((4, 4)), np.zeros((4, 2, 3)), verbose=0)
        assert (model.layers[1].get_weights()[0] != 1).any()
        states = Sequential([LSTM(3, input_shape=(2, 1), batch_size=5, stateful=True)])
        x = np.random.rand(5, 2, 1)
        first = states.predict(x)
        assert not np.allclose(states.predict(x), first)
        states.reset_states()
        assert np.allclose(states.predict(x), first)
        try:
            Dense(2, kernel_initializer=lambda shape, name: 1)(K.ones((2, 2)))
        except ImportError as error:
            assert "Write it as a function (shape, dtype=None)" in str(error), error
        else:
            raise AssertionError
        class Tensors(Scale):
            def build(self, input_shape):
                self.trainable_weights = [K.ones(input_shape[-1:])]
        Tensors()(K.ones((2, 2)))
        """,
    )
    assert "train.py:34: Tensors.trainable_weights = [...] holds tensors" in ran.error, ran.error


def test_checkpoints_of_keras_1_count_epochs_from_0(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras import backend as K
        from keras.callbacks import ModelCheckpoint
        from keras.layers import Dense
        from keras.models import Sequential
        model = Sequential([Dense(output_dim=1, input_dim=3)])
        model.compile('sgd', 'mse', metrics=[lambda y_true, y_pred: K.mean(K.pow(y_true - y_pred, 2))])
        x, y = np.random.rand(8, 3), np.random.rand(8, 1)
        model.fit(x, y, nb_epoch=2, callbacks=[ModelCheckpoint('at.{epoch:02d}.h5')], verbose=0)
        assert len(model.train_on_batch(x, y)) == len(model.test_on_batch(x, y=y)) == 2
        """,
        options=("--keras", "1"),
    )
    assert ran.code == 0, ran.error
    assert sorted(path.name for path in tmp_path.glob("at.*")) == ["at.00.h5", "at.01.h5"]
