"""The rows of each batch of one pass over a split."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def batch_indices(
    count: int, batch_size: int, generator: torch.Generator | None
) -> Iterator[Tensor | slice]:
    """Yield the rows of each batch: in order, or shuffled if a generator is given.

    A shuffled pass drops the rows that do not fill the last batch.
    """
    if generator is None:
        for start in range(0, count, batch_size):
            yield slice(start, min(start + batch_size, count))
        return
    order = torch.randperm(count, generator=generator)
    size = min(batch_size, count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]
