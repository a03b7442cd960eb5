"""`fitstream run`: a program in a fresh process, as Python itself would run it, and what old programs did in it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

pytestmark = pytest.mark.slow


class Ran:
    """What came of a program."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.error = done.returncode, done.stdout, done.stderr

    @property
    def told(self) -> list[str]:
        return [line for line in self.error.splitlines() if line.startswith("fitstream run: ")]


def run(folder: Path, source: str, *arguments: str, options: tuple[str, ...] = (), **environment: str) -> Ran:
    script = folder / "train.py"
    script.write_text(dedent(source))
    command = [sys.executable, "-m", "fitstream", "run", *options, "train.py", *arguments]
    environment = {**os.environ, **environment}
    return Ran(
        subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=300)
    )


def test_the_program_is_the_main_module(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("word = 'beside'")
    done = run(
        tmp_path,
        """
        import __main__, os, sys
        from beside import word
        class Mine: pass
        print(__name__, __file__, Mine.__module__, __main__.Mine is Mine, word)
        print(sys.argv, sys.path[0] == os.path.dirname(os.path.abspath(__file__)))
        """,
        "--epochs",
        "3",
        "--help",
    )
    assert done.out.splitlines() == [
        "__main__ train.py __main__ True beside",
        "['train.py', '--epochs', '3', '--help'] True",
    ]
    assert done.code == 0


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("raise SystemExit('no data')", 1, "no data\n"),
        ("import atexit; atexit.register(print, 'bye')", 0, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)", -signal.SIGINT, None),
    ],
)
def test_it_ends_as_plain_python_does(tmp_path: Path, source: str, code: int, said: str | None) -> None:
    done = run(tmp_path, source)
    plain = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.code == plain.returncode == code
    own = "".join(line for line in done.error.splitlines(True) if not line.startswith("fitstream run: "))
    assert own.replace(f'"{tmp_path}/', '"') == plain.stderr.replace(f'"{tmp_path}/', '"')
    assert done.out == plain.stdout
    assert said is None or own == said


def test_ctrl_c_can_be_caught_for_as_long_as_the_program_likes(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import os, signal, threading
        try:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(60)
        except KeyboardInterrupt:
            threading.Event().wait(2)
            print('saved')
        """,
    )
    assert (done.code, done.out) == (0, "saved\n")


def test_a_traceback_begins_at_the_program(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def fail():\n    raise ValueError('no')\n")
    done = run(tmp_path, "from beside import fail\nfail()\n")
    plain = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    shown = done.error[done.error.index("Traceback") :]
    assert shown.replace(f'"{tmp_path}/', '"') == plain.stderr.replace(f'"{tmp_path}/', '"')
    assert done.code == 1


def test_an_import_that_fails_is_shown_as_python_shows_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import there_is_no_such_module\n")
    done = run(tmp_path, "import beside\n")
    plain = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    shown = done.error[done.error.index("Traceback") :]
    assert shown.replace(f'"{tmp_path}/', '"') == plain.stderr.replace(f'"{tmp_path}/', '"')


def test_its_own_excepthook_is_called(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import sys, traceback
        sys.excepthook = lambda kind, value, trace: print('mine', len(traceback.extract_tb(trace)))
        1 / 0
        """,
    )
    assert done.out == "mine 1\n"


def test_python_2_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run(tmp_path, "print('begun')\nprint 'hello'\n")
    assert done.code == 1
    assert done.out == ""
    assert "Error: train.py:2: this was written for Python 2: \"print 'hello'\"" in done.error
    assert "2to3 -w train.py" in done.error
    assert "Traceback" not in done.error


def test_python_2_in_a_module_beside_it_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("x = 1\nprint 'hello'\n")
    done = run(tmp_path, "import beside\n")
    assert done.code == 1
    assert "beside.py:2: this was written for Python 2" in done.error


def test_names_of_python_2_are_noted(tmp_path: Path) -> None:
    done = run(tmp_path, "for i in xrange(3): pass\n")
    assert "xrange is Python 2's. 2to3 turns the program into Python 3." in done.error


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("f(nb_epoch=1) if 0 else 0", (), "samples, as in Keras 1: train.py:1 uses nb_epoch= (--keras 2: steps)"),
        ("f(steps_per_epoch=1) if 0 else 0", (), "steps, as in Keras 2: train.py:1 uses steps_per_epoch="),
        ("f(nb_epoch=1) if 0 else 0", ("--keras", "2"), "steps, as in Keras 2: --keras 2"),
        ("pass", ("--keras", "1"), "samples, as in Keras 1: --keras 1"),
        ("pass", (), "steps, as in Keras 2: nothing in train.py tells Keras 1 from Keras 2 (--keras 1: samples)"),
    ],
)
def test_what_counts_mean_is_said_aloud(tmp_path: Path, source: str, options: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, source, options=options)
    assert done.code == 0
    assert len(done.told) == 1
    assert f"counts given by position are {said}" in done.told[0]


def test_a_script_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fitstream", "run", "nothing.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing.py" in done.stderr


COUNTED = """
import numpy as np
from keras.models import Sequential
from keras.layers.core import Dense
seen = []
def batches():
    while True:
        seen.append(1)
        yield np.ones((4, 3)), np.ones((4, 1))
model = Sequential()
model.add(Dense(1, input_dim=3))
model.compile('sgd', 'mse', metrics=['accuracy'])
history = model.fit_generator(batches(), 20, 2, 0, [], batches(), 8)
print(len(history.epoch), sorted(history.history))
print(model.predict_generator(batches(), 8).shape[0])
"""


def test_positional_counts_of_keras_1_are_samples(tmp_path: Path) -> None:
    done = run(tmp_path, COUNTED, options=("--keras", "1"))
    assert done.code == 0, done.error
    keys = "['acc', 'accuracy', 'loss', 'val_acc', 'val_accuracy', 'val_loss']"
    assert done.out.splitlines()[-2:] == [f"2 {keys}", "8"]


def test_positional_counts_of_keras_2_are_steps(tmp_path: Path) -> None:
    done = run(tmp_path, COUNTED, options=("--keras", "2"))
    assert done.code == 0, done.error
    assert done.out.splitlines()[-1] == "32"


def test_what_the_program_defines_reaches_worker_processes(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(
        dedent(
            """
            from keras.utils.data_utils import Sequence
            class Base(Sequence):
                def __len__(self): return 4
            """
        )
    )
    done = run(
        tmp_path,
        """
        import os
        import numpy as np
        from keras.models import Sequential
        from keras.layers import Dense
        from keras.utils import np_utils
        from beside import Base
        main = os.getpid()
        class Mine(Base):
            def __getitem__(self, index):
                from keras.utils.np_utils import to_categorical
                assert os.getpid() != main
                return np.ones((3, 2)), np_utils.to_categorical([0, 1, 1], 2) + to_categorical([0, 1, 1])
        model = Sequential([Dense(2, input_dim=2)])
        model.compile('sgd', 'mse')
        history = model.fit_generator(Mine(), epochs=2, workers=2, use_multiprocessing=True, verbose=0)
        print(len(history.history['loss']))
        """,
    )
    assert done.code == 0, done.error
    assert done.out.splitlines()[-1] == "2"


def test_files_are_written_under_exactly_the_names_that_were_asked_for(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import os
        import numpy as np
        from keras.callbacks import ModelCheckpoint, ReduceLROnPlateau, EarlyStopping
        from keras.models import Sequential, load_model, model_from_json
        from keras.layers import Dense, BatchNormalization
        from keras import backend as K
        x, y = np.random.rand(16, 3), np.ones((16, 1))
        def made():
            model = Sequential([Dense(4, input_dim=3), BatchNormalization(), Dense(1)])
            model.compile('adam', loss='mse', metrics=['acc', 'mae'])
            return model
        def same(a, b):
            return bool(np.allclose(a.predict(x), b.predict(x)))
        model = made()
        os.mkdir('out')
        callbacks = [
            ModelCheckpoint('out/w.{epoch:02d}-{val_acc:.2f}.hdf5', 'val_loss', 0, False, True, 'auto', 2),
            ModelCheckpoint('out/best.h5', monitor='val_acc', save_best_only=True),
            ModelCheckpoint('out/all.model', monitor='val_mean_absolute_error', save_best_only=False),
            ReduceLROnPlateau(monitor='val_loss', factor=0.5, patience=0, epsilon=1e9, verbose=0),
            EarlyStopping('val_loss', patience=9),
        ]
        model.fit(x, y, epochs=4, verbose=0, validation_data=(x, y), callbacks=callbacks)
        print(sorted(os.listdir('out')))
        print(K.get_value(model.optimizer.lr))
        results = [same(model, load_model('out/all.model'))]
        for name in ('m.h5', 'm.hdf5', 'm', 'm.keras'):
            model.save(name)
            results.append(same(model, load_model(name)))
        for name in ('w.h5', 'w.hdf5', 'w', 'w.weights.h5', 'w.best'):
            model.save_weights(name)
            other = made()
            other.load_weights(name)
            results.append(same(model, other))
        other = made()
        for one, two in zip(model.layers, other.layers):
            two.name = one.name
        other.load_weights('w.h5', True)
        results.append(same(model, other))
        from_json = model_from_json(model.to_json())
        from_json.set_weights(model.get_weights())
        results.append(same(model, from_json))
        print(results)
        """,
    )
    assert done.code == 0, done.error
    names, rate, results = done.out.splitlines()[-3:]
    assert re.fullmatch(r"\['all.model', 'best.h5', 'w.02-\d.\d\d.hdf5', 'w.04-\d.\d\d.hdf5'\]", names)
    assert float(rate) == pytest.approx(0.001 / 8)
    assert results == str([True] * 12)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("m", "w", "."))) == [
        *("m", "m.h5", "m.hdf5", "m.keras", "w", "w.best", "w.h5", "w.hdf5", "w.weights.h5")
    ]


def test_processes_that_the_program_spawns_itself_know_old_imports(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        """
        import multiprocessing
        from keras.utils.np_utils import to_categorical
        def work(n):
            return to_categorical([n], 5).argmax()
        if __name__ == '__main__':
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                print(pool.map_async(work, [1, 2]).get(60))
        """,
    )
    assert ran.code == 0, ran.error
    assert ran.out.replace("np.int64(1), np.int64(2)", "1, 2") == "[1, 2]\n"


def test_what_has_no_equal_can_be_imported_and_is_an_error_when_used(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        from keras.layers import Dense, Merge, Highway, Input, Lambda
        from keras.legacy import interfaces
        from keras import backend as K
        import keras
        def tried(function):
            try:
                function()
            except Exception as error:
                print(type(error).__name__, isinstance(error, ImportError), error)
        tried(lambda: Highway(activation='relu'))
        tried(lambda: Merge([1, 2], mode='concat'))
        tried(lambda: K.gradients(1, 2))
        tried(lambda: keras.models.Sequential([Dense(1)]).compile('sgd', 'mse', target_tensors=[1]))
        print(isinstance(Dense(1), Highway), hasattr(keras.layers, 'NoSuchLayer'))
        def absent():
            from keras.engine.topology import preprocess_weights_for_loading
        tried(absent)
        def module():
            import keras.utils.conv_utils
        tried(module)
        K.local_conv1d
        """,
    )
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("OldName True train.py:11: keras.layers.Highway is not in Keras 3. Write it as")
    assert lines[1].startswith("OldName True train.py:12: keras.layers.Merge(mode='concat') is not in Keras 3. Use the")
    assert "keras.layers.concatenate([left.output, right.output])" in lines[1]
    assert lines[2].startswith(
        "OldName True train.py:13: keras.backend.gradients is not in Keras 3. Use tf.GradientTape"
    )
    assert lines[3].startswith("OldName True train.py:14: compile(target_tensors=[1]) can't be translated.")
    assert lines[4] == "False False"
    assert lines[5].startswith(
        "OldName True train.py:17: keras.engine.topology.preprocess_weights_for_loading is not in Keras 3. Write it"
    )
    assert lines[6].startswith("OldName True train.py:20: module keras.utils.conv_utils is not in Keras 3. Write it")
    assert "OldAttribute: train.py:22: keras.backend.local_conv1d is not in Keras 3. keras.ops has" in done.error


def test_an_error_of_ours_ends_at_the_program_s_line(tmp_path: Path) -> None:
    done = run(tmp_path, "from keras.layers import Highway\nHighway()\n")
    shown = done.error[done.error.index("Traceback") :]
    assert "fitstream/legacy" not in shown
    assert "train.py:2: keras.layers.Highway is not in Keras 3." in shown.splitlines()[-1]


def test_each_kind_of_translation_is_told_once(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        from keras.layers import Dense, Convolution2D
        layers = [Dense(output_dim=3) for _ in range(9)]
        Dense(output_dim=4)
        Convolution2D(4, 3, 3, border_mode='same')
        """,
    )
    assert done.code == 0, done.error
    assert done.told[1:] == [
        "fitstream run: train.py:3: output_dim= -> units=",
        "fitstream run: train.py:5: border_mode= -> padding=",
    ]


def test_environment_that_the_program_sets_before_it_imports_keras_counts(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import os, sys
        assert 'keras' not in sys.modules
        os.environ['KERAS_BACKEND'] = 'theano'
        import keras
        print(keras.backend.backend() in ('tensorflow', 'torch', 'jax'))
        """,
    )
    assert done.code == 0, done.error
    assert done.out.splitlines()[-1] == "True"
    assert re.fullmatch(r"fitstream run: train.py:5: KERAS_BACKEND=theano -> \w+", done.told[-1])


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_tf_keras_is_keras_with_the_old_names(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import tensorflow as tf
        from tensorflow.keras.optimizers.legacy import Adam
        import numpy as np
        layers = tf.keras.layers
        model = tf.keras.Sequential([layers.Conv2D(4, 3, 2, input_shape=(9, 9, 1)), layers.Flatten(), layers.Dense(1)])
        print(model.layers[0].strides)
        model.compile(Adam(lr=0.5), 'mse', ['mae'])
        class Mine(tf.keras.utils.Sequence):
            def __len__(self): return 3
            def __getitem__(self, index): return np.ones((2, 9, 9, 1)), np.ones((2, 1))
        halve = tf.keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        history = model.fit(Mine(), epochs=2, workers=2, max_queue_size=3, verbose=0, callbacks=[halve])
        print(sorted(history.history), history.history['lr'])
        """,
    )
    assert done.code == 0, done.error
    assert done.out.splitlines()[-2:] == ["(2, 2)", "['learning_rate', 'loss', 'lr', 'mae'] [0.25, 0.125]"]


def test_one_loss_and_a_list_of_metrics_count_for_each_output(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import numpy as np
        from keras.models import Model
        from keras.layers import Input, Dense
        a = Input((3,))
        model = Model(inputs=a, outputs=[Dense(1, name='p')(a), Dense(2, name='q')(a)])
        model.compile('sgd', loss='mse', loss_weights=[1., .5], metrics=['mae'])
        before = model.metrics_names
        values = model.evaluate(np.zeros((4, 3)), [np.zeros((4, 1)), np.ones((4, 2))], verbose=0)
        print(before, before == model.metrics_names, len(values), values[0] == .5, values[2:5:2])
        """,
    )
    told = done.out.splitlines()[-1]
    assert told == "['loss', 'p_loss', 'q_loss', 'p_mae', 'q_mae'] True 5 True [1.0, 1.0]", done.error
