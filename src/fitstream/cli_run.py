"""`fitstream run`: an old program for Keras 1 or 2, unchanged, on Keras 3."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import click

from fitstream.backend import choose_backend
from fitstream.legacy.detecting import detect
from fitstream.legacy.renames import read_renames
from fitstream.legacy.running import Script

__all__ = ["run"]


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--keras",
    type=click.Choice(["1", "2"]),
    help="What counts given by position mean: 1, samples; 2, steps.  [default: as the names that SCRIPT uses say]",
)
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(keras: str | None, script: Path, arguments: tuple[str, ...]) -> Script:
    """Run SCRIPT, written for Keras 1 or 2, on Keras 3.

    fit_generator and its family are there, old imports are found, old names and arguments are translated, and what was
    translated is told on standard error. All that follows SCRIPT is the script's own.
    """
    backend, why = choose_backend()
    if why:
        click.echo(f"fitstream run: Keras runs on {backend}: {why}.", err=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    found = detect(script, read_renames())
    version: Literal[1, 2] = 1 if keras == "1" or (keras is None and found.keras == 1) else 2
    counts = "samples" if version == 1 else "steps"
    reason = f"--keras {keras}" if keras else found.reason
    other = "" if keras else f" (--keras {3 - version}: {'steps' if version == 1 else 'samples'})"
    click.echo(
        f"fitstream run: counts given by position are {counts}, as in Keras {version}: {reason}{other}", err=True
    )
    return Script(script, arguments, version, found.tensorflow)
