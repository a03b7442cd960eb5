"""The crash matrix: where something goes wrong, what goes wrong, and where lanes are; and what must come of it.

Each cell is an epoch of six batches of four samples, in a process of its own; sample 13, in the fourth batch, is at
fault. A cell must end, with the batches before the fault or all of them, and leave no process, shared memory or
temporary file. The whole matrix is `tests/soak/every_fault.py`; here is one split of each.

    goes on          all batches come, each sample once
    SampleError      the sample's own error, at its turn: three batches came
    WorkerDied       the sample is named as one that ends workers, at its turn
    Stalled          what hangs is named, with its stack
    FitstreamError   our own loop failed: told at once
    an exception     the observer's own comes out of the training loop as it is
    exit n, signal n the main process ends, as by itself
    waits            the training loop's own thread hangs, which nobody but its owner can end
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from cells import AT, COUNT, SIZE, SPLITS
from harm import FAULTS
from herding import Ended, Herd

from fitstream.memory import HAS_SHARED_MEMORY

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd and /proc")

_ENDS = {"os._exit": "exit 7", "SIGKILL": "signal 9", "SIGSEGV": "signal 11", "stack overflow": "signal 11"}
#: SIGSTOP stops the whole program, as Ctrl-Z does; when it is woken it goes on as if nothing had been.
_IN_MAIN = {**_ENDS, "hang": "Stalled", "SIGSTOP": "goes on"}
_IN_WORKERS = {**dict.fromkeys(_ENDS, "WorkerDied"), "hang": "Stalled", "SIGSTOP": "Stalled"}
_RAISES = dict.fromkeys(("raise", "sys.exit", "KeyboardInterrupt"), "SampleError")
_CRASHES = dict.fromkeys(_RAISES, "FitstreamError")
_SAMPLE = {"threads": {**_RAISES, **_IN_MAIN}, "processes": {**_RAISES, **_IN_WORKERS}}
_OWN = {"raise": "RuntimeError", "sys.exit": "exit 3", "KeyboardInterrupt": "signal 2", "hang": "waits"}

#: Place -> where lanes are -> fault -> outcome.
EXPECTED: dict[str, dict[str, dict[str, str]]] = {
    "transform": _SAMPLE,
    "transform of a generator": _SAMPLE,
    "source": _SAMPLE,
    "source, many at a time": _SAMPLE,
    "decode": _SAMPLE,
    # A generator runs in the main process, wherever lanes are.
    "generator": {"threads": _SAMPLE["threads"], "processes": _SAMPLE["threads"]},
    "lane loop": {"threads": {**_CRASHES, **_IN_MAIN}, "processes": {**_CRASHES, **_IN_WORKERS}},
    # Observers are told of batches in the training loop's thread, of workers in the thread that serves them.
    "callback": {"threads": {**_IN_MAIN, **_OWN}, "processes": {**_IN_MAIN, **_OWN}},
    "callback of workers": {"processes": {**_CRASHES, **_IN_MAIN}},
}

#: What a cell may take: deadlines in it, starting workers up to five times, and what a busy machine adds.
LIMIT_S = 100.0
TIMEOUT_S = 1.5


class Cell(NamedTuple):
    place: str
    split: str
    fault: str

    @property
    def expected(self) -> str | None:
        return EXPECTED[self.place].get("threads" if self.split == "threads" else "processes", {}).get(self.fault)


ALL = [cell for place in EXPECTED for split in SPLITS for fault in FAULTS
       if (cell := Cell(place, split, fault)).expected]  # fmt: skip


def _is_quick(cell: Cell) -> bool:
    """Whether a cell is in the short form: all faults of transforms, and of each other place some in each split."""
    place, fault = list(EXPECTED).index(cell.place), FAULTS.index(cell.fault)
    if cell.place == "transform":
        return cell.split == "threads" or cell.split == ("1 process" if fault % 2 else "2 processes")
    if cell.place in ("generator", "callback") and cell.split == "2 processes":
        return False
    if cell.place == "source, many at a time" and cell.fault in ("hang", "SIGSTOP"):  # the deadline is the chunk's
        return False
    return (place + fault + 2 * list(SPLITS).index(cell.split)) % 9 == 0


def check(cell: Cell, ended: Ended) -> None:
    """Hold what came of a cell against the table."""
    told, expected = ended.told, cell.expected
    flat = [sample for batch in told.get("seen", []) for sample in batch]
    what = f"{cell}: code {ended.code}, {told}, {ended.error_text}"
    assert ended.left == [], what
    if expected == "waits":
        assert ended.code is None, what
        return
    assert ended.code is not None, what
    if expected is None or expected.startswith(("exit", "signal")):
        kind, number = (expected or "").split()
        assert ended.code == (int(number) if kind == "exit" else -int(number)), what
        assert told.get("error") in (None, "SystemExit", "KeyboardInterrupt"), what
        return
    assert ended.code == 0, what
    assert ended.error_text == "", what
    if expected == "goes on":
        assert told["error"] is None, what
        assert flat == [2 * i for i in range(COUNT)], what
        return
    assert told["error"] == expected, what
    assert flat == [2 * i for i in range(len(flat))], what
    if expected in ("SampleError", "WorkerDied"):
        assert told["index"] == AT, what
    if expected == "FitstreamError":
        assert len(flat) <= AT // SIZE * SIZE, what
    elif cell.place != "callback of workers":
        assert len(flat) == AT // SIZE * SIZE, what
    if expected == "Stalled" and cell.fault == "hang":
        assert "in commit" in told["text"], what


def run(herd: Herd, cell: Cell) -> Ended:
    """Run a cell."""
    limit_s = 3.0 if cell.expected == "waits" else LIMIT_S
    return herd.run(limit_s, **cell._asdict(), sample_timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("cell", [cell for cell in ALL if _is_quick(cell)], ids="-".join)
def test_a_fault_ends_as_the_table_says_and_leaves_nothing(cell: Cell, herd: Herd) -> None:
    check(cell, run(herd, cell))


@pytest.mark.parametrize(
    ("place", "split", "fault"),
    [
        ("transform", "1 process", "os._exit"),
        ("source", "2 processes", "SIGSEGV"),
        ("decode", "1 process", "stack overflow"),
        ("lane loop", "2 processes", "SIGKILL"),
        ("transform of a generator", "1 process", "SIGKILL"),
    ],
)
def test_a_worker_that_dies_once_costs_nothing(place: str, split: str, fault: str, herd: Herd) -> None:
    ended = herd.run(LIMIT_S, place=place, split=split, fault=fault, once=True)
    assert (ended.code, ended.left, ended.told["error"]) == (0, [], None)
    assert [sample for batch in ended.told["seen"] for sample in batch] == [2 * i for i in range(COUNT)]


# The policies, for what no error of Python's tells.


#: The first sample is made by plan(), in the main process, so what ends a process ends that.
SKIPPED = [(at, fault) for at in ((AT,), (COUNT - 1,), (12, 13, 14, 15)) for fault in FAULTS] + [((0,), "sys.exit")]


@pytest.mark.parametrize(
    ("at", "fault", "split"),
    [
        ((0,), "sys.exit", "2 processes"),
        ((AT,), "os._exit", "2 processes"),
        ((AT,), "hang", "2 processes"),
        ((COUNT - 1,), "SIGSEGV", "1 process"),
        ((12, 13, 14, 15), "KeyboardInterrupt", "1 process"),
    ],
)
def test_bad_samples_in_workers_are_skipped(at: tuple[int, ...], fault: str, split: str, herd: Herd) -> None:
    check_skipped(herd, at, fault, split)


def check_skipped(herd: Herd, at: tuple[int, ...], fault: str, split: str, limit_s: float = LIMIT_S) -> None:
    """Hold an epoch that skips against a list."""
    ended = herd.run(limit_s, place="transform", split=split, fault=fault, at=at, on_bad_sample="skip",
                     sample_timeout_s=TIMEOUT_S)  # fmt: skip
    assert (ended.code, ended.left, ended.told.get("error")) == (0, [], None), ended
    batches = [[2 * i for i in range(start, start + SIZE) if i not in at] for start in range(0, COUNT, SIZE)]
    assert ended.told["seen"] == [batch for batch in batches if batch]
    assert sorted(bad[0] for bad in ended.told["bad"]) == list(at)


@pytest.mark.parametrize("fault", ["os._exit", "hang"])
def test_what_takes_the_place_of_a_sample_that_ends_or_hangs_a_worker_may_be_of_the_same_kind(
    fault: str, herd: Herd
) -> None:
    # A sample that raises is replaced by the same ones, wherever lanes are; so these say what is to come.
    asked = {"place": "transform", "split": "threads", "fault": "raise", "on_bad_sample": "replace"}
    ((_, _, donor, _),) = herd.run(LIMIT_S, **asked).told["bad"]
    bad = (AT, donor)
    expected = herd.run(LIMIT_S, **asked, at=bad)
    ended = herd.run(2 * LIMIT_S, **{**asked, "split": "2 processes", "fault": fault}, at=bad)
    assert (ended.code, ended.left, ended.told.get("error")) == (0, [], None), ended
    assert ended.told["seen"] == expected.told["seen"]
    assert sorted(one[0] for one in ended.told["bad"]) == sorted(bad)
    assert sorted(one[2] for one in ended.told["bad"]) == sorted(one[2] for one in expected.told["bad"])
