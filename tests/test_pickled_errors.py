"""What programs get of errors beyond their message."""

from __future__ import annotations

import copy
import pickle

import pytest

import fitstream as fs
from fitstream.legacy.errors import BadBatch

ERRORS = [
    fs.PlanError("too little", needed_bytes=10),
    fs.SourceError("no such column", file="a.csv", line=3, column="x"),
    fs.SampleError("is broken", index=5, path="a.jpg", stage="decode", user_line="a.py:3 in f"),
    fs.WorkerDied("worker 7 died", pid=7, exit_code=-9, index=2, path="a.jpg"),
    fs.StateError("another dataset", changes=("seed 0 -> 1",)),
    fs.Stalled("nothing came"),
    fs.DeviceError("no GPU"),
    fs.LoaderClosed("closed"),
    BadBatch("the generator", 3, "is empty"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_out_of_another_process(error: fs.FitstreamError) -> None:
    error.add_note("in the evening")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
