"""`fs.devices.limit` on the frameworks as they are, on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import keras

PROGRAM = """
import os, sys, warnings
import numpy as np
import fitstream as fs

before = dict(os.environ)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    done = fs.devices.limit(memory="4 GB", visible=[0])
if done.device_count:
    sys.exit(77)
assert any("sees no GPU here" in str(one.message) for one in caught), caught
assert os.environ.get("CUDA_VISIBLE_DEVICES") == before.get("CUDA_VISIBLE_DEVICES")

import keras

assert keras.backend.backend() == done.framework
warnings.simplefilter("ignore")
assert fs.devices.limit(memory="2 GB") == done  # importing Keras starts nothing
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.zeros((8, 2), np.float32), np.zeros((8, 1), np.float32), verbose=0)
print("trained", done)
try:
    fs.devices.limit(memory="4 GB")
except fs.DeviceError as error:
    assert done.framework != "torch" and "comes too late" in str(error), error
else:
    assert done.framework == "torch"  # which has started no GPU
"""


def test_without_a_gpu_training_goes_on_as_before() -> None:
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == 77:
        return  # with a GPU it is another test's business
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was limited" in done.stdout
