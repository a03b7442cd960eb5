"""What bad samples and deaths are counted against, and what is told of batches that are left out."""

from __future__ import annotations

import gc
import os
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
from loops import ROOM, Recorder

import fitstream as fs
from fitstream.events import PassEnded, PassStarted
from fitstream.memory import HAS_SHARED_MEMORY

needs_processes = pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")

pytestmark = pytest.mark.filterwarnings("ignore:.*on_bad_sample:RuntimeWarning")


def failing(bad: set[int]) -> Any:
    def fn(x: Any) -> Any:
        if int(x) in bad:
            raise ValueError("bad")
        return x

    return fn


def dying(bad: set[int] | None) -> Any:
    def fn(x: Any) -> Any:
        if (bad is None and x > 0) or (bad is not None and int(x) in bad):
            os._exit(3)
        return x

    return fn


def test_a_pass_that_is_run_again_adds_nothing_to_what_it_had() -> None:
    dataset = fs.from_arrays(np.arange(800)).map(failing({1, 2, 3, 4})).batch(16)
    with dataset.loader(ROOM, workers=0, on_bad_sample="skip") as loader:
        for _ in range(4):
            loader.set_epoch(0)
            assert sum(map(len, loader)) == 796


def test_where_the_length_is_unknown_a_pass_counts_for_itself() -> None:
    dataset = fs.from_generator(lambda: iter(range(500))).map(failing(set(range(300, 320)))).batch(16)
    with dataset.loader(ROOM, workers=1, on_bad_sample="skip", max_bad_fraction=0.03) as loader:
        with pytest.raises(fs.SampleError, match=r"max_bad_fraction=0\.03"):
            for _ in range(12):
                for _ in loader:
                    pass
        assert loader.stats().sample_count < 500


def test_the_error_of_too_many_bad_samples_keeps_no_batch() -> None:
    dataset = fs.from_arrays(np.arange(64)).map(failing(set(range(20)))).batch(32)
    roots: list[weakref.ref[Any]] = []
    with warnings.catch_warnings(), pytest.raises(fs.SampleError) as caught:
        warnings.simplefilter("ignore")
        with dataset.loader(ROOM, workers=0, on_bad_sample="skip") as loader:
            make = loader.plan.layout.leaves

            def noted(*args: Any) -> Any:
                leaves = make(*args)
                roots.extend(weakref.ref(leaf) for leaf in leaves)
                return leaves

            pipeline_slots = loader.stream(steps=0)._pipeline.board.slots
            for slot in pipeline_slots:
                slot.layout = _Noting(slot.layout, noted)
            list(loader)
    gc.collect()
    assert caught.value.reason.startswith("20 of 64")
    assert roots
    assert [ref() for ref in roots if ref() is not None] == []


class _Noting:
    """A layout that tells what leaves it made."""

    def __init__(self, layout: Any, leaves: Any) -> None:
        self._layout = layout
        self.leaves = leaves

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layout, name)


def test_passes_are_told_though_their_first_and_last_batches_are_left_out() -> None:
    recorder = Recorder()
    dataset = fs.from_arrays(np.arange(32)).map(failing({0, 1, 2, 3, 28, 29, 30, 31})).batch(4)
    with dataset.loader(ROOM, workers=0, on_bad_sample="skip", observers=[recorder]) as loader:
        for _ in range(2):
            assert len(list(loader)) == 6
    assert [event.pass_index for event in recorder.of(PassStarted)] == [0, 1]
    assert [(one.pass_index, one.batch_count, one.sample_count) for one in recorder.of(PassEnded)] == [
        (0, 6, 24),
        (1, 6, 24),
    ]


def test_a_rank_without_a_batch_is_an_error_and_no_missing_step() -> None:
    dataset = fs.from_arrays(np.arange(32)).map(failing({4, 5})).batch(4)
    with dataset.shard(0, 2).loader(ROOM, workers=0, on_bad_sample="skip") as loader:
        with pytest.raises(fs.SampleError, match=r"fewer steps than the others.*last=\"pad\""):
            list(loader)


def test_a_rank_gets_padding_alone_where_batches_are_padded() -> None:
    dataset = fs.from_arrays(np.arange(1, 33)).map(failing({5, 6})).batch(4, "pad", mask=True)
    with dataset.shard(0, 2).loader(ROOM, workers=0, on_bad_sample="skip") as loader:
        batches = [(x.tolist(), mask.tolist()) for x, mask in loader]
    assert len(batches) == 8
    assert batches[1] == ([0, 0], [0, 0])


@needs_processes
def test_a_function_that_always_ends_its_process_ends_the_epoch() -> None:
    dataset = fs.from_arrays(np.arange(200)).map(dying(None)).batch(64)
    with dataset.loader(ROOM, workers=2, processes=2, on_bad_sample="skip") as loader:
        with pytest.raises(fs.WorkerDied, match="died"):
            list(loader)


@needs_processes
def test_samples_that_end_the_workers_of_all_lanes_at_once_are_skipped_one_by_one() -> None:
    bad = {16 * i for i in range(1, 8)}
    dataset = fs.from_arrays(np.arange(400)).map(dying(bad)).batch(64)
    with dataset.loader(ROOM, workers=4, processes=4, on_bad_sample="skip") as loader:
        seen = np.concatenate(list(loader)).tolist()
    assert seen == [i for i in range(400) if i not in bad]
