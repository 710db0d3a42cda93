"""Image files decoded when they are needed: torchvision transforms in DataLoader workers.

What a row looks like depends on its own drawn seed alone, never on how many workers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...spaces.errors import UserError
from .batch_indices import batch_indices
from .splits import DataSplits, ImageFiles, Split, normalize_images

GREY = ("L", "1", "LA", "La")  # PIL's modes
RowAndSeed = tuple[int, int | None]  # the row, and the seed of its crop (None: the centre)


def decode_images(files: Sequence[Path], image_files: ImageFiles) -> Tensor:
    """These files as uint8 [N, C, H, W], resized and cropped to the centre."""
    still = _center_crop(image_files)
    height, width = image_files.size
    images = torch.empty((len(files), image_files.channels, height, width), dtype=torch.uint8)
    for row, file in enumerate(files):
        images[row] = still(open_image(file, image_files.channels))
    return images


def open_image(file: Path, channels: int) -> Any:
    """The file as a PIL image, RGB or grey; one that is broken or would lose values is named."""
    from PIL import Image

    broken = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
    try:
        with Image.open(file) as image:
            check_mode(file, image.mode, channels)
            return image.convert("RGB" if channels == 3 else "L")
    except UserError:
        raise
    except broken as error:
        raise UserError(
            f"every image must be readable, got {file} which is not ({error}); "
            "remove or replace that file"
        ) from None


def check_mode(file: Path, mode: str, channels: int) -> None:
    """Refuse what a conversion would spoil: deep pixels are clipped, colours become grey."""
    if mode.startswith(("I", "F")):
        raise UserError(
            f"every image must have 8 bits a channel, got {file} of mode {mode}, which would be "
            "clipped; scale it to 8 bits, or pass arrays"
        )
    if channels == 1 and mode not in GREY:
        raise UserError(
            f"every image must be grey where most are, got {file} of mode {mode}; convert it to "
            "grey, or all images to RGB"
        )


def stream_batches(
    split: Split,
    data: DataSplits,
    *,
    batch_size: int,
    generator: torch.Generator | None,
    augment: str,
    device: str | torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a split of files; see `batches`."""
    assert split.image_files is not None
    loader = DataLoader(
        _ImageFileDataset(split, flip=augment == "flip-crop"),
        batch_sampler=list(_batch_sampler(len(split), batch_size, generator, augment)),
        num_workers=split.image_files.workers,
        pin_memory=torch.device(device).type == "cuda",
    )
    try:
        for images, labels in loader:
            placed = images.to(device, non_blocking=True)
            yield normalize_images(placed, data), labels.to(device, non_blocking=True)
    except UserError as error:  # a worker's comes wrapped in its traceback: keep the sentence
        sentence = str(error).strip().rpartition("\n")[2]
        raise UserError(sentence.partition("UserError: ")[2] or sentence) from None


def _batch_sampler(
    count: int, batch_size: int, generator: torch.Generator | None, augment: str
) -> Iterator[list[RowAndSeed]]:
    for rows in batch_indices(count, batch_size, generator):
        chosen = torch.arange(count)[rows].tolist()
        if augment != "none" and generator is not None:
            seeds = torch.randint(0, 2**31, (len(chosen),), generator=generator).tolist()
            yield list(zip(chosen, seeds, strict=True))
        else:
            yield [(row, None) for row in chosen]


class _ImageFileDataset(Dataset[tuple[Tensor, Tensor]]):
    """A split's files, indexed by `Row`."""

    def __init__(self, split: Split, *, flip: bool) -> None:
        assert split.image_files is not None
        self.source, self.labels = split.image_files, split.labels
        self.still, self.moved = (
            _center_crop(split.image_files),
            _random_crop(split.image_files, flip=flip),
        )

    def __getitem__(self, row: RowAndSeed) -> tuple[Tensor, Tensor]:
        index, seed = row
        image = open_image(self.source.files[index], self.source.channels)
        if seed is None:
            return self.still(image), self.labels[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.moved(image), self.labels[index]


def _center_crop(source: ImageFiles) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    fit = v2.Compose([v2.Resize(source.resize, antialias=True), v2.CenterCrop(source.size)])
    pixels = v2.PILToTensor()
    height, width = source.size

    def still(image: Any) -> Tensor:
        ready = image.size == (width, height) and source.resize == min(source.size)
        return pixels(image if ready else fit(image))  # type: ignore[no-any-return]

    return still


def _random_crop(source: ImageFiles, *, flip: bool) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(source.size, antialias=True)]
    steps += [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([*steps, v2.PILToTensor()])  # type: ignore[no-any-return]
