"""What the main process and its workers say to each other: small messages of fixed size, over sockets of packets.

Descriptors travel beside a message (`SCM_RIGHTS`). Arrays never travel; they are where both sides map them. Only rare
messages (a start, a failure) carry text, as JSON. Nothing received is ever unpickled.
"""

from __future__ import annotations

import json
import signal
import struct
from dataclasses import asdict
from typing import Any, NamedTuple, final

from fitstream.chain import Tally
from fitstream.errors import SampleError
from fitstream.policy import BadSample
from fitstream.redaction import redacted

__all__ = [
    "ASK_STACKS",
    "ATTACH",
    "ATTACHED",
    "BAD",
    "BROKEN",
    "DONE",
    "FILL",
    "HELLO",
    "MOST_BYTES",
    "MOST_FDS",
    "READY",
    "RENEW",
    "STOP",
    "BadMessage",
    "Done",
    "Fill",
    "WorkerTraceback",
    "failure_text",
    "read_bad",
    "read_failure",
    "read_note",
    "write_bad",
    "write_note",
]

# To a worker: open the parcel whose descriptors come with it; another one in its place; map slots; fill rows; end one
# lane.
HELLO, RENEW, ATTACH, FILL, STOP = b"H", b"N", b"A", b"F", b"S"
# From a worker: opened; mapped, or opened anew; a sample was skipped or replaced; rows are filled, or failed (with a
# descriptor, the slot is larger memory of the worker's from now on); it can't go on.
READY, ATTACHED, BAD, DONE, BROKEN = b"R", b"T", b"X", b"D", b"B"

#: The signal that makes a worker write down where its threads are.
ASK_STACKS = signal.SIGUSR1 if hasattr(signal, "SIGUSR1") else signal.SIGTERM

#: The largest message, and the most descriptors beside one; the kernel takes 253.
MOST_BYTES, MOST_FDS = 1 << 16, 250

_TEXT_BYTES = MOST_BYTES - 256


@final
class BadMessage(Exception):
    """Something else than what our own processes say to each other."""


@final
class Fill(NamedTuple):
    """Fill these rows.

    Attributes:
        token: Comes back in `Done`.
        run: Serial number of the run.
        slot: Its place in the ring.
        area: Where the raw samples are, or -1.
        attempt: As in `Chunk`.
    """

    token: int
    run: int
    slot: int
    pass_index: int
    step: int
    start: int
    row_count: int
    first_index: int
    area: int
    attempt: int

    def write(self) -> bytes:
        return FILL + _FILL.pack(*self)

    @staticmethod
    def read(message: bytes) -> Fill:
        try:
            return Fill(*_FILL.unpack(message[1:]))
        except struct.error as error:
            raise BadMessage(f"no rows to fill: {error}") from error


@final
class Done(NamedTuple):
    """Rows are filled, or one of them failed.

    Attributes:
        lane: The lane's number in its process.
        rows: Rows of the batch, where it came finished.
        abandoned: Whether the run had been abandoned when the work ended, so that rows may be missing.
        failed_row: The row that failed, or -1; then text follows.
        wall_ns: Time that the work took.
        fallback_count: This and the next two are the lane's `Tally`.
    """

    token: int
    lane: int
    rows: int
    abandoned: int
    failed_row: int
    wall_ns: int
    fallback_count: int
    changed_count: int
    changed_index: int

    @property
    def tally(self) -> Tally:
        """What the lane counted so far."""
        return Tally(self.fallback_count, self.changed_count, self.changed_index)

    def write(self, text: bytes = b"") -> bytes:
        return DONE + _DONE.pack(*self) + text

    @staticmethod
    def read(message: bytes) -> tuple[Done, bytes]:
        try:
            return Done(*_DONE.unpack_from(message, 1)), message[1 + _DONE.size :]
        except struct.error as error:
            raise BadMessage(f"no rows that are filled: {error}") from error


_FILL = struct.Struct("<10q")
_DONE = struct.Struct("<9q")


def write_note(kind: bytes, **values: Any) -> bytes:
    """A rare message with named values.

    Text that is too long loses its end; a traceback, whose end says most, loses its start.
    """
    most = _TEXT_BYTES
    while len(text := json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")) > _TEXT_BYTES:
        most //= 2
        for name, value in values.items():
            if isinstance(value, str):
                values[name] = value[-most:] if name == "traceback" else value[:most]
    return kind + text


def read_note(message: bytes) -> dict[str, Any]:
    """The values of a rare message.

    Raises:
        BadMessage: If it is none.
    """
    try:
        values = json.loads(message[1:].decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"no values: {error}") from error
    if not isinstance(values, dict):
        raise BadMessage(f"a {type(values).__name__} instead of named values")
    return values


def write_bad(token: int, bad: BadSample) -> bytes:
    """A sample that was skipped or replaced; comes before the `Done` of its chunk."""
    return write_note(BAD, token=token, **asdict(bad))


def read_bad(message: bytes) -> tuple[int, BadSample]:
    """The chunk's token, and the sample."""
    values = read_note(message)
    return values.pop("token"), BadSample(**values)


class WorkerTraceback(Exception):
    """The error in the worker process as text; the cause of the error that is raised here."""

    def __init__(self, text: str) -> None:
        self.text = redacted(text)
        super().__init__(self.text)

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"


def failure_text(error: SampleError, traceback_text: str) -> bytes:
    """A sample's failure, to be sent."""
    # fmt: off
    return write_note(
        b" ", reason=error.reason, index=error.index, path=error.path, stage=error.stage,
        user_line=error.user_line, unit=error.unit, traceback=traceback_text,
    )
    # fmt: on


def read_failure(text: bytes) -> SampleError:
    """The same failure, as an error whose cause holds the worker's traceback.

    Raises:
        BadMessage: If it is none.
    """
    values = read_note(text)
    try:
        told = values.pop("traceback")
        error = SampleError(values.pop("reason"), **values)
    except (KeyError, TypeError) as wrong:
        raise BadMessage(f"no failure: {wrong!r}") from wrong
    error.__cause__ = WorkerTraceback(told)
    return error
