"""Labels: the id of the channel that each element of an activation belongs to (-1: none).

A label tensor has the shape of its activation and stride 0 along dimensions in which the labels do
not vary, so an activation of 224 x 224 x 64 stores 64 labels. `Couplings` records which ids exist,
which are tied, which are protected, and which passed an operation whose sizes may be fixed in the
network's code.
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
    """Ids at one place in the network, and why they are recorded."""

    ids: IntArray
    reason: str


@dataclass(slots=True)
class Couplings:
    """The ids of a trace and the relations between them; grows as the network runs."""

    producer: list[IntArray] = field(
        default_factory=list
    )  # layer of each id, one array per `new_ids`
    pairs: list[IntArray] = field(default_factory=list)  # tied ids, each [n, 2]
    protected: list[LabelSite] = field(default_factory=list)
    fragile: list[LabelSite] = field(default_factory=list)
    size: int = 0

    def new_ids(self, channels: int, layer: int) -> Tensor:
        """Return new ids for the output channels of a layer."""
        ids = torch.arange(self.size, self.size + channels)
        self.producer.append(np.full(channels, layer, dtype=np.int64))
        self.size += channels
        return ids

    def protect(self, labels: Tensor | None, reason: str) -> None:
        """Record that the channels in `labels` are never removed."""
        self._note(self.protected, labels, reason)

    def mark_fragile(self, labels: Tensor | None, reason: str) -> None:
        """Record channels to protect if the cut network is wrong."""
        self._note(self.fragile, labels, reason)

    def _note(self, sites: list[LabelSite], labels: Tensor | None, reason: str) -> None:
        if labels is None:
            return
        ids = np.unique(squeeze_constant_dims(labels).numpy())
        ids = ids[ids >= 0]
        if len(ids):
            sites.append(LabelSite(ids, reason))

    def tie(self, one: Tensor, other: Tensor, reason: str) -> Tensor:
        """Tie two label tensors element by element and return the combined labels.

        An id that meets -1 is protected.
        """
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
        """Tie all positions along `dim` to the first; the result is constant along `dim`."""
        first = labels.narrow(dim, 0, 1).expand(labels.shape)
        return self.tie(first, labels, reason).narrow(dim, 0, 1).expand(labels.shape)


def varying_dims(labels: Tensor) -> list[int]:
    """Return the dimensions along which compact labels vary."""
    return [d for d, size in enumerate(labels.shape) if size > 1 and labels.stride(d) != 0]


def squeeze_constant_dims(labels: Tensor) -> Tensor:
    """Narrow each dimension in which labels do not vary to one position."""
    for dim, size in enumerate(labels.shape):
        if size > 1 and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def compact_labels(labels: Tensor) -> Tensor:
    """Return the same labels with stride 0 along each dimension in which they are equal."""
    shape, small = labels.shape, squeeze_constant_dims(labels)
    for dim, size in enumerate(small.shape):
        if size > 1:
            first = small.narrow(dim, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(shape)


def broadcast_compactly(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Broadcast labels to one shape, then narrow dimensions in which none of them varies."""
    shape = np.broadcast_shapes(*(t.shape for t in tensors))
    spread = [t.expand(shape) for t in tensors]
    for dim in range(spread[0].ndim):
        if all(t.shape[dim] > 1 and t.stride(dim) == 0 for t in spread):
            spread = [t.narrow(dim, 0, 1) for t in spread]
    return spread


def channel_vector(labels: Tensor, dim: int) -> Tensor | None:
    """Return the labels along `dim`; None if they vary along another dimension."""
    dim %= labels.ndim
    if any(d != dim for d in varying_dims(labels)):
        return None
    for other in reversed(range(labels.ndim)):
        if other != dim:
            labels = labels.select(other, 0)
    return labels


def concatenate_labels(parts: Iterable[Tensor], dim: int) -> Tensor:
    """Concatenate labels without expanding dimensions in which no part varies."""
    parts = list(parts)
    dim %= parts[0].ndim
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    for other in range(len(shape)):
        if other != dim and not any(other in varying_dims(part) for part in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    return compact_labels(torch.cat(parts, dim).expand(shape))
