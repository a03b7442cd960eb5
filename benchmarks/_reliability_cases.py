"""The rows of `reliability.py`: what is done to a loader, and how what was seen is judged.

A case makes, for a loader and a number that seeds what is random, the programs to run and what happens to them from
outside; and it turns what was seen of them into an outcome.
"""

from __future__ import annotations

import dataclasses
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import _reliability_judge as judge
from _reliability_judge import Grade, Outcome, Reference
from _reliability_program import Script
from _reliability_watch import Seen, Watch
from _reliability_work import BATCH, SAMPLES

__all__ = ["CASES", "EPOCHS", "Case", "reference_run"]

EPOCHS = 3
_BATCHES = SAMPLES // BATCH
_TIMEOUT_S = 5.0
_LONG = 1000  # epochs: until something from outside ends it

Judge = Callable[[Sequence[Seen], Reference, float], Outcome]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A row of the table.

    Attributes:
        key: Name on the command line.
        title: In the table.
        due: What a loader would do at best, in words.
        scripts: The programs, one after the other, given the seed; `loader` is filled in.
        judge: Turns what was seen into an outcome, unless the loader has no such feature.
        signum: As in `Watch`.
        once: Whether one run is enough, since nothing in it is a matter of timing.
        best: What counts as "at best" in the summary.
    """

    key: str
    title: str
    due: str
    scripts: Callable[[random.Random], Sequence[Mapping[str, Any]]]
    judge: Judge
    signum: int | None = None
    once: bool = False
    best: Grade = Grade.WHOLE

    def watch(self, loader: str, number: int, deadline_s: float) -> Watch:
        """What to run for the n-th time."""
        rng = random.Random(f"{self.key} {number}")  # the same for all loaders
        scripts = [
            dataclasses.asdict(Script(loader=loader, seed=rng.randrange(1000), **more)) for more in self.scripts(rng)
        ]
        wait_s = rng.uniform(0.0, 0.3)
        return Watch(tuple(scripts), deadline_s, self.signum, rng.randrange(2, _BATCHES), wait_s)

    def outcome(self, seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
        """What a run came to."""
        lacking = [event["text"] for one in seen for event in one.events if event["event"] == "not offered"]
        if lacking:
            return Outcome(Grade.NOT_APPLICABLE, lacking[0])
        return self.judge(seen, expected, deadline_s)


def reference_run(loader: str, deadline_s: float) -> Watch:
    """Three epochs without any fault, which all others are compared with."""
    return Watch((dataclasses.asdict(Script(loader=loader, epochs=EPOCHS)),), deadline_s)


def _fault(name: str, **more: Any) -> Callable[[random.Random], Sequence[Mapping[str, Any]]]:
    return lambda rng: [{"fault": name, "sample": rng.randrange(SAMPLES), **more}]


def _early(rng: random.Random) -> int:
    return rng.randrange(3, _BATCHES // 2)


def _one_epoch(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    outcome = judge.ending(seen[-1], deadline_s) or judge.delivered(seen[-1], expected, [0])
    return judge.left(seen[-1], outcome)


def _interrupted(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    one = seen[-1]
    if one.code is None or one.fault_s is None:
        return Outcome(Grade.HANGS, f"doesn't end (> {deadline_s:g} s)")
    printed = f"{one.interrupts} KeyboardInterrupt{'s' if one.interrupts != 1 else ''} printed"
    grade = Grade.WHOLE if one.interrupts == 1 else Grade.LEFT
    return judge.left(one, Outcome(grade, f"ends after {{s}}, {printed}", one.end_s - one.fault_s))


def _killed_main(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    things = judge.leftovers(seen[-1])
    if things:
        return Outcome(Grade.LEFT, f"left {' and '.join(things)}")
    return Outcome(Grade.WHOLE, "nothing left")


def _stopped(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    one = seen[-1]
    outcome = judge.ending(one, deadline_s)
    if outcome is None:
        done_s = next(event["time_s"] for event in one.events if event["event"] == "done")
        outcome = Outcome(Grade.WHOLE, "ends after {s}", one.end_s - done_s)
    elif outcome.grade is Grade.HANGS:
        outcome = Outcome(Grade.HANGS, f"doesn't end (> {deadline_s:g} s)")
    return judge.left(one, outcome)


def _resumed(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    ended = judge.ending(seen[-1], deadline_s)
    if ended is not None:
        return judge.left(seen[-1], ended)
    state = next(event for event in seen[0].events if event["event"] == "state")
    taken = sum(event["event"] == "batch" for event in seen[0].events)
    outcome = judge.rest(seen[1], expected, taken)
    return dataclasses.replace(outcome, text=f"{outcome.text}; state of {state['bytes']:,} bytes")


def _again(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    one = seen[-1]
    errors = [event for event in one.events if event["event"] == "error"]
    first = judge.ending(one, deadline_s)
    if first is None or first.grade > Grade.ERROR or len(errors) > 1:
        second = f", then {errors[1]['type']} again" if len(errors) > 1 else ""
        first = first or judge.delivered(one, expected, [0])
        return judge.left(one, dataclasses.replace(first, text=first.text + second))
    then = judge.delivered(one, expected, [1])
    text = "every sample once" if then.grade in (Grade.WHOLE, Grade.REORDERED) else then.text
    grade = Grade.WHOLE if then.grade is Grade.REORDERED else then.grade
    return judge.left(one, Outcome(grade, f"{first.text}, next epoch: {text}", first.seconds))


def _left_early(seen: Sequence[Seen], expected: Reference, deadline_s: float) -> Outcome:
    outcome = judge.ending(seen[-1], deadline_s) or judge.delivered(seen[-1], expected, [1, 2])
    return judge.left(seen[-1], outcome)


def _resume(workers: int) -> Callable[[random.Random], Sequence[Mapping[str, Any]]]:
    return lambda rng: [{"state_at": rng.randrange(1, _BATCHES)}, {"restore": True, "workers": workers}]


_WHOLE = "all batches, same bytes"
CASES = (
    Case("undisturbed", "nothing happens", _WHOLE, lambda rng: [{}], _one_epoch, once=True),
    Case("workers", "3 workers instead of 2", _WHOLE, lambda rng: [{"workers": 3}], _one_epoch, once=True),
    Case("kill", "a worker is killed (SIGKILL)", _WHOLE, lambda rng: [{"kill_at": _early(rng)}], _one_epoch),
    Case("sigsegv", "the transform crashes once (SIGSEGV)", _WHOLE, _fault("sigsegv-once"), _one_epoch),
    Case("exit", "the transform calls `os._exit(3)` once", _WHOLE, _fault("_exit-once"), _one_epoch),
    Case("poison", "a sample always kills its process", "an error", _fault("sigkill"), _one_epoch, best=Grade.ERROR),
    Case("raise", "a sample raises", "an error", _fault("raise"), _one_epoch, once=True, best=Grade.ERROR),
    Case(
        "skip",
        "a sample raises, bad ones are to be skipped",
        "all other samples, the skipped one recorded",
        _fault("raise", skip=True),
        _one_epoch,
    ),
    Case(
        "hang",
        f"a sample hangs; timeout of {_TIMEOUT_S:g} s where there is one",
        "an error in time",
        _fault("hang", timeout_s=_TIMEOUT_S),
        _one_epoch,
        best=Grade.ERROR,
    ),
    Case(
        "sys-exit",
        "the transform calls `sys.exit`",
        "an error",
        _fault("sys.exit"),
        _one_epoch,
        once=True,
        best=Grade.ERROR,
    ),
    Case(
        "interrupt",
        "the transform raises KeyboardInterrupt",
        "an error",
        _fault("KeyboardInterrupt"),
        _one_epoch,
        best=Grade.ERROR,
        once=True,
    ),
    Case(
        "kill-main",
        "`kill -9` of the main process: left after 2 s",
        "nothing left",
        lambda rng: [{"epochs": _LONG}],
        _killed_main,
        signal.SIGKILL,
    ),
    Case(
        "ctrl-c",
        "Ctrl-C",
        "ends soon, one KeyboardInterrupt",
        lambda rng: [{"epochs": _LONG, "catch": False}],
        _interrupted,
        signal.SIGINT,
    ),
    Case(
        "stop",
        "`break`, and the program ends",
        "ends soon",
        lambda rng: [{"break_at": _early(rng), "close": False}],
        _stopped,
    ),
    Case("resume", "resumed by its state", "the rest, same bytes", _resume(2), _resumed),
    Case("resume-3", "resumed with 3 workers", "the rest, same bytes", _resume(3), _resumed),
    Case(
        "again",
        "a sample raises once, the loader is iterated again",
        "an error, then every sample once",
        _fault("raise-once", epochs=2, again=True),
        _again,
    ),
    Case(
        "epochs",
        "`break` in the first of three epochs: the other two",
        _WHOLE,
        lambda rng: [{"epochs": EPOCHS, "break_at": _early(rng)}],
        _left_early,
    ),
)
