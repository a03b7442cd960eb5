"""A Sequence as a source of finished batches. Its length is what it said when it was asked last."""

from __future__ import annotations

from typing import Any, final

from fitstream.errors import PlanError
from fitstream.legacy.old_modules import old_imports
from fitstream.scratch import Arena
from fitstream.sources.base import Reader, Source

__all__ = ["BatchSequence"]


@final
class BatchSequence(Source):
    """The batches of a Sequence.

    Args:
        data: The Sequence. Lanes call its `__getitem__`, from several threads at once.
        name: What it is called in errors.
    Raises:
        PlanError: If it has no batches.
    """

    #: What is read belongs to the program; code of the user's makes it.
    borrows = True

    def __init__(self, data: Any, name: str) -> None:
        # Before the data: unpickling those may import modules of the program.
        self._old_imports = old_imports()
        self.data = data
        self._name = name
        self._length = 0
        self.look()

    def look(self) -> int:
        """Ask for the length anew.

        Raises:
            PlanError: If it isn't a whole number from 1 on.
        """
        kind = type(self.data).__name__
        try:
            length = len(self.data) if hasattr(type(self.data), "__len__") else self.data.num_batches
        except Exception as error:
            advice = " Wrap what it returns in int(...)." if isinstance(error, TypeError) else ""
            raise PlanError(
                f"{self._name}: len() of the {kind} failed: {type(error).__name__}: {error}.{advice}"
            ) from error
        if length is None or int(length) < 1:
            raise PlanError(f"{self._name}: the {kind} says that it has {length} batches, so there is nothing to feed.")
        self._length = int(length)
        return self._length

    def __len__(self) -> int:
        return self._length

    def open(self) -> Reader:
        return _SequenceReader(self.data)

    def __repr__(self) -> str:
        return f"{self._length:,} batches of the {type(self.data).__name__}"


@final
class _SequenceReader(Reader):
    def __init__(self, data: Any) -> None:
        self._data = data

    def read(self, index: int, arena: Arena) -> Any:
        return self._data[index]
