"""One lane's work on samples: read, decode, map, and place in the rows of a batch.

The chain is interpreted from the plan's operations. The last stage writes into the batch's row where it can, so that
no batch is ever built by stacking: pictures are resized with the row as destination, arrays are gathered by one call.
A failure becomes a `SampleError` here, the only place that knows the sample, the stage and the user's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from fitstream.errors import SampleError
from fitstream.failures import RowError, is_ctrl_c, sample_error
from fitstream.operations import Decode, Map
from fitstream.sampling import Indices, sample_rng
from fitstream.scratch import Arena
from fitstream.sources.base import Source
from fitstream.spec import ArraySpec, Structure, array_spec, copied, whole_rows
from fitstream.transforms.images import ImageOptions

__all__ = ["Chain", "Filler", "Recipe", "Tally"]


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """What a lane does to make samples.

    Attributes:
        source: Random-access source, or None where raw samples are given to the lane.
        stages: Operations on samples, with their places in the dataset's chain.
        seed: Seed of random transforms.
        unit: What the source gives, for errors: "sample" or "batch".
    """

    source: Source | None
    stages: tuple[tuple[int, Decode | Map], ...]
    seed: int
    unit: str = "sample"

    @property
    def image_options(self) -> ImageOptions | None:
        """How pictures are decoded, or None where none are."""
        return next((stage.options for _, stage in self.stages if isinstance(stage, Decode)), None)

    @property
    def calls_functions(self) -> bool:
        """Whether code of the user's makes samples: functions, or an object's own reading."""
        return self.maps or (self.source is not None and self.source.borrows)

    @property
    def maps(self) -> bool:
        """Whether functions of the user's are called."""
        return any(isinstance(stage, Map) for _, stage in self.stages)


class Tally(NamedTuple):
    """What lanes count beside their work.

    Attributes:
        fallback_count: JPEG files that the fast decoder refused and Pillow read.
        changed_count: Reads of files that were changed after the source was listed.
        changed_index: One of these samples, or -1.
    """

    fallback_count: int = 0
    changed_count: int = 0
    changed_index: int = -1

    @staticmethod
    def sum(tallies: Iterable[Tally]) -> Tally:
        """All together."""
        each = list(tallies)
        index = next((one.changed_index for one in each if one.changed_index >= 0), -1)
        return Tally(sum(one.fallback_count for one in each), sum(one.changed_count for one in each), index)


@final
class Chain:
    """A recipe opened by one lane, which alone uses it.

    Args:
        recipe: What to do.
        arena: The lane's scratch.
        watch: Called with each sample that is given to a function of the user's.
    """

    def __init__(self, recipe: Recipe, arena: Arena, watch: Callable[[Any], None] | None = None) -> None:
        self._watch = watch
        self._borrows = recipe.source is not None and recipe.source.borrows
        maps = (number for number, (_, stage) in enumerate(recipe.stages, 1) if isinstance(stage, Map))
        self._first_map = next(maps, 0)
        self.recipe = recipe
        self.arena = arena
        self.reader = recipe.source.open() if recipe.source is not None else None
        self._stages = [
            (place, stage, _decoder(stage, arena) if isinstance(stage, Decode) else None)
            for place, stage in recipe.stages
        ]

    @property
    def tally(self) -> Tally:
        """What was counted so far."""
        fallbacks = sum(decoder.fallback_count for _, _, decoder in self._stages if decoder is not None)
        if self.reader is None:
            return Tally(fallbacks)
        return Tally(fallbacks, self.reader.changed_count, self.reader.changed_index)

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()

    def sample(self, index: int, pass_index: int, given: Any = None, row: npt.NDArray[Any] | None = None) -> Any:
        """Make one sample. Its leaves may live in scratch until `arena.reset()`.

        Args:
            index: In the source; for generators, counted from the pass's start.
            given: The raw sample, where it has been read before or the recipe has no source.
            row: Where a picture may be put if decoding is the last stage.
        Raises:
            SampleError: If a stage fails.
        """
        stage_name = "read"
        try:
            sample = given if given is not None or self.reader is None else self.reader.read(index, self.arena)
            for number, (place, stage, decoder) in enumerate(self._stages, 1):
                stage_name = stage.name
                if decoder is not None:
                    into = row if number == len(self._stages) else None
                    region = None
                    if isinstance(stage, Decode) and stage.crop is not None:
                        region = partial(stage.crop.region, sample_rng(self.recipe.seed, place, pass_index, index))
                    if isinstance(sample, tuple):
                        sample = (decoder.decode(sample[0], into, region), *sample[1:])
                    else:
                        sample = decoder.decode(sample, into, region)
                elif isinstance(stage, Map):
                    if self._borrows and number == self._first_map:
                        sample = copied(sample)
                    if self._watch is not None:
                        self._watch(sample)
                    options: dict[str, Any] = {}
                    if stage.takes_rng:
                        options["rng"] = sample_rng(self.recipe.seed, place, pass_index, index)
                    sample = stage.fn(*sample, **options) if isinstance(sample, tuple) else stage.fn(sample, **options)
            return sample
        except BaseException as error:
            row = given = sample = None  # who keeps the error keeps this frame, which must not keep the batch's memory
            if is_ctrl_c(error):
                raise
            raise self.failure(error, index, stage_name) from error

    def failure(self, error: BaseException, index: int, stage: str) -> SampleError:
        """Wrap an error with all that is known of where it happened."""
        path = self.recipe.source.path(index) if self.recipe.source is not None else None
        return sample_error(error, index, path, stage, self.recipe.unit)


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
        Raises:
            RowError: At the first row that fails, without `on_bad`.
        """
        fault: SampleError | None = None
        if self._gather is not None:
            done, fault = self._gather_rows(self._gather, leaves, start, indices)
            if done:
                return
        if given is None and fault is None and self._read_many is not None:
            given, fault = self._fetch(self._read_many, indices)
        failed = False
        for i, (index, pass_index) in enumerate(zip(indices.tolist(), passes.tolist(), strict=True)):
            row = start + i
            if not goes_on(row):
                return
            error = self.fill_row(leaves, row, index, pass_index, None if given is None else given[i])
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
        self, leaves: Sequence[npt.NDArray[Any]], row: int, index: int, pass_index: int, raw: Any = None
    ) -> SampleError | None:
        """Make one sample in one row.

        Returns:
            What failed, or None.
        """
        target = leaves[0][row] if self._decodes_last else None
        try:
            self._place(self.chain.sample(index, pass_index, raw, target), index, row, leaves, target)
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


def _decoder(stage: Decode, arena: Arena) -> Any:
    # Loads the codecs: only where pictures are decoded, and not with `import fitstream`.
    from fitstream.transforms.decode import ImageDecoder

    return ImageDecoder(stage.options, arena)
