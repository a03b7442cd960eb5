"""The examples as tests: each runs in its quick form, in a process of its own, and checks its own result."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

#: Name, what it is run with, packages that it needs, and what it prints.
CASES = [
    ("segmentation_pairs", ["--quick"], ["keras", "sklearn"], "overlap with the true masks"),
    ("cifar_wrapping", ["--quick"], ["keras", "sklearn"], "the same as the old generator's"),
    ("share_gpu", [], ["keras", "sklearn"], "both programs are done"),
]


@pytest.mark.timeout(400)  # some seconds, but on a busy machine importing a framework alone takes a minute
@pytest.mark.parametrize(("name", "arguments", "packages", "told"), CASES, ids=[case[0] for case in CASES])
def test_an_example_runs_to_its_stated_result(
    name: str, arguments: list[str], packages: list[str], told: str, tmp_path: Path
) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    from fitstream.backend import choose_backend

    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": str(tmp_path)}
    if "keras" in packages:
        before = os.environ.get("KERAS_BACKEND")
        environment["KERAS_BACKEND"] = choose_backend()[0]
        if before is None:
            del os.environ["KERAS_BACKEND"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert told in done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_is_run_here(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 120
    assert path.stem in {case[0] for case in CASES}
