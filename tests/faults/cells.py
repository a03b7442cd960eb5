"""What one cell of the matrix does: an epoch over samples one of which is at fault. Run by the herd."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from harm import Callback, Codec, Culprit, Loop, ManyRows, Rows, Stream, Transform
from PIL import Image

import fitstream as fs

#: Samples, of a batch, and the one at fault: the second of the fourth batch.
COUNT, SIZE, AT = 24, 4, 13
#: Threads, one process of two lanes, two processes.
SPLITS = {"threads": 0, "1 process": 1, "2 processes": 2}


def pictures(folder: Path) -> list[Path]:
    """Tiny pictures, no two alike, in the order of their names."""
    paths = [folder / f"{number:03}.jpg" for number in range(COUNT)]
    for number, path in enumerate(paths):
        if not path.exists():
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(buffer, "jpeg")
            path.write_bytes(buffer.getvalue())
    return paths


def dataset(place: str, folder: Path, *guilt: Any) -> fs.Dataset:
    """Samples of which each is twice its index, made so that the fault is at the right place."""
    if place == "transform":
        return fs.from_arrays(np.arange(COUNT)).map(Transform(*guilt))
    if place == "transform of a generator":
        return fs.from_generator(lambda: iter(range(COUNT))).map(Transform(*guilt))
    if place == "source":
        return fs.from_sequence(Rows(COUNT, *guilt))
    if place == "source, many at a time":
        return fs.from_sequence(ManyRows(COUNT, *guilt))
    if place == "generator":
        return fs.from_generator(Stream(COUNT, *guilt))
    if place == "decode":
        paths = pictures(folder)
        rows = [{"path": str(path), "label": number} for number, path in enumerate(paths)]
        table = fs.from_table(rows, image_size=(8, 8), label_mode="raw")
        return table.map(Codec([path.read_bytes() for path in paths], *guilt))
    if place == "lane loop":
        return fs.from_arrays(np.arange(COUNT)).map(Loop(*guilt))
    # Workers are lost so that something is told of them.
    loses = (AT,) if place == "callback of workers" else ()
    return fs.from_arrays(np.arange(COUNT)).map(Transform("SIGKILL", loses, folder / "lost"))


def observer(place: str, guilt: tuple[Any, ...]) -> Culprit:
    """What listens, if that is what is at fault."""
    if place == "callback":
        return Callback("BatchDelivered", guilt[0], (AT // SIZE,), guilt[2])
    if place == "callback of workers":
        return Callback("WorkerLost", *guilt)
    return Callback("none", "none", ())


def run(cell: dict[str, Any]) -> None:
    """Run a cell, and write what came of it."""
    folder = Path(cell["folder"])
    once = folder / "once" if cell.get("once") else None
    guilt = (cell["fault"], tuple(cell.get("at", (AT,))), once)
    place, seen, told = cell["place"], [], {}
    made = dataset(place, folder, *guilt).batch(SIZE, cell.get("last", "keep"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            loader = made.loader(
                "500 MB",
                workers=2,
                processes=SPLITS[cell["split"]],
                observers=[observer(place, guilt)],
                on_bad_sample=cell.get("on_bad_sample", "raise"),
                sample_timeout_s=cell.get("sample_timeout_s", 1.0),
            )
            with loader:
                seen.extend(np.asarray(batch).tolist() for batch in loader)
                told = {"error": None}
            told["bad"] = [(bad.index, bad.path, bad.donor_index, bad.reason) for bad in loader.stats().bad_samples]
    except BaseException as error:
        told = {"error": type(error).__name__, "index": getattr(error, "index", None), "text": str(error)}
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
    finally:
        (folder / "result").write_text(json.dumps({"seen": seen, **told}))
