"""Decode image files on demand, with torchvision transforms in DataLoader workers.

The augmentation of a row depends on its own seed only, not on the number of workers.
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
RowAndSeed = tuple[int, int | None]  # a row and the seed of its random crop; None: centre crop


def decode_images(files: Sequence[Path], image_files: ImageFiles) -> Tensor:
    """Decode files to uint8 [N, C, H, W], resized and cropped to the centre."""
    center_crop = _center_crop(image_files)
    height, width = image_files.size
    images = torch.empty((len(files), image_files.channels, height, width), dtype=torch.uint8)
    for row, file in enumerate(files):
        images[row] = center_crop(open_image(file, image_files.channels))
    return images


def open_image(file: Path, channels: int) -> Any:
    """Open a file as an RGB or grey PIL image; UserError if it is unreadable or unsuitable."""
    from PIL import Image

    decode_errors = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
    try:
        with Image.open(file) as image:
            check_mode(file, image.mode, channels)
            return image.convert("RGB" if channels == 3 else "L")
    except UserError:
        raise
    except decode_errors as error:
        raise UserError(
            f"every image must be readable, got {file} which is not ({error}); "
            "remove or replace that file"
        ) from None


def check_mode(file: Path, mode: str, channels: int) -> None:
    """Raise UserError if the conversion would clip deep pixels or drop colours."""
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
    """One pass over a split of image files; see `iterate_batches`."""
    assert split.image_files is not None
    loader = DataLoader(
        _ImageFileDataset(split, flip=augment == "flip-crop"),
        batch_sampler=list(_batch_sampler(len(split), batch_size, generator, augment)),
        num_workers=split.image_files.workers,
        pin_memory=torch.device(device).type == "cuda",
    )
    try:
        for images, labels in loader:
            images = images.to(device, non_blocking=True)
            yield normalize_images(images, data), labels.to(device, non_blocking=True)
    except UserError as error:  # a worker's error contains its traceback: keep the last line
        last_line = str(error).strip().rpartition("\n")[2]
        raise UserError(last_line.partition("UserError: ")[2] or last_line) from None


def _batch_sampler(
    count: int, batch_size: int, generator: torch.Generator | None, augment: str
) -> Iterator[list[RowAndSeed]]:
    for rows in batch_indices(count, batch_size, generator):
        indices = torch.arange(count)[rows].tolist()
        if augment != "none" and generator is not None:
            seeds = torch.randint(0, 2**31, (len(indices),), generator=generator).tolist()
            yield list(zip(indices, seeds, strict=True))
        else:
            yield [(row, None) for row in indices]


class _ImageFileDataset(Dataset[tuple[Tensor, Tensor]]):
    """The image files of a split, indexed by `RowAndSeed`."""

    def __init__(self, split: Split, *, flip: bool) -> None:
        assert split.image_files is not None
        self.image_files, self.labels = split.image_files, split.labels
        self.center_crop = _center_crop(split.image_files)
        self.random_crop = _random_crop(split.image_files, flip=flip)

    def __getitem__(self, row: RowAndSeed) -> tuple[Tensor, Tensor]:
        index, seed = row
        image = open_image(self.image_files.files[index], self.image_files.channels)
        if seed is None:
            return self.center_crop(image), self.labels[index]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.random_crop(image), self.labels[index]


def _center_crop(image_files: ImageFiles) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    size, resize = image_files.size, image_files.resize
    resize_and_crop = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])
    to_tensor = v2.PILToTensor()
    height, width = size

    def center_crop(image: Any) -> Tensor:
        has_final_size = image.size == (width, height) and resize == min(size)
        return to_tensor(image if has_final_size else resize_and_crop(image))  # type: ignore[no-any-return]

    return center_crop


def _random_crop(image_files: ImageFiles, *, flip: bool) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(image_files.size, antialias=True)]
    steps += [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([*steps, v2.PILToTensor()])  # type: ignore[no-any-return]
