"""The channel map: which atoms a network has, and which rows and columns each of them owns.

Everything downstream is array work on this record: masking multiplies a layer's input by
`keep[in_atoms]`, surgery indexes weights with the same vectors, and the price is a sum over layers
of `c_l * kept_out(l) * kept_in(l)`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from ..arrays import Int32Array

LayerKind = Literal["conv", "linear", "channelwise", "shortcut", "heads"]
PRODUCER_KINDS = ("conv", "linear", "shortcut")  # kinds whose output channels are their own


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One module whose tensors are indexed by channels.

    conv, linear: weights. channelwise: one parameter row a channel (a norm, a PReLU), out = in.
    shortcut: our parameter-free zero-padding shortcut. heads: the core of our attention.
    """

    name: str
    kind: LayerKind
    out_atoms: Int32Array  # [C_out], -1 = never removed
    in_atoms: Int32Array  # [C_in], -1 = never removed
    conv_groups: int = 1
    macs_per_pair: int = 0  # multiply-adds a (in, out) pair costs, one sample, all calls
    params_per_pair: int = 0  # weights of a (in, out) pair: the kernel's size
    params_per_out: int = 0  # parameters of an output channel besides: bias, norm's affine


@dataclass(frozen=True, slots=True)
class Group:
    """The atoms of one coupled set of layers: the "layer" of the papers, for any network."""

    name: str  # its first producing layer's name
    layers: tuple[str, ...]  # the layers that produce its channels, in forward order


@dataclass(frozen=True, slots=True)
class ProtectedChannels:
    """Output channels of a layer that are never removed, and why."""

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A module whose weights no layer describes: what it does with them is not known."""

    module: str
    macs: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """All atoms of one network at one input shape. Atoms are numbered group by group."""

    layers: tuple[Layer, ...]  # in forward order
    groups: tuple[Group, ...]
    group_of: Int32Array  # [A]
    protected: tuple[ProtectedChannels, ...]
    input_shape: tuple[int, ...]  # of one sample
    fixed_macs: int = 0  # of weights that no layer describes
    fixed_params: int = 0
    unread: tuple[Unread, ...] = ()  # where the fixed MACs are

    @property
    def atoms(self) -> int:
        """A, the number of atoms."""
        return len(self.group_of)


def channel_map_digest(channel_map: ChannelMap) -> str:
    """A hash over the map's arrays."""
    digest = hashlib.sha256(repr(channel_map.input_shape).encode())
    for layer in channel_map.layers:
        costs = (layer.conv_groups, layer.macs_per_pair, layer.params_per_pair)
        digest.update(repr((layer.name, layer.kind, costs)).encode())
        digest.update(layer.out_atoms.tobytes() + layer.in_atoms.tobytes())
    digest.update(channel_map.group_of.tobytes())
    return digest.hexdigest()
