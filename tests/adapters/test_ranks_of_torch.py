"""`fs.shard_auto` with torch.distributed, over the loopback interface."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

GLOO = """
import sys, torch, torch.distributed as dist, numpy as np, fitstream as fs
rank, world = map(int, sys.argv[1:3])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=world)
assert fs.shard_auto() == (rank, world)
with fs.shard_auto(fs.from_arrays(np.arange(12)).batch(4)).loader(memory="1 MB") as loader:
    print([batch.tolist() for batch in loader])
dist.destroy_process_group()
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_torch_distributed_tells_the_rank(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", GLOO, str(rank), "2", str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
    assert [out for out, _ in told] == [
        "[[0, 1], [4, 5], [8, 9]]\n",
        "[[2, 3], [6, 7], [10, 11]]\n",
    ]
