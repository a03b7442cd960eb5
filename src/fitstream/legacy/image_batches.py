"""Which samples make which batch of a picture iterator, and how they are made: in the calling thread, or by a loader.

`next(iterator)` and `iterator[i]` make a batch when they are called. `as_dataset()` describes the same batches to
fitstream, whose lanes then make them sample by sample, ahead, inside a byte budget. Both run one recipe: decode the
file (`transforms.decode`), then `_Work`. A sample's random numbers depend on (seed, pass, sample) alone, so all ways
give the same bytes.

A pass has an order of its own, computed and not stored. Passes are counted by `on_epoch_end` or, where a program calls
`next`, whenever it comes to the end or calls `reset`. Two iterators with one seed, used alike, stay together.

A subclass that overrides how batches are made gets `as_dataset = None`: its own way counts.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator as Iterating
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fitstream.chain import Chain
from fitstream.dataset import Dataset
from fitstream.errors import PlanError
from fitstream.legacy.image_files import array_to_img
from fitstream.legacy.image_targets import Targets
from fitstream.legacy.sequence import Sequence
from fitstream.machine import available_cores
from fitstream.operations import Batch, Decode, Map, Operation
from fitstream.probe import recipe_of
from fitstream.sampling import Indices, Order, Shuffle
from fitstream.scratch import Allowance, Arena
from fitstream.sources.base import Source
from fitstream.spec import Structure
from fitstream.transforms.images import ImageOptions

__all__ = ["Iterator", "PictureIterator", "SaveTo", "split_of"]

#: What one sample may take of memory where no loader keeps a budget.
_SAMPLE_LIMIT_BYTES = 2**30
#: A thread is started for no fewer.
_LEAST_SAMPLES_A_LANE = 4


class Iterator(Sequence):
    """Batches of samples by their places, endlessly by `next`, or one pass as a Sequence.

    Args:
        n: Samples.
        batch_size: Samples of a batch; a pass's last one may have fewer.
        shuffle: Another order each pass.
        seed: Of the orders; None is 0.
    Raises:
        PlanError: If the seed is impossible.

    Attributes:
        batch_index: Place in the pass of the batch that `next` gives next.
        total_batches_seen: Batches handed out so far.
        pass_index: The pass, from 0.
    """

    white_list_formats = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int | None, **_: Any) -> None:
        if seed is not None and (seed != int(seed) or seed < 0):
            raise PlanError(f"seed={seed!r} must be None or a whole number from 0 on.")
        self.n = n
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.batch_index = 0
        self.total_batches_seen = 0
        self.pass_index = 0
        self.lock = threading.Lock()
        self._under_way = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return (self.n + self.batch_size - 1) // self.batch_size if self.n else 0

    def __getitem__(self, idx: int) -> Any:
        place = idx + len(self) if idx < 0 else idx
        if not 0 <= place < len(self):
            raise PlanError(f"there is no batch {idx}: a pass has {len(self)}, of {self.batch_size} samples each.")
        with self.lock:
            self.total_batches_seen += 1
            pass_index = self.pass_index
        return self._batch(self._indices(pass_index, place), pass_index)

    def on_epoch_end(self) -> None:
        with self.lock:
            self.pass_index += 1

    def reset(self) -> None:
        """Begin anew with `next`: with the first batch of another pass, if this one was begun."""
        with self.lock:
            self.batch_index = 0

    def __iter__(self) -> Iterating[Any]:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self) -> Any:
        """The next batch, endlessly. Threads may ask at once; each batch comes once."""
        return self._batch(*self._advance())

    def _advance(self) -> tuple[Indices, int]:
        with self.lock:
            if self.n == 0:
                return np.empty(0, np.int64), self.pass_index
            if self.batch_index == 0 and self._under_way:
                self.pass_index += 1
            self._under_way = True
            step, pass_index = self.batch_index, self.pass_index
            self.batch_index = (step + 1) % len(self)
            self.total_batches_seen += 1
        return self._indices(pass_index, step), pass_index

    def _indices(self, pass_index: int, step: int) -> Indices:
        start = step * self.batch_size
        order = Order(self.n, [Shuffle(self._order_seed)] if self.shuffle else [])
        return order.indices(pass_index, np.arange(start, min(start + self.batch_size, self.n)))

    @property
    def _order_seed(self) -> int:
        return int(self.seed or 0)

    @property
    def index_array(self) -> Indices:
        """All samples in the order of the pass."""
        order = Order(self.n, [Shuffle(self._order_seed)] if self.shuffle else [])
        return order.indices(self.pass_index, np.arange(self.n))

    @property
    def index_generator(self) -> Iterating[Indices]:
        """The samples of one batch after the other, endlessly: what `next` goes by."""
        while True:
            yield self._advance()[0]

    @property
    def N(self) -> int:  # noqa: N802  Keras 1's name
        """Samples."""
        return self.n

    def _batch(self, index_array: Indices, pass_index: int) -> Any:
        return self._get_batches_of_transformed_samples(index_array)

    def _get_batches_of_transformed_samples(self, index_array: Indices) -> Any:
        """Make a batch of these samples. For subclasses."""
        raise NotImplementedError


@final
@dataclass(frozen=True, slots=True)
class SaveTo:
    """Where augmented pictures are saved, to be looked at. A sample's file has one name a pass, whoever makes it."""

    folder: str
    prefix: str
    suffix: str

    def save(self, picture: npt.NDArray[Any], place: int, data_format: str, rng: np.random.Generator) -> None:
        """Save one picture, its values stretched to 0 to 255."""
        name = f"{self.prefix}_{place}_{rng.integers(10**7)}.{self.suffix}"
        array_to_img(picture, data_format, scale=True).save(os.path.join(self.folder, name))


@final
@dataclass(frozen=True, slots=True)
class _Work:
    """Makes a sample of a decoded picture `(height, width, channels)`, or of one row of an array.

    Attributes:
        generator: Has `prepared`; None leaves pictures as they are.
        targets: What goes with them.
        data_format: Of the result.
        dtype: Likewise.
        decoded: Whether pictures come from files, channels last.
        save_to: Where results are saved, or None.
        seed: Mixed into the random numbers; 0 leaves them as they are.
    """

    generator: Any
    targets: Targets
    data_format: str
    dtype: str
    decoded: bool
    save_to: SaveTo | None
    seed: int = 0

    def __call__(self, picture: npt.NDArray[Any], place: npt.NDArray[np.int64], rng: np.random.Generator) -> Any:
        index = int(place[0])
        if self.seed:
            rng = np.random.default_rng([self.seed, int(rng.integers(2**63))])
        if self.decoded and self.data_format == "channels_first":
            picture = picture.transpose(2, 0, 1)
        x = picture.astype(self.dtype) if self.generator is None else self.generator.prepared(picture, rng)
        if self.save_to is not None:
            self.save_to.save(x, index, self.data_format, rng)
        return self.targets.sample(x, index)


class PictureIterator(Iterator):
    """An iterator over pictures of a source whose samples are `(picture, place)`.

    Args:
        n: As in `Iterator`, like all up to `seed`.
        batch_size: See there.
        shuffle: See there.
        seed: See there. Of the transformations too.
        generator: An `ImageDataGenerator`, or None.
        data_format: Order of the pictures' axes.
        dtype: Of the pictures.
        save_to: Where to save them, or None.
    """

    class_mode: str | None = None

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        *,
        generator: Any,
        data_format: str,
        dtype: str,
        save_to: SaveTo | None,
    ) -> None:
        super().__init__(n, batch_size, shuffle, seed)
        if batch_size < 1:
            raise PlanError(f"batch_size={batch_size!r} must be a whole number from 1 on.")
        self.image_data_generator = generator
        self.data_format = data_format
        self.dtype = dtype
        self._save_to = save_to
        self._source: Source | None = None
        self._targets = Targets()
        self._options: ImageOptions | None = None
        self._datasets_made = 0
        self._chains: list[tuple[int, Chain]] = []

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {"_get_batches_of_transformed_samples", "next", "__next__", "__getitem__"}
        if own & vars(cls).keys() and cls.__module__ != PictureIterator.__module__:
            cls.as_dataset = None  # type: ignore[assignment, method-assign]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_chains": []}

    def as_dataset(self) -> Dataset:
        """The same batches as a fitstream dataset, whose loader makes them ahead, in several lanes.

        The first call's passes are those of the iterator, from pass 0 on. Each further call gives passes of its own, so
        that training that goes on in a second call of `fit_generator` sees new orders and transformations.

        Raises:
            PlanError: If there are no pictures.
        """
        made = self._datasets_made
        self._datasets_made += 1
        seed = self._order_seed
        if made:
            seed = int.from_bytes(hashlib.blake2b(f"{seed} {made}".encode(), digest_size=7).digest(), "little")
        return Dataset(self._checked_source(), self._operations(seed))

    def _operations(self, seed: int) -> tuple[Operation, ...]:
        # fmt: off
        work = _Work(
            self.image_data_generator, self._targets, self.data_format, self.dtype, self._options is not None,
            self._save_to)
        # fmt: on
        decode = () if self._options is None else (Decode(self._options),)
        batch = Batch(self.batch_size, "keep", False)
        if self.shuffle:
            return *decode, Map.of(work), Shuffle(seed), batch
        # Without shuffle a dataset's random numbers have the seed 0.
        return *decode, Map.of(replace(work, seed=seed)), batch

    def _checked_source(self) -> Source:
        if self._source is None:
            raise PlanError(f"the {type(self).__name__} has no pictures: see what it printed when it was made.")
        return self._source

    def _batch(self, index_array: Indices, pass_index: int) -> Any:
        if type(self)._get_batches_of_transformed_samples is PictureIterator._get_batches_of_transformed_samples:
            return self._made(index_array, pass_index)
        return self._get_batches_of_transformed_samples(index_array)

    def _get_batches_of_transformed_samples(self, index_array: Indices) -> Any:
        return self._made(index_array, self.pass_index)

    def _made(self, index_array: Indices, pass_index: int) -> Any:
        """Make these samples here and now; on all cores, where no function of the program's is called.

        Raises:
            SampleError: If one can't be made: the first one's.
        """
        self._checked_source()
        indices = np.asarray(index_array).tolist()
        with self._chain() as chain:
            sample = chain.sample(indices[0], pass_index)
            structure = Structure(sample)
            values = [np.asarray(leaf) for leaf in structure.flatten(sample)]
            leaves = [np.empty((len(indices), *value.shape), value.dtype) for value in values]
            _place(values, leaves, 0)

        def fill(rows: range) -> None:
            with self._chain() as chain:
                for row in rows:
                    _place(structure.flatten(chain.sample(indices[row], pass_index)), leaves, row)
                    chain.arena.reset()

        plain = self.image_data_generator is None or getattr(self.image_data_generator, "is_plain", False)
        lanes = min(available_cores(), len(indices) // _LEAST_SAMPLES_A_LANE) if plain else 1
        if lanes <= 1:
            fill(range(1, len(indices)))
        else:
            size = -(-len(indices) // lanes)
            parts = [range(max(1, first), min(first + size, len(indices))) for first in range(0, len(indices), size)]
            with ThreadPoolExecutor(lanes) as pool:
                list(pool.map(fill, parts))
        return self._targets.as_keras_had(structure.build(leaves))

    @contextmanager
    def _chain(self) -> Iterating[Chain]:
        """The recipe opened for one thread. Kept for the next one: its memory is in use already."""
        seed = self._order_seed
        try:
            kept, chain = self._chains.pop()
        except IndexError:
            kept, chain = -1, None
        if chain is None or kept != seed:
            arena = Arena(Allowance(0, _SAMPLE_LIMIT_BYTES, _SAMPLE_LIMIT_BYTES))
            chain = Chain(recipe_of(self._checked_source(), self._operations(seed)), arena)
        try:
            yield chain
        finally:
            chain.arena.reset()
        self._chains.append((seed, chain))


def _place(values: list[Any], leaves: list[npt.NDArray[Any]], row: int) -> None:
    for leaf, value in zip(leaves, values, strict=True):
        leaf[row] = value


def split_of(generator: Any, subset: str | None) -> tuple[float, float] | None:
    """The part of the samples that a subset is, as fractions; None for all.

    Raises:
        PlanError: If there is no such subset.
    """
    if subset is None:
        return None
    share = getattr(generator, "_validation_split", 0.0)
    if subset not in ("training", "validation"):
        raise PlanError(f'subset={subset!r} must be "training", "validation" or None.')
    return (0.0, share) if subset == "validation" else (share, 1.0)
