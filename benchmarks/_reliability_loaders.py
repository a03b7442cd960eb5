"""fitstream and its peers, each set up for `reliability.py` as its documentation says, around the same transform.

All are asked for the same: seeded shuffling, batches of 16, two workers. Options that a loader has for the case at hand
(a timeout, skipping) are given; `NotOffered` says that it has none. What is not asked for stays at its default.

- PyTorch DataLoader and torchdata's StatefulDataLoader: a map-style dataset. `timeout=` is theirs; the second has
  `state_dict`.
- Keras: a PyDataset, which shuffles for itself in `on_epoch_end`, read through the adapter and the enqueuer that `fit`
  on the PyTorch backend reads from. After an error or a break there is a new adapter, as in a new call of `fit`.
- Grain: a MapDataset; threads are those of `to_iter_dataset`, processes are `mp_prefetch`. An epoch is an iterator of
  its own with a seed of its own. Iterators are closed, as its documentation recommends.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import numpy as np
from _reliability_work import BATCH, SAMPLES, Transform

__all__ = ["LOADERS", "PACKAGES", "Loader", "NotOffered", "Options", "Peer"]

PACKAGES = ("numpy", "torch", "torchdata", "keras", "grain")

Batch = tuple[Any, Any]


class NotOffered(Exception):
    """The loader has no such feature; the words for a cell of the table are its text."""

    def __init__(self, text: str = "no such feature") -> None:
        super().__init__(text)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a case asks of a loader.

    Attributes:
        workers: How many threads or processes; 0 for none, everything in the calling thread.
        timeout_s: After which a sample counts as hanging, if the loader can be told.
        skip: Whether bad samples are to be left out.
    """

    workers: int
    timeout_s: float | None = None
    skip: bool = False


class Loader(abc.ABC):
    """One loader around the samples. Made and used in the main thread of a fresh process."""

    @abc.abstractmethod
    def epoch(self) -> Iterator[Batch]:
        """Begin the next epoch and give its batches, `(indices, bytes)`."""

    def state(self) -> bytes:
        """What resuming behind the last batch needs."""
        raise NotOffered

    def restore(self, state: bytes) -> None:
        """Go on behind the batch at which the state was taken: it is what `epoch` gives next."""
        raise NotOffered

    def skipped(self) -> list[int]:
        """Indices of the samples that were left out, by the loader's own account."""
        return []

    def close(self) -> None:
        """End what the loader's documentation says is to be ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """A column of the table: its title, what it needs installed, and how it is made."""

    title: str
    requires: tuple[str, ...]
    make: Callable[[Transform, Any, Options], Loader]


class _Samples:
    """What has a length and gives the sample of an index, already transformed."""

    def __init__(self, transform: Transform, data: Any) -> None:
        self._transform, self._data = transform, data

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: Any) -> Batch:
        return self._transform(np.int64(index), self._data[index])


@final
class _Fitstream(Loader):
    def __init__(self, transform: Transform, data: Any, options: Options, *, processes: bool) -> None:
        import fitstream

        dataset = fitstream.from_arrays((np.arange(SAMPLES), data)).map(transform).shuffle(seed=0).batch(BATCH)
        more: dict[str, Any] = {}
        if options.timeout_s is not None:
            more["sample_timeout_s"] = options.timeout_s
        if options.skip:
            more["on_bad_sample"] = "skip"
        count = options.workers if processes else 0
        self._loader = dataset.loader(memory="512 MB", workers=options.workers, processes=count, **more)

    def epoch(self) -> Iterator[Batch]:
        return iter(self._loader)

    def state(self) -> bytes:
        return json.dumps(self._loader.state_dict()).encode()

    def restore(self, state: bytes) -> None:
        self._loader.load_state_dict(json.loads(state))

    def skipped(self) -> list[int]:
        return [bad.index for bad in self._loader.stats().bad_samples]

    def close(self) -> None:
        self._loader.close()


class _Torch(Loader):
    def __init__(self, transform: Transform, data: Any, options: Options) -> None:
        import torch

        if options.skip:
            raise NotOffered
        self._loader = self._class()(
            _Samples(transform, data),
            batch_size=BATCH,
            shuffle=True,
            generator=torch.Generator().manual_seed(0),
            num_workers=options.workers,
            timeout=options.timeout_s or 0,
        )

    def _class(self) -> Any:
        from torch.utils.data import DataLoader

        return DataLoader

    def epoch(self) -> Iterator[Batch]:
        for indices, pixels in self._loader:
            yield indices.numpy(), pixels.numpy()


@final
class _Stateful(_Torch):
    def _class(self) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader

    def state(self) -> bytes:
        return pickle.dumps(self._loader.state_dict())

    def restore(self, state: bytes) -> None:
        self._loader.load_state_dict(pickle.loads(state))


@final
class _Keras(Loader):
    def __init__(self, transform: Transform, data: Any, options: Options, *, processes: bool) -> None:
        os.environ["KERAS_BACKEND"] = "torch"
        import keras
        from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

        if options.skip:
            raise NotOffered
        samples = _Samples(transform, data)

        class Batches(keras.utils.PyDataset):
            def __init__(self, **parallel: Any) -> None:
                super().__init__(**parallel)
                self._epoch = -1

            def __len__(self) -> int:
                return SAMPLES // BATCH

            def __getitem__(self, index: int) -> Batch:
                rows = [samples[one] for one in self._order[index * BATCH : (index + 1) * BATCH]]
                return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])

            def on_epoch_end(self) -> None:
                self._epoch += 1
                self._order = np.random.default_rng(self._epoch).permutation(SAMPLES)

        self._dataset = Batches(workers=options.workers, use_multiprocessing=processes and options.workers > 0)
        self._adapter_type = PyDatasetAdapter
        self._adapter: Any = None

    def epoch(self) -> Iterator[Batch]:
        adapter, self._adapter = self._adapter, None
        if adapter is None:
            adapter = self._adapter_type(self._dataset)
            adapter.on_epoch_end()  # as each call of `fit` does first
        adapter.on_epoch_begin()
        for indices, pixels in adapter.get_torch_dataloader():
            yield indices.cpu().numpy(), pixels.cpu().numpy()
        adapter.on_epoch_end()
        self._adapter = adapter


class _Source:
    """Raw samples for Grain, which maps them itself."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: Any) -> Batch:
        return np.int64(index), self._data[index]


class _Spread:
    """The transform for a map that hands over a sample as one argument."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def __call__(self, sample: Batch) -> Batch:
        return self._transform(*sample)


@final
class _Grain(Loader):
    def __init__(self, transform: Transform, data: Any, options: Options, *, processes: bool) -> None:
        from absl import flags

        if options.skip:
            raise NotOffered
        flags.FLAGS.mark_as_parsed()  # its processes read flags, which only a program run by absl would have parsed
        self._transform, self._data, self._options, self._processes = transform, data, options, processes
        self._epoch = 0
        self._iterator: Any = None
        self._restored: bytes | None = None

    def epoch(self) -> Iterator[Batch]:
        self.close()
        self._iterator = iterator = iter(self._dataset(self._epoch))
        if self._restored is not None:
            iterator.set_state(json.loads(self._restored))
            self._restored = None
        self._epoch += 1
        return iterator

    def _dataset(self, epoch: int) -> Any:
        import grain

        workers = self._options.workers
        dataset = grain.MapDataset.source(_Source(self._data)).shuffle(seed=epoch)
        dataset = dataset.map(_Spread(self._transform)).batch(BATCH)
        if not self._processes:
            return dataset.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers))
        lazy = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        return lazy.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))

    def state(self) -> bytes:
        return json.dumps(self._iterator.get_state()).encode()

    def restore(self, state: bytes) -> None:
        self._restored = state

    def close(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def _with(kind: Callable[..., Loader], *, processes: bool) -> Callable[[Transform, Any, Options], Loader]:
    return lambda transform, data, options: kind(transform, data, options, processes=processes)


LOADERS: Mapping[str, Peer] = {
    "fitstream-threads": Peer("fitstream, 2 threads", ("fitstream",), _with(_Fitstream, processes=False)),
    "fitstream-processes": Peer("fitstream, 2 processes", ("fitstream",), _with(_Fitstream, processes=True)),
    "torch": Peer("PyTorch DataLoader, 2 processes", ("torch",), _Torch),
    "torchdata": Peer("torchdata StatefulDataLoader, 2 processes", ("torchdata",), _Stateful),
    "keras-threads": Peer("Keras PyDataset, 2 threads", ("keras", "torch"), _with(_Keras, processes=False)),
    "keras-processes": Peer("Keras PyDataset, 2 processes", ("keras", "torch"), _with(_Keras, processes=True)),
    "grain-threads": Peer("Grain, 2 threads", ("grain",), _with(_Grain, processes=False)),
    "grain-processes": Peer("Grain, 2 processes", ("grain",), _with(_Grain, processes=True)),
}
