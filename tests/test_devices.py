"""Limits on GPUs, with frameworks and cards that these tests make up: no GPU is needed, and none was used."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import fitstream as fs
from fitstream import devices

GB = 10**9


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No framework is imported, no card is there, and no environment names any."""
    for name in ("keras", "tensorflow", "torch", "jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in (
        "KERAS_BACKEND",
        "CUDA_VISIBLE_DEVICES",
        "XLA_CLIENT_MEM_FRACTION",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
    ):
        monkeypatch.setenv(name, "x")  # so that it is put back, whatever the code under test does
        monkeypatch.delenv(name)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`cards(24_000, 8_000)`: nvidia-smi tells of these, in MiB; none at first."""

    def be(*totals_mib: int) -> None:
        def run(command: list[str], **_: Any) -> Any:
            if not totals_mib:
                raise FileNotFoundError("nvidia-smi")
            assert command[0] == "nvidia-smi"
            return SimpleNamespace(stdout="".join(f"{one}\n" for one in totals_mib))

        monkeypatch.setattr(subprocess, "run", run)

    be()
    return be


def put(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> Any:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


class TensorFlow:
    """What is used of `tensorflow.config`; `started` refuses as TensorFlow does."""

    def __init__(self, gpus: int, *, started: bool = False) -> None:
        self.gpus = [f"gpu{i}" for i in range(gpus)]
        self.started, self.visible, self.parts = started, None, {}
        self.LogicalDeviceConfiguration = lambda memory_limit: memory_limit
        self.threads = 3
        self.threading = SimpleNamespace(
            get_inter_op_parallelism_threads=lambda: self.threads, set_inter_op_parallelism_threads=self.set_threads
        )

    def set_threads(self, count: int) -> None:
        if self.started:
            raise RuntimeError("Inter op parallelism cannot be modified after initialization.")
        self.threads = count

    def list_physical_devices(self, kind: str) -> list[str]:
        return self.gpus if kind == "GPU" else ["cpu"]

    def set_visible_devices(self, chosen: list[str], kind: str) -> None:
        if self.started:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.visible = chosen

    def set_logical_device_configuration(self, gpu: str, parts: list[int]) -> None:
        self.parts[gpu] = parts


class Torch:
    """What is used of `torch.cuda`; it counts what CUDA_VISIBLE_DEVICES leaves until it is started."""

    def __init__(self, gpus: int, *, initialized: bool = False, frozen: bool = False) -> None:
        self.gpus, self.initialized, self.frozen, self.fractions = gpus, initialized, frozen, {}

    def is_initialized(self) -> bool:
        return self.initialized

    def is_available(self) -> bool:
        return self.gpus > 0

    def device_count(self) -> int:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        return self.gpus if named is None or self.frozen else len(named.split(","))

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(total_memory=16 * GB)

    def set_per_process_memory_fraction(self, fraction: float, index: int) -> None:
        self.fractions[index] = fraction


def jax(monkeypatch: pytest.MonkeyPatch, *, started: bool = False, plugin: bool = True) -> dict[str, str]:
    settings: dict[str, str] = {}

    def update(name: str, value: Any) -> None:
        if name != "jax_num_cpu_devices":
            settings[name] = value
        elif started and value != config.jax_num_cpu_devices:
            raise RuntimeError("jax_num_cpu_devices config should be updated before backends are initialized")
        else:
            config.jax_num_cpu_devices = value

    config = SimpleNamespace(update=update, jax_num_cpu_devices=-1)
    put(monkeypatch, "jax", config=config)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: plugin or None if name.startswith("jax_cuda") else find(name)
    )
    return settings


def test_tensorflow_gets_visible_gpus_and_a_logical_one_of_the_memory(cards: Any, monkeypatch: Any) -> None:
    config = TensorFlow(3)
    put(monkeypatch, "tensorflow", config=config)
    assert fs.devices.limit("1 GB").device_count == 3  # and again below: the later call counts
    done = fs.devices.limit("4 GB", [2, 0])
    assert done == devices.DeviceLimit("tensorflow", 2, 4 * GB)
    assert config.visible == ["gpu2", "gpu0"]
    assert config.parts == {"gpu2": [3814], "gpu0": [3814], "gpu1": [953]}  # MiB, rounded down
    assert config.threads == 3
    assert str(done) == "tensorflow uses 2 GPUs and at most 4 GB of each"


@pytest.mark.parametrize("gpus", [0, 1])
def test_tensorflow_that_has_started_is_too_late_with_and_without_a_gpu(
    cards: Any, monkeypatch: Any, gpus: int
) -> None:
    put(monkeypatch, "tensorflow", config=TensorFlow(gpus, started=True))
    with pytest.raises(fs.DeviceError, match="too late: TensorFlow has started"):
        fs.devices.limit("4 GB")


def test_torch_sees_what_is_chosen_and_takes_a_share(cards: Any, monkeypatch: Any) -> None:
    cards(15259, 15259)
    cuda = Torch(2)
    put(monkeypatch, "torch", cuda=cuda)
    assert fs.devices.limit("4 GB", [1], "torch") == devices.DeviceLimit("torch", 1, 4 * GB)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert cuda.fractions == {0: 0.25}


def test_numbers_count_among_what_the_environment_leaves(cards: Any, monkeypatch: Any) -> None:
    cards(16000, 16000, 16000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab")
    put(monkeypatch, "torch", cuda=Torch(2))
    assert fs.devices.limit(visible=[1]).device_count == 1
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-ab"
    with pytest.raises(fs.DeviceError, match="no GPU 1, only GPU 0"):
        fs.devices.limit(visible=[1])


def test_torch_that_has_started_is_too_late(cards: Any, monkeypatch: Any) -> None:
    put(monkeypatch, "torch", cuda=Torch(1, initialized=True))
    with pytest.raises(fs.DeviceError, match="too late: PyTorch"):
        fs.devices.limit("1 GB")


def test_cuda_that_something_else_has_started_is_too_late_and_nothing_is_left_changed(
    cards: Any, monkeypatch: Any
) -> None:
    cards(16000, 16000)
    put(monkeypatch, "torch", cuda=Torch(2, frozen=True))
    with pytest.raises(fs.DeviceError, match="sees 2 GPUs where 1 should be left"):
        fs.devices.limit(visible=[0])
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_jax_gets_a_share_of_the_largest_card_never_more_than_the_limit(cards: Any, monkeypatch: Any) -> None:
    cards(8000, 16000)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    settings = jax(monkeypatch)
    assert fs.devices.limit("3 GB", [0]) == devices.DeviceLimit("jax", 1, 3 * GB)
    assert settings == {"jax_cuda_visible_devices": "0"}
    share = float(os.environ["XLA_CLIENT_MEM_FRACTION"])
    assert 0 <= 3 * GB - share * 16000 * 2**20 < 50_000
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ


@pytest.mark.parametrize("totals_mib", [(), (8000,)])
def test_jax_that_has_started_is_too_late(cards: Any, monkeypatch: Any, totals_mib: tuple[int, ...]) -> None:
    cards(*totals_mib)
    jax(monkeypatch, started=True)
    with pytest.raises(fs.DeviceError, match="too late: JAX"):
        fs.devices.limit("1 GB")


def test_a_jax_that_does_not_know_the_setting_that_is_asked_is_limited_all_the_same(
    cards: Any, monkeypatch: Any
) -> None:
    cards(8000)
    jax(monkeypatch)
    del sys.modules["jax"].config.jax_num_cpu_devices
    assert fs.devices.limit("1 GB").device_count == 1


@pytest.mark.parametrize("name", ["tensorflow", "torch", "jax"])
def test_a_gpu_that_is_not_there_is_named(cards: Any, monkeypatch: Any, name: Any) -> None:
    cards(8000, 8000)
    put(monkeypatch, "tensorflow", config=TensorFlow(2))
    put(monkeypatch, "torch", cuda=Torch(2))
    settings = jax(monkeypatch)
    with pytest.raises(fs.DeviceError, match="no GPU 2, only GPUs 0 to 1"):
        fs.devices.limit("1 GB", [0, 2], name)
    assert settings == {}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("name", ["tensorflow", "torch", "jax"])
def test_more_memory_than_the_card_has_is_refused(cards: Any, monkeypatch: Any, name: Any) -> None:
    cards(8000)
    put(monkeypatch, "tensorflow", config=TensorFlow(1))
    put(monkeypatch, "torch", cuda=Torch(1))
    jax(monkeypatch)
    with pytest.raises(fs.DeviceError, match=r"24 GB is more than the GPU has, 8\.39 GB"):
        fs.devices.limit("24 GB", framework=name)


@pytest.mark.parametrize("name", ["tensorflow", "torch", "jax"])
def test_without_a_gpu_it_says_so_and_changes_nothing(cards: Any, monkeypatch: Any, name: Any) -> None:
    config, cuda = TensorFlow(0), Torch(0)
    put(monkeypatch, "tensorflow", config=config)
    put(monkeypatch, "torch", cuda=cuda)
    settings = jax(monkeypatch)
    before = dict(os.environ)
    with pytest.warns(RuntimeWarning, match=f"{name} sees no GPU here: nothing was limited"):
        done = fs.devices.limit("4 GB", [0], name)
    assert done.device_count == 0
    assert (config.visible, cuda.fractions, settings) == (None, {}, {})
    assert dict(os.environ) == before


def test_jax_without_its_cuda_plugin_runs_on_the_cpu(cards: Any, monkeypatch: Any) -> None:
    cards(8000)
    jax(monkeypatch, plugin=False)
    with pytest.warns(RuntimeWarning, match="jax sees no GPU"):
        fs.devices.limit("1 GB")


def test_the_framework_is_keras_backend_or_the_only_one_imported(cards: Any, monkeypatch: Any) -> None:
    put(monkeypatch, "torch", cuda=Torch(0))
    with pytest.warns(RuntimeWarning, match="torch"):
        fs.devices.limit()
    put(monkeypatch, "tensorflow", config=TensorFlow(0))
    with pytest.raises(fs.DeviceError, match="more than one"):
        fs.devices.limit()
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.warns(RuntimeWarning, match="torch"):
        fs.devices.limit()
    put(monkeypatch, "keras", config=SimpleNamespace(backend=lambda: "tensorflow"))
    with pytest.warns(RuntimeWarning, match="tensorflow"):
        fs.devices.limit()


def test_with_nothing_imported_it_is_what_keras_would_take(cards: Any, monkeypatch: Any, tmp_path: Path) -> None:
    put(monkeypatch, "tensorflow", config=TensorFlow(0))
    put(monkeypatch, "torch", cuda=Torch(0))
    there = {"keras": True, "tensorflow": True, "torch": True, "jax": False}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there[name] or None)
    taken: list[str] = []
    monkeypatch.setattr(devices.importlib, "import_module", lambda name: taken.append(name) or modules[name])
    modules = {name: sys.modules.pop(name) for name in ("tensorflow", "torch")}
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="tensorflow"):
        fs.devices.limit()
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    with pytest.warns(RuntimeWarning, match="torch"):
        fs.devices.limit()
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')  # which isn't installed
    with pytest.raises(fs.DeviceError, match="none, or more than one"):
        fs.devices.limit()
    there.update(tensorflow=False)
    with pytest.warns(RuntimeWarning, match="torch"):
        fs.devices.limit()
    assert taken == ["tensorflow", "torch", "torch"]


def test_arguments_that_cannot_be(monkeypatch: Any) -> None:
    put(monkeypatch, "torch", cuda=Torch(0))
    for visible in ([], [0, 0], [-1], ["0"], 0, [True]):
        with pytest.raises(fs.DeviceError, match="visible="):
            fs.devices.limit(visible=visible)  # type: ignore[arg-type]
    with pytest.raises(fs.DeviceError, match="framework='mxnet'"):
        fs.devices.limit(framework="mxnet")  # type: ignore[arg-type]
    with pytest.raises(fs.PlanError):
        fs.devices.limit("much")
