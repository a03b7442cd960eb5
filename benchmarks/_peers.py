"""The peers of fitstream, each set up in its usual form around data that it is given, for two lanes.

Those that read a dataset object are here, those that are pipelines of stages in `_pipelines.py`.

What a peer is given is either *samples* (`len`, `[index]` gives a sample: the peer shuffles and batches) or *batches*
(`len`, `[index]` gives a batch that is shuffled already). Each function returns a generator function that makes the
loader, yields batches for some epochs and closes the loader. A peer is imported only by the function that uses it.

Options: two workers, each with two batches on their way, which is the default where a loader has one. Workers stay for
all epochs where the loader can keep them. Those with thread pools of their own behind the lanes (tf.data, PyTorch) get
no more threads than lanes.

- PyTorch DataLoader: map-style dataset, `persistent_workers`; batches by `batch_size=None`.
- torchdata: the chain of nodes that its documentation gives in place of a DataLoader.
- Keras: a PyDataset, which deals in batches, through the adapter that `fit` itself reads from (there is no public way
  to iterate one), on the JAX backend, which is the quickest to import.
- Grain: a MapDataset, `to_iter_dataset` with threads, or `mp_prefetch` with processes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

__all__ = [
    "AHEAD",
    "LANES",
    "PACKAGES",
    "Data",
    "Stream",
    "fitstream",
    "grain",
    "keras_batches",
    "settles_s",
    "torch_batches",
    "torch_samples",
    "torchdata_batches",
    "torchdata_samples",
]

LANES = 2
AHEAD = 2  # batches a worker
PACKAGES = (
    *("numpy", "fitstream", "torch", "torchdata", "keras", "jax", "grain", "tensorflow", "tensorflow-cpu"),
    *("spdl-core", "ray", "nvidia-dali-cuda120"),
)

Stream = Callable[[], Iterator[Any]]


class Data(Protocol):
    """Samples or batches by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def fitstream(
    dataset: Callable[[], Any], facts: dict[str, Any], *, epochs: int, memory: str, workers: Any, processes: int | None
) -> Stream:
    """Read a fitstream Dataset; what its loader says of itself goes into `facts` at the end."""

    def stream() -> Iterator[Any]:
        with dataset().loader(memory=memory, workers=workers, processes=processes) as loader:
            try:
                for _ in range(epochs):
                    yield from loader
            finally:
                stats = loader.stats()
                told = {name: getattr(stats, name) for name in stats.__slots__}
                facts.update((name, value) for name, value in told.items() if isinstance(value, (int, float, str)))

    return stream


def settles_s(workers: Any) -> float:
    """How long fitstream takes to choose the number and kind of its lanes, where it is left to choose."""
    return 2.5 if workers == "auto" else 0.0


def torch_samples(samples: Data, *, batch: int, epochs: int, workers: int = LANES) -> Stream:
    import torch
    from torch.utils.data import DataLoader

    def stream() -> Iterator[Any]:
        torch.manual_seed(0)
        torch.set_num_threads(1)  # as the workers do it themselves
        ahead = {"prefetch_factor": AHEAD, "persistent_workers": True} if workers else {}
        loader = DataLoader(samples, batch_size=batch, shuffle=True, num_workers=workers, **ahead)
        for _ in range(epochs):
            yield from loader

    return stream


def torch_batches(batches: Data, *, epochs: int) -> Stream:
    import torch
    from torch.utils.data import DataLoader

    def stream() -> Iterator[Any]:
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=LANES,
            prefetch_factor=AHEAD,
            persistent_workers=True,
            collate_fn=torch.from_numpy,
        )
        for _ in range(epochs):
            yield from loader

    return stream


class _Collated:
    """What torchdata's documentation maps over lists of indices."""

    def __init__(self, samples: Data) -> None:
        self._samples = samples

    def __call__(self, indices: list[int]) -> Any:
        from torch.utils.data import default_collate

        return default_collate([self._samples[index] for index in indices])


def torchdata_samples(samples: Data, *, batch: int, epochs: int, processes: bool) -> Stream:
    from torch.utils.data import RandomSampler
    from torchdata import nodes

    def stream() -> Iterator[Any]:
        node = nodes.Batcher(nodes.SamplerWrapper(RandomSampler(samples)), batch, drop_last=False)
        yield from _torchdata(node, _Collated(samples), epochs, processes)

    return stream


def torchdata_batches(batches: Data, *, epochs: int) -> Stream:
    import torch
    from torch.utils.data import SequentialSampler
    from torchdata import nodes

    def fetch(index: int) -> Any:
        return torch.from_numpy(batches[index])

    def stream() -> Iterator[Any]:
        yield from _torchdata(nodes.SamplerWrapper(SequentialSampler(batches)), fetch, epochs, True)

    return stream


def _torchdata(node: Any, fetch: Callable[[Any], Any], epochs: int, processes: bool) -> Iterator[Any]:
    import torch
    from torchdata import nodes

    torch.set_num_threads(1)  # as DataLoader does in its workers; its own threads would fight the two lanes
    method = "process" if processes else "thread"
    mapped = nodes.ParallelMapper(node, fetch, num_workers=LANES, method=method)
    loader = nodes.Loader(nodes.Prefetcher(mapped, prefetch_factor=AHEAD))
    try:
        for _ in range(epochs):
            yield from loader
    finally:
        # Its threads end only when it is collected, and it is in a cycle; one that lives to the end ends in an abort.
        del loader, mapped
        gc.collect()


def keras_batches(batches: Data, *, epochs: int, processes: bool) -> Stream:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> tuple[Any]:
            return (batches[index],)

    def stream() -> Iterator[Any]:
        queue = LANES * AHEAD
        adapter = PyDatasetAdapter(Batches(workers=LANES, use_multiprocessing=processes, max_queue_size=queue))
        for _ in range(epochs):
            adapter.on_epoch_begin()
            try:
                yield from (parts[0] for parts in adapter.get_numpy_iterator())
            finally:
                adapter.on_epoch_end()

    return stream


def grain(data: Data, *, epochs: int, processes: bool, batch: int | None = None) -> Stream:
    """Samples with `batch`, else batches."""
    import grain as package
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain's processes read flags, which only a program run by absl would have parsed

    def stream() -> Iterator[Any]:
        dataset = package.MapDataset.source(data)
        if batch is not None:
            dataset = dataset.shuffle(seed=0).batch(batch)
        dataset = dataset.repeat(epochs)
        if processes:
            lazy = dataset.to_iter_dataset(package.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD))
            lazy = lazy.mp_prefetch(package.MultiprocessingOptions(num_workers=LANES, per_worker_buffer_size=AHEAD))
        else:
            lazy = dataset.to_iter_dataset(package.ReadOptions(num_threads=LANES, prefetch_buffer_size=AHEAD * LANES))
        iterator = iter(lazy)
        try:
            yield from iterator
        finally:
            iterator.close()

    return stream
