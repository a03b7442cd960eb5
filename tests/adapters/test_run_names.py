"""Every import path, name and argument of the table of renames, used for real in a program under `fitstream run`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fitstream.legacy.renames import read_renames

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent

#: Makes TensorFlow look as if it weren't installed.
WITHOUT_TENSORFLOW = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
def without(cls, name, path=None, target=None):
    return None if name.split(".")[0] == "tensorflow" else find(name, path, target)
machinery.PathFinder.find_spec = classmethod(without)
"""


def told_by(program: str, folder: Path, *options: str, **environment: str) -> Any:
    """What a program beside this file writes of itself."""
    file = folder / f"{program}.json"
    command = [sys.executable, "-m", "fitstream", "run", *options, str(HERE / f"{program}.py"), str(file)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def test_old_calls_mean_what_they_meant(tmp_path: Path) -> None:
    told = told_by("old_calls", tmp_path, "--keras", "1")
    assert len(told) > 60
    assert {name: outcome for name, outcome in told.items() if outcome != "ok"} == {}


@pytest.mark.parametrize("tensorflow", ["with TensorFlow", "without TensorFlow"])
def test_old_imports_find_what_they_named(tmp_path: Path, tensorflow: str) -> None:
    environment = {}
    if tensorflow.startswith("without"):
        if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
            pytest.skip("the backend is TensorFlow")
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    elif importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    told = told_by("old_imports", tmp_path, **environment)
    assert {name: outcome for name, outcome in told["imports"].items() if outcome != "imported"} == {}
    assert {name for name, outcome in told["same"].items() if not outcome} == set()


def test_each_old_module_of_the_table_is_imported_in_the_test() -> None:
    text = (HERE / "old_imports.py").read_text()
    assert [name for name in read_renames().modules if name not in text] == []


def test_each_old_argument_of_the_table_is_used_in_the_test() -> None:
    text = (HERE / "old_calls.py").read_text()
    missing = {
        f"{name}({old}=)"
        for name, rules in read_renames().calls.items()
        for old in (*rules.rename, *(part for parts in rules.join.values() for part in parts))
        if f"{old}=" not in text
    }
    assert missing == set()
