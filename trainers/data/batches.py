"""The one way to go through a split: batches ready for the network, from memory or from files."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .augmentation import pad_crop_flip
from .types import Data, Split, prepare

ROWS_SEED = 0


def batches(
    split: Split,
    data: Data,
    *,
    batch_size: int,
    generator: torch.Generator | None = None,
    augment: str = "none",
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (float images, labels) on the device: in order, or shuffled by a generator.

    A shuffled pass leaves out what does not fill the last batch (a batch of one sample would spoil
    batch norm); an ordered pass shows everything. Augmentation needs the generator.
    """
    if augment != "none" and generator is None:
        raise ValueError(
            "augment needs generator=, got None; pass torch.Generator().manual_seed(0)"
        )
    if split.source is not None:
        from .streaming import stream

        yield from stream(
            split, data, batch_size=batch_size, generator=generator, augment=augment, device=device
        )
        return
    for rows in row_batches(len(split), batch_size, generator):
        images = split.images[rows].to(device, non_blocking=True)
        if augment != "none" and generator is not None and images.ndim == 4:
            images = pad_crop_flip(images, generator=generator, flip=augment == "flip-crop")
        yield prepare(images, data), split.labels[rows].to(device, non_blocking=True)


def row_batches(
    count: int, batch_size: int, generator: torch.Generator | None
) -> Iterator[Tensor | slice]:
    """Which rows make up each batch of one pass."""
    if generator is None:
        for start in range(0, count, batch_size):
            yield slice(start, min(start + batch_size, count))
        return
    order = torch.randperm(count, generator=generator)
    size = min(batch_size, count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def draw(split: Split, count: int) -> Split:
    """Random rows in memory, always the same ones: a split's own order may be that of classes."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(ROWS_SEED))
    return take(split, order[:count])


def take(split: Split, rows: Tensor) -> Split:
    """These rows as a split in memory, wherever they lie."""
    if split.source is None:
        return Split(split.images[rows], split.labels[rows])
    from .streaming import decode

    files = [split.source.files[int(i)] for i in rows]
    return Split(decode(files, split.source), split.labels[rows])
