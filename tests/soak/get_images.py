"""Fetch some 1,800 odd pictures that others test with: python tests/soak/get_images.py FOLDER

From Pillow's source archive (`Tests/images`), Debian's package gdk-pixbuf-tests, and libpng's source archive (PngSuite,
among others). All are asked for by package name, of pip and apt-get as they are set up here. What can't be had is said
and left out; `image_corpus.py` works with what there is.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

_TIMEOUT_S = 300


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise OSError(f"{command[0]} {command[-1]}: {(done.stderr or done.stdout).strip()[-300:]}")


def from_archive(archive: Path, folder: str, target: Path) -> None:
    """Take the files of one folder out of a source archive, under the names that they have there."""
    with tarfile.open(archive) as source:
        for member in source:
            inner = member.name.partition("/")[2]
            if member.isfile() and inner.startswith(folder):
                member.name = inner.removeprefix(folder)
                source.extract(member, target, filter="data")


def pillow(work: Path, target: Path) -> None:
    name = f"pillow=={importlib.metadata.version('pillow')}"
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", name, cwd=work)
    from_archive(next(work.glob("pillow-*.tar.gz")), "Tests/images/", target)


def gdk_pixbuf(work: Path, target: Path) -> None:
    run("apt-get", "download", "gdk-pixbuf-tests", cwd=work)
    run("dpkg", "-x", next(work.glob("gdk-pixbuf-tests_*.deb")).name, "unpacked", cwd=work)
    shutil.copytree(next(work.rglob("test-images")), target, dirs_exist_ok=True)


def libpng(work: Path, target: Path) -> None:
    # Most systems are set up for packages, not for sources: the same places are asked for those too.
    (work / "places").mkdir()
    (work / "lists/partial").mkdir(parents=True)
    for file in (*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt").glob("sources.list")):
        text = file.read_text(encoding="utf-8")
        lines = [line.replace("Types: deb", "Types: deb-src") for line in text.splitlines()]
        lines = [f"deb-src {line[4:]}" if line.startswith("deb ") else line for line in lines]
        (work / "places" / file.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    places = {"sourcelist": "/dev/null", "sourceparts": f"{work}/places"}
    options = [f"-oDir::Etc::{name}={place}" for name, place in places.items()] + [f"-oDir::State::lists={work}/lists"]
    run("apt-get", *options, "update", cwd=work)
    run("apt-get", *options, "source", "--download-only", "--tar-only", "libpng1.6", cwd=work)
    from_archive(next(work.glob("libpng*.orig.tar.*")), "contrib/", target)


def main() -> None:
    target = Path(sys.argv[1]).resolve()
    sources: dict[str, Callable[[Path, Path], None]] = {"pillow": pillow, "gdk-pixbuf": gdk_pixbuf, "libpng": libpng}
    for name, fetch in sources.items():
        if (target / name).is_dir():
            continue
        with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as found:
            try:
                fetch(Path(work), Path(found))
            except (OSError, subprocess.SubprocessError, StopIteration) as error:
                sys.stdout.write(f"{name}: its pictures can't be had here ({error})\n")
                continue
            target.mkdir(parents=True, exist_ok=True)
            shutil.copytree(found, target / name)
        sys.stdout.write(f"{name}: {sum(1 for file in (target / name).rglob('*') if file.is_file()):,} files\n")


if __name__ == "__main__":
    main()
