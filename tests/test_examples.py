"""Every program in examples/ runs in its short form, in an empty folder, and finds what it says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
IMPORTED = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)

#: Each program, and what makes it short.
EXAMPLES = {
    "cifar_wrapping.py": ["--quick"],
    "entity_tagging.py": ["--quick"],
    "frame_with_broken_files.py": ["--quick"],
    "large_hdf5.py": ["--gigabytes", "0.1"],
    "one_hot_rows.py": ["--quick"],
    "plant_diseases.py": ["--quick"],
    "segmentation_pairs.py": ["--quick"],
    "share_gpu.py": [],
    "small_rows.py": ["--quick"],
    "text_generation.py": ["--quick"],
    "two_inputs.py": ["--quick"],
}


def environment(folder: Path) -> dict[str, str]:
    """A backend that is there, and folders of the test's own."""
    choice = subprocess.run([sys.executable, "-m", "fitstream.backend"], capture_output=True, text=True, check=True)
    (folder / "temporary").mkdir()
    return {
        **os.environ,
        "FITSTREAM_CACHE": str(folder / "cache"),
        "KERAS_BACKEND": choice.stdout.strip(),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TMPDIR": str(folder / "temporary"),
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_finds_what_it_says(name: str, tmp_path: Path) -> None:
    imported = set(IMPORTED.findall((FOLDER / name).read_text(encoding="utf-8")))
    missing = sorted(one for one in imported if importlib.util.find_spec(one) is None)
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    done = subprocess.run(
        [sys.executable, FOLDER / name, *EXAMPLES[name]],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "temporary").iterdir()) == []


def test_every_example_is_run_and_short() -> None:
    assert sorted(EXAMPLES) == sorted(file.name for file in FOLDER.glob("*.py"))
    assert all(len((FOLDER / name).read_text(encoding="utf-8").splitlines()) < 120 for name in EXAMPLES)
