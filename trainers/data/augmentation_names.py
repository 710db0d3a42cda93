"""The names of the training augmentations. This module does not import torch."""

from __future__ import annotations

from ...spaces.errors import UserError

AUGMENTATIONS = ("none", "crop", "flip-crop")


def check_augment(augment: object) -> None:
    """Raise UserError if `augment` is not one of AUGMENTATIONS."""
    if augment not in AUGMENTATIONS:
        raise UserError(
            f"--augment must be one of {', '.join(AUGMENTATIONS)}, got {augment}; pick one of "
            "these"
        )
