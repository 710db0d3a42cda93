"""`Split`: images with labels. `DataSplits`: the train, validation and test splits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...spaces.errors import UserError
from ...spaces.outputs import Outputs
from .augmentation_names import check_augment


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The image files of a split that is too large for memory; they are decoded batch by batch.

    The short side is resized to `resize` pixels, then the centre of `size` (H, W) is cropped.
    """

    files: tuple[Path, ...]
    size: tuple[int, int]
    resize: int
    channels: int = 3
    workers: int = 4


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images [N, ...] (uint8, or float and normalised by the user) and int64 labels [N].

    With `image_files` the images are an empty tensor [0, ...] of the right shape, and the rows are
    read from the files. `iterate_batches` and `select_rows` read both kinds.
    """

    images: Tensor
    labels: Tensor
    image_files: ImageFiles | None = None

    def __post_init__(self) -> None:
        rows = len(self.images) if self.image_files is None else len(self.image_files.files)
        if rows != len(self.labels):
            raise UserError(
                f"a split needs one label per image, got {rows} images and {len(self.labels)} "
                "labels; pass arrays of equal length"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as numpy arrays, whose buffers are out of band: Ray workers map one copy."""
        return _split_from_arrays, (self.images.numpy(), self.labels.numpy(), self.image_files)


def _split_from_arrays(
    images: NDArray[np.generic], labels: NDArray[np.int64], image_files: ImageFiles | None
) -> Split:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only memory: nothing writes to it
        return Split(torch.from_numpy(images), torch.from_numpy(labels), image_files)


@dataclass(frozen=True, slots=True, eq=False)
class DataSplits:
    """Train, validation (never taken from test) and test split, with what a network must know.

    `mean` and `std` are per channel, for images scaled to 0..1. Float images have mean 0 and std 1
    unless the user gives others. `augment` is the training augmentation, one of AUGMENTATIONS.
    """

    name: str
    train: Split
    validation: Split
    test: Split | None
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_shape: tuple[int, ...]
    augment: str = "none"
    outputs: Outputs = Outputs()  # how the network's outputs are read
    notes: tuple[str, ...] = ()  # messages for the user about how the data were read

    def __post_init__(self) -> None:
        check_augment(self.augment)


def normalize_images(images: Tensor, data: DataSplits) -> Tensor:
    """Convert stored images to the normalised float32 tensor that networks take."""
    if not images.is_floating_point():
        images = images.to(torch.float32).div_(255.0)
    if all(m == 0.0 for m in data.mean) and all(s == 1.0 for s in data.std):
        return images.to(torch.float32)
    shape = (1, -1) + (1,) * (images.ndim - 2)
    mean = torch.tensor(data.mean, device=images.device).view(shape)
    std = torch.tensor(data.std, device=images.device).view(shape)
    return (images.to(torch.float32) - mean).div_(std)
