"""What becomes of samples that can't be made: which batches come, what is recorded, and the same wherever lanes are.

The expected batches come from a list as model: rows of batches, from which the bad ones are taken.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harm import ManyRows, Rows, Transform
from loops import ROOM, Recorder

import fitstream as fs
from fitstream.events import BadSampleFound
from fitstream.memory import HAS_SHARED_MEMORY

#: Lanes and processes: the calling thread, threads, two processes.
SPLITS = [(0, 0), (2, 0), (2, 2)] if HAS_SHARED_MEMORY else [(0, 0), (2, 0)]
CHEAP = SPLITS[:2]
COUNT, SIZE = 24, 4


def rows_of(batch: Any) -> Any:
    if isinstance(batch, tuple):
        return tuple(rows_of(part) for part in batch)
    return np.asarray(batch).tolist()


def outcome(dataset: fs.Dataset, split: tuple[int, int], passes: int = 1, **options: Any) -> tuple[list[Any], fs.Stats]:
    """The batches of some passes, and what was measured."""
    options.setdefault("on_bad_sample", "skip")
    seen: list[Any] = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*on_bad_sample", RuntimeWarning)
        with dataset.loader(ROOM, workers=split[0], processes=split[1], **options) as loader:
            seen.extend([rows_of(batch) for batch in loader] for _ in range(passes))
            stats = loader.stats()
    return seen[0] if passes == 1 else seen, stats


def marks(stats: fs.Stats) -> list[tuple[int | None, int, int, int | None]]:
    """Index, step, row and donor of each bad sample."""
    return sorted((one.index or 0, one.step, one.row, one.donor_index) for one in stats.bad_samples)


def arrays(bad: Sequence[int] = (), count: int = COUNT) -> fs.Dataset:
    return fs.from_arrays(np.arange(count)).map(Transform("raise", tuple(bad)))


def expected(bad: Sequence[int], count: int = COUNT) -> list[list[int]]:
    kept = [[2 * i for i in range(at, min(count, at + SIZE)) if i not in bad] for at in range(0, count, SIZE)]
    return [batch for batch in kept if batch]


BAD = {
    "one in the middle": (13,),
    "the first": (0,),
    "the first seven": tuple(range(7)),
    "the last": (23,),
    "all of a batch": (12, 13, 14, 15),
    "all of the first batch": (0, 1, 2, 3),
    "all of the last batch": (20, 21, 22, 23),
    "every other one": tuple(range(1, 24, 2)),
}


@pytest.mark.parametrize("split", CHEAP)
@pytest.mark.parametrize("which", BAD)
def test_a_skipped_sample_shortens_its_batch_and_moves_no_other(which: str, split: tuple[int, int]) -> None:
    seen, stats = outcome(arrays(BAD[which]).batch(SIZE), split, max_bad_fraction=1)
    assert seen == expected(BAD[which])
    assert marks(stats) == [(i, i // SIZE, i % SIZE, None) for i in BAD[which]]
    assert stats.sample_count == COUNT - len(BAD[which])
    assert all("as it was told to" in one.reason and one.stage == "map(Transform)" for one in stats.bad_samples)


@pytest.mark.skipif(not HAS_SHARED_MEMORY, reason="needs memfd")
@pytest.mark.parametrize("split", [(2, 1), (3, 1), (2, 2)])
def test_skipping_is_the_same_in_worker_processes(split: tuple[int, int]) -> None:
    bad = (0, 5, 12, 13, 14, 15, 23)
    seen, stats = outcome(arrays(bad).shuffle(3).batch(SIZE), split, passes=2)
    here, others = outcome(arrays(bad).shuffle(3).batch(SIZE), (0, 0), passes=2)
    assert seen == here
    assert stats.bad_samples == others.bad_samples
    assert len(stats.bad_samples) == len(bad)


LAST: dict[str, tuple[list[list[int]], tuple[int, ...]]] = {
    # 22 samples, of which 20 is bad: the last batch has 20 and 21.
    "keep": ([[42]], (20,)),
    "drop": ([], ()),
    "pad": ([[42, 0, 0, 0]], (20,)),
}


@pytest.mark.parametrize("split", CHEAP)
@pytest.mark.parametrize("last", LAST)
def test_a_skipped_sample_in_the_last_batch(last: str, split: tuple[int, int]) -> None:
    seen, stats = outcome(arrays((20,), 22).batch(SIZE, last), split)
    rest, bad = LAST[last]
    assert seen == expected((), 20) + rest
    assert tuple(one.index for one in stats.bad_samples) == bad


@pytest.mark.parametrize("split", CHEAP)
def test_padding_and_its_mask_grow_by_what_was_skipped(split: tuple[int, int]) -> None:
    seen, _ = outcome(arrays((1, 20), 22).batch(SIZE, "pad", mask=True), split)
    assert seen[0] == ([0, 4, 6, 0], [1, 1, 1, 0])
    assert seen[1] == ([8, 10, 12, 14], [1, 1, 1, 1])
    assert seen[-1] == ([42, 0, 0, 0], [1, 0, 0, 0])


@pytest.mark.parametrize("split", CHEAP)
def test_a_last_batch_of_bad_samples_alone_is_not_delivered(split: tuple[int, int]) -> None:
    seen, stats = outcome(arrays((20, 21), 22).batch(SIZE, "pad"), split, passes=2)
    assert seen == [expected((), 20)] * 2
    assert stats.batch_count == 10


@pytest.mark.parametrize("split", SPLITS)
def test_skipping_in_a_stream_that_wraps_moves_no_other_sample(split: tuple[int, int]) -> None:
    seen, stats = outcome(arrays((1, 9), 10).batch(SIZE, "wrap"), split, passes=2, max_bad_fraction=1)
    laid = [2 * (i % 10) if i % 10 not in (1, 9) else None for i in range(24)]
    whole = [[one for one in laid[at : at + SIZE] if one is not None] for at in range(0, 24, SIZE)]
    assert seen == [whole[:3], whole[3:]]
    assert {one.index for one in stats.bad_samples} == {1, 9}


@pytest.mark.parametrize("on_bad_sample", ["skip", "replace"])
def test_shards_of_a_global_batch_agree_with_the_whole(on_bad_sample: str) -> None:
    bad = (2, 3, 13, 22)
    whole, _ = outcome(arrays(bad).shuffle(1).batch(8), (0, 0), on_bad_sample=on_bad_sample)
    parts = [
        outcome(arrays(bad).shuffle(1).batch(8).shard(rank, 2), (2, 0), on_bad_sample=on_bad_sample)[0]
        for rank in (0, 1)
    ]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


class Batches:
    """Six finished batches, of which one can't be read."""

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        if index == self.bad:
            raise OSError("gone")
        return np.arange(index * 4, index * 4 + 4)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("bad", [0, 5])
def test_a_finished_batch_that_is_bad_is_left_out(bad: int, split: tuple[int, int]) -> None:
    seen, stats = outcome(fs.from_batches(Batches(bad), batch_size=4), split)
    assert seen == [list(range(i * 4, i * 4 + 4)) for i in range(6) if i != bad]
    assert [one.index for one in stats.bad_samples] == [bad]


@pytest.mark.parametrize("split", SPLITS)
def test_a_finished_batch_that_is_bad_is_replaced_by_another(split: tuple[int, int]) -> None:
    seen, stats = outcome(fs.from_batches(Batches(2), batch_size=4), split, on_bad_sample="replace")
    (bad,) = stats.bad_samples
    assert bad.donor_index not in (2, None)
    assert [batch[0] // 4 for batch in seen] == [0, 1, bad.donor_index, 3, 4, 5]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("length", [None, COUNT])
def test_samples_of_a_generator_are_skipped_in_a_map(length: int | None, split: tuple[int, int]) -> None:
    bad = (1, 13, 20, 21, 22, 23)

    def numbers() -> Iterator[int]:
        return iter(range(COUNT))

    dataset = fs.from_generator(numbers, length).map(Transform("raise", bad)).batch(SIZE)
    seen, stats = outcome(dataset, split, passes=2)
    assert seen == [expected(bad)] * 2
    assert sorted(one.index for one in stats.bad_samples) == list(bad)  # type: ignore[type-var]


@pytest.mark.parametrize("split", CHEAP)
def test_an_error_of_a_generator_itself_ends_the_epoch(split: tuple[int, int]) -> None:
    def numbers() -> Iterator[int]:
        yield from range(10)
        raise OSError("gone")

    with pytest.raises(fs.SampleError, match="gone") as caught:
        outcome(fs.from_generator(numbers).map(lambda x: x).batch(SIZE), split)
    assert caught.value.index == 10


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", [Rows, ManyRows])
@pytest.mark.parametrize("on_bad_sample", ["skip", "replace"])
def test_a_sample_that_cannot_be_read_is_bad_alone(kind: Any, split: tuple[int, int], on_bad_sample: str) -> None:
    dataset = fs.from_sequence(kind(COUNT, "raise", (5, 13))).batch(SIZE)
    seen, stats = outcome(dataset, split, on_bad_sample=on_bad_sample)
    donors = {one.index: one.donor_index for one in stats.bad_samples}
    assert set(donors) == {5, 13}
    model = [[(i, donors.get(i, i)) for i in range(at, at + SIZE)] for at in range(0, COUNT, SIZE)]
    assert seen == [[2 * taken for _, taken in batch if taken is not None] for batch in model]


# Replacing.


@pytest.mark.parametrize("bad", [(13,), (0, 1, 2), tuple(range(0, COUNT, 2))])
def test_replacements_are_the_same_wherever_lanes_are(bad: tuple[int, ...]) -> None:
    dataset = arrays(bad).shuffle(2).batch(SIZE)
    told = [outcome(dataset, split, passes=2, on_bad_sample="replace", max_bad_fraction=1) for split in SPLITS]
    assert [seen for seen, _ in told] == [told[0][0]] * len(SPLITS)
    assert [stats.bad_samples for _, stats in told] == [told[0][1].bad_samples] * len(SPLITS)
    assert all(len(batch) == SIZE for epoch in told[0][0] for batch in epoch)
    assert {one.donor_index for one in told[0][1].bad_samples}.isdisjoint(bad)


def test_a_replacement_of_a_rank_is_of_the_same_pass_and_place_by_place() -> None:
    seen, stats = outcome(arrays((13,)).batch(SIZE), (0, 0), on_bad_sample="replace")
    (bad,) = stats.bad_samples
    assert bad.donor_index is not None
    flat = [sample for batch in seen for sample in batch]
    assert flat == [2 * (bad.donor_index if i == 13 else i) for i in range(COUNT)]


def test_a_row_that_no_drawn_sample_can_take_is_an_error_that_names_both() -> None:
    with pytest.raises(fs.SampleError, match="None of 10 samples drawn to replace it") as caught:
        outcome(arrays(range(1, COUNT)).batch(SIZE), (2, 0), on_bad_sample="replace", max_bad_fraction=1)
    assert caught.value.index in (1, 2, 3)


def test_generators_cannot_replace() -> None:
    with pytest.raises(fs.PlanError, match='"replace" needs samples that can be read in any order'):
        fs.from_generator(lambda: iter(range(9))).batch(3).loader(on_bad_sample="replace")


# The limit, and what is told.

LIMITS = {
    # bad samples, of how many, the fraction: does the epoch end well?
    "nine of few": (9, 20, 0.0, True),
    "ten where none is allowed": (10, 20, 0.0, False),
    "as many as allowed": (12, 200, 0.06, True),
    "one more than allowed": (13, 200, 0.06, False),
    "the default": (10, 900, 0.01, False),
    "the default, just so": (10, 1000, 0.01, True),
    "all": (20, 20, 1.0, True),
}


@pytest.mark.parametrize("split", CHEAP)
@pytest.mark.parametrize("which", LIMITS)
def test_more_bad_samples_than_allowed_end_the_epoch(which: str, split: tuple[int, int]) -> None:
    bad_count, count, fraction, well = LIMITS[which]
    spread = tuple((i + 1) * count // bad_count - 1 for i in range(bad_count)) if bad_count < count else range(1, count)
    dataset = arrays(spread, count).batch(SIZE)
    if well:
        _, stats = outcome(dataset, split, max_bad_fraction=fraction)
        assert len(stats.bad_samples) == len(spread)
    else:
        with pytest.raises(fs.SampleError, match=rf"{bad_count} of {count} samples of pass 0 are bad, more than"):
            outcome(dataset, split, max_bad_fraction=fraction)


def test_the_limit_counts_each_pass_by_itself() -> None:
    seen, stats = outcome(arrays(range(1, 10), 40).batch(SIZE), (0, 0), passes=3, max_bad_fraction=0)
    assert seen == [expected(range(1, 10), 40)] * 3
    assert len(stats.bad_samples) == 9


def test_bad_samples_are_told_by_events_before_their_batch_and_once_by_a_warning() -> None:
    recorder = Recorder()
    with (
        arrays((5, 6, 13))
        .batch(SIZE)
        .loader(ROOM, workers=2, processes=0, on_bad_sample="skip", observers=[recorder]) as loader
    ):
        with pytest.warns(RuntimeWarning, match="Sample 5 failed in map") as warned:
            list(loader)
        list(loader)
        stats = loader.stats()
    found = [event.bad for event in recorder.of(BadSampleFound)]
    assert [(one.index, one.pass_index) for one in found] == [(5, 0), (6, 0), (13, 0), (5, 1), (6, 1), (13, 1)]
    assert list(stats.bad_samples) == found[:3]
    assert len(warned) == 1
    names = [type(event).__name__ for event in recorder.events if not type(event).__name__.startswith("Lanes")]
    assert names[:6] == ["PassStarted", "BatchDelivered", "BadSampleFound", "BadSampleFound", *names[4:6]]
    assert names[4:6] == ["BatchDelivered", "BatchDelivered"] or names[4] == "BatchDelivered"


def test_the_list_of_bad_samples_is_written_as_a_table(make_pictures: Callable[..., Path], tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "photos", count=6)
    (root / "cats" / "001.jpg").write_bytes(b"cut\noff, quite")
    _, stats = outcome(fs.from_folder(root, image_size=(8, 8)).batch(SIZE), (2, 0))
    stats.write_bad_samples(tmp_path / "bad.csv")
    with open(tmp_path / "bad.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    (bad,) = stats.bad_samples
    assert (row["index"], row["path"], row["reason"]) == ("1", str(root / "cats" / "001.jpg"), bad.reason)
    assert (row["stage"], row["pass_index"], row["step"], row["row"]) == ("decode", "0", "0", "1")


def test_a_state_taken_between_batches_does_not_shift_what_is_skipped() -> None:
    dataset = arrays((0, 1, 2, 3, 9, 13)).batch(SIZE)
    whole, _ = outcome(dataset, (0, 0))
    for stop in range(1, len(whole)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with dataset.loader(ROOM, workers=2, processes=0, on_bad_sample="skip") as loader:
                batches = iter(loader)
                seen = [rows_of(next(batches)) for _ in range(stop)]
                state = loader.state_dict()
            with dataset.loader(ROOM, workers=1, processes=0, on_bad_sample="skip") as loader:
                loader.load_state_dict(state)
                seen += [rows_of(batch) for batch in loader]
        assert seen == whole
