"""The two kinds of source: random access, and sequential.

A source describes; it holds no open file. A random-access source is opened once in each lane (`open`), and what comes
back, a `Reader`, belongs to that lane alone. A sequential source is run by one thread (`start`), one pass at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.sampling import Indices
from fitstream.scratch import Arena

__all__ = ["Reader", "Sequential", "Source", "Started"]


class Reader(ABC):
    """A source opened by one lane.

    Attributes:
        changed_count: Samples read so far that were changed after the source was listed.
        changed_index: The first of them, or -1.
    """

    changed_count = 0
    changed_index = -1

    @abstractmethod
    def read(self, index: int, arena: Arena) -> Any:
        """Read one sample.

        Args:
            index: From 0, below the source's length.
            arena: Scratch. What is returned may live in it and is used before the arena is reset.
        Returns:
            A sample: a tree of arrays. A leaf that is a `memoryview` is an encoded file, for the next stage.
        """

    def gather(self, indices: Indices, out: Sequence[npt.NDArray[Any]]) -> bool:
        """Read many samples straight into rows of a batch, where the source can do that in one call.

        Args:
            indices: `(rows,)`.
            out: One array `(rows, ...)` a leaf, in the order of the sample's structure.
        Returns:
            False if this source has no such way; then `read` is called for each.
        """
        return False

    def read_many(self, indices: Indices) -> Sequence[Any]:
        """Read many samples in one call. Asked only of sources that say `fetches_many`.

        Args:
            indices: `(rows,)`.
        Returns:
            One sample a row, as `read` gives them, but none in an arena.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened. Called once, in the lane."""


class Source(ABC):
    """Samples with a length, readable in any order."""

    #: Class names in label order, or None where the labels aren't classes.
    class_names: list[str] | None = None
    #: Whether what is read belongs to someone else, so that functions must be given copies.
    borrows = False
    #: Whether NaN and infinity in what is read are errors, looked for in the first pass.
    checks_finite = False
    #: What the arrays of a sample are called in errors, such as "column 'x'"; by their places if it is empty.
    part_names: Sequence[str] = ()
    #: Whether samples can be read many at a time (`Reader.read_many`). A lane then holds the raw samples of a chunk.
    fetches_many = False
    #: Whether many samples at a time are read through a copy of them.
    copies_many = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def open(self) -> Reader:
        """Open for one lane."""

    @property
    def index_bytes(self) -> int:
        """Bytes that the source's own index (paths, offsets, labels) holds in memory."""
        return 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of the user's arrays in memory, which worker processes need one shared copy of."""
        return 0

    @property
    def least_bytes(self) -> int:
        """Memory that reading any one sample takes at least, as far as it is known before one is read."""
        return 0

    @property
    def most_scratch_bytes(self) -> int:
        """Scratch that reading the largest sample takes, as far as it is known before it is read."""
        return 0

    @property
    def block_bytes(self) -> int:
        """Memory that a lane's reading takes beside the samples, such as blocks of a file that are unpacked whole."""
        return 0

    def block_edges(self) -> Indices | None:
        """Where each block that is read whole starts, and where the last one ends, `(blocks + 1,)`; None without."""
        return None

    def keeping(self, block_count: int) -> Source:
        """The same source, whose readers keep so many blocks. Only asked of those that have blocks."""
        return self

    def path(self, index: int) -> str | None:
        """The file that holds a sample, for errors."""
        return None

    def fault(self, index: int) -> str | None:
        """What is wrong with a sample as far as can be told without reading it: a file that is missing, say.

        Called from several threads at once.

        Returns:
            Why it can't be read, or None.
        """
        return None

    def labels(self) -> npt.NDArray[np.generic] | None:
        """Labels of all samples `(length, ...)`, where they are known without reading samples."""
        return None

    def fingerprint_parts(self) -> dict[str, Any]:
        """What makes it this source and no other, by name: values, arrays, objects. Where it lies is no part of it."""
        return {type(self).__name__: self}

    @abstractmethod
    def __repr__(self) -> str:
        """One line for people: the kind, where, how many."""


@final
class Started(NamedTuple):
    """A pass that began.

    Attributes:
        samples: Gives them.
        maker: What has `state_dict()` and `load_state_dict(state)` of its own, or None.
        restored: Whether it goes on from the state that was given.
    """

    samples: Iterator[Any]
    maker: Any
    restored: bool


class Sequential(ABC):
    """Samples that come one after another: a generator. Run by one thread of the main process, never copied."""

    class_names: list[str] | None = None
    #: Why they can't be read in another order, after "samples that".
    why: str = "come from a generator"
    #: What to do about it, where that doesn't depend on what is asked for.
    remedy: str | None = None

    @property
    @abstractmethod
    def length(self) -> int | None:
        """Samples of a pass, where the user told."""

    @abstractmethod
    def first(self) -> Any:
        """Read the first sample of the first pass. It is kept, and delivered when that pass starts."""

    @abstractmethod
    def start(self, owner: object, own_state: Any = None) -> Started:
        """Start the next pass.

        Args:
            owner: The loader's identity; a source that can run only once serves only one.
            own_state: Where in the pass, as `Started.maker` told it; None for its start. Ignored where the samples'
                maker has no state of its own.
        """

    def fingerprint_parts(self) -> dict[str, Any]:
        """As in `Source`."""
        return {type(self).__name__: self}

    @abstractmethod
    def __repr__(self) -> str: ...
