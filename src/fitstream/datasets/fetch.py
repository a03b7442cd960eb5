"""Downloads by pooch, which checks them and puts them in place; with a downloader that shows how far it is and resumes.

What has come so far is kept in a `.part` file beside the file that it becomes, so that the next try asks the server for
the rest alone (HTTP's Range). A server that doesn't know ranges sends all, and the part begins anew.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fitstream.errors import PlanError, SourceError

__all__ = ["fetch"]

_PATIENCE_S = 30
_CHUNK_BYTES = 1 << 18
#: One download at a time: the progress line and pooch's logger are the whole program's.
_TURN = threading.Lock()


def fetch(url: str, checksum: str, folder: Path) -> Path:
    """Download one file, unless it is there.

    Args:
        url: Where from; its last part is the file's name.
        checksum: "md5:" and its digits, as its publisher states it.
        folder: Where to; made if missing.
    Returns:
        The file.
    Raises:
        PlanError: If pooch isn't installed.
        SourceError: If it can't be fetched, or isn't what was published.
    """
    name = url.rpartition("/")[2]
    try:
        import pooch
        import requests
    except ImportError as error:
        raise PlanError(
            f"downloading {name} needs pooch, which is not installed. Use: "
            f'pip install "fitstream[datasets]", or put the file in {folder} yourself ({url})'
        ) from error
    with _TURN:
        return _fetch(pooch, requests, url, checksum, folder)


def _fetch(pooch: Any, requests: Any, url: str, checksum: str, folder: Path) -> Path:
    name = url.rpartition("/")[2]
    part = folder / f"{name}.part"

    def download(url: str, output: str, _: Any) -> None:
        _download(requests, url, part)
        shutil.copyfile(part, output)

    logger = pooch.utils.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        found = pooch.retrieve(url, known_hash=checksum, fname=name, path=folder, downloader=download)
    except requests.RequestException as error:
        raise SourceError(
            f"it can't be downloaded: {error}. What has come is kept; call it again to go on, or put the file in "
            f"{folder} yourself.",
            file=url,
        ) from error
    except ValueError as error:
        part.unlink(missing_ok=True)
        raise SourceError(
            f"what was downloaded is not what was published, and is thrown away: {error} Try again, or put the file in "
            f"{folder} yourself.",
            file=url,
        ) from error
    finally:
        logger.setLevel(level)
    part.unlink(missing_ok=True)
    return Path(found)


def _download(requests: Any, url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    # As it is: what a server compresses on its way has other places, so that its rest would not fit.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, stream=True, timeout=_PATIENCE_S, headers=headers) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it is there already
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial_content
        if not goes_on:
            have = 0
        length = answer.headers.get("Content-Length")
        with part.open("ab" if goes_on else "wb") as file, _shown(part.stem, have, length) as advance:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))
    if length is not None and part.stat().st_size < have + int(length):
        raise requests.ConnectionError(f"it ended after {part.stat().st_size:,} of {have + int(length):,} bytes")


@contextmanager
def _shown(name: str, have: int, length: str | None) -> Iterator[Any]:
    """A progress line on a terminal; nothing elsewhere."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        total = None if length is None else have + int(length)
        task = progress.add_task(name, total=total, completed=have)
        yield lambda count: progress.advance(task, count)
