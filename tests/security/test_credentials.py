"""Credentials in paths and messages never come out: not in errors, their tracebacks, reprs or plans."""

from __future__ import annotations

import subprocess
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary import Hostile
from PIL import Image

import fitstream as fs
from fitstream.memory import HAS_SHARED_MEMORY

SECRETS = ("hunter2", "t0ps3cret")
LOGIN = "https://me:hunter2@host/x.jpg"
TOKEN = "https://host/x.jpg?size=3&X-Amz-Signature=t0ps3cret"


def told(error: BaseException) -> str:
    """All that a traceback shows of an error, and its attributes."""
    return "".join(traceback.format_exception(error)) + str(vars(error))


def check(error: BaseException) -> None:
    assert [secret for secret in SECRETS if secret in told(error)] == []
    assert "***" in str(error)


def failed(make: Any) -> fs.FitstreamError:
    with pytest.raises(fs.FitstreamError) as caught:
        with make().batch(1).loader(memory="16 MB", workers=0) as loader:
            list(loader)
    return caught.value


@pytest.mark.parametrize("url", [LOGIN, TOKEN])
@pytest.mark.parametrize("kind", ["rows", "csv", "jsonl"])
@pytest.mark.parametrize("rooted", [True, False])
def test_urls_in_a_table(hostile: Hostile, url: str, kind: str, rooted: bool) -> None:
    table: Any = [[url, 0]]
    if kind != "rows":
        table = hostile.root / f"x.{kind}"
        table.write_text(f"path,label\n{url},0\n" if kind == "csv" else f'{{"path": "{url}", "label": 0}}')
    error = failed(lambda: fs.from_table(table, root=hostile.root if rooted else None, image_size=8))
    assert isinstance(error, fs.SampleError)
    assert "it is a URL" in str(error)
    check(error)


@pytest.mark.parametrize("path", [f"{LOGIN}\0", f"../{LOGIN}", f"/{TOKEN}"])
def test_urls_in_paths_that_a_table_may_not_have(hostile: Hostile, path: str) -> None:
    check(failed(lambda: fs.from_table([[path, 0]], root=hostile.root)))


@pytest.mark.parametrize("suffix", ["csv", "npy", "npz", "h5", "txt", ""])
def test_urls_in_place_of_files(suffix: str) -> None:
    url = f"{LOGIN}.{suffix}"
    for make in (fs.from_table, fs.from_folder, lambda path: fs.from_hdf5(path, "x"), fs.from_arrays):
        check(failed(lambda make=make: make(url)))
        if make is fs.from_arrays:
            check(failed(lambda make=make: make(Path(url))))


def table_with_urls(folder: Path) -> Path:
    """Thirty pictures, two of which are URLs."""
    paths = []
    for number in range(30):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
        paths.append(f"{number}.png")
    paths[7], paths[8] = LOGIN, TOKEN
    (folder / "x.csv").write_text("path,label\n" + "".join(f"{path},0\n" for path in paths))
    return folder / "x.csv"


class Noted(list):
    def on_event(self, event: Any) -> None:
        self.append(event)


def test_urls_of_bad_samples_that_are_left_out(hostile: Hostile) -> None:
    dataset = fs.from_table(table_with_urls(hostile.root), image_size=8).batch(5)
    events = Noted()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        policy = {"on_bad_sample": "skip", "max_bad_fraction": 0.5}
        with dataset.loader(memory="16 MB", workers=0, observers=[events], **policy) as loader:
            list(loader)
            loader.stats().write_bad_samples(hostile.root / "bad.csv")
            text = f"{loader.stats()} {events} {[str(one.message) for one in warned]}"
    text += (hostile.root / "bad.csv").read_text()
    assert "https://***@host/x.jpg" in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_urls_in_what_a_check_and_an_inspection_list(hostile: Hostile) -> None:
    table = table_with_urls(hostile.root)
    with pytest.raises(fs.SourceError, match="2 of 30 samples") as caught:
        fs.from_table(table, image_size=8).batch(5).plan(memory="16 MB", check=True)
    check(caught.value)
    listed = hostile.root / "bad.csv"
    command = [sys.executable, "-m", "fitstream", "inspect", str(table), "--csv", str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr + listed.read_text()
    assert "https://***@host/x.jpg" in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_urls_in_labels_and_columns(hostile: Hostile) -> None:
    check(failed(lambda: fs.from_table([["x.jpg", LOGIN]], classes=["cat"])))
    check(failed(lambda: fs.from_table([{"path": "x.jpg", TOKEN: 0}])))


def raises(x: Any) -> Any:
    if x >= 2:
        raise OSError(f"no answer from {LOGIN}")
    return x


def test_urls_in_what_a_function_raises() -> None:
    error = failed(lambda: fs.from_arrays(np.arange(4.0)).map(raises))
    assert isinstance(error, fs.SampleError)
    assert "hunter2" not in str(error) + error.reason
    assert "no answer from https://***@host/x.jpg" in str(error)
    # The user's own error stays as it is, for programs that look at it.
    assert isinstance(error.__cause__, OSError)


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
def test_urls_in_the_traceback_of_a_worker() -> None:
    with pytest.raises(fs.SampleError) as caught:
        dataset = fs.from_arrays(np.arange(4.0)).map(raises)
        with dataset.batch(1).loader(memory="128 MB", workers=1, processes=1) as loader:
            list(loader)
    assert "OSError: no answer from https://***@host/x.jpg" in "".join(traceback.format_exception(caught.value))
    check(caught.value)


class Unready:
    """Can't be opened in a worker."""

    def __getstate__(self) -> dict[str, Any]:
        return {"url": LOGIN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise ValueError(f"can't connect to {state['url']}")

    def __call__(self, x: Any) -> Any:
        return x


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
def test_urls_in_what_a_worker_says_when_it_cannot_start() -> None:
    with pytest.raises(fs.PlanError, match="could not open the dataset") as caught:
        fs.from_arrays(np.arange(4.0)).map(Unready()).batch(1).loader(memory="128 MB", workers=1, processes=1)
    check(caught.value)


def test_urls_in_reprs_and_plans(hostile: Hostile) -> None:
    folder = hostile.root / LOGIN.rpartition("/")[0]
    folder.mkdir(parents=True)
    (folder / "x.csv").write_text(f"path,label\n{hostile.secret},0\n")
    dataset = fs.from_table(folder / "x.csv")
    assert "https:/***@host" in repr(dataset)
    assert "hunter2" not in repr(dataset)


@pytest.mark.parametrize("error", [fs.FitstreamError, fs.PlanError, fs.SourceError, fs.SampleError, fs.Stalled])
def test_every_error_hides_them(error: type[fs.FitstreamError]) -> None:
    check(error(f"failed: {LOGIN} {TOKEN}"))
    check(fs.WorkerDied(LOGIN, pid=1, exit_code=1))
    check(fs.SourceError("failed", file=LOGIN, line=3))
    check(fs.SampleError("failed", path=LOGIN, index=3))
