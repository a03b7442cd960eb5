"""Short forms of the kills in tests/soak, and how the end of a worker is told."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import main_kills
import pytest
import worker_kills

from fitstream.engine import watch
from fitstream.engine.marks import Marks
from fitstream.engine.watch import Watch
from fitstream.memory import HAS_SHARED_MEMORY
from fitstream.policy import DEFAULT

pytestmark = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd and /proc")


def test_30_workers_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    kills = worker_kills.soak(27, 7, tmp_path)
    assert sum(kills.ways.values()) == 27
    assert (kills.lost, kills.doubled, kills.wrong) == (0, 0, 0), kills.told()
    assert len(kills.fresh_s) == 27
    assert sum(kills.reasons.values()) >= 20  # some were killed twice, or at the end


@pytest.mark.parametrize(("what", "how"), [("kill -9", signal.SIGKILL), ("Ctrl-C", signal.SIGINT)])
def test_a_main_process_that_is_ended_leaves_nothing(what: str, how: signal.Signals, tmp_path: Path) -> None:
    rng, found = random.Random(3), main_kills.Found()
    for mode in ("processes", *main_kills.MODES):
        main_kills.end_one(mode, how, rng, tmp_path, found, limit_s=25)  # how soon is for the soak
    assert found.problems == [], found.told(what)


# How an end is told.


class Ended:
    """A worker that is gone."""

    overdue, hung_up = None, False

    def __init__(self, code: int) -> None:
        self.code = code

    def reap(self) -> int:
        return self.code


def told(monkeypatch: pytest.MonkeyPatch, code: int, counts: list[int | None]) -> str:
    left = iter(counts)
    monkeypatch.setattr(watch, "oom_kill_count", lambda: next(left))
    monkeypatch.setattr(watch, "memory_limit_bytes", lambda: 512_000_000)
    process: Any = Ended(code)
    return Watch(DEFAULT, Marks.none()).how_it_ended(process)


@pytest.mark.parametrize(
    ("code", "counts", "words"),
    [
        (-9, [3, 4], "out-of-memory killer: the limit of all processes here together is 512 MB"),
        (-9, [3, 3], "by SIGKILL from outside: the system did not run out of memory"),
        (-9, [None, None], "ended by SIGKILL: out of memory, or killed from outside"),
        (-9, [3, None], "ended by SIGKILL: out of memory, or killed from outside"),
        (-11, [3, 4], "ended by SIGSEGV"),
        (7, [3, 3], "exited with code 7"),
    ],
)
def test_an_out_of_memory_kill_is_told_apart(
    code: int, counts: list[int | None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words in told(monkeypatch, code, counts)


def test_two_kills_are_told_apart_though_the_first_was_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([0, 1, 1])
    monkeypatch.setattr(watch, "oom_kill_count", lambda: next(left))
    one: Any = Ended(-9)
    two: Any = Ended(-9)
    watcher = Watch(DEFAULT, Marks.none())
    assert "out-of-memory killer" in watcher.how_it_ended(one)
    assert "from outside" in watcher.how_it_ended(two)
