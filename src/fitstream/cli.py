"""The command line: `fitstream demo`, `train`, `plan`, `inspect` and `run`.

It opens data, hands over, and says what went wrong in a sentence: errors that fitstream knows come without a traceback
(FITSTREAM_TRACEBACK=1 shows it), and Ctrl-C ends with one line and the exit code that shells expect. All else is a bug,
here or in a user's own file, and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click

import fitstream as fs
from fitstream.backend import choose_backend, without_chatter
from fitstream.cli_inspect import inspect
from fitstream.cli_options import Reading, data_argument, find_parts, reading_options, running_options
from fitstream.cli_run import run
from fitstream.demo import write_digits
from fitstream.errors import FitstreamError, PlanError
from fitstream.interrupts import leave, watch_for_interrupts
from fitstream.legacy.running import Script
from fitstream.sources.labels import LabelMode

__all__ = ["main"]


def _model(ctx: click.Context, param: click.Parameter, value: str) -> str:
    # What can be told without Keras, which takes seconds to load.
    file, colon, function = value.rpartition(":")
    if colon and not (file.endswith(".py") and function.isidentifier()):
        raise click.BadParameter(f"{value!r} must be a name, or file.py:function.")
    if colon and not Path(file).is_file():
        raise click.BadParameter(f"{value!r}: there is no file {file}.")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(fs.__version__, prog_name="fitstream")
def _cli() -> None:
    """Train Keras models on more data than memory holds, inside a byte budget."""


_cli.add_command(inspect)
_cli.add_command(run)


@_cli.command("plan")
@data_argument
@reading_options
@running_options
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
def _plan(
    data: Path,
    reading: Reading,
    memory: str,
    workers: int | Literal["auto"],
    processes: int | None,
    batch_size: int,
) -> None:
    """Show what training on DATA would take in memory, and start nothing.

    DATA is a folder with a sub-folder for each class, or a table (.csv .tsv .json .jsonl .parquet) that lists pictures.
    """
    data, _ = find_parts(data)
    click.echo(reading.open(data).shuffle(0).batch(batch_size).plan(memory, workers, processes))


@_cli.command("train")
@data_argument
@reading_options
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
@running_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order and split.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the model, its history and a plot.  [default: a new fitstream-train...]",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Folder for checkpoints: the same command goes on from the newest one.",
)
@click.option(
    "--on-bad-sample",
    type=click.Choice(["raise", "skip", "replace"]),
    default="raise",
    show_default=True,
    help="What becomes of pictures that can't be read; they are listed in bad_samples.csv.",
)
def _train(
    data: Path,
    reading: Reading,
    validation: Path | None,
    validation_split: float,
    output: Path | None,
    **settings: Any,
) -> None:
    """Train a Keras model on DATA, and write it with its history.

    DATA is a folder with a sub-folder for each class, or a table (.csv .tsv .json .jsonl .parquet) that lists
    pictures. A folder that holds train/ and validation/ is read as these two parts.
    """
    data, part = find_parts(data)
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
    reading = Reading("path", ("label",), None, (8, 8), "int")
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


def _divide(
    data: Path, validation: Path | None, share: float, reading: Reading, seed: int
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
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] != ["run"]:  # there Ctrl-C and the output are the program's own
        watch_for_interrupts()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
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
        leave()
    if isinstance(code, Script):
        # Outside of what turns errors into messages, so that the interpreter handles the program's as always.
        code()
        sys.exit(0)
    sys.exit(code or 0)
