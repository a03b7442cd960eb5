"""What models of programs under `fitstream run` are made of, tell, and keep in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_run import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_models_tell_their_ends_and_the_names_of_their_losses(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras.layers import Dense, Input, Lambda
        from keras.models import Model, Sequential
        line = Sequential([Dense(3, input_dim=2), Dense(1)])
        first = Model(inputs=[line.input], outputs=[line.layers[0].output])
        assert first.output.shape == (None, 3) and first.input is line.input
        x = np.random.rand(4, 2)
        assert first.predict([x]).shape == (4, 3)
        assert Model(line.input, line.output).predict(x).shape == (4, 1)
        first.compile('sgd', ['mse'])
        first.fit([x], [np.zeros((4, 3))], verbose=0)
        left, right = Input((2,), name='left'), Input((2,), name='right')
        shared = Dense(3)
        shared(left), shared(right)
        assert shared.get_output_at(1) is not shared.get_output_at(0) and shared.get_input_at(0) is left
        inside, outside = Dense(1, name='inside')(left), Dense(1, name='outside')(right)
        two = Model([left, right], [inside, outside])
        assert two.input_names == ['left', 'right']
        losses = ['loss', 'inside_loss', 'outside_loss']
        for metrics, names in (
            (None, losses),
            ([], losses),
            ({'outside': 'mae'}, [*losses, 'outside_mae']),
            ({'inside': ['mae', 'mse']}, [*losses, 'inside_mae', 'inside_mse']),
        ):
            two.compile('sgd', 'mse', metrics=metrics)
            assert two.metrics_names == names, two.metrics_names
            values = two.evaluate([x, x], [x[:, 0], x[:, 1]], verbose=0)
            assert len(values) == len(names) and two.metrics_names == names, two.metrics_names
        two.compile('sgd', {'inside': 'mse', 'outside': 'mae'})
        assert two.metrics_names == losses
        """,
    )
    assert ran.code == 0, ran.error


def test_models_are_kept_in_hdf5_with_their_masks_and_optimizers(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import h5py
        import numpy as np
        from keras import backend as K
        from keras.layers import LSTM, Dense, Embedding, Input, add
        from keras.models import Model, load_model
        from keras.optimizers import Adam
        from keras.utils.io_utils import HDF5Matrix
        words, picture = Input((4,)), Input((3,))
        read = LSTM(5)(Embedding(9, 6, mask_zero=True)(words))
        model = Model([picture, words], Dense(2, activation='softmax')(add([Dense(5)(picture), read])))
        model.compile(Adam(lr=0.01), 'categorical_crossentropy')
        x, y = [np.random.rand(8, 3), np.random.randint(0, 9, (8, 4))], np.eye(2)[np.arange(8) % 2]
        model.fit(x, y, epochs=2, verbose=0)
        model.save('model.h5')
        other = load_model('model.h5')
        for _ in range(2):
            for one in (model, other):
                one.fit(x, y, verbose=0, shuffle=False)
        assert np.allclose(model.predict(x), other.predict(x), atol=1e-5)
        assert int(K.get_value(other.optimizer.iterations)) == 4
        with h5py.File('rows.h5', 'w') as file:
            file['x'], file['y'] = np.random.rand(10, 3), np.zeros((10, 1))
        rows = Input((3,))
        small = Model(rows, Dense(1)(rows))
        small.compile('sgd', 'mse')
        before = small.evaluate(HDF5Matrix('rows.h5', 'x'), HDF5Matrix('rows.h5', 'y'), verbose=0)
        small.fit(HDF5Matrix('rows.h5', 'x'), HDF5Matrix('rows.h5', 'y'), batch_size=4, shuffle='batch', verbose=0)
        assert small.evaluate(HDF5Matrix('rows.h5', 'x'), HDF5Matrix('rows.h5', 'y'), verbose=0) != before
        assert small.predict(HDF5Matrix('rows.h5', 'x', start=7), batch_size=2).shape == (3, 1)
        """,
    )
    assert ran.code == 0, ran.error


def test_losses_within_the_model_need_no_targets(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras import backend as K
        from keras.layers import Dense, Input, Lambda
        from keras.models import Model
        speech, labels = Input((8, 3)), Input((2,))
        steps, lengths = Input((1,), dtype='int64'), Input((1,), dtype='int64')
        heard = Dense(5, activation='softmax')(speech)
        cost = Lambda(lambda args: K.ctc_batch_cost(*args), output_shape=(1,), name='ctc')
        cost = cost([labels, heard, steps, lengths])
        model = Model([speech, labels, steps, lengths], [heard, cost])
        model.add_loss(K.mean(cost))
        model.compile('adam', loss=[None, None])
        x = [np.random.rand(4, 8, 3), np.array([[0, 1], [2, 0], [3, 3], [1, 0]])]
        x += [np.full((4, 1), 8), np.array([[2], [1], [2], [1]])]
        def batches():
            while True:
                yield x, []
        history = model.fit_generator(batches(), 5, 3, verbose=0).history
        assert history['loss'][2] < history['loss'][0], history
        certain = np.full((1, 4, 3), 1e-4)
        certain[0, [0, 1, 2, 3], [0, 2, 1, 1]] = 1  # the blank is class 2
        one = [np.array([[length]]) for length in (4, 2)]
        assert K.eval(K.ctc_batch_cost(np.array([[0, 1]]), K.constant(certain), *one)).shape == (1, 1)
        assert K.eval(K.ctc_batch_cost(np.array([[0, 1]]), K.constant(certain), *one)) < 0.01
        assert K.eval(K.ctc_batch_cost(np.array([[1, 0]]), K.constant(certain), *one)) > 5
        (read,), scores = K.ctc_decode(K.constant(certain), np.array([4]))
        assert K.eval(read)[0, :2].tolist() == [0, 1], K.eval(read)
        """,
    )
    assert ran.code == 0, ran.error


def test_shapes_calculate_as_the_old_backend_s_did(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import numpy as np
        from keras import backend as K
        from keras.layers import Input, Lambda
        from keras.models import Model
        def scaled(x):
            sides = K.shape(x)[1:3]
            assert len(sides) == 2
            return x * K.sum(K.cast(sides * 4, 'float32')) + K.cast(K.shape(x)[1] - sides[0], 'float32')
        picture = Input((None, None, 1))
        out = Model(picture, Lambda(scaled)(picture)).predict(np.ones((1, 2, 3, 1)))
        assert (out == 20).all(), out
        flat = Lambda(lambda x: K.reshape(x, K.shape(x)[:1] + (-1,)))
        assert flat(K.ones((2, 3, 4))).shape == (2, 12)
        assert K.eval(100 - K.shape(K.ones((2, 3))) // 2 + 1).tolist() == [100, 100]
        """,
    )
    assert ran.code == 0, ran.error


def test_callbacks_hold_their_model_and_write_logs_where_they_can(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import sys
        sys.modules['tensorboard'] = None  # as if it were not installed
        import numpy as np
        from keras.callbacks import Callback, EarlyStopping, TensorBoard
        from keras.layers import LSTM, Dense, Embedding, TimeDistributed
        from keras.models import Sequential
        class Mine(Callback):
            def __init__(self, model):
                self.model = model
        model = Sequential([Embedding(9, 4, input_length=3), LSTM(4, return_sequences=True)])
        model.add(TimeDistributed(Dense(2, activation='softmax')))
        model.compile('sgd', 'categorical_crossentropy', sample_weight_mode='temporal')
        mine, stopping = Mine(model), EarlyStopping(monitor='loss')
        assert mine.model is model
        stopping.model = model
        stopping.on_train_begin()
        board = TensorBoard(log_dir='logs', histogram_freq=1, write_graph=True, write_grads=False, batch_size=32)
        def batches():
            while True:
                x = np.random.randint(0, 9, (6, 3))
                yield x, np.eye(2)[x % 2], (x > 0).astype(float)
        history = model.fit_generator(batches(), 2, 2, callbacks=[mine, board], verbose=0).history
        assert np.isfinite(history['loss']).all()
        """,
    )
    assert ran.code == 0, ran.error
    assert sum("writes no logs: tensorboard is not installed" in line for line in ran.told) == 1
    assert not (tmp_path / "logs").exists()
