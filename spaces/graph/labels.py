"""Labels: for every element of an activation, the id of the channel it belongs to (-1: none).

A label tensor has its activation's shape and stride 0 along every dimension in which the labels
do not vary, so a picture of 224 x 224 x 64 carries 64 numbers. `Couplings` is what a trace writes
down: which ids exist, which go together, which must stay and which passed through an operation
whose sizes the network's own code may have fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..arrays import IntArray


@dataclass(frozen=True, slots=True)
class LabelSite:
    """Ids that passed one place in the network, and what is to be said of it."""

    ids: IntArray
    reason: str


@dataclass(slots=True)
class Couplings:
    """What a trace has learnt so far; grows as the network runs."""

    producer: list[IntArray] = field(default_factory=list)  # one array a call of `fresh`
    pairs: list[IntArray] = field(default_factory=list)  # each [n, 2]
    protected: list[LabelSite] = field(default_factory=list)
    fragile: list[LabelSite] = field(default_factory=list)
    size: int = 0

    def new_ids(self, channels: int, layer: int) -> Tensor:
        """New ids for the output channels of a layer."""
        ids = torch.arange(self.size, self.size + channels)
        self.producer.append(np.full(channels, layer, dtype=np.int64))
        self.size += channels
        return ids

    def protect(self, labels: Tensor | None, reason: str) -> None:
        """Never remove the channels in `labels`."""
        self._note(self.protected, labels, reason)

    def mark_fragile(self, labels: Tensor | None, reason: str) -> None:
        """Suspect these channels if the cut network turns out wrong."""
        self._note(self.fragile, labels, reason)

    def _note(self, sites: list[LabelSite], labels: Tensor | None, reason: str) -> None:
        if labels is None:
            return
        ids = np.unique(squeeze_constant_dims(labels).numpy())
        ids = ids[ids >= 0]
        if len(ids):
            sites.append(LabelSite(ids, reason))

    def tie(self, one: Tensor, other: Tensor, reason: str) -> Tensor:
        """Tie two label tensors of one shape element by element; the labels of both together."""
        one, other = broadcast_compactly((one, other))
        known_one, known_other = one >= 0, other >= 0
        both = known_one & known_other & (one != other)
        if bool(both.any()):
            found = torch.stack((one[both], other[both]), dim=1).numpy()
            self.pairs.append(np.unique(found, axis=0))
        self.protect(one[known_one & ~known_other], reason)
        self.protect(other[known_other & ~known_one], reason)
        return torch.where(known_one, one, other)

    def tie_along(self, labels: Tensor, dim: int, reason: str) -> Tensor:
        """Tie all positions along `dim` with the first; the labels are constant there after."""
        first = labels.narrow(dim, 0, 1).expand(labels.shape)
        return self.tie(first, labels, reason).narrow(dim, 0, 1).expand(labels.shape)


def varying_dims(labels: Tensor) -> list[int]:
    """The dimensions along which compact labels vary."""
    return [d for d, size in enumerate(labels.shape) if size > 1 and labels.stride(d) != 0]


def squeeze_constant_dims(labels: Tensor) -> Tensor:
    """The labels with one position of every dimension in which they do not vary."""
    for dim, size in enumerate(labels.shape):
        if size > 1 and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def compact_labels(labels: Tensor) -> Tensor:
    """The same labels with stride 0 along every dimension in which they are equal."""
    shape, small = labels.shape, squeeze_constant_dims(labels)
    for dim, size in enumerate(small.shape):
        if size > 1:
            first = small.narrow(dim, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(shape)


def broadcast_compactly(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Broadcast labels to one shape, then narrow the dimensions in which none of them varies."""
    shape = np.broadcast_shapes(*(t.shape for t in tensors))
    spread = [t.expand(shape) for t in tensors]
    for dim in range(spread[0].ndim):
        if all(t.shape[dim] > 1 and t.stride(dim) == 0 for t in spread):
            spread = [t.narrow(dim, 0, 1) for t in spread]
    return spread


def channel_vector(labels: Tensor, dim: int) -> Tensor | None:
    """The labels along `dim` if they vary along no other dimension."""
    dim %= labels.ndim
    if any(d != dim for d in varying_dims(labels)):
        return None
    for other in reversed(range(labels.ndim)):
        if other != dim:
            labels = labels.select(other, 0)
    return labels


def concatenate_labels(parts: Iterable[Tensor], dim: int) -> Tensor:
    """Concatenate labels without writing out the dimensions in which no part varies."""
    parts = list(parts)
    dim %= parts[0].ndim
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    for other in range(len(shape)):
        if other != dim and not any(other in varying_dims(part) for part in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    return compact_labels(torch.cat(parts, dim).expand(shape))
