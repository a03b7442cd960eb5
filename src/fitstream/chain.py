"""One lane's work on samples: read, decode, map, and place in the rows of a batch.

The chain is interpreted from the plan's operations. The last stage writes into the batch's row where it can, so that
no batch is ever built by stacking: pictures are resized with the row as destination, arrays are gathered by one call.
A failure becomes a `SampleError` here, the only place that knows the sample, the stage and the user's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, final

import numpy.typing as npt

from fitstream.errors import SampleError
from fitstream.failures import is_ctrl_c, sample_error
from fitstream.finite import check_finite
from fitstream.operations import Decode, Map
from fitstream.sampling import sample_rng
from fitstream.scratch import Arena
from fitstream.sources.base import Source
from fitstream.spec import copied
from fitstream.transforms.images import ImageOptions

__all__ = ["Chain", "Recipe", "Tally"]


@final
@dataclass(frozen=True, slots=True)
class Recipe:
    """What a lane does to make samples.

    Attributes:
        source: Random-access source, or None where raw samples are given to the lane.
        stages: Operations on samples, with their places in the dataset's chain.
        seed: Seed of random transforms.
        unit: What the source gives, for errors: "sample" or "batch".
        checks_each_pass: Whether NaN is looked for in each pass: where the first one doesn't show all samples, or one
            that it left out would come again.
    """

    source: Source | None
    stages: tuple[tuple[int, Decode | Map], ...]
    seed: int
    unit: str = "sample"
    checks_each_pass: bool = False

    def checks_finite(self, pass_index: int) -> bool:
        """Whether NaN is looked for in what the source gives in a pass."""
        return self.source is not None and self.source.checks_finite and (pass_index == 0 or self.checks_each_pass)

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
        self._part_names = () if recipe.source is None else recipe.source.part_names
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

    def sample(
        self, index: int, pass_index: int, given: Any = None, row: npt.NDArray[Any] | None = None, draw: int = 0
    ) -> Any:
        """Make one sample. Its leaves may live in scratch until `arena.reset()`.

        Args:
            index: In the source; for generators, counted from the pass's start.
            given: The raw sample, where it has been read before or the recipe has no source.
            row: Where a picture may be put if decoding is the last stage.
            draw: Where samples may come more than once in a pass, this one's place in it.
        Raises:
            SampleError: If a stage fails.
        """
        stage_name = "read"
        try:
            sample = given if given is not None or self.reader is None else self.reader.read(index, self.arena)
            if self.recipe.checks_finite(pass_index):
                check_finite(sample, self._part_names)
            for number, (place, stage, decoder) in enumerate(self._stages, 1):
                stage_name = stage.name
                if decoder is not None:
                    into = row if number == len(self._stages) else None
                    region = None
                    if isinstance(stage, Decode) and stage.crop is not None:
                        rng = sample_rng(self.recipe.seed, place, pass_index, index, draw)
                        region = partial(stage.crop.region, rng)
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
                        options["rng"] = sample_rng(self.recipe.seed, place, pass_index, index, draw)
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


def _decoder(stage: Decode, arena: Arena) -> Any:
    # Loads the codecs: only where pictures are decoded, and not with `import fitstream`.
    from fitstream.transforms.decode import ImageDecoder

    return ImageDecoder(stage.options, arena)
