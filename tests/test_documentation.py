"""The documentation as tests: every Python block of README.md and docs/ runs.

The blocks of one page share their names, in order, in a process of their own. It starts in a folder that holds:

    photos/cats/*.jpg, photos/dogs/*.jpg    small pictures, 12 of each
    photos.csv                              columns path (relative) and label (cats or dogs)

A page that imports a package that is not installed here is skipped. A block after `<!-- not run: reason -->` is left
out.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
IMPORTED = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
USES_KERAS = re.compile(r"\bfs\.(?:fit|evaluate|predict)\(|\.keras\(|^import keras", re.MULTILINE)


def program(page: str, name: str) -> str:
    """One program of a page's blocks, its lines numbered as in the page, so that a traceback points into it."""
    lines = [""] * page.count("\n")
    for block in BLOCK.finditer(page):
        if block["reason"] is None:
            first = page.count("\n", 0, block.start("code"))
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    source = "\n".join(lines)
    prelude = "from fitstream.backend import choose_backend; choose_backend()\n" if USES_KERAS.search(source) else ""
    return f"{prelude}exec(compile({source!r}, {name!r}, 'exec'))"


def missing(page: str) -> list[str]:
    """Packages that the page imports and that are not here."""
    code = "\n".join(block["code"] for block in BLOCK.finditer(page) if block["reason"] is None)
    names = set(IMPORTED.findall(code)) | ({"keras"} if USES_KERAS.search(code) else set())
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


def run(page: str, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program(page, name)],
        cwd=folder,
        env={
            **os.environ,
            "FITSTREAM_CACHE": str(folder / "cache"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TMPDIR": str(folder),
        },  # pages leave the folders they make
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path, make_pictures: Callable[..., Path]) -> Path:
    photos = make_pictures(tmp_path / "photos")
    with (tmp_path / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows(
            [path.relative_to(tmp_path).as_posix(), path.parent.name] for path in sorted(photos.glob("*/*"))
        )
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_examples_of_a_page_run(path: Path, folder: Path) -> None:
    page = path.read_text(encoding="utf-8")
    if not BLOCK.search(page):
        assert "```python" not in page, "a block that isn't recognised"
        pytest.skip("no Python in it")
    if missing(page):
        pytest.skip(f"needs {', '.join(missing(page))}")
    done = run(page, path.name, folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_has_examples() -> None:
    assert BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))


def test_a_broken_example_fails_with_its_line_in_the_page(tmp_path: Path) -> None:
    page = "# Title\n\n```python\nx = 1\n```\n\ntext\n\n```python\nassert x == 2\n```\n"
    done = run(page, "page.md", tmp_path)
    assert done.returncode == 1
    assert 'File "page.md", line 10' in done.stderr


def test_only_a_block_with_a_reason_is_left_out(tmp_path: Path) -> None:
    left_out = "<!-- not run: it deletes all -->\n\n```python\nraise SystemExit(3)\n```\n"
    page = left_out + "\n```python\nraise SystemExit(4)\n```\n"
    assert run(page, "page.md", tmp_path).returncode == 4


def test_links_between_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
    pages = [*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in link.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []
