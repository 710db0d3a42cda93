"""Convert a user's arrays, tensors, torch Datasets or DataLoaders to `DataSplits`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ....spaces.errors import UserError
from ...runtime.user_code import describe_exception
from ..splits import DataSplits, Split
from ..stratified import stratified_split
from .loaders import build_reader, loader_notes
from .notes import layout_note, split_notes, validation_note
from .options import LoadOptions

IMAGES_PER_CHECK = 4096  # images per check for NaN, to bound the memory
SPLITS = ("train", "validation", "test")
ACCEPTED_FORMS = (
    "(train, validation) or (train, validation, test), each (images, labels) or a Dataset"
)


def convert_user_data(data: object, *, seed: int = 0, name: str = "user") -> DataSplits:
    """Convert the user's data to `DataSplits`.

    Args:
        data: `DataSplits`, one split, or a tuple (train, validation) or (train, validation, test).
            A split is (images, labels) as arrays or tensors, a Dataset or a DataLoader.
        seed: The seed with which a missing validation split is split off from train, stratified.
        name: The name of the data in messages and caches.

    Raises:
        UserError: if the data have another form, or images or labels are invalid.
    """
    if isinstance(data, DataSplits):
        check_finite(data.train, data.validation, data.test)
        return data
    parts = _split_parts(data)
    splits = [_read_split(part) for part in parts]
    notes = _reading_notes(parts, splits)
    if len(splits) == 1:
        splits = list(_split_off_validation(splits[0], seed))
        notes.append(validation_note(len(splits[1]), len(splits[0])))
    train, validation = splits[0], splits[1]
    test = splits[2] if len(splits) == 3 else None
    _check_splits(train, validation, test)
    check_finite(train, validation, test)
    shape = tuple(train.images.shape[1:])
    mean, std = _normalization_statistics(train.images)
    classes = int(train.labels.max()) + 1
    notes += split_notes(train, validation, test, classes)
    if layout := layout_note(shape):
        notes.append(layout)
    return DataSplits(name, train, validation, test, classes, mean, std, shape, notes=tuple(notes))


def _reading_notes(parts: Sequence[object], splits: Sequence[Split]) -> list[str]:
    """Notes about Datasets and DataLoaders; call it after all of them were read."""
    notes: list[str] = []
    for name, part, split in zip(SPLITS, parts, splits, strict=False):
        if isinstance(part, torch.utils.data.Dataset | torch.utils.data.DataLoader):
            notes += loader_notes(part, name, len(split))
    return notes


def _split_parts(data: object) -> Sequence[object]:
    """The one to three splits in the user's data; a single (images, labels) is one split."""
    if _is_array_pair(data) or not isinstance(data, (tuple, list)):
        return [data]
    if not 1 <= len(data) <= 3:
        raise UserError(f"data must be {ACCEPTED_FORMS}, got {len(data)} parts; pass one to three")
    return data


def _is_array_pair(part: object) -> bool:
    if not (isinstance(part, (tuple, list)) and len(part) == 2):
        return False
    images, labels = part
    arrays = (Tensor, np.ndarray)
    return isinstance(images, arrays) and isinstance(labels, arrays) and images.ndim > 1


def _read_split(part: object) -> Split:
    """Read one split into memory; Datasets and DataLoaders are read once, see `loaders`."""
    if isinstance(part, Split):
        return part
    if isinstance(part, (tuple, list)) and _is_array_pair(part):
        return Split(_as_images(part[0]), _as_labels(part[1]))
    if not isinstance(part, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise UserError(
            f"data must be {ACCEPTED_FORMS}, got {type(part).__name__}; convert it to one"
        )
    try:
        batches = [(_as_images(x), _as_labels(y)) for x, y in build_reader(part)]
        if not batches:
            raise UserError("a split must hold images, got an empty dataset; pass at least one")
        return Split(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))
    except UserError:
        raise
    except Exception as error:  # a user's dataset may raise anything
        raise UserError(
            f"a dataset must yield pairs (image, label), all images of one shape, got "
            f"{describe_exception(error)}; fix it"
        ) from error


def _tensor(value: object, what: str) -> Tensor:
    """Convert a tensor, an array or numbers to a detached tensor on the CPU."""
    try:
        if isinstance(value, np.ndarray):
            value = np.require(value, value.dtype.newbyteorder("="), "C")
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        found = f"{type(value).__name__} ({' '.join(str(error).split())[:160]})"
        raise UserError(
            f"{what} must be a tensor or an array of numbers, got {found}; convert them"
        ) from None


def _as_images(value: object) -> Tensor:
    images = _tensor(value, "images")
    if images.dtype not in (torch.uint8, torch.float32):
        if not images.is_floating_point():
            raise UserError(
                f"images must be uint8 or float, got {images.dtype}; convert them to one of these"
            )
        images = images.to(torch.float32)
    return images


def _as_labels(value: object) -> Tensor:
    labels = _tensor(value, "labels")
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise UserError(
            "labels must be one class index per image, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}; pass integers of shape [N], "
            "without a collate_fn that mixes labels"
        )
    return labels.to(torch.int64)


def _split_off_validation(split: Split, seed: int) -> tuple[Split, Split]:
    rng = np.random.default_rng(seed)
    parts = stratified_split(split.labels.numpy(), LoadOptions().validation_share, rng=rng)
    rows = map(torch.from_numpy, parts)
    train, validation = (Split(split.images[r], split.labels[r]) for r in rows)
    return train, validation


def _normalization_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of uint8 images; 0 and 1 for float images."""
    channels = images.shape[1]
    if images.is_floating_point():
        return (0.0,) * channels, (1.0,) * channels
    return channel_statistics(images)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of up to 5,000 uint8 images, scaled to 0..1."""
    step = max(1, len(images) // 5000)
    sample = images[::step].to(torch.float32).div_(255).transpose(0, 1).flatten(1)
    mean, std = sample.mean(1), sample.std(1).clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def _check_splits(train: Split, *others: Split | None) -> None:
    """Raise UserError for empty splits, different shapes and classes that train lacks."""
    for split in (train, *others):
        if split is not None and len(split) == 0:
            raise UserError("a split must hold images, got an empty one; give it at least one")
    if int(train.labels.min()) < 0:
        raise UserError(
            f"labels must be >= 0, got {int(train.labels.min())}; number the classes from 0"
        )
    for split in others:
        if split is None:
            continue
        if split.images.shape[1:] != train.images.shape[1:]:
            raise UserError(
                f"all splits must have images of one shape, got {tuple(train.images.shape[1:])} "
                f"and {tuple(split.images.shape[1:])}; resize them alike"
            )
        unseen = sorted(set(split.labels.tolist()) - set(train.labels.tolist()))
        if unseen:
            raise UserError(
                f"every class must occur in train, got {unseen[0]} only elsewhere; "
                "add training images of it, remove it, or correct its label"
            )


def check_finite(*splits: Split | None) -> None:
    """Raise UserError for float images with NaN or infinite values: they make every loss NaN."""
    for name, split in zip(SPLITS, splits, strict=True):
        if split is None or not split.images.is_floating_point():
            continue
        for start in range(0, len(split.images), IMAGES_PER_CHECK):
            rows = split.images[start : start + IMAGES_PER_CHECK].flatten(1)
            finite = rows.isfinite().all(1)
            if finite.all():
                continue
            row = int(finite.int().argmin())
            value = float(rows[row][~rows[row].isfinite()][0])
            raise UserError(
                f"images must be finite, got {value} in image {start + row} of {name}; "
                "remove or correct it"
            )
