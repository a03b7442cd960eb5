"""Which rank of how many this process is, as the program that started it says.

Asked in this order: `torch.distributed` and JAX, if the program has loaded and initialised them (nothing is imported
here); then the variables that launchers set:

    torchrun            RANK, WORLD_SIZE
    Open MPI            OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE
    MPICH, Intel MPI    PMI_RANK, PMI_SIZE
    Slurm               SLURM_PROCID, SLURM_STEP_NUM_TASKS (or SLURM_NTASKS), inside of a job step alone

A launcher may start another one: `srun` starts one `torchrun` on each node, which starts a process for each GPU. The
first in that list counts, as long as the later ones agree that they started groups of equally many. If they don't, that
is an error and no guess. A shell in a Slurm allocation (`sbatch`, `salloc`) is one process, whatever SLURM_NTASKS says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple, overload

from fitstream.dataset import Dataset
from fitstream.errors import PlanError

__all__ = ["find_rank", "shard_auto"]

_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
#: Step ids that Slurm gives to what is no job step: batch scripts, interactive shells.
_SLURM_SPECIAL = 0xFFFFFFF0
_ADVICE = "Name them yourself: ds.shard(rank, world)."


class _Claim(NamedTuple):
    rank: int
    world: int
    told: str


@overload
def shard_auto() -> tuple[int, int]: ...
@overload
def shard_auto(dataset: Dataset) -> Dataset: ...
def shard_auto(dataset: Dataset | None = None) -> tuple[int, int] | Dataset:
    """Find this process's rank and the number of ranks, and take its part of a dataset.

    Asks `torch.distributed` or JAX if they are initialised, else the variables of torchrun, Open MPI, MPICH and Slurm.
    A process that nobody started as one of several is rank 0 of 1.

    Args:
        dataset: What to divide, best after `batch`: then all ranks take equally many steps, and their parts of a batch
            joined are the global batch.
    Returns:
        `dataset.shard(rank, world)`, or `(rank, world)` without a dataset.
    Raises:
        PlanError: If what was found contradicts itself, or is only half there; or the dataset can't be divided.
    """
    rank, world = find_rank(os.environ)
    if dataset is None:
        return rank, world
    return dataset if world == 1 else dataset.shard(rank, world)


def find_rank(environment: Mapping[str, str]) -> tuple[int, int]:
    """Rank and number of ranks.

    Args:
        environment: The variables to ask where no framework is initialised.
    Raises:
        PlanError: With names and values, if they contradict each other, or one of a pair is missing.
    """
    claims = [claim for claim in (_torch(), _jax()) if claim is not None]
    if not claims:
        claims = [claim for pair in _LAUNCHERS if (claim := _pair(environment, *pair)) is not None]
        slurm = _slurm(environment)
        claims += [] if slurm is None else [slurm]
    if not claims:
        return 0, 1
    first = claims[0]
    for other in claims[1:]:
        group, rest = divmod(first.world, other.world)
        if rest or first.rank // group != other.rank:
            raise PlanError(f"which rank this is can't be told: {first.told}, but {other.told}. {_ADVICE}")
    return first.rank, first.world


def _torch() -> _Claim | None:
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    rank, world = distributed.get_rank(), distributed.get_world_size()
    return _Claim(rank, world, f"torch.distributed says rank {rank} of {world}")


def _jax() -> _Claim | None:
    jax = sys.modules.get("jax")
    # Asking for the count of processes starts JAX's devices: only where it is known that there are several.
    is_initialized = getattr(getattr(jax, "distributed", None), "is_initialized", None)
    if jax is None or is_initialized is None or not is_initialized():
        return None
    rank, world = int(jax.process_index()), int(jax.process_count())
    return _Claim(rank, world, f"JAX says process {rank} of {world}")


def _pair(environment: Mapping[str, str], rank_name: str, world_name: str) -> _Claim | None:
    rank, world = environment.get(rank_name), environment.get(world_name)
    if rank is None and world is None:
        return None
    if rank is None or world is None:
        there, missing = (rank_name, world_name) if world is None else (world_name, rank_name)
        raise PlanError(
            f"{there}={environment[there]} is set, but {missing} is not, and a rank needs both. Set or unset both. "
            f"{_ADVICE}"
        )
    told = f"{rank_name}={rank} and {world_name}={world}"
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise PlanError(f"{told} are no rank and number of ranks: ranks count from 0. {_ADVICE}")
    return _Claim(int(rank), int(world), told)


def _slurm(environment: Mapping[str, str]) -> _Claim | None:
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID"))
    in_step = step is not None or "SLURM_STEP_NUM_TASKS" in environment
    if not in_step or (step is not None and step.isdecimal() and int(step) >= _SLURM_SPECIAL):
        return None
    world_name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    return _pair(environment, "SLURM_PROCID", world_name)
