"""Samples in their places: the rows of a batch, filled from a lane's chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.chain import Chain
from fitstream.errors import SampleError
from fitstream.failures import RowError, is_ctrl_c
from fitstream.finite import is_finite
from fitstream.operations import Decode
from fitstream.sampling import Indices
from fitstream.spec import ArraySpec, Structure, array_spec, whole_rows

__all__ = ["Filler"]


@final
class Filler:
    """Places the samples of a chain in the rows of a batch.

    Args:
        chain: The lane's chain.
        structure: Tree of a sample.
        specs: Spec of each leaf of a sample (without the batch axis).
        padded: Numbers of the leaves whose first axis may be shorter; the last leaf of a batch takes their lengths.
    """

    def __init__(
        self, chain: Chain, structure: Structure, specs: Sequence[ArraySpec], padded: Sequence[int] = ()
    ) -> None:
        self.chain = chain
        self._structure = structure
        self._specs = specs
        self._padded = padded
        stages, source = chain.recipe.stages, chain.recipe.source
        self._gather = chain.reader.gather if chain.reader is not None and not (stages or padded) else None
        many = source is not None and source.fetches_many
        self._read_many = chain.reader.read_many if chain.reader is not None and many else None
        self._decodes_last = bool(stages) and isinstance(stages[-1][1], Decode)

    def fill(
        self,
        leaves: Sequence[npt.NDArray[Any]],
        start: int,
        indices: Indices,
        passes: Indices,
        given: Sequence[Any] | None = None,
        goes_on: Callable[[int], bool] = lambda row: True,
        on_bad: Callable[[int, int, SampleError], None] | None = None,
        draws: Indices | None = None,
    ) -> None:
        """Make the samples of the rows from `start` on.

        Args:
            leaves: Arrays of the whole batch.
            indices: Source index of each row, `(rows,)`.
            passes: Pass of each row, `(rows,)`.
            given: Raw samples, where the recipe has no source.
            goes_on: Called with each row before its sample is made; the rest is left out once it says no.
            on_bad: Called with the row, its pass and its error where a sample can't be made; then the next one's turn
                is. None to raise.
            draws: Place of each row in its pass, `(rows,)`, where samples may come more than once.
        Raises:
            RowError: At the first row that fails, without `on_bad`.
        """
        fault: SampleError | None = None
        if self._gather is not None:
            done, fault = self._gather_rows(self._gather, leaves, start, indices)
            # What isn't finite is found and told row by row.
            checks = self.chain.recipe.checks_finite(int(passes[0]))
            if done and not (checks and self._has_odd(leaves, start, len(indices))):
                return
        if given is None and fault is None and self._read_many is not None:
            given, fault = self._fetch(self._read_many, indices)
        failed = False
        for i, (index, pass_index) in enumerate(zip(indices.tolist(), passes.tolist(), strict=True)):
            row = start + i
            if not goes_on(row):
                return
            draw = 0 if draws is None else int(draws[i])
            error = self.fill_row(leaves, row, index, pass_index, None if given is None else given[i], draw)
            if error is None:
                continue
            if on_bad is None:
                leaves, given = (), None  # as in `fill_row`
                raise RowError(row, error) from error.__cause__
            on_bad(row, pass_index, error)
            failed = True
        if fault is not None and not failed:
            raise RowError(start, fault)

    def fill_row(
        self, leaves: Sequence[npt.NDArray[Any]], row: int, index: int, pass_index: int, raw: Any = None, draw: int = 0
    ) -> SampleError | None:
        """Make one sample in one row.

        Returns:
            What failed, or None.
        """
        target = leaves[0][row] if self._decodes_last else None
        try:
            self._place(self.chain.sample(index, pass_index, raw, target, draw), index, row, leaves, target)
        except SampleError as error:
            # Who keeps the error keeps this frame, which must not keep the batch's memory.
            leaves, target, raw = (), None, None
            return error
        finally:
            self.chain.arena.reset()
        return None

    def _gather_rows(
        self, gather: Callable[..., bool], leaves: Sequence[npt.NDArray[Any]], start: int, indices: Indices
    ) -> tuple[bool, SampleError | None]:
        """Whether the rows are filled; or what to say if reading them one by one finds none at fault."""
        try:
            return gather(indices, [leaf[start : start + len(indices)] for leaf in leaves[: len(self._specs)]]), None
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            return False, self._read_together_failed(error, indices)

    def _has_odd(self, leaves: Sequence[npt.NDArray[Any]], start: int, rows: int) -> bool:
        return not all(is_finite(leaf[start : start + rows]) for leaf in leaves[: len(self._specs)])

    def _fetch(
        self, read_many: Callable[[Indices], Sequence[Any]], indices: Indices
    ) -> tuple[Sequence[Any] | None, SampleError | None]:
        """The raw samples of a chunk; or what to say if reading them one by one finds none at fault."""
        try:
            return read_many(indices), None
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            return None, self._read_together_failed(error, indices)

    def _read_together_failed(self, error: BaseException, indices: Indices) -> SampleError:
        # Without the error as its cause, which keeps frames that hold the batch's memory.
        shown = ", ".join(map(str, indices[:4].tolist())) + (", ..." if len(indices) > 4 else "")
        told = _ReadTogether(
            f"reading {len(indices)} samples together (indices {shown}) failed with {type(error).__name__}: {error}. "
            "Read one by one, none of them failed. If __getitems__ is yours, correct it, or leave it out."
        )
        return self.chain.failure(told.with_traceback(error.__traceback__), int(indices[0]), "read")

    def _place(
        self, sample: Any, index: int, row: int, leaves: Sequence[npt.NDArray[Any]], target: npt.NDArray[Any] | None
    ) -> None:
        try:
            for number, value in enumerate(self._structure.flatten(sample)):
                if value is target and target is not None:
                    continue
                if number in self._padded:
                    self._place_padded(self._checked(value, number), number, row, leaves)
                else:
                    leaves[number][row] = self._checked(value, number)
        except Exception as error:  # noqa: BLE001  an array's own reading may raise anything
            raise self.chain.failure(_Misfit(str(error)), index, "batch") from None

    def _place_padded(self, value: Any, number: int, row: int, leaves: Sequence[npt.NDArray[Any]]) -> None:
        length, target = len(value), leaves[number][row]
        target[:length] = value
        target[length:] = 0
        leaves[-1][row, self._padded.index(number)] = length

    def _checked(self, value: Any, number: int) -> Any:
        spec = self._specs[number]
        if not isinstance(value, (np.ndarray, np.generic)):
            value = np.asarray(value)
            if value.shape == (0,) and number in self._padded:
                value = np.empty((0, *spec.shape[1:]), spec.dtype)  # an empty list has no dtype of its own
        if value.shape != spec.shape and not (number in self._padded and _is_shorter(value.shape, spec.shape)):
            where, advice = self._structure.names[number], _shape_advice(value.shape, spec.shape)
            if number in self._padded and value.shape[1:] == spec.shape[1:]:
                raise ValueError(
                    f"its array{where} has length {value.shape[0]}, but batch(pad=...) has room for {spec.shape[0]}. "
                    f"Use max_length={value.shape[0]} or more, or cut samples in a map"
                )
            raise ValueError(f"its array{where} has shape {value.shape}, but {spec.shape} in the first sample{advice}")
        if (
            value.dtype is not spec.dtype
            and value.dtype != spec.dtype
            and not np.can_cast(value.dtype, spec.dtype, "safe")
        ):
            where = self._structure.names[number]
            raise ValueError(
                f"its array{where} has dtype {value.dtype}, which {spec.dtype} of the first sample can't hold exactly. "
                "Return one dtype always, such as by np.asarray(x, dtype=...)"
            )
        return value

    def fill_whole(self, leaves: Sequence[npt.NDArray[Any]], index: int, pass_index: int, given: Any = None) -> int:
        """Copy one finished batch into a slot.

        Returns:
            Its number of rows.
        Raises:
            RowError: If it can't be made, or doesn't fit the plan.
        """
        try:
            batch = self.chain.sample(index, pass_index, given)
            try:
                return self._place_whole(batch, leaves)
            except Exception as error:  # noqa: BLE001  an array's own reading may raise anything
                raise self.chain.failure(_Misfit(str(error)), index, "batch") from None
        except SampleError as error:
            raise RowError(0, error) from error.__cause__
        finally:
            self.chain.arena.reset()

    def _place_whole(self, batch: Any, leaves: Sequence[npt.NDArray[Any]]) -> int:
        values = [np.asarray(value) for value in self._structure.flatten(batch)]
        rows = whole_rows(values, self._structure.names)
        capacity = len(leaves[0])
        if rows > capacity:
            raise ValueError(
                f"it has {rows} samples, but memory was planned for {capacity}, as in the first batch. "
                f"Use from_batches(..., batch_size={rows})"
            )
        for number, value in enumerate(values):
            spec = self._specs[number]
            if value.shape[1:] != spec.shape or not np.can_cast(value.dtype, spec.dtype, "safe"):
                raise ValueError(
                    f"its array{self._structure.names[number]} is {array_spec(value)}, but samples of the first batch "
                    f"are {spec}. Make all batches alike"
                )
            leaves[number][:rows] = value
        return rows


@final
class _Misfit(Exception):
    """A sample that doesn't fit the plan. The message is for people."""


@final
class _ReadTogether(Exception):
    """Samples that could be read one by one, but not many at a time. The message is for people."""


def _is_shorter(shape: tuple[int, ...], most: tuple[int | None, ...]) -> bool:
    return len(shape) == len(most) and shape[1:] == most[1:] and shape[0] <= (most[0] or 0)


def _shape_advice(shape: tuple[int, ...], first: tuple[int | None, ...]) -> str:
    if len(shape) == len(first) == 3 and shape[2] == first[2]:
        return ". Pictures of several sizes need image_size=(height, width)"
    return ". Samples of one dataset must have one shape: pad or crop them in a map"
