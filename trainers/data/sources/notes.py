"""Notes for the user about the splits: one line per automatic decision or likely mistake."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..splits import Split

COMPARED_IMAGES = 64


def validation_note(validation: int, train: int) -> str:
    """The note that validation was split off from train."""
    return (
        f"no validation split is given: {validation:,} of {validation + train:,} training images "
        "are split off from train for it, the same share of every class"
    )


def split_notes(
    train: Split, validation: Split, test: Split | None, classes: int
) -> Iterator[str]:
    """Yield notes about classes without images and about splits with the same images."""
    present = set(train.labels.tolist())
    absent = classes - len(present)
    if absent:
        first = next(label for label in range(classes) if label not in present)
        yield (
            f"warning: {absent:,} of {classes:,} classes have no image, label {first} first: the "
            "number of classes is the largest label + 1; number the labels from 0 without gaps, "
            "or ignore this if the network has these classes"
        )
    missing = sorted(present - set(validation.labels.tolist()))
    if missing:
        yield (
            f"warning: {len(missing):,} of {classes:,} classes have no validation image, label "
            f"{missing[0]} first: no accuracy is measured on them; add images of them there"
        )
    if are_same(train, validation):
        yield (
            "warning: validation has the same images as train: its accuracy is that of training "
            "images; pass another split"
        )
    if test is not None and are_same(validation, test):
        yield (
            "warning: test has the same images as validation, which selects the networks: its "
            "accuracy is optimistic; pass another split"
        )


def are_same(one: Split, other: Split) -> bool:
    """True if two splits in memory have the same labels and the same first images."""
    if one.image_files is not None or other.image_files is not None:
        return False
    if not torch.equal(one.labels, other.labels):
        return False
    return torch.equal(one.images[:COMPARED_IMAGES], other.images[:COMPARED_IMAGES])


def layout_note(shape: tuple[int, ...]) -> str | None:
    """A warning if the channels of the images seem to be the last dimension, else None."""
    if len(shape) != 3 or shape[2] not in (1, 3, 4) or min(shape[:2]) <= 4:
        return None
    return (
        f"warning: images are read as [channels, height, width], got {shape}, which is "
        f"{shape[0]} channels; if the channels are last, pass images.permute(0, 3, 1, 2)"
    )
