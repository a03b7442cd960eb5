"""`keras.backend` of old programs, function by function."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.slow


def test_the_backend_s_old_functions_work_on_symbols_and_arrays(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        dedent(
            """
        import numpy as np
        from keras import backend as K
        from keras.layers import Dense, Dropout, Input, Lambda
        from keras.models import Model
        x = np.arange(12, dtype='float32').reshape(3, 4) + 1
        def same(tensor, wanted):
            assert np.allclose(K.eval(tensor), wanted, atol=1e-5), (K.eval(tensor), wanted)
        v = K.variable(x)
        same(K.mean(v), x.mean())
        same(K.mean(v, axis=-1, keepdims=True), x.mean(-1, keepdims=True))
        same(K.sum(v, axis=[0, 1]), x.sum())
        same(K.max(v, 1), x.max(1))
        same(K.min(v), x.min())
        same(K.std(v), x.std())
        same(K.var(v), x.var())
        same(K.prod(v, 1), x.prod(1))
        same(K.square(v), x ** 2)
        same(K.sqrt(v), x ** .5)
        same(K.pow(v, 3), x ** 3)
        same(K.exp(v), np.exp(x))
        same(K.log(v), np.log(x))
        same(K.abs(-v), x)
        same(K.clip(v, 2, 5), x.clip(2, 5))
        same(K.round(v), x)
        same(K.maximum(v, 4.0), np.maximum(x, 4))
        same(K.mean(K.greater(v, 4)), (x > 4).mean())
        same(K.mean(K.equal(K.argmax(v), K.argmax(v))), 1)
        same(K.any(K.equal(v, 3.0)), True)
        same(K.dot(v, K.transpose(v)), x @ x.T)
        same(K.flatten(v), x.ravel())
        same(K.reshape(v, (4, 3)), x.reshape(4, 3))
        same(K.concatenate([v, v]), np.hstack([x, x]))
        same(K.concatenate([v, v], axis=0), np.vstack([x, x]))
        same(K.permute_dimensions(v, (1, 0)), x.T)
        same(K.expand_dims(v, 0), x[None])
        same(K.repeat_elements(v, 2, 1), x.repeat(2, 1))
        same(K.l2_normalize(v, axis=1), x / np.linalg.norm(x, axis=1, keepdims=True))
        same(K.sum(K.softmax(v), -1), 1)
        same(K.switch(K.greater(v, 4), v, -v), np.where(x > 4, x, -x))
        same(K.gather(v, np.array([1])), x[[1]])
        same(K.one_hot(np.array([1]), 3), [[0, 1, 0]])
        same(K.zeros_like(v), 0 * x)
        same(K.ones((2,)), [1, 1])
        same(K.cast(K.less(v, 3), K.floatx()), x < 3)
        same(K.stack([v, v]), np.stack([x, x]))
        same(K.reverse(v, 1), x[:, ::-1])
        same(K.constant([1, 2]), [1, 2])
        same(K.cast_to_floatx(x), x)
        same(K.batch_flatten(K.expand_dims(v, 1)), x)
        same(K.sigmoid(v), 1 / (1 + np.exp(-x)))
        same(K.batch_dot(v, v, axes=1), (x * x).sum(1, keepdims=True))
        same(K.cumsum(v), x.cumsum(0))
        same(K.cumprod(v), x.cumprod(0))
        same(K.expand_dims(v), x[..., None])
        same(K.identity(v), x)
        same(K.relu(-v, alpha=.1), -.1 * x)
        same(K.relu(v, max_value=6), x.clip(0, 6))
        same(K.hard_sigmoid(v - 4), (0.2 * (x - 4) + .5).clip(0, 1))
        same(K.arange(3), [0, 1, 2])
        same(K.lesser(v, 3), x < 3)
        same(K.foldl(lambda a, b: a + b, v), x.sum(0))
        same(K.update_add(K.variable([1.]), 2.), [3.])
        same(K.bias_add(v, K.constant([1, 2, 3, 4])), x + [1, 2, 3, 4])
        assert K.eval(K.truncated_normal((50,), 0., 1.)).max() < 2.01
        assert set(K.eval(K.random_binomial((50,), p=.5))) == {0, 1}
        picture = K.constant(np.arange(32.).reshape(1, 4, 4, 2))
        array = K.eval(picture)
        same(K.spatial_2d_padding(picture), np.pad(array, [(0, 0), (1, 1), (1, 1), (0, 0)]))
        same(K.resize_images(picture, 2, 2, 'channels_last'), array.repeat(2, 1).repeat(2, 2))
        same(K.pool2d(picture, (2, 2), (2, 2)), array[:, 1::2, 1::2])
        same(K.pool2d(picture, (4, 4), pool_mode='avg'), array.mean((1, 2), keepdims=True))
        same(K.conv2d(picture, K.ones((1, 1, 2, 1)), padding='same'), array.sum(-1, keepdims=True))
        same(K.conv2d(picture, K.ones((4, 4, 2, 1)), border_mode='valid'), [[[[array.sum()]]]])
        same(K.normalize_batch_in_training(v, None, None, [0])[1], x.mean(0))
        same(K.binary_crossentropy(K.constant([1.0]), K.constant([.5])), [np.log(2)])
        same(K.categorical_crossentropy(K.constant([[0.0, 1]]), K.constant([[.5, .5]])), [np.log(2)])
        assert K.ndim(v) == 2 and K.int_shape(v) == (3, 4) and K.count_params(v) == 12 and K.dtype(v) == 'float32'
        assert K.random_normal((2, 3)).shape == (2, 3) and K.epsilon() == 1e-7 and K.image_dim_ordering() == 'tf'
        K.set_value(v, x * 2)
        same(v, x * 2)
        assert K.get_value(v).shape == (3, 4)
        K.set_image_dim_ordering('th')
        assert K.image_data_format() == 'channels_first'
        K.set_image_data_format('channels_last')
        a = Input((4,))
        h = Lambda(lambda t: K.sum(K.square(t), axis=-1, keepdims=True) / K.cast(K.shape(t)[0], 'float32'))(a)
        d = Dropout(0.5)(a)
        model = Model(a, [h, d])
        f = K.function([model.input, K.learning_phase()], [h, d])
        assert np.allclose(f([x, 0])[0], (x ** 2).sum(-1, keepdims=True) / 3) and np.allclose(f([x, 0])[1], x)
        assert (f([x, 1])[1] == 0).any()
        assert np.allclose(K.function([model.layers[0].input], [h])([x])[0], f([x, 0])[0])
        K.clear_session()
        for use in (lambda: K.get_session(), lambda: K.rnn(1, 2, 3), lambda: K.in_train_phase(1, 2)):
            try:
                use()
            except ImportError as error:
                assert 'is not in Keras 3' in str(error)
            else:
                raise AssertionError
        print('all')
        """
        )
    )
    command = [sys.executable, "-m", "fitstream", "run", "train.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all"
