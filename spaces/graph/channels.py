"""The channel map: the atoms of a network and the channels of each layer that they own.

All later steps are array operations on this record: masking multiplies a layer's input by
`keep[in_atoms]`, surgery indexes weights with the same vectors, and the cost is a sum over layers
of `c_l * kept_out(l) * kept_in(l)`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from ..arrays import Int32Array

LayerKind = Literal["conv", "linear", "channelwise", "shortcut", "heads"]
PRODUCER_KINDS = ("conv", "linear", "shortcut")  # kinds with output channels of their own


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One module whose tensors are indexed by channels.

    conv, linear: weights. channelwise: one parameter per channel (a norm, a PReLU), out = in.
    shortcut: an `OptionAShortcut`. heads: an `AttentionHeads`.
    """

    name: str
    kind: LayerKind
    out_atoms: Int32Array  # [C_out], -1 = never removed
    in_atoms: Int32Array  # [C_in], -1 = never removed
    conv_groups: int = 1
    macs_per_pair: int = 0  # multiply-adds per (in, out) pair, for one sample and all calls
    params_per_pair: int = 0  # weights per (in, out) pair: the kernel size
    params_per_out: int = 0  # other parameters per output channel: bias, affine of a norm


@dataclass(frozen=True, slots=True)
class Group:
    """The atoms of one set of coupled layers; papers call it a layer."""

    name: str  # name of its first producing layer
    layers: tuple[str, ...]  # layers that produce its channels, in forward order


@dataclass(frozen=True, slots=True)
class ProtectedChannels:
    """Output channels of a layer that are never removed, and why."""

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A module whose weights belong to no layer of the map, so that their use is unknown."""

    module: str
    macs: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """All atoms of one network at one input shape, numbered group by group."""

    layers: tuple[Layer, ...]  # in forward order
    groups: tuple[Group, ...]
    group_of: Int32Array  # [A], group of each atom
    protected: tuple[ProtectedChannels, ...]
    input_shape: tuple[int, ...]  # of one sample
    fixed_macs: int = 0  # of weights that belong to no layer
    fixed_params: int = 0
    unread: tuple[Unread, ...] = ()  # modules with the fixed MACs

    @property
    def atoms(self) -> int:
        """A, the number of atoms."""
        return len(self.group_of)


def channel_map_digest(channel_map: ChannelMap) -> str:
    """Return a SHA-256 of the map's arrays and costs."""
    digest = hashlib.sha256(repr(channel_map.input_shape).encode())
    for layer in channel_map.layers:
        costs = (layer.conv_groups, layer.macs_per_pair, layer.params_per_pair)
        digest.update(repr((layer.name, layer.kind, costs)).encode())
        digest.update(layer.out_atoms.tobytes() + layer.in_atoms.tobytes())
    digest.update(channel_map.group_of.tobytes())
    return digest.hexdigest()
