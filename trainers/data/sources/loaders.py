"""How a torch Dataset or DataLoader is read into memory, and what one reading cannot keep.

A DataLoader with a plain sampler is read in the dataset's order and without drop_last, so that
every row is read once. What would change from epoch to epoch is read once and then fixed: random
transforms, random samplers, a collate_fn that mixes. Each of these is a warning of one line.
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

BATCH = 256  # images read at a time from a Dataset
SAMPLES = 8  # rows that are read again
READS = 3  # a flip of one image in two stays unseen with a chance of 4 to the power of -8


def batches_of(part: Part) -> DataLoader[Any]:
    """A loader that yields every row which `part` stands for, in a fixed order where it can."""
    if not isinstance(part, DataLoader):
        return DataLoader(part, batch_size=BATCH)
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
    """True where a new loader without drop_last yields the same rows and the dropped ones."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
        and loader.batch_size is not None
    )


def is_plain(loader: DataLoader[Any]) -> bool:
    """True where the sampler shows every row once: in order, or shuffled."""
    sampler: Any = loader.sampler
    size = size_of(loader.dataset)
    if type(sampler) is SequentialSampler:
        return len(sampler.data_source) == size
    if type(sampler) is not RandomSampler or sampler.replacement:
        return False
    return len(sampler.data_source) == sampler.num_samples == size


def size_of(dataset: Dataset[Any]) -> int | None:
    """The rows of a dataset; None where it does not know."""
    if isinstance(dataset, IterableDataset):
        return None
    try:
        return len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def loader_notes(part: Part, name: str, rows: int) -> list[str]:
    """What the user must know of a split that was read from a Dataset or a DataLoader."""
    notes = [*row_notes(part, name, rows)]
    with contextlib.suppress(Exception):  # a dataset that cannot be read at single rows
        notes += random_notes(part, name)
    return notes


def row_notes(part: Part, name: str, rows: int) -> Iterator[str]:
    """Which rows were read, where these are not all rows of the dataset once."""
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
    size = size_of(dataset)
    whole = "the dataset has no length" if size is None else f"the dataset has {size:,}"
    sampler: Any = loader.sampler
    kind = type(sampler).__name__
    if not is_rebuildable(loader):
        custom = type(loader.batch_sampler) not in (BatchSampler, type(None))
        if custom or rows != size:
            kind = type(loader.batch_sampler if custom else loader).__name__
            yield once(name, kind, rows, whole)
    elif type(sampler) is SubsetRandomSampler:
        if rows != size:
            yield f"{name}: SubsetRandomSampler chooses {rows:,} rows, which are read ({whole})"
    elif not is_plain(loader):
        yield once(name, kind, rows, whole)
    if is_rebuildable(loader) and loader.drop_last and rows % (loader.batch_size or 1):
        yield f"{name}: drop_last of the DataLoader is not applied, all {rows:,} rows are read"


def once(name: str, kind: str, rows: int, whole: str) -> str:
    """The warning about an order, a choice or weights that the user's loader draws anew."""
    return (
        f"warning: the {kind} of {name} is drawn once: every epoch uses these {rows:,} rows "
        f"({whole}); pass the Dataset itself to use every row once"
    )


def random_notes(part: Part, name: str) -> Iterator[str]:
    """What differs when a few rows are read again. Global random states are given back."""
    loader = part if isinstance(part, DataLoader) else None
    dataset: Any = part if loader is None else loader.dataset
    if isinstance(dataset, IterableDataset):
        return
    with random_states():
        rows = some_rows(part)
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


def some_rows(part: Part) -> list[Any]:
    """A few of the rows that a part shows, spread over the dataset where it is shown whole."""
    if isinstance(part, DataLoader) and not is_plain(part):
        if type(part.batch_sampler) not in (BatchSampler, type(None)):
            return list(next(iter(part.batch_sampler)))[:SAMPLES]  # type: ignore[arg-type]
        return list(itertools.islice(part.sampler, SAMPLES))
    dataset: Any = part.dataset if isinstance(part, DataLoader) else part
    size = len(dataset)
    return [int(row) for row in np.linspace(0, size - 1, min(size, SAMPLES))]


def is_same(one: Any, other: Any) -> bool:
    """True if two samples hold the same values. What cannot be compared counts as the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    left, right = np.asarray(one), np.asarray(other)
    return left.dtype == object or np.array_equal(left, right)


@contextlib.contextmanager
def random_states() -> Iterator[None]:
    """Give back the states of Python's, NumPy's and torch's global generators."""
    own, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if begun else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpy)  # noqa: NPY002
