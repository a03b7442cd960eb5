"""Errors that are fitstream's and the program's own type at once."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

import fitstream as fs
from fitstream.engine.messages import WorkerTraceback
from fitstream.legacy.errors import BadBatch, as_raised


def sample_error(cause: BaseException) -> fs.SampleError:
    error = fs.SampleError(f"{type(cause).__name__}: told", index=3, stage="read")
    error.__cause__ = cause
    return error


class Own(Exception):
    """Of the program itself."""


class Picky(Exception):
    def __new__(cls, *, needed: int) -> Any:
        return super().__new__(cls)

    def __init__(self, *, needed: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    "cause",
    [
        RuntimeError("a"),
        KeyError("a"),
        OSError(2, "a"),
        UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"),
        ValueError(),
        MemoryError(),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_an_error_is_caught_by_both_types_and_keeps_what_it_tells(cause: Exception) -> None:
    error = sample_error(cause)
    made = as_raised(error)
    assert isinstance(made, fs.SampleError)
    assert isinstance(made, type(cause))
    assert str(made) == str(error)
    assert (made.index, made.stage, made.__cause__) == (3, "read", cause)
    assert isinstance(pickle.loads(pickle.dumps(made)), fs.SampleError)


@pytest.mark.parametrize(
    "cause", [StopIteration(), KeyboardInterrupt(), SystemExit(), GeneratorExit(), Picky(needed=1)]
)
def test_what_must_not_or_cannot_be_both_stays_a_sample_error(cause: BaseException) -> None:
    error = sample_error(cause)
    assert as_raised(error) is error


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Traceback (most recent call last):\n  File\nRuntimeError: no disk\n", RuntimeError),
        ("Traceback\nValueError\n", ValueError),
        ("Traceback\nOSError: first line\nsecond line, of the message\n", OSError),
        (f"Traceback\n{__name__}.Own: no disk\n", Own),
        ("Traceback\nInMain: no disk\n", Own),
    ],
)
def test_a_workers_error_is_known_by_its_tracebacks_last_lines(
    text: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "InMain", Own, raising=False)
    assert isinstance(as_raised(sample_error(WorkerTraceback(text))), kind)


def test_a_workers_error_of_an_unknown_type_stays_a_sample_error() -> None:
    error = sample_error(WorkerTraceback("Traceback\nmy.module.OwnError: no disk\n"))
    assert as_raised(error) is error


def test_other_errors_stay_as_they_are() -> None:
    error = fs.PlanError("no")
    assert as_raised(error) is error


def test_a_bad_batch_names_itself_and_is_a_value_error() -> None:
    error = BadBatch("the generator", 7, "is empty.")
    assert str(error) == "Batch 7 of the generator (counted from 0) is empty."
    assert isinstance(error, fs.SampleError)
    assert isinstance(error, ValueError)
    assert error.index == 7
