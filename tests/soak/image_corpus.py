"""Odd, broken and hostile pictures: each becomes the right picture, or a typed refusal, in time and within the plan.

    python tests/soak/get_images.py FOLDER; python tests/soak/image_corpus.py FOLDER [SEED]

Every file of the folder is decoded, and of some hundred pictures also versions that are cut off or have flipped bits
(seeded). Worker processes do it, so that a crash or a hang names its file. What comes out is compared with what
Pillow's own `Image.open` and full decoding give by the rules of docs/images.md:

    JPEG         mean difference at most 1 of 255, none above 16 (another build of the same library)
    all others   no difference

Memory: what the process has taken at its peak, above what it held before, may exceed what the decoder has accounted
for, and the result, by 4 MB at most. Time: 20 s a picture. Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import json
import random
import selectors
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fitstream.scratch import Allowance, Arena, TooLarge
from fitstream.transforms.decode import ImageDecoder
from fitstream.transforms.images import FORMATS, DecodeError, ImageOptions
from fitstream.transforms.jpeg import read_jpeg_header
from fitstream.transforms.pillow import picture_format

_LIMIT_S = 20
_SLACK_BYTES = 4 << 20
_LANE_BYTES, _LARGE_BYTES = 16 << 20, 1 << 30
_MUTATED, _VERSIONS = 400, 6
_PROCESSES = 2

Pixels = npt.NDArray[np.uint8]


def versions(files: list[Path], seed: int) -> Iterator[tuple[str, int]]:
    """Paths and the numbers of their versions; 0 is the file as it is."""
    yield from ((str(path), 0) for path in files)
    readable = [path for path in files if format_of(path.read_bytes()) in FORMATS]
    for path in random.Random(seed).sample(readable, min(_MUTATED, len(readable))):
        yield from ((str(path), number) for number in range(1, _VERSIONS + 1))


def version(path: str, number: int, seed: int) -> bytes:
    data = bytearray(Path(path).read_bytes())
    rng = random.Random(f"{seed} {Path(path).name} {number}")
    if number % 2:
        return bytes(data[: rng.randrange(len(data))])
    if number:
        for _ in range(rng.choice((1, 8, 64))):
            # Most of what matters stands in front.
            place = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 512))
            data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def format_of(data: bytes) -> str:
    try:
        return picture_format(memoryview(data))
    except DecodeError:
        return "other"


def by_the_rules(data: bytes) -> Pixels | str:
    """Pillow's own decoding of the first frame, brought to RGB as docs/images.md says; or why not."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            image.load()
            # Pillow would take the orientation of XMP too.
            if "xmp" not in image.info and "XML:com.adobe.xmp" not in image.info:
                ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I;16", "I;16B"):
                tags: Any = getattr(image, "tag_v2", {})
                values = np.asarray(image) >> (tags.get(258, (16,))[0] - 8)
                grey = np.repeat(values.astype(np.uint8)[..., None], 3, 2)
                return 255 - grey if tags.get(262) == 0 else grey
            image.info.pop("transparency", None)
            shown = image.convert("LA") if image.mode == "La" else image
            return np.asarray(shown.convert("RGB"))
    except Exception as error:  # noqa: BLE001  Pillow may raise anything
        return f"{type(error).__name__}: {error}"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def memory_bytes(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def examine(data: bytes) -> dict[str, Any]:
    """Decode one picture, and judge: "outcome" is decoded, refused or wrong."""
    allowance = Allowance(_LANE_BYTES, _LARGE_BYTES, _LANE_BYTES + _LARGE_BYTES)
    arena = Arena(allowance)
    decoder = ImageDecoder(ImageOptions(), arena)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before = memory_bytes("VmRSS")
    began = time.monotonic()
    pixels: Pixels | None = None
    try:
        with arena:
            pixels = decoder.decode(memoryview(data))
        said = ""
    except (DecodeError, TooLarge) as error:
        said = str(error)
    except Exception as error:  # noqa: BLE001  that is what is looked for
        return {"outcome": "wrong", "said": f"raised {type(error).__name__}: {error}"}
    seconds = time.monotonic() - began
    accounted = (
        arena.peak_bytes + allowance.large_peak_bytes + (result_bytes(data) if pixels is None else pixels.nbytes)
    )
    beyond = memory_bytes("VmHWM") - before - accounted
    if beyond > _SLACK_BYTES:
        return {"outcome": "wrong", "said": f"took {beyond:,} bytes more than accounted ({accounted:,}); {said}"}
    expected = by_the_rules(data)
    result = {"outcome": "refused" if pixels is None else "decoded", "said": said, "seconds": seconds, "beyond": beyond}
    if pixels is None:
        return result | {"stricter": not isinstance(expected, str)}
    if isinstance(expected, str):
        return result | {"laxer": expected}
    wrong = difference(pixels, expected, format_of(data) == "JPEG")
    return result | ({"outcome": "wrong", "said": wrong} if wrong else {})


def result_bytes(data: bytes) -> int:
    """Bytes of the result of a JPEG that was refused, perhaps after they were written."""
    if format_of(data) != "JPEG":
        return 0
    try:
        header = read_jpeg_header(memoryview(data))
    except DecodeError:
        return 0
    return header.height * header.width * 3


def difference(pixels: Pixels, expected: Pixels, lossy: bool) -> str:
    if pixels.shape != expected.shape:
        return f"has the shape {pixels.shape}, not {expected.shape}"
    far = np.abs(pixels.astype(np.int16) - expected)
    most, mean = int(far.max()), float(far.mean())
    return (
        "" if most <= (16 if lossy else 0) and mean <= 1 else f"differs by up to {most} of 255, {mean:.2f} on average"
    )


def work() -> None:
    """A worker process: a task a line in, a result a line out."""
    warnings.simplefilter("ignore")
    decode_one_of_each()
    for line in sys.stdin:
        path, number, seed = json.loads(line)
        say(json.dumps(examine(version(path, number, seed))))


def decode_one_of_each() -> None:
    """So that what the libraries set up at first counts for no picture."""
    for name in FORMATS:
        file = BytesIO()
        Image.new("RGB", (64, 64)).save(file, name)
        examine(file.getvalue())


class Worker:
    """A worker process that is started anew when it crashed or hung."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, path: str, number: int, seed: int) -> dict[str, Any]:
        if self._process is None:
            # fmt: off
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            # fmt: on
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([path, number, seed]) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(_LIMIT_S) else None
        if line:
            return json.loads(line)  # type: ignore[no-any-return]
        self.end()
        return {"outcome": "wrong", "said": "hangs" if line is None else f"crashes: exit code {process.returncode}"}

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def examine_all(tasks: Iterator[tuple[str, int]], seed: int) -> list[tuple[str, int, dict[str, Any]]]:
    results: list[tuple[str, int, dict[str, Any]]] = []
    lock = threading.Lock()

    def run() -> None:
        worker = Worker()
        try:
            while True:
                with lock:
                    task = next(tasks, None)
                if task is None:
                    return
                results.append((*task, worker.ask(*task, seed)))
        finally:
            worker.end()

    threads = [threading.Thread(target=run) for _ in range(_PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def reason(said: str) -> str:
    """A refusal without what is particular to a file."""
    for words in ("it begins with", "it is empty", "pixels (height", "cut off", "scratch memory", "no agreed way"):
        if words in said:
            return words
    return said.partition("(")[2].partition(":")[0][:40] or said[:60]


def report(what: str, results: list[tuple[str, int, dict[str, Any]]]) -> None:
    outcomes = Counter(result["outcome"] for _, _, result in results)
    say(f"{what}: {len(results):,}. " + ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items())))
    for told, count in Counter(reason(r["said"]) for _, _, r in results if r["outcome"] == "refused").most_common(12):
        say(f"  refused {count:5,}  {told}")
    stricter = [result for _, _, result in results if result.get("stricter")]
    reasons = ", ".join(sorted({reason(result["said"]) for result in stricter}))
    say(f"  {len(stricter):,} of the refused ones Pillow would have read; {reasons}")
    laxer = Counter(result["laxer"][:60] for _, _, result in results if "laxer" in result)
    say(f"  {sum(laxer.values()):,} of the decoded ones Pillow refuses; {dict(laxer.most_common(5))}")
    say(f"  slowest {max(r.get('seconds', 0) for _, _, r in results):.2f} s")
    beyond = max(result.get("beyond", 0) for _, _, result in results)
    say(f"  most memory beyond what was accounted: {beyond:,} bytes")


def main() -> None:
    folder = Path(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        say(f"SKIPPED: the image corpus: {folder} has no files (tests/soak/get_images.py says why)")
        return
    results = sorted(examine_all(versions(files, seed), seed), key=lambda each: each[:2])
    report("files", [each for each in results if each[1] == 0])
    report("cut off or changed", [each for each in results if each[1] > 0])
    wrong = [each for each in results if each[2]["outcome"] == "wrong"]
    for path, number, result in wrong:
        say(f"WRONG: {path} version {number} (seed {seed}) {result['said']}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--work"] else main()
