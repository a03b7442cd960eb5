"""Which backend Keras gets, and what is kept off standard error while it loads."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fitstream.backend import choose_backend
from fitstream.errors import PlanError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """What find_spec finds, beside an empty Keras home and no KERAS_BACKEND."""
    names = {"keras"}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: importlib.machinery.ModuleSpec(name, None) if name in names else None,
    )
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    # Set and taken away, so that what choose_backend() sets is undone as well.
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.delenv("KERAS_BACKEND")
    return names


def test_keras_s_default_is_taken_where_it_is_installed(installed: set[str]) -> None:
    installed |= {"tensorflow", "jax"}
    assert choose_backend() == ("tensorflow", "")
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_the_settings_file_counts(installed: set[str], tmp_path: Path) -> None:
    installed |= {"tensorflow", "jax"}
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    assert choose_backend() == ("jax", "")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"backend": 3}', "{}"])
def test_a_broken_settings_file_is_passed_over(installed: set[str], tmp_path: Path, text: str) -> None:
    installed |= {"tensorflow"}
    (tmp_path / "keras.json").write_text(text)
    assert choose_backend()[0] == "tensorflow"


def test_an_installed_backend_stands_in_for_the_default_and_that_is_said(installed: set[str]) -> None:
    installed |= {"jax"}
    assert choose_backend() == ("jax", "tensorflow, Keras's default, is not installed")


def test_keras_backend_counts_before_all_else(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed |= {"tensorflow", "torch"}
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert choose_backend() == ("torch", "")


def test_a_backend_that_is_asked_for_and_missing_is_an_error(
    installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed |= {"tensorflow"}
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(PlanError, match=r"KERAS_BACKEND=jax is not installed here; tensorflow is.*fitstream\[jax\]"):
        choose_backend()


def test_without_keras_the_error_names_the_extra(installed: set[str]) -> None:
    installed.clear()
    with pytest.raises(PlanError, match=r"fitstream\[demo\]"):
        choose_backend()


def test_without_any_backend_the_error_names_the_extras(installed: set[str]) -> None:
    with pytest.raises(PlanError, match=r"fitstream\[tensorflow\]"):
        choose_backend()


PROGRAM = r"""
import os, sys
from fitstream.backend import without_chatter
with without_chatter():
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
    os.write(2, b"I0000 00:00:17 port.cc:153] a remark\nE0000 00:00:17 dso.cc:1] an error\n")
    print("from Python", file=sys.stderr)
    if len(sys.argv) > 1:
        raise ImportError("no such library")
os.write(2, b"I0000 afterwards\n")
"""


def test_remarks_are_dropped_and_errors_come_through() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr == "E0000 00:00:17 dso.cc:1] an error\nfrom Python\nI0000 afterwards\n"


def test_errors_come_through_when_the_import_fails() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "fail"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "an error" in done.stderr
    assert "ImportError: no such library" in done.stderr
