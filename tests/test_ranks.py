"""Which rank this process is, and what ranks together deliver."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fitstream as fs
from fitstream.ranks import find_rank


@pytest.fixture(autouse=True)
def no_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)


STEP = {"SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}, (1, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_NTASKS": "12", **STEP}, (5, 6)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "12", **STEP}, (5, 12)),
        # Shells in an allocation: a batch script, salloc, and a shell that srun started as the only task.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}, (0, 1)),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}, (0, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEPID": "4294967290"}, (0, 1)),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8", **STEP}, (0, 1)),
        # One launcher starts another on each node.
        ({"RANK": "6", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", **STEP}, (6, 8)),
        ({"RANK": "1", "WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
        ({"LOCAL_RANK": "1"}, (0, 1)),
    ],
)
def test_launchers_tell_the_rank(environment: dict[str, str], expected: tuple[int, int]) -> None:
    assert find_rank(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "3"},
        {"WORLD_SIZE": "8"},
        {"RANK": "8", "WORLD_SIZE": "8"},
        {"RANK": "-1", "WORLD_SIZE": "8"},
        {"RANK": "one", "WORLD_SIZE": "8"},
        {"RANK": "", "WORLD_SIZE": "8"},
        {"OMPI_COMM_WORLD_RANK": "1"},
        {"SLURM_PROCID": "1", "SLURM_STEP_ID": "0"},
        {"RANK": "1", "WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "1", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_ID": "0"},
    ],
)
def test_what_is_half_set_or_contradicts_itself_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(fs.PlanError) as caught:
        find_rank(environment)
    assert all(f"{name}={value}" in str(caught.value) for name, value in environment.items() if name != "SLURM_STEP_ID")


def fake_torch(rank: int, world: int, initialized: bool = True) -> Any:
    distributed = types.SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: initialized,
        get_rank=lambda: rank,
        get_world_size=lambda: world,
    )
    return types.SimpleNamespace(distributed=distributed)


def fake_jax(rank: int, world: int, initialized: bool = True) -> Any:
    def asked(value: int) -> int:
        assert initialized, "would start JAX's devices"
        return value

    return types.SimpleNamespace(
        distributed=types.SimpleNamespace(is_initialized=lambda: initialized),
        process_index=lambda: asked(rank),
        process_count=lambda: asked(world),
    )


def test_an_initialised_framework_is_believed_before_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2"}
    monkeypatch.setitem(sys.modules, "torch", fake_torch(1, 3))
    assert find_rank(variables) == (1, 3)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(1, 3, initialized=False))
    assert find_rank(variables) == (0, 2)
    monkeypatch.setitem(sys.modules, "jax", fake_jax(2, 4, initialized=False))
    assert find_rank(variables) == (0, 2)
    monkeypatch.setitem(sys.modules, "jax", fake_jax(2, 4))
    assert find_rank(variables) == (2, 4)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(1, 3))
    with pytest.raises(fs.PlanError, match=r"torch\.distributed says rank 1 of 3, but JAX says process 2 of 4"):
        find_rank({})


def test_shard_auto_takes_the_part_of_this_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    data = fs.from_arrays(np.arange(20)).batch(8)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert fs.shard_auto() == (0, 1)
    assert fs.shard_auto(data) is data
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert fs.shard_auto() == (1, 4)
    with fs.shard_auto(data).loader(memory="1 MB") as loader:
        assert next(iter(loader)).tolist() == [2, 3]


@settings(max_examples=60)
@given(
    count=st.integers(1, 90),
    per_rank=st.integers(1, 6),
    ranks=st.integers(1, 5),
    last=st.sampled_from(["keep", "drop", "pad", "wrap"]),
    shuffled=st.booleans(),
)
def test_the_ranks_batches_joined_are_the_global_batch(
    count: int, per_rank: int, ranks: int, last: Any, shuffled: bool
) -> None:
    data = fs.from_arrays(np.arange(1, count + 1))
    data = (data.shuffle(1) if shuffled else data).batch(per_rank * ranks, last)
    shards = [data.shard(rank, ranks) for rank in range(ranks)]
    rest = count % (per_rank * ranks)
    if (last == "drop" and count < per_rank * ranks) or (last == "keep" and 0 < rest < ranks):
        with pytest.raises(fs.PlanError):
            len(shards[0])
        return
    assert {len(shard) for shard in shards} == {len(data)}
    loaders = [one.loader(memory="1 MB", workers=0) for one in (data, *shards)]
    try:
        for _ in range(2):
            whole, *parts = ([batch.copy() for batch in loader] for loader in loaders)
            assert {len(part) for part in parts} == {len(whole)}
            for batch, *pieces in zip(whole, *parts, strict=True):
                assert np.concatenate(pieces).tolist() == batch.tolist()
    finally:
        for loader in loaders:
            loader.close()
