"""How much of a GPU this program takes, decided before its framework starts: `fs.devices.limit(...)`.

Each framework has a way of its own, and each listens only until it has started its devices:

    TensorFlow   set_visible_devices, set_logical_device_configuration
    PyTorch      CUDA_VISIBLE_DEVICES, read when CUDA starts; then set_per_process_memory_fraction
    JAX          jax_cuda_visible_devices, XLA_CLIENT_MEM_FRACTION, read when its backends start

So one framework is limited by one call. JAX wants a share of the card: it is reckoned from the largest card that
nvidia-smi tells of, so that the limit is never exceeded.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

from fitstream.errors import DeviceError
from fitstream.spec import format_bytes, parse_bytes

__all__ = ["DeviceLimit", "Framework", "keras_default", "limit"]

Framework: TypeAlias = Literal["tensorflow", "torch", "jax"]

_FRAMEWORKS = ("tensorflow", "torch", "jax")
_MIB = 2**20
#: Seconds that nvidia-smi may take; a driver that starts takes some.
_PATIENCE_S = 30


@final
@dataclass(frozen=True, slots=True)
class DeviceLimit:
    """What `limit` did.

    Attributes:
        framework: That was limited.
        device_count: GPUs that it will see; 0 where there is none, and nothing was changed.
        memory_bytes: That it may take on each; None for no limit.
    """

    framework: str
    device_count: int
    memory_bytes: int | None

    def __str__(self) -> str:
        if not self.device_count:
            return f"{self.framework} sees no GPU here: nothing was limited, it runs on the CPU"
        gpus = "1 GPU" if self.device_count == 1 else f"{self.device_count} GPUs"
        if self.memory_bytes is None:
            return f"{self.framework} uses {gpus}"
        return f"{self.framework} uses {gpus} and at most {format_bytes(self.memory_bytes)} of each"


def limit(
    memory: int | str | None = None, visible: Sequence[int] | None = None, framework: Framework | None = None
) -> DeviceLimit:
    """Limit how much of the GPUs a framework takes. To be called before it uses one.

    Args:
        memory: Of each GPU, in bytes or as text such as "4 GB"; None for no limit. What a CUDA context takes by itself
            (some hundred MB) comes on top.
        visible: The GPUs that are used, counted from 0 among those that `CUDA_VISIBLE_DEVICES` leaves; None for all.
        framework: "tensorflow", "torch" or "jax"; None for Keras's backend if Keras is imported or KERAS_BACKEND set,
            else the only one that is imported, else the backend that Keras would take, else the only one that is
            installed. It is imported if it isn't yet.
    Returns:
        What was done; `print` it. Without a GPU nothing is, and a RuntimeWarning says so.
    Raises:
        DeviceError: If the framework has started its devices already, there is no such GPU, it has less memory, or it
            isn't known which framework is meant.
        PlanError: If `memory` is no size.
    """
    name = _framework(framework)
    memory_bytes = None if memory is None else parse_bytes(memory)
    chosen = None if visible is None else _checked(visible)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(f"{name} can't be imported: {error}. Install it, or name another framework=.") from error
    done = _LIMITS[name](module, memory_bytes, chosen)
    if not done.device_count:
        warnings.warn(f"fs.devices.limit: {done}.", RuntimeWarning, stacklevel=2)
    return done


def _framework(asked: str | None) -> str:
    if asked is not None:
        if asked not in _FRAMEWORKS:
            raise DeviceError(f"framework={asked!r} must be one of {', '.join(_FRAMEWORKS)}.")
        return asked
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        name = keras.config.backend()
    else:
        name = os.environ.get("KERAS_BACKEND") or _only_one()
    if name not in _FRAMEWORKS:
        found = f"{name!r} is Keras's backend" if name else "none, or more than one, is imported or installed"
        raise DeviceError(f'it isn\'t known which framework to limit: {found}. Say framework="torch", or another one.')
    return str(name)


def _only_one() -> str:
    """The framework that this program will use, as far as can be told before it is imported; else ""."""
    imported = [name for name in _FRAMEWORKS if name in sys.modules]
    if imported:
        return imported[0] if len(imported) == 1 else ""
    installed = [name for name in _FRAMEWORKS if importlib.util.find_spec(name)]
    if importlib.util.find_spec("keras") and keras_default() in installed:
        return keras_default()
    return installed[0] if len(installed) == 1 else ""


def keras_default() -> str:
    """What Keras takes without KERAS_BACKEND, read as Keras reads it: from its settings file, or "tensorflow"."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        backend = json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        backend = None
    return backend if isinstance(backend, str) else "tensorflow"


def _checked(visible: Sequence[int]) -> list[int]:
    chosen = list(visible) if isinstance(visible, (list, tuple, range)) else []
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in chosen)
    if not chosen or not whole or len(set(chosen)) < len(chosen):
        raise DeviceError(f"visible={visible!r} must be a list of different GPUs counted from 0, such as [0].")
    return chosen


def _limit_tensorflow(tensorflow: Any, memory_bytes: int | None, visible: list[int] | None) -> DeviceLimit:
    config = tensorflow.config
    # This setting is free until TensorFlow starts. What visible devices say of it, they say only where they change.
    threads = config.threading.get_inter_op_parallelism_threads()
    if not _changes(config.threading.set_inter_op_parallelism_threads, threads):
        raise _too_late("TensorFlow", "its settings can't be changed any more")
    gpus = config.list_physical_devices("GPU")
    if not gpus:
        return DeviceLimit("tensorflow", 0, None)
    _check_there(visible, len(gpus))
    _check_fits(memory_bytes)
    chosen = gpus if visible is None else [gpus[one] for one in visible]
    try:
        config.set_visible_devices(chosen, "GPU")
        if memory_bytes is not None:
            part = config.LogicalDeviceConfiguration(memory_limit=max(1, memory_bytes // _MIB))
            for gpu in chosen:
                config.set_logical_device_configuration(gpu, [part])
    except RuntimeError as error:
        raise _too_late("TensorFlow", str(error)) from error
    return DeviceLimit("tensorflow", len(chosen), memory_bytes)


def _limit_torch(torch: Any, memory_bytes: int | None, visible: list[int] | None) -> DeviceLimit:
    cuda = torch.cuda
    if cuda.is_initialized():
        raise _too_late("PyTorch", "torch.cuda.is_initialized() is true, as it also is after an earlier limit")
    # Asked of nvidia-smi first: PyTorch may start CUDA to count, and CUDA reads what is visible only once.
    cards = _cards()
    count = len(cards) or cuda.device_count()
    if not count or not cuda.is_available():
        return DeviceLimit("torch", 0, None)
    _check_there(visible, count)
    _check_fits(memory_bytes)
    if visible is not None:
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        named = [str(one) for one in range(count)] if before is None else before.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(named[one].strip() for one in visible)
        count = cuda.device_count()
        if count != len(visible):
            _restore(before)
            raise _too_late("PyTorch", f"it sees {count} GPUs where {len(visible)} should be left")
    if memory_bytes is not None:
        for one in range(count):
            total = cuda.get_device_properties(one).total_memory
            if memory_bytes > total:
                raise _too_small(memory_bytes, total)
            cuda.set_per_process_memory_fraction(memory_bytes / total, one)
    return DeviceLimit("torch", count, memory_bytes)


def _changes(change: Callable[[int], Any], now: int) -> bool:
    """Whether a setting can still be changed; it is put back."""
    try:
        change(now + 2)
    except RuntimeError:
        return False
    change(now)
    return True


def _restore(before: str | None) -> None:
    if before is None:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


def _limit_jax(jax: Any, memory_bytes: int | None, visible: list[int] | None) -> DeviceLimit:
    # JAX has no public way to ask whether it has started, but this setting is free until then.
    name = "jax_num_cpu_devices"
    if hasattr(jax.config, name) and not _changes(partial(jax.config.update, name), getattr(jax.config, name)):
        raise _too_late("JAX", "its backends have started")
    cards = _cards()
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    if not cards or not any(importlib.util.find_spec(name) for name in plugins):
        return DeviceLimit("jax", 0, None)
    _check_there(visible, len(cards))
    _check_fits(memory_bytes)
    if visible is not None:
        jax.config.update("jax_cuda_visible_devices", ",".join(map(str, visible)))
    if memory_bytes is not None:
        os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)  # the older name; JAX refuses both together
        os.environ["XLA_CLIENT_MEM_FRACTION"] = f"{memory_bytes / max(cards) - 5e-7:.6f}"
    return DeviceLimit("jax", len(cards) if visible is None else len(visible), memory_bytes)


_LIMITS = {"tensorflow": _limit_tensorflow, "torch": _limit_torch, "jax": _limit_jax}


def _cards() -> list[int]:
    """Bytes of each GPU that CUDA will find, by nvidia-smi; [] where there is none, or no nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    totals = [int(line) * _MIB for line in asked.stdout.split() if line.isdecimal()]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return totals
    # Cards may be named by their numbers, in an order of CUDA's own, or by ids: how many is certain, which is not.
    count = len([one for one in named.split(",") if one.strip() not in ("", "-1")])
    return sorted(totals, reverse=True)[:count]


def _check_there(visible: list[int] | None, count: int) -> None:
    missing = [one for one in visible or [] if one >= count]
    if missing:
        there = "GPU 0" if count == 1 else f"GPUs 0 to {count - 1}"
        raise DeviceError(f"visible={visible}: there is no GPU {missing[0]}, only {there}.")


def _check_fits(memory_bytes: int | None) -> None:
    cards = _cards()
    if memory_bytes is not None and cards and memory_bytes > max(cards):
        raise _too_small(memory_bytes, max(cards))


def _too_small(memory_bytes: int, total_bytes: int) -> DeviceError:
    return DeviceError(
        f"memory={format_bytes(memory_bytes)} is more than the GPU has, {format_bytes(total_bytes)}. Use less."
    )


def _too_late(framework: str, found: str) -> DeviceError:
    return DeviceError(
        f"fs.devices.limit comes too late: {framework} has started its devices already ({found}). Call it before the "
        "first tensor, model or device list of the program, best right after the imports."
    )
