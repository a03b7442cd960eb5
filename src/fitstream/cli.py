"""The command line: `fitstream demo`, `train` and `plan`.

It opens data, hands over, and says what went wrong in a sentence: errors that fitstream knows come without a traceback
(FITSTREAM_TRACEBACK=1 shows it), and Ctrl-C ends with one line and the exit code that shells expect. All else is a bug,
here or in a user's own file, and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import click

import fitstream as fs
from fitstream.backend import choose_backend, without_chatter
from fitstream.demo import write_digits
from fitstream.errors import FitstreamError, PlanError
from fitstream.operations import Decode
from fitstream.sources.folder import list_folder
from fitstream.transforms.images import ImageOptions

if TYPE_CHECKING:
    from fitstream.runs import LabelMode

__all__ = ["main"]

_TRAINING = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev")
_PARTS = {*_TRAINING, *_VALIDATION, "test", "testing", "eval"}

#: Seconds that an orderly end after Ctrl-C may take, and the exit code that shells expect.
_INTERRUPT_S = 1.5
_INTERRUPTED = 130

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


def _model(ctx: click.Context, param: click.Parameter, value: str) -> str:
    # What can be told without Keras, which takes seconds to load.
    file, colon, function = value.rpartition(":")
    if colon and not (file.endswith(".py") and function.isidentifier()):
        raise click.BadParameter(f"{value!r} must be a name, or file.py:function.")
    if colon and not Path(file).is_file():
        raise click.BadParameter(f"{value!r}: there is no file {file}.")
    return value


@dataclass(frozen=True, slots=True)
class _Reading:
    """How to read DATA."""

    image: str
    label: tuple[str, ...]
    root: Path | None
    image_size: tuple[int, int]
    label_mode: LabelMode

    def open(self, data: Path, classes: Sequence[str] | None = None) -> fs.Dataset:
        """Open a folder of pictures, or a table that lists them.

        Args:
            data: The folder or table.
            classes: Training's, in label order; a folder may lack some of them.
        """
        if not data.exists():
            raise PlanError(f"{data}: there is no such file or folder.")
        if data.is_dir() and classes is not None:
            source = list_folder(data, label_mode=self.label_mode, classes=classes, may_lack_classes=True)
            return fs.Dataset(source, (Decode(ImageOptions(self.image_size)),))
        if data.is_dir():
            return fs.from_folder(data, self.image_size, self.label_mode)
        label = self.label[0] if len(self.label) == 1 else list(self.label)
        return fs.from_table(data, self.image, label, self.root, self.image_size, self.label_mode, classes)


def _reading_options(command: _Command) -> _Command:
    """Add the options that say what DATA is; they arrive as one `reading`."""

    @functools.wraps(command)
    def gathered(
        *args: Any, image: str, label: tuple[str, ...], root: Path | None, image_size: Any, label_mode: Any, **rest: Any
    ) -> Any:
        return command(*args, reading=_Reading(image, label, root, image_size, label_mode), **rest)

    options = [
        click.argument("data", type=click.Path(path_type=Path)),
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


def _running_options(command: _Command) -> _Command:
    """Add the options of a loader."""
    memory = 'Budget for all that fitstream allocates, such as "64MB" or "1.5 GiB".'
    lanes = "Lanes that decode; 0 for the main thread."
    processes = "Worker processes to spread the lanes over; 0 for threads. Left out, it is measured what gains."
    command = click.option("--processes", type=click.IntRange(0), metavar="N", help=processes)(command)
    command = click.option("--workers", callback=_workers, default="auto", metavar="N", show_default=True, help=lanes)(
        command
    )
    return click.option("--memory", default="auto", metavar="SIZE", show_default=True, help=memory)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fs.__version__, prog_name="fitstream")
def _cli() -> None:
    """Train Keras models on more data than memory holds, inside a byte budget."""


@_cli.command("plan")
@_reading_options
@_running_options
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
def _plan(
    data: Path,
    reading: _Reading,
    memory: str,
    workers: int | Literal["auto"],
    processes: int | None,
    batch_size: int,
) -> None:
    """Show what training on DATA would take in memory, and start nothing.

    DATA is a folder with a sub-folder for each class, or a table (.csv .tsv .json .jsonl .parquet) that lists pictures.
    """
    data, _ = _parts(data)
    click.echo(reading.open(data).shuffle(0).batch(batch_size).plan(memory, workers, processes))


@_cli.command("train")
@_reading_options
@click.option("--validation", type=click.Path(path_type=Path), help="Data to validate on, as DATA.")
@click.option(
    "--validation-split",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of DATA to validate on where --validation is not given; 0 for none.",
)
@click.option(
    "--model",
    callback=_model,
    default="small-cnn",
    show_default=True,
    help="small-cnn, a name in keras.applications, or file.py:function, called with (input_shape, outputs).",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@_running_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order and split.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the model, its history and a plot.  [default: a new fitstream-train...]",
)
def _train(
    data: Path,
    reading: _Reading,
    validation: Path | None,
    validation_split: float,
    output: Path | None,
    **settings: Any,
) -> None:
    """Train a Keras model on DATA, and write it with its history.

    DATA is a folder with a sub-folder for each class, or a table (.csv .tsv .json .jsonl .parquet) that lists
    pictures. A folder that holds train/ and validation/ is read as these two parts.
    """
    data, part = _parts(data)
    validation = validation or part
    whole, train, validate = _divide(data, validation, validation_split, reading, settings["seed"])
    _run(whole, train, validate, reading.label_mode, output=output or _new_folder(), **settings)


@_cli.command("demo")
@click.option("--memory", default="64MB", show_default=True, metavar="SIZE", help="Budget.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="fitstream-demo",
    show_default=True,
    help="Folder for the pictures, the model, its history and a plot.",
)
def _demo(memory: str, epochs: int, output: Path) -> None:
    """Train on 1,797 handwritten digits, written as picture files, within 64 MB."""
    folder = output / "digits"
    click.echo(f"Writing {write_digits(folder):,} handwritten digits as PNG files into {folder}")
    reading = _Reading("path", ("label",), None, (8, 8), "int")
    whole, train, validation = _divide(folder, None, 0.2, reading, seed=0)
    _run(
        whole,
        train,
        validation,
        "int",
        output=output,
        model="small-cnn",
        batch_size=32,
        epochs=epochs,
        memory=memory,
        workers="auto",
        processes=None,
        seed=0,
    )


def _run(
    whole: fs.Dataset, train: fs.Dataset, validation: fs.Dataset | None, label_mode: LabelMode, **settings: Any
) -> None:
    backend, why = choose_backend()
    if why:
        click.echo(f"Keras runs on {backend}: {why}.")
    # TensorFlow's remarks about the machine would stand between our lines; its errors still come.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _folder(settings["output"]):
        with without_chatter():
            # Loads Keras and its backend, which `fitstream plan` and `--help` must not.
            from fitstream import runs

        head = runs.head_for(whole, label_mode)
        runs.train(train, validation, head, runs.Settings(**settings), click.echo)


@contextlib.contextmanager
def _folder(output: Path) -> Iterator[None]:
    """Make a folder before anything is spent on it; if it stays empty, take it away again."""
    there = output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(f"the output folder can't be made: {error}") from error
    try:
        yield
    finally:
        if not there:
            with contextlib.suppress(OSError):
                output.rmdir()


def _parts(data: Path) -> tuple[Path, Path | None]:
    """Find the training and validation parts of a folder that is laid out in parts; else DATA itself and None."""
    if not data.is_dir():
        return data, None
    names = {entry.name for entry in data.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    training = next((data / name for name in _TRAINING if name in names), None)
    if training is None or not names <= _PARTS:
        return data, None
    validation = next((data / name for name in _VALIDATION if name in names), None)
    click.echo(f"Training on {training}" + (f", validating on {validation}" if validation else ""))
    return training, validation


def _divide(
    data: Path, validation: Path | None, share: float, reading: _Reading, seed: int
) -> tuple[fs.Dataset, fs.Dataset, fs.Dataset | None]:
    """Open DATA: the whole of it, whose labels tell the classes, what of it to train on, and what to validate on."""
    dataset = reading.open(data)
    names = dataset.class_names
    classes = f" in {len(names)} classes ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})" if names else ""
    if validation is not None:
        train, validate = dataset, reading.open(validation, names)
    elif share > 0:
        train, validate = dataset.split(1 - share, seed)
    else:
        click.echo(f"{len(dataset):,} pictures{classes}\n")
        return dataset, dataset, None
    click.echo(f"{len(train):,} pictures{classes}, and {len(validate):,} to validate on\n")
    return dataset, train, validate


def _new_folder() -> Path:
    """The first of fitstream-train, fitstream-train-2, ... that isn't there: no model is overwritten unasked."""
    number = 1
    while True:
        folder = Path("fitstream-train" if number == 1 else f"fitstream-train-{number}")
        if not folder.exists():
            return folder
        number += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: What follows `fitstream`; None for the program's own.
    """
    _watch_for_interrupts()
    try:
        code = _cli.main(arguments, prog_name="fitstream", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except FitstreamError as error:
        if os.environ.get("FITSTREAM_TRACEBACK"):
            raise
        click.echo(f"Error: {error}", err=True)
        code = 1
    except (KeyboardInterrupt, click.Abort):
        sys.stdout.flush()
        _leave()
    sys.exit(code or 0)


def _watch_for_interrupts() -> None:
    """Make Ctrl-C end the program in time, whatever a framework does with it.

    KeyboardInterrupt is lost where it meets a callback of the garbage collector, such as JAX's: then Python calls
    `sys.unraisablehook`, and goes on. And some frameworks take seconds to return. So a timer ends the program if the
    exception hasn't.
    """
    report = sys.unraisablehook

    def on_unraisable(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            _leave()
        report(lost)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        deadline = threading.Timer(_INTERRUPT_S, _leave)
        deadline.daemon = True
        deadline.start()
        raise KeyboardInterrupt

    # A shell that starts the program in the background has it ignore Ctrl-C; that stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
        sys.unraisablehook = on_unraisable


def _leave() -> NoReturn:
    """End the program without the frameworks' shutdown. Callable from any thread: it takes no lock."""
    show_cursor = b"\x1b[?25h" if os.isatty(1) else b""
    os.write(2, show_cursor + b"Interrupted.\n")
    os._exit(_INTERRUPTED)
