"""From what was seen of a run to the words in a cell of `reliability.py`, and which of several runs was the worst.

What was delivered is compared with an undisturbed run of the same loader: the same batches in the same order, or every
sample exactly once but otherwise batched, or so many lost and doubled. Rows are compared with the data byte by byte by
the program itself.
"""

from __future__ import annotations

import dataclasses
import enum
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from _reliability_watch import Seen
from _reliability_work import SAMPLES

__all__ = [
    "Grade",
    "Outcome",
    "Reference",
    "delivered",
    "ending",
    "left",
    "leftovers",
    "name_of",
    "reference",
    "rest",
    "worst",
]

#: Digest of each batch, by epoch.
Reference = Mapping[int, Sequence[str]]


class Grade(enum.IntEnum):
    """What a run came to, from best to worst; the headings of the summary."""

    NOT_APPLICABLE = 0
    WHOLE = 1
    ERROR = 2
    REORDERED = 3
    LEFT = 4
    WRONG = 5
    DIED = 6
    HANGS = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to.

    Attributes:
        grade: The worst of what happened.
        text: Said in a cell; "{s}" stands for `seconds`.
        seconds: From the fault to what the text says; None if it says no time.
    """

    grade: Grade
    text: str
    seconds: float | None = None


def worst(outcomes: Sequence[Outcome]) -> str:
    """The text of the worst, with its longest time, and how many runs were so if not all were."""
    grade = max(one.grade for one in outcomes)
    alike = [one for one in outcomes if one.grade == grade]
    chosen = max(alike, key=lambda one: one.seconds or 0.0)
    text = chosen.text.format(s="" if chosen.seconds is None else f"{chosen.seconds:.1f} s")
    return text if len(alike) == len(outcomes) else f"{text} ({len(alike)} of {len(outcomes)} runs)"


def reference(seen: Seen) -> Reference:
    """The batches of an undisturbed run."""
    digests: dict[int, list[str]] = {}
    for event in _batches(seen):
        digests.setdefault(event["epoch"], []).append(event["digest"])
    return digests


def _batches(seen: Seen) -> list[Mapping[str, Any]]:
    return [event for event in seen.events if event["event"] == "batch"]


def delivered(seen: Seen, expected: Reference, epochs: Sequence[int]) -> Outcome:
    """Compare whole epochs with the reference; what the loader told that it skipped is not lost."""
    told = {index for event in seen.events if event["event"] == "skipped" for index in event["indices"]}
    same, lost, doubled, wrong = True, 0, 0, 0
    for epoch in epochs:
        got = [event for event in _batches(seen) if event["epoch"] == epoch]
        times = Counter(index for event in got for index in event["indices"])
        same = same and [event["digest"] for event in got] == list(expected[epoch])
        lost += SAMPLES - len(times.keys() | told)
        doubled += sum(times.values()) - len(times)
        wrong += sum(event["wrong"] for event in got)
    faults = [f"{count} {name}" for count, name in ((lost, "lost"), (doubled, "doubled"), (wrong, "wrong")) if count]
    if faults:
        return Outcome(Grade.WRONG, f"samples: {', '.join(faults)}")
    if told:
        return Outcome(Grade.WHOLE, f"{len(told)} skipped and recorded, all others once")
    if same:
        return Outcome(Grade.WHOLE, "all batches, same bytes")
    return Outcome(Grade.REORDERED, "every sample once, in another order")


def rest(seen: Seen, expected: Reference, taken: int) -> Outcome:
    """Compare the end of the first epoch, from this batch on."""
    got, due = [event["digest"] for event in _batches(seen)], list(expected[0])[taken:]
    if got == due:
        return Outcome(Grade.WHOLE, "the rest, same bytes")
    if got == list(expected[0]):
        return Outcome(Grade.WRONG, "starts the epoch again")
    alike = len(set(got) & set(due))
    return Outcome(Grade.WRONG, f"{alike} of the {len(due)} batches that were due, {len(got) - alike} others")


def ending(seen: Seen, deadline_s: float) -> Outcome | None:
    """What is to be told of how the program ended: a hang, its death, an error that it caught; None for nothing."""
    error = next((event for event in seen.events if event["event"] == "error"), None)
    finished = any(event["event"] == "done" for event in seen.events)
    text, seconds = "", None
    if error is not None:
        text, seconds = f"error {error['type']}", None
        if seen.fault_s is not None:
            text, seconds = f"{text} after {{s}}", max(0.0, error["time_s"] - seen.fault_s)
    if seen.code is None:
        hangs = f"hangs (> {deadline_s:g} s)"
        if finished:
            hangs = f"{text or 'all is delivered'}, then the program doesn't end (> {deadline_s:g} s)"
        elif error is not None:
            hangs = f"{text}, then hangs (> {deadline_s:g} s)"
        return Outcome(Grade.HANGS, hangs, seconds)
    if seen.code and not finished:
        return Outcome(Grade.DIED, f"main process died ({name_of(seen.code)})")
    if seen.code:
        text = f"{text or 'all is delivered'}, then main process died ({name_of(seen.code)})"
        return Outcome(Grade.DIED, text, seconds)
    return Outcome(Grade.ERROR, text, seconds) if error is not None else None


def left(seen: Seen, outcome: Outcome) -> Outcome:
    """Add what was left two seconds after the end."""
    things = leftovers(seen)
    if not things or outcome.grade is Grade.HANGS:
        return outcome
    text = f"{outcome.text}; left {' and '.join(things)}"
    return dataclasses.replace(outcome, grade=max(outcome.grade, Grade.LEFT), text=text)


def leftovers(seen: Seen) -> list[str]:
    """In words, what was left."""
    things = []
    if seen.processes:
        things.append(f"{seen.processes} process{'es' if seen.processes > 1 else ''}")
    if seen.shared_bytes:
        things.append(f"{seen.shared_bytes:,} bytes of shared memory")
    if seen.files:
        things.append(f"{len(seen.files)} {'entries' if len(seen.files) > 1 else 'entry'} in the temporary folder")
    return things


def name_of(code: int) -> str:
    """An exit code or the name of a signal."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
