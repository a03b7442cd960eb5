"""Options together, drawn at random: passes must be exact, and the same for any lanes and after resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import fitstream as fs
from fitstream.transforms.images import MixUp

COUNT, CLASSES = 61, 3


def columns() -> tuple[Any, Any, Any]:
    index = np.arange(COUNT)
    x = np.repeat(index, 48).reshape(COUNT, 4, 4, 3).astype(np.uint8)
    return index, x, (index * 7 // 5) % CLASSES


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[], fs.Dataset]]:
    folder: Path = tmp_path_factory.mktemp("combinations")
    index, x, label = columns()
    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in (("index", index), ("x", x), ("label", label)):
            file.create_dataset(name, data=array, chunks=(7, *array.shape[1:]), compression="gzip")
    rows = {"x": x.reshape(COUNT, -1).tolist(), "index": index, "label": label}
    parquet.write_table(pa.table(rows), folder / "a.parquet", row_group_size=9)
    return {
        "arrays": lambda: fs.from_arrays((x, label, index)),
        "hdf5": lambda: fs.from_hdf5(folder / "a.h5", "x", "label", "index"),
        "parquet": lambda: fs.from_parquet(folder / "a.parquet", "x", "index", "label").map(unfolded),
        "objects": lambda: fs.from_sequence(list(zip(x, label, index, strict=True))),
    }


def unfolded(x: Any, index: Any, label: Any) -> Any:
    return x.astype(np.uint8).reshape(4, 4, 3), label, index


def one_hot(x: Any, label: Any, index: Any) -> Any:
    return x, np.eye(CLASSES, dtype=np.float32)[int(label)], index


def length_of(x: Any, label: Any, index: Any, *rest: Any) -> int:
    return 1 + int(index) * 5 % 9


def lengthened(x: Any, label: Any, index: Any, *rest: Any) -> Any:
    return np.resize(x, (length_of(x, label, index), 4, 3)), label, index, *rest


def noisy(x: Any, label: Any, index: Any, rng: np.random.Generator) -> Any:
    return x, label, index, rng.random(2)


def refusing(x: Any, label: Any, index: Any, *rest: Any) -> Any:
    if int(index) in (5, 40):
        raise ValueError("refused")
    return x, label, index, *rest


CHOICES = {
    "kind": st.sampled_from(["arrays", "hdf5", "parquet", "objects"]),
    "part": st.sampled_from(["all", "take", "split", "stratified", "sample", "balanced", "shard"]),
    "shuffle": st.sampled_from([None, "full", "chunks"]),
    "noise": st.booleans(),
    "lengths": st.sampled_from(["same", "padded", "buckets"]),
    "bad": st.sampled_from([None, "skip", "replace"]),
    "size": st.sampled_from([1, 4, 7, 16, 70]),
    "last": st.sampled_from(["keep", "drop", "pad", "wrap"]),
    "mask": st.booleans(),
    "mix": st.booleans(),
}


def described(source: fs.Dataset, one: dict[str, Any]) -> fs.Dataset:
    part: dict[str, Callable[[fs.Dataset], fs.Dataset]] = {
        "all": lambda ds: ds,
        "take": lambda ds: ds.take(50),
        "split": lambda ds: ds.split(0.7, seed=1)[0],
        "stratified": lambda ds: ds.split(0.7, seed=1, stratify=True)[1],
        "sample": lambda ds: ds.sample(80, seed=2),
        "balanced": lambda ds: ds.sample(30, replacement=False, balance=True),
        "shard": lambda ds: ds.shard(1, 2),
    }
    ds = part[one["part"]](source).map(one_hot)
    if one["shuffle"] is not None:
        ds = ds.shuffle(3, within="chunks" if one["shuffle"] == "chunks" else None, window_blocks=2)
    ds = ds.map(noisy) if one["noise"] else ds
    ds = ds.map(refusing) if one["bad"] else ds
    options: dict[str, Any] = {}
    if one["lengths"] != "same":
        ds = ds.map(lengthened)
        options = {"pad": [0]} | ({"max_length": 9} if one["lengths"] == "padded" else {"bucket_by": length_of})
    ds = ds.batch(one["size"], last=one["last"], mask=one["mask"], **options)
    return ds.map_batch(MixUp(0.5)) if one["mix"] else ds


def contents(loader: fs.Loader) -> list[tuple[bytes, ...]]:
    return [tuple(part.tobytes() for part in batch) for batch in loader]


@pytest.mark.filterwarnings("ignore:Sample .* failed:RuntimeWarning")
@settings(max_examples=80)
@given(one=st.fixed_dictionaries(CHOICES), stop=st.integers(0, 100))
def test_passes_are_exact_and_the_same_for_any_lanes_and_after_resuming(
    sources: dict[str, Callable[[], fs.Dataset]], one: dict[str, Any], stop: int
) -> None:
    def opened(workers: int) -> fs.Loader:
        on_bad: Any = one["bad"] or "raise"
        ds = described(sources[one["kind"]](), one)
        return ds.loader("32 MB", workers, processes=0, on_bad_sample=on_bad, max_bad_fraction=1.0)

    try:
        first = opened(0)
    except fs.PlanError:
        return  # what doesn't go together is refused here, and never in mid-pass
    with first:
        passes = [contents(first) for _ in range(2)]
        assert first.stats().peak_bytes <= first.plan.projected_bytes <= first.plan.budget_bytes
    with opened(2) as loader:
        assert [contents(loader) for _ in range(2)] == passes

    stop %= len(passes[1]) + 1
    with opened(1) as loader:
        loader.set_epoch(1)
        batches = iter(loader)
        for _ in range(stop):
            next(batches)
        state = json.loads(json.dumps(loader.state_dict()))
    with opened(2) as loader:
        loader.load_state_dict(state)
        rest = contents(loader)
    assert rest == passes[1][stop:] or stop == len(passes[1])

    if one["last"] == "keep" and one["part"] in ("all", "take") and one["bad"] != "replace":
        expected = set(range(COUNT if one["part"] == "all" else 50)) - ({5, 40} if one["bad"] else set())
        for found in passes:
            assert sorted(np.frombuffer(b"".join(batch[2] for batch in found), np.int64)) == sorted(expected)
