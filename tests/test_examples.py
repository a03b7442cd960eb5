"""The examples as tests: each runs in its quick form, in an empty folder, and checks its own result."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MOST_LINES = 120


def run(name: str, folder: Path, *options: str) -> str:
    """What an example prints; it must come to its expected result."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("needs keras")
    choice = subprocess.run([sys.executable, "-m", "fitstream.backend"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *options],
        cwd=folder,
        env={
            **os.environ,
            "FITSTREAM_CACHE": str(folder / "cache"),
            "KERAS_BACKEND": choice.stdout.strip(),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("entity_tagging", "always O"),
        ("text_generation", "nats a character"),
        ("two_inputs", "always benign"),
    ],
)
def test_an_example_comes_to_its_result(name: str, says: str, tmp_path: Path) -> None:
    assert says in run(name, tmp_path, "--quick")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_examples_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < MOST_LINES
