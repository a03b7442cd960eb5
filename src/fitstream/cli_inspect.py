"""`fitstream inspect`: look at all files of data sets, list the bad ones, and tell what is there."""

from __future__ import annotations

import contextlib
import csv
import os
import statistics
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np

from fitstream.checking import Fault
from fitstream.cli_options import Reading, folders_of_parts, reading_options, running_options
from fitstream.errors import FitstreamError, PlanError, SourceError
from fitstream.inspection import Findings, decode_all, look_at_all
from fitstream.sources.files import PICTURE_SUFFIXES, FileSource, PackedPaths
from fitstream.sources.folder import list_folder
from fitstream.spec import format_bytes

__all__ = ["inspect"]

#: Bad files that are shown of each data set; a file given by --csv has all.
_SHOWN = 10
_CLASSES_SHOWN = 10


@click.command("inspect")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@reading_options
@running_options
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Of the plan.")
@click.option("--decode", is_flag=True, help="Decode every picture as well.")
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="File to list the bad ones in.")
def inspect(
    paths: tuple[Path, ...],
    reading: Reading,
    memory: str,
    workers: int | Literal["auto"],
    processes: int | None,
    batch_size: int,
    decode: bool,
    table: Path | None,
) -> None:
    """Look at all files of data sets; list those that can't be read.

    PATH is a folder of pictures, a table that lists them, or pictures themselves. Files that are missing, empty, no
    files, closed to you or no pictures are listed; with --decode also those that can't be decoded. Ends with exit code
    1 if there is any.
    """
    settings = {"memory": memory, "workers": workers, "processes": processes}
    bad_count = 0
    with _listing(table) as write:
        for name, make in _named(paths, reading):
            try:
                source, note = make()
                bad_count += _inspect(name, source, note, reading, decode, settings, batch_size, write)
            except FitstreamError as error:
                bad_count += 1
                write(Fault(0, name, str(error)))
                click.echo(f"{name}\n  can't be used: {error}\n")
    if bad_count and table is not None:
        click.echo(f"All that is bad is listed in {table}")
    if bad_count:
        raise click.exceptions.Exit(1)


_Made = tuple[FileSource, str]


def _named(paths: Sequence[Path], reading: Reading) -> Iterator[tuple[str, Callable[[], _Made]]]:
    """What is inspected: each data set's name, and what opens it with a note on how it was taken."""
    pictures = [path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()]
    for path in paths:
        if path in pictures:
            continue
        for part in folders_of_parts(path) or [path]:
            yield str(part), partial(_open, part, reading)
    if pictures:
        listed = FileSource(PackedPaths.of(os.getcwd(), map(str, pictures)), None, None, "pictures")
        yield "pictures", lambda: (listed, "")


def _open(path: Path, reading: Reading) -> _Made:
    try:
        return reading.list(path), ""
    except SourceError as error:
        if not path.is_dir():
            raise
        # Pictures that are not in classes can be looked at all the same.
        return list_folder(path, label_mode=None), str(error)


def _inspect(
    name: str,
    source: FileSource,
    note: str,
    reading: Reading,
    decode: bool,
    settings: dict[str, Any],
    batch_size: int,
    write: Callable[[Fault], None],
) -> int:
    """Inspect one data set and tell; the number of bad files."""
    count, shown = 0, list[Fault]()

    def found(fault: Fault) -> None:
        nonlocal count
        count += 1
        shown.extend([fault][: _SHOWN - len(shown)])
        write(fault)

    with _progress(f"Looking at {name}", len(source)) as advance:
        findings = look_at_all(source, found, advance)
    readable = len(findings.readable)
    if decode and readable:
        with _progress(f"Decoding {name}", readable) as advance:
            decode_all(findings, reading.options, settings, found, advance)
    click.echo("\n".join([f"{name}: {len(source):,} files", *_told(source, findings)]))
    if note:
        click.echo(f"  note     no classes: {note}")
    done = "" if decode else "; --decode tries to decode them"
    click.echo(f"  bad      {count:,}" + ("" if count else f"{done}"))
    for fault in shown:
        click.echo(f"           {fault.path}: {fault.reason}")
    if count > len(shown):
        click.echo(f"           and {count - len(shown):,} more; --csv FILE lists all")
    try:
        click.echo(f"\n{reading.of(source).batch(batch_size).plan(**settings)}\n")
    except FitstreamError as error:
        click.echo(f"  no plan  {error}\n")
    return count


def _told(source: FileSource, findings: Findings) -> Iterator[str]:
    labels = source.labels()
    if source.class_names is not None and labels is not None:
        counts = Counter(dict(enumerate(np.bincount(labels, minlength=len(source.class_names)).tolist())))
        names = [f"{source.class_names[index]} {count:,}" for index, count in counts.most_common(_CLASSES_SHOWN)]
        more = f", and {len(counts) - len(names):,} more" if len(counts) > len(names) else ""
        yield f"  classes  {len(counts):,}: {', '.join(names)}{more}"
    if findings.formats:
        yield f"  formats  {', '.join(f'{name} {count:,}' for name, count in findings.formats.most_common())}"
        total_bytes = format_bytes(sum(findings.sizes_bytes))
        yield f"  bytes    {_spread(findings.sizes_bytes, format_bytes)}, {total_bytes} in all"
    if findings.pixels:
        unknown = sum(findings.formats.values()) - len(findings.pixels)
        yield f"  pixels   {_spread(findings.pixels, _megapixels)}" + (f"; {unknown:,} not known" if unknown else "")


def _spread(values: array[int], told: Callable[[float], str]) -> str:
    least, middle, most = (told(value) for value in (min(values), statistics.median(values), max(values)))
    return f"min {least}, median {middle}, max {most}"


def _megapixels(pixels: float) -> str:
    return f"{pixels / 1e6:.3g} Mpx" if pixels >= 100_000 else f"{pixels:,.0f}"


@contextlib.contextmanager
def _progress(label: str, count: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, on the error stream; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=count, label=label, file=sys.stderr, show_pos=True) as bar:
        yield bar.update


@contextlib.contextmanager
def _listing(table: Path | None) -> Iterator[Callable[[Fault], None]]:
    """What writes faults to a CSV file as they are found. The file appears once it is whole."""
    if table is None:
        yield lambda fault: None
        return
    with _csv_errors(table):
        number, name = tempfile.mkstemp(prefix=f"{table.name}.", suffix=".part", dir=table.parent)
        file = open(number, "w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
    unfinished = Path(name)
    try:
        writer = csv.writer(file)

        def write(fault: Fault) -> None:
            with _csv_errors(table):
                writer.writerow([fault.path, fault.reason])

        with _csv_errors(table):
            writer.writerow(["path", "reason"])
        yield write
        with _csv_errors(table):
            file.close()
            unfinished.chmod(0o666 & ~_umask())
            unfinished.replace(table)
    finally:
        with contextlib.suppress(OSError):
            file.close()
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _csv_errors(table: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlanError(f"--csv {table}: the file can't be written: {error.strerror}.") from error


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
