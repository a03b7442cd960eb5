"""Makes docs/demo.svg: runs the demo in a terminal of 100 columns and draws what stands there in the end.

Run it where fitstream[demo] and pyte (a terminal emulator) are installed:  python docs/make_picture.py
"""

from __future__ import annotations

import os
import pty
import re
import sys
import tempfile
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 100, 60


def screen_after(command: list[str], folder: str) -> pyte.Screen:
    """Run a command in a terminal, and return what the terminal shows."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)

    def read(descriptor: int) -> bytes:
        piece = os.read(descriptor, 1 << 16)
        stream.feed(piece)
        return piece

    os.environ.update(COLUMNS=str(COLUMNS), LINES=str(LINES), TERM="xterm-256color", TF_CPP_MIN_LOG_LEVEL="3")
    os.chdir(folder)
    pty.spawn(command, read)
    return screen


def styled(screen: pyte.Screen, row: int) -> Text:
    """One row of a terminal with its colours."""
    text = Text(no_wrap=True)
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        colour = {"default": "", "brown": "yellow"}.get(cell.fg, cell.fg)
        colour = re.sub(r"^([0-9a-f]{6})$", r"#\1", colour).replace("bright", "bright_")
        text.append(cell.data, f"{'bold ' if cell.bold else ''}{colour}".strip())
    text.rstrip()
    return text


def main() -> None:
    """Run the demo and write the picture."""
    target = Path(__file__).with_name("demo.svg").resolve()
    with tempfile.TemporaryDirectory() as folder:
        screen = screen_after([sys.executable, "-m", "fitstream", "demo"], folder)
    rows = [styled(screen, row) for row in range(LINES)]
    while not rows[-1].plain:
        rows.pop()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text("$ make demo", style="bold"), *rows, sep="\n")
    # It must look right offline: no web font.
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(target), title="fitstream demo", code_format=template)


if __name__ == "__main__":
    main()
