"""Iterate over a split in batches that are ready for the network, from memory or from files."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .augmentation import random_crop_flip
from .batch_indices import batch_indices
from .splits import DataSplits, Split, normalize_images
from .streaming import decode_images, stream_batches

SAMPLING_SEED = 0


def iterate_batches(
    split: Split,
    data: DataSplits,
    *,
    batch_size: int,
    generator: torch.Generator | None = None,
    augment: str = "none",
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs (float images, labels) on the device, in order or shuffled by a generator.

    A shuffled pass drops an incomplete last batch, because a batch of one sample would break batch
    norm. An ordered pass yields every row.

    Args:
        split: The rows to read.
        data: The data that the split belongs to; it defines the normalisation.
        batch_size: Rows per batch.
        generator: Shuffles the rows and draws the augmentation; None: in order.
        augment: One of AUGMENTATIONS; all but "none" need the generator.
        device: Where the batches are placed.
    """
    if augment != "none" and generator is None:
        raise ValueError(
            "augment needs generator=, got None; pass torch.Generator().manual_seed(0)"
        )
    if split.image_files is not None:
        yield from stream_batches(
            split, data, batch_size=batch_size, generator=generator, augment=augment, device=device
        )
        return
    for rows in batch_indices(len(split), batch_size, generator):
        images = split.images[rows].to(device, non_blocking=True)
        if augment != "none" and generator is not None and images.ndim == 4:
            images = random_crop_flip(images, generator=generator, flip=augment == "flip-crop")
        yield normalize_images(images, data), split.labels[rows].to(device, non_blocking=True)


def fixed_subset(split: Split, count: int) -> Split:
    """The same `count` random rows on every call, in memory. A split may be sorted by class."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(SAMPLING_SEED))
    return select_rows(split, order[:count])


def select_rows(split: Split, rows: Tensor) -> Split:
    """These rows as a split in memory; image files are decoded."""
    if split.image_files is None:
        return Split(split.images[rows], split.labels[rows])
    files = [split.image_files.files[int(i)] for i in rows]
    return Split(decode_images(files, split.image_files), split.labels[rows])
