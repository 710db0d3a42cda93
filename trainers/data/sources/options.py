"""Options that every data source takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ....spaces.errors import UserError


def memory_limit() -> int:
    """Bytes of decoded images that may be held as arrays: PARETOPRUNE_MEMORY_GB, default 8."""
    text = os.environ.get("PARETOPRUNE_MEMORY_GB", "8")
    try:
        return int(float(text) * 2**30)
    except (ValueError, OverflowError):
        raise UserError(
            f"PARETOPRUNE_MEMORY_GB must be a number of GiB, got {text!r}; write 8"
        ) from None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load data: the validation split, download, image size, memory and workers."""

    seed: int = 0
    download: bool = False
    validation_share: float = 0.1
    image_size: int | None = None
    memory_limit: int = field(default_factory=memory_limit)
    workers: int = 4
