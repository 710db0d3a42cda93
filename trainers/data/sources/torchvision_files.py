"""`cifar10:DIR`, `cifar100:DIR`, `mnist:DIR`, `fashion-mnist:DIR`: torchvision's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....spaces.errors import UserError
from ..image_options import CIFAR10
from ..splits import DataSplits, Split
from ..stratified import stratified_split
from .archive import find_dataset_root
from .notes import validation_note
from .options import LoadOptions
from .stored import load_cached_source


@dataclass(frozen=True, slots=True)
class TorchvisionFormat:
    """A torchvision class, the directory that it reads, and the properties of its images."""

    loader: str
    marker: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str


TORCHVISION_FORMATS = {
    "cifar10": TorchvisionFormat(
        "CIFAR10",
        "cifar-10-batches-py",
        10,
        *CIFAR10,
        "flip-crop",
    ),
    "cifar100": TorchvisionFormat(
        "CIFAR100",
        "cifar-100-python",
        100,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        "flip-crop",
    ),
    "mnist": TorchvisionFormat("MNIST", "MNIST", 10, (0.1307,), (0.3081,), "none"),
    "fashion-mnist": TorchvisionFormat(
        "FashionMNIST", "FashionMNIST", 10, (0.2860,), (0.3530,), "none"
    ),
}


def read(name: str, where: str, reading: LoadOptions) -> DataSplits:
    """Load a torchvision data set; with `download` the files are downloaded first."""
    kind = name.partition(":")[0]
    if reading.download:
        Path(where).mkdir(parents=True, exist_ok=True)
        _load_arrays(TORCHVISION_FORMATS[kind], Path(where), train=True, download=True)
    return load_cached_source(name, where, reading, lambda path, how: _build_data(kind, path, how))


def _build_data(kind: str, path: Path, reading: LoadOptions) -> DataSplits:
    files = TORCHVISION_FORMATS[kind]
    root = path.parent if path.name == files.marker else find_dataset_root(path, files.marker)
    if root is None:
        raise UserError(
            f"{kind} needs a directory that holds {files.marker}/, got {path} without it; "
            "name its parent or allow the download"
        )
    images, labels = _load_arrays(files, root, train=True)
    rng = np.random.default_rng(reading.seed)
    train, validation = stratified_split(labels.numpy(), reading.validation_share, rng=rng)
    return DataSplits(
        name=kind,
        train=Split(images[train], labels[train]),
        validation=Split(images[validation], labels[validation]),
        test=Split(*_load_arrays(files, root, train=False)),
        classes=files.classes,
        mean=files.mean,
        std=files.std,
        input_shape=tuple(images.shape[1:]),
        augment=files.augment,
        notes=(validation_note(len(validation), len(train)),),
    )


def _load_arrays(
    files: TorchvisionFormat, root: Path, *, train: bool, download: bool = False
) -> tuple[Tensor, Tensor]:
    """One split as uint8 [N, C, H, W] and labels; torchvision verifies the checksums."""
    from torchvision import datasets

    try:
        dataset = getattr(datasets, files.loader)(str(root), train=train, download=download)
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise UserError(
            f"{files.loader} files must be intact, got {root} which torchvision cannot read "
            f"({reason}); download them again"
        ) from None
    images = torch.as_tensor(dataset.data)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images, torch.as_tensor(dataset.targets, dtype=torch.int64)
