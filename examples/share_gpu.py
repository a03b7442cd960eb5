"""Two programs that share one GPU, each with a limit of its own; without a GPU both run on the CPU and say so.

The program starts itself twice. Each half limits its framework before it starts, trains a small network on data that
fitstream feeds, and tells what it was allowed. Expected: both finish, and on a machine with a GPU the sum of the limits
(2 x 2 GB) is what the frameworks may take of it, besides their CUDA contexts. Memory for feeding: 32 MB each.

    python examples/share_gpu.py            # Keras's backend, or KERAS_BACKEND=torch python ...
"""

import os
import subprocess
import sys
import warnings

LIMIT = "2 GB"
PROGRAMS = ("first", "second")


def train(name: str) -> None:
    """One of the two programs."""
    import fitstream as fs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what it would say is printed below
        # Before anything of the framework starts: afterwards it would be a DeviceError.
        limit = fs.devices.limit(memory=LIMIT, visible=[0], framework=os.environ["KERAS_BACKEND"])
    print(f"{name}: {limit}", flush=True)

    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    (x_train, y_train), (x_test, y_test) = fs.datasets.digits()
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    fs.fit(model, fs.from_arrays((x_train, y_train)).shuffle(0).batch(32), epochs=4, memory="32 MB", verbose=0)
    right = np.argmax(model.predict(x_test, verbose=0), axis=1) == y_test
    print(f"{name}: {right.mean():.2f} of the test digits are right", flush=True)
    assert right.mean() > 0.8


def main() -> None:
    """Start both, and wait for them."""
    from fitstream.backend import choose_backend

    backend, _ = choose_backend()
    environment = {**os.environ, "KERAS_BACKEND": backend}
    programs = [subprocess.Popen([sys.executable, __file__, name], env=environment) for name in PROGRAMS]
    codes = [program.wait() for program in programs]
    assert codes == [0, 0], f"the programs ended with {codes}"
    print("both programs are done")


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PROGRAMS:
        train(sys.argv[1])
    else:
        main()
