"""What several commands have in common: how DATA is read, and the options of a loader."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

import fitstream as fs
from fitstream.errors import PlanError
from fitstream.operations import Decode
from fitstream.sources.files import FileSource
from fitstream.sources.folder import list_folder
from fitstream.sources.labels import LabelMode
from fitstream.sources.table import read_table
from fitstream.transforms.images import ImageOptions

__all__ = ["Reading", "data_argument", "find_parts", "folders_of_parts", "reading_options", "running_options"]

_TRAINING = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev")
_PARTS = {*_TRAINING, *_VALIDATION, "test", "testing", "eval"}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _image_size(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    sides = re.fullmatch(r"([0-9]{1,5})(?:[xX]([0-9]{1,5}))?", value)
    if sides is None:
        raise click.BadParameter(f"{value!r} must be a side in pixels, such as 128, or HEIGHTxWIDTH, such as 96x128.")
    return int(sides[1]), int(sides[2] or sides[1])


def _workers(ctx: click.Context, param: click.Parameter, value: str) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if not value.isdecimal():
        raise click.BadParameter(f'{value!r} must be a number of lanes, or "auto".')
    return int(value)


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read DATA."""

    image: str
    label: tuple[str, ...]
    root: Path | None
    image_size: tuple[int, int]
    label_mode: LabelMode

    @property
    def options(self) -> ImageOptions:
        """What pictures become."""
        return ImageOptions(self.image_size)

    def list(self, data: Path, classes: Sequence[str] | None = None) -> FileSource:
        """List a folder of pictures, or a table of them.

        Args:
            data: The folder or table.
            classes: Training's, in label order; a folder may lack some of them.
        """
        if not data.exists():
            raise PlanError(f"{data}: there is no such file or folder.")
        if data.is_dir():
            lack = classes is not None
            return list_folder(data, label_mode=self.label_mode, classes=classes, may_lack_classes=lack)
        label = self.label[0] if len(self.label) == 1 else [*self.label]
        # fmt: off
        return read_table(
            data, image=self.image, label=label, root=self.root, label_mode=self.label_mode, classes=classes)
        # fmt: on

    def open(self, data: Path, classes: Sequence[str] | None = None) -> fs.Dataset:
        """The same as a dataset."""
        return self.of(self.list(data, classes))

    def of(self, source: FileSource) -> fs.Dataset:
        """A dataset of listed pictures."""
        return fs.Dataset(source, (Decode(self.options),))


data_argument = click.argument("data", type=click.Path(path_type=Path))


def reading_options(command: _Command) -> _Command:
    """Add the options that say how data are read; they arrive as one `reading`."""

    @functools.wraps(command)
    def gathered(
        *args: Any, image: str, label: tuple[str, ...], root: Path | None, image_size: Any, label_mode: Any, **rest: Any
    ) -> Any:
        return command(*args, reading=Reading(image, label, root, image_size, label_mode), **rest)

    options = [
        click.option("--image", default="path", metavar="COLUMN", show_default=True, help="Column of the paths."),
        click.option(
            "--label",
            multiple=True,
            default=("label",),
            metavar="COLUMN",
            show_default=True,
            help="Column of the labels. Several make one vector of numbers to be met.",
        ),
        click.option(
            "--root", type=click.Path(path_type=Path), help="Folder of relative paths.  [default: the table's own]"
        ),
        click.option(
            "--image-size",
            callback=_image_size,
            default="128",
            metavar="SIZE",
            show_default=True,
            help="Pixels: one side, or HEIGHTxWIDTH.",
        ),
        click.option(
            "--label-mode",
            type=click.Choice(["int", "categorical", "binary", "raw"]),
            default="int",
            show_default=True,
            help="What labels are: classes, yes and no, or numbers.",
        ),
    ]
    wrapped: Any = gathered
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def running_options(command: _Command) -> _Command:
    """Add the options of a loader."""
    memory = 'Budget for all that fitstream allocates, such as "64MB" or "1.5 GiB".'
    lanes = "Lanes that decode; 0 for the main thread."
    processes = "Worker processes to spread the lanes over; 0 for threads. Left out, it is measured what gains."
    command = click.option("--processes", type=click.IntRange(0), metavar="N", help=processes)(command)
    command = click.option("--workers", callback=_workers, default="auto", metavar="N", show_default=True, help=lanes)(
        command
    )
    return click.option("--memory", default="auto", metavar="SIZE", show_default=True, help=memory)(command)


def find_parts(data: Path) -> tuple[Path, Path | None]:
    """Find the training and validation parts of a folder that is laid out in parts; else DATA itself and None."""
    parts = {part.name: part for part in folders_of_parts(data)}
    training = next((parts[name] for name in _TRAINING if name in parts), None)
    if training is None:
        return data, None
    validation = next((parts[name] for name in _VALIDATION if name in parts), None)
    click.echo(f"Training on {training}" + (f", validating on {validation}" if validation else ""))
    return training, validation


def folders_of_parts(data: Path) -> list[Path]:
    """The sub-folders of a folder that is laid out in parts, training among them; none if it isn't."""
    if not data.is_dir():
        return []
    folders = sorted(entry for entry in data.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    names = {folder.name for folder in folders}
    return folders if names <= _PARTS and names & {*_TRAINING} else []
