"""Deadlines: what takes too long is named, with where it was; what is slow, or waits for its turn, is left alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import COUNT, SIZE
from harm import ManyRows, Rows, Transform
from herding import Herd
from loops import ROOM, Recorder, worker_pids

import fitstream as fs
from fitstream.events import WorkerLost
from fitstream.memory import HAS_SHARED_MEMORY

processes_only = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
SPLITS = [(2, 0), (2, 1), (2, 2)] if HAS_SHARED_MEMORY else [(2, 0)]
DOUBLED = [2 * i for i in range(COUNT)]
#: A deadline that is over soon, and that no sample misses only because the machine does other work.
SOON_S = 1.5


def flat(batches: Any) -> list[int]:
    return [int(sample) for batch in batches for sample in batch]


def skipping(dataset: fs.Dataset, split: tuple[int, int], timeout_s: float) -> tuple[list[int], list[int | None]]:
    """What comes, and which samples are bad, where bad ones are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with dataset.loader(ROOM, workers=split[0], processes=split[1], on_bad_sample="skip",
                            sample_timeout_s=timeout_s) as loader:  # fmt: skip
            return flat(loader), [bad.index for bad in loader.stats().bad_samples]


# In threads.


@pytest.mark.parametrize("where", ["a transform", "an object", "a generator"])
def test_a_thread_that_hangs_is_told_with_the_users_function(where: str) -> None:
    release = threading.Event()

    def hangs_at_13(x: Any) -> Any:
        if x == 13:
            release.wait()
        return x

    class Hangs:
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> Any:
            return hangs_at_13(index)

    dataset = {
        "a transform": fs.from_arrays(np.arange(COUNT)).map(hangs_at_13),
        "an object": fs.from_sequence(Hangs()),
        "a generator": fs.from_generator(lambda: (hangs_at_13(i) for i in range(COUNT))),
    }[where]
    seen: list[int] = []
    with dataset.batch(SIZE).loader(ROOM, workers=2, processes=0, sample_timeout_s=SOON_S) as loader:
        with pytest.warns(RuntimeWarning, match="did not end within 1 s"), pytest.raises(fs.Stalled) as caught:
            seen.extend(sample for batch in loader for sample in batch.tolist())
        release.set()
    assert seen == list(range(12))
    assert "in hangs_at_13" in str(caught.value)
    assert "release.wait()" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    if where != "a generator":
        assert "sample 13, row 1 of batch 3, pass 0" in str(caught.value)


# In worker processes.


@processes_only
@pytest.mark.parametrize(("kind", "split"), [(Transform, (2, 1)), (Rows, (2, 2)), (ManyRows, (2, 2))])
def test_a_sample_that_hangs_in_a_worker_is_the_only_one_that_is_bad(kind: Any, split: tuple[int, int]) -> None:
    if kind is Transform:
        dataset = fs.from_arrays(np.arange(COUNT)).map(Transform("hang", (13,)))
    else:
        dataset = fs.from_sequence(kind(COUNT, "hang", (13,)))
    assert skipping(dataset.batch(SIZE), split, SOON_S) == ([x for x in DOUBLED if x != 26], [13])


@processes_only
def test_a_function_that_keeps_the_interpreter_lock_does_not_blame_the_lane_beside_it() -> None:
    def catastrophic(x: Any) -> Any:
        if x == 13:
            re.match("(a+)+$", "a" * 60 + "b")  # a search that backtracks for ever, and holds the lock
        return x

    dataset = fs.from_arrays(np.arange(COUNT)).map(catastrophic).batch(SIZE)
    seen, bad = skipping(dataset, (3, 1), SOON_S)
    assert bad == [13]
    assert seen == [i for i in range(COUNT) if i != 13]


@processes_only
def test_several_that_hang_are_all_found() -> None:
    bad = (1, 13, 14, 23)
    seen, found = skipping(fs.from_sequence(Rows(COUNT, "hang", bad)).batch(SIZE), (2, 2), SOON_S)
    assert sorted(found) == list(bad)  # type: ignore[type-var]
    assert seen == [2 * i for i in range(COUNT) if i not in bad]


@processes_only
@pytest.mark.parametrize("when", ["idle", "busy"])
def test_a_worker_that_is_stopped_from_outside_is_replaced(when: str) -> None:
    def slow(x: Any) -> Any:
        time.sleep(0.002)
        return x

    recorder = Recorder()
    dataset = fs.from_arrays(np.arange(400)).map(slow).batch(8)
    with dataset.loader(ROOM, workers=2, processes=2, sample_timeout_s=SOON_S, observers=[recorder]) as loader:
        if when == "idle":
            assert flat(loader) == list(range(400))
        batches = iter(loader)
        seen = flat([next(batches)]) if when == "busy" else []
        stopped = min(worker_pids())
        os.kill(stopped, signal.SIGSTOP)
        seen += flat(batches)
    assert seen == list(range(400))
    (lost,) = recorder.of(WorkerLost)
    assert lost.pid == stopped
    assert "did nothing for" in lost.reason


# What is no hang.


@pytest.mark.parametrize("split", SPLITS)
def test_a_slow_chunk_that_goes_on_is_not_ended(split: tuple[int, int]) -> None:
    def slow(x: Any) -> Any:
        time.sleep(0.15)
        return x

    dataset = fs.from_arrays(np.arange(17)).map(slow).batch(16)
    with dataset.loader(ROOM, workers=split[0], processes=split[1], sample_timeout_s=SOON_S) as loader:
        assert flat(loader) == list(range(17))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("sequential", [False, True])
def test_a_consumer_that_takes_its_time_harms_nothing(split: tuple[int, int], sequential: bool) -> None:
    source = fs.from_generator(lambda: iter(range(200))) if sequential else fs.from_arrays(np.arange(200))
    recorder, seen = Recorder(), []
    with (
        source.map(lambda x: x)
        .batch(8)
        .loader(ROOM, workers=split[0], processes=split[1], sample_timeout_s=1.0, observers=[recorder]) as loader
    ):
        for number, batch in enumerate(loader):
            seen.extend(batch.tolist())
            if number == 9:
                time.sleep(1.3)  # longer than the deadline
    assert seen == list(range(200))
    assert recorder.of(WorkerLost) == []


@pytest.mark.parametrize("split", [(2, 0), (2, 2)] if HAS_SHARED_MEMORY else [(2, 0)])
def test_without_a_deadline_nothing_is_ended(split: tuple[int, int]) -> None:
    def slow(x: Any) -> Any:
        if x == 5:
            time.sleep(1.2)
        return x

    dataset = fs.from_arrays(np.arange(16)).map(slow).batch(4)
    with dataset.loader(ROOM, workers=split[0], processes=split[1], sample_timeout_s=None) as loader:
        assert flat(loader) == list(range(16))


@processes_only
@pytest.mark.parametrize(
    ("place", "split"), [("transform", "threads"), ("callback", "1 process"), ("callback", "2 processes")]
)
def test_a_program_that_was_stopped_as_a_whole_goes_on(place: str, split: str, herd: Herd) -> None:
    ended = herd.run(120, place=place, split=split, fault="SIGSTOP", sample_timeout_s=1.0, stopped_s=2.0)
    assert (ended.code, ended.told.get("error"), ended.left) == (0, None, []), ended
    assert flat(ended.told["seen"]) == DOUBLED


# What breaks our own connection.


def cutting(how: str, mark: Path) -> Any:
    """A function that breaks its worker's sockets, once."""

    def cuts(x: Any) -> Any:
        if x == 13 and not mark.exists():
            mark.touch()
            for fd in map(int, os.listdir("/proc/self/fd")):
                try:
                    is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
                except OSError:  # what the folder was listed by
                    continue
                if is_socket and how == "close":
                    os.close(fd)
                elif is_socket:
                    socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR)
            if how == "shut down and hang":
                threading.Event().wait(3600)
        return x

    return cuts


@processes_only
@pytest.mark.parametrize("split", SPLITS[1:])
@pytest.mark.parametrize("how", ["close", "shut down", "shut down and hang"])
def test_a_worker_that_cannot_be_talked_to_is_replaced(how: str, split: tuple[int, int], tmp_path: Path) -> None:
    dataset, recorder = fs.from_arrays(np.arange(200)).map(cutting(how, tmp_path / "cut")).batch(8), Recorder()
    with dataset.loader(ROOM, workers=split[0], processes=split[1], observers=[recorder]) as loader:
        assert flat(loader) == list(range(200))
    (lost,) = recorder.of(WorkerLost)
    if how == "shut down and hang" and split == (2, 2):  # a second lane notices, and ends the process itself
        assert lost.reason == "it closed its connection to the main process, and was ended"
