"""Read a torch Dataset or DataLoader into memory, and warn about what a single pass loses.

A DataLoader with a plain sampler is read in the dataset's order and without drop_last, so every
row is read once. Random transforms, random samplers and a mixing collate_fn would give other rows
in every epoch. They are read once and then fixed, with a warning of one line for each.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

Part = Dataset[Any] | DataLoader[Any]

READ_BATCH_SIZE = 256  # for a Dataset
PROBED_ROWS = 8  # rows that are read several times
READS = 3  # a random flip with p = 0.5 is missed with a probability of 4 ** -8


def build_reader(part: Part) -> DataLoader[Any]:
    """A loader that yields every row of `part`, in a fixed order if possible."""
    if not isinstance(part, DataLoader):
        return DataLoader(part, batch_size=READ_BATCH_SIZE)
    if not is_rebuildable(part):
        return part
    sampler: Any = part.sampler
    if is_plain(part):
        sampler = None
    elif type(sampler) is SubsetRandomSampler:
        sampler = list(sampler.indices)
    return DataLoader(
        part.dataset,
        batch_size=part.batch_size,
        sampler=sampler,
        num_workers=part.num_workers,
        collate_fn=part.collate_fn,
        timeout=part.timeout,
        worker_init_fn=part.worker_init_fn,
        multiprocessing_context=part.multiprocessing_context,
        generator=part.generator,
        prefetch_factor=part.prefetch_factor,
    )


def is_rebuildable(loader: DataLoader[Any]) -> bool:
    """True if a new loader without drop_last yields the same rows and the dropped ones."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
        and loader.batch_size is not None
    )


def is_plain(loader: DataLoader[Any]) -> bool:
    """True if the sampler yields every row once, in order or shuffled."""
    sampler: Any = loader.sampler
    size = dataset_size(loader.dataset)
    if type(sampler) is SequentialSampler:
        return len(sampler.data_source) == size
    if type(sampler) is not RandomSampler or sampler.replacement:
        return False
    return len(sampler.data_source) == sampler.num_samples == size


def dataset_size(dataset: Dataset[Any]) -> int | None:
    """The number of rows of a dataset; None if it has no length."""
    if isinstance(dataset, IterableDataset):
        return None
    try:
        return len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def loader_notes(part: Part, name: str, rows: int) -> list[str]:
    """Notes for the user about a split that was read from a Dataset or a DataLoader."""
    notes = [*row_notes(part, name, rows)]
    with contextlib.suppress(Exception):  # the dataset may not support single rows
        notes += randomness_notes(part, name)
    return notes


def row_notes(part: Part, name: str, rows: int) -> Iterator[str]:
    """Yield notes about the rows that were read if they are not every row of the dataset once."""
    loader = part if isinstance(part, DataLoader) else None
    dataset: Any = part if loader is None else loader.dataset
    if isinstance(dataset, IterableDataset):
        yield (
            f"warning: {name} is an IterableDataset and is read once: every epoch uses these "
            f"{rows:,} rows; pass a Dataset with __len__ if this is not all of the data"
        )
        return
    if loader is None:
        return
    size = dataset_size(dataset)
    size_text = "the dataset has no length" if size is None else f"the dataset has {size:,}"
    sampler: Any = loader.sampler
    kind = type(sampler).__name__
    if not is_rebuildable(loader):
        custom = type(loader.batch_sampler) not in (BatchSampler, type(None))
        if custom or rows != size:
            kind = type(loader.batch_sampler if custom else loader).__name__
            yield fixed_sample_warning(name, kind, rows, size_text)
    elif type(sampler) is SubsetRandomSampler:
        if rows != size:
            yield (
                f"{name}: SubsetRandomSampler selects {rows:,} rows, which are read ({size_text})"
            )
    elif not is_plain(loader):
        yield fixed_sample_warning(name, kind, rows, size_text)
    if is_rebuildable(loader) and loader.drop_last and rows % (loader.batch_size or 1):
        yield f"{name}: drop_last of the DataLoader is not applied, all {rows:,} rows are read"


def fixed_sample_warning(name: str, kind: str, rows: int, size_text: str) -> str:
    """The warning about a sampler whose rows would change from epoch to epoch."""
    return (
        f"warning: the {kind} of {name} is sampled once: every epoch uses these {rows:,} rows "
        f"({size_text}); pass the Dataset itself to use every row once"
    )


def randomness_notes(part: Part, name: str) -> Iterator[str]:
    """Yield notes about rows that differ between reads. Global random states are restored."""
    loader = part if isinstance(part, DataLoader) else None
    dataset: Any = part if loader is None else loader.dataset
    if isinstance(dataset, IterableDataset):
        return
    with preserved_random_states():
        rows = probe_rows(part)
        first = [dataset[row] for row in rows]
        again = ([dataset[row] for row in rows] for _ in range(READS - 1))
        if any(not is_same(first, samples) for samples in again):
            yield (
                f"warning: the transforms of {name} are random, and each image is read once: "
                "every epoch uses the same version of it; pass data without random transforms"
                + ("" if name != "train" else ", and choose --augment")
            )
        collate = None if loader is None else loader.collate_fn
        if collate is None or collate in (default_collate, default_convert):
            return
        mixed = [collate(copy.deepcopy(first)) for _ in range(READS)]
        if any(not is_same(mixed[0], batch) for batch in mixed[1:]):
            yield (
                f"warning: the collate_fn of {name} is random, as mixup and cutmix are, and each "
                "batch is read once: every epoch uses the same mixtures; leave the collate_fn out"
            )


def probe_rows(part: Part) -> list[Any]:
    """A few rows of a part: evenly spaced over the dataset, or the first of a custom sampler."""
    if isinstance(part, DataLoader) and not is_plain(part):
        if type(part.batch_sampler) not in (BatchSampler, type(None)):
            return list(next(iter(part.batch_sampler)))[:PROBED_ROWS]  # type: ignore[arg-type]
        return list(itertools.islice(part.sampler, PROBED_ROWS))
    dataset: Any = part.dataset if isinstance(part, DataLoader) else part
    size = len(dataset)
    return [int(row) for row in np.linspace(0, size - 1, min(size, PROBED_ROWS))]


def is_same(one: Any, other: Any) -> bool:
    """True if two samples have the same values. Objects that cannot be compared are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    left, right = np.asarray(one), np.asarray(other)
    return left.dtype == object or np.array_equal(left, right)


@contextlib.contextmanager
def preserved_random_states() -> Iterator[None]:
    """Restore the states of Python's, NumPy's and torch's global generators afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    uses_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if uses_cuda else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
