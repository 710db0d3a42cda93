"""A network with one gate per atom. The gates multiply the weights that read the atoms.

    W (g * x) = (W * g) x

A convolution is linear in its inputs, so multiplying the input columns of the consumers' weights
equals masking. It is cheap, because layers have fewer weights than activations. The gated network
has the trained network as a child and replaces its weights during a forward pass only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvTransposeNd

from ....spaces.graph.channels import ChannelMap, Layer
from ....spaces.graph.modules.option_a_shortcut import OptionAShortcut
from .indicators import INDICATORS

GATE_LIMIT = 1.0  # gate values are clamped to -GATE_LIMIT..GATE_LIMIT
GRADIENT_EMA_DECAY = 0.9  # of the mean square of the task's gradient


@dataclass(frozen=True, slots=True, eq=False)
class _GatedTensor:
    """A tensor of a layer that is multiplied by the gates of the layer's inputs."""

    module: nn.Module
    name: str  # in the state dict of the network
    attribute: str
    shape: tuple[int, ...]  # to which the factors are broadcast

    @property
    def factors(self) -> int:
        """The number of factors; a gate may occur several times."""
        return max(self.shape)


class GatedNetwork(nn.Module):
    """`model` with gate values [A]; in eval mode every gate is exactly open or closed.

    Args:
        model: The network to gate.
        channel_map: Its channel map.
        values: The initial gate values [A].
        variant: A name of INDICATORS.
        floor: The least number of open gates per group.
        steps: The length of the run.
    """

    gates: nn.Parameter
    closed: Tensor  # int64 [A], the number of steps for which each gate has been closed
    loudness: Tensor  # the moving average of the mean square of the task's gradient
    share: Tensor  # the completed share of the run
    sizes: Tensor  # [steps, 2], the exact cost after each forward pass; NaN: not reached yet
    _atoms: Tensor
    _members: Tensor

    def __init__(
        self,
        model: nn.Module,
        channel_map: ChannelMap,
        values: Tensor,
        *,
        variant: str,
        floor: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.model, self.indicator, self.floor = model, INDICATORS[variant], floor
        self.gates = nn.Parameter(values.detach().float().clone())
        self.mask: Tensor | None = None  # of the last forward pass in training mode
        self.register_buffer("closed", torch.zeros(len(values), dtype=torch.int64))
        self.register_buffer("loudness", torch.zeros(()))
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("sizes", torch.full((steps, 2), torch.nan, dtype=torch.float64))
        self._readers, atoms = _gated_tensors(model, channel_map)
        self.register_buffer("_atoms", torch.from_numpy(atoms), persistent=False)
        members = torch.from_numpy(_group_members(channel_map))
        self.register_buffer("_members", members, persistent=False)

    def forward(self, x: Tensor) -> object:
        """The output of the gated network."""
        if self.training:
            with torch.no_grad():
                self.gates.clamp_(-GATE_LIMIT, GATE_LIMIT)
            opened = self.open_gates()
            self.closed = torch.where(opened, 0, self.closed + 1)
            soft = self.indicator(self.gates, self.share)
            self.mask = torch.where(opened & (self.gates <= 0), torch.ones_like(soft), soft)
            mask = self.mask * 1.0  # a node that gets the gradient of the task only
            mask.register_hook(self._normalize_gradient)  # type: ignore[no-untyped-call]
        else:
            mask = self.open_gates().to(self.gates.dtype)
        return functional_call(self.model, self._gated_state(mask), (x,))

    @torch.no_grad()
    def open_gates(self) -> Tensor:
        """The open gates, bool [A]: v > 0, and the `floor` highest of every group."""
        padded = torch.cat((self.gates, self.gates.new_full((1,), -torch.inf)))
        floor = min(self.floor, self._members.shape[1])
        highest = self._members.gather(1, padded[self._members].topk(floor, dim=1).indices)
        opened = padded > 0
        opened[highest] = True
        return opened[:-1]

    def _gated_state(self, mask: Tensor) -> dict[str, Tensor]:
        """The tensors that replace those of the layers in a forward pass."""
        padded = torch.cat((mask, mask.new_ones(1)))  # index A: never removed
        sizes = [reader.factors for reader in self._readers]
        factors = torch.split(padded[self._atoms], sizes)
        return {
            reader.name: getattr(reader.module, reader.attribute) * part.view(reader.shape)
            for reader, part in zip(self._readers, factors, strict=True)
        }

    def _normalize_gradient(self, gradient: Tensor) -> Tensor:
        """Scale the task's gradient to a mean square of 1, for any network and loss."""
        square = gradient.detach().double().square().mean().to(self.loudness.dtype)
        mean = GRADIENT_EMA_DECAY * self.loudness + (1 - GRADIENT_EMA_DECAY) * square
        self.loudness = torch.where(self.loudness > 0, mean, square)
        return gradient / self.loudness.sqrt().clamp(min=1e-30)


def _gated_tensors(
    model: nn.Module, channel_map: ChannelMap
) -> tuple[list[_GatedTensor], NDArray[np.int64]]:
    """The tensors that gates multiply, and the concatenated atoms of their factors (A: 1)."""
    readers: list[_GatedTensor] = []
    atoms: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    for layer in channel_map.layers:
        module = model.get_submodule(layer.name)
        found = _gated_tensor_of_layer(layer, module)
        if found is None or (found[2] < 0).all():
            continue
        attribute, dim, gates = found
        shape = [1] * getattr(module, attribute).ndim
        shape[dim] = len(gates)
        readers.append(_GatedTensor(module, f"{layer.name}.{attribute}", attribute, tuple(shape)))
        atoms.append(np.where(gates < 0, channel_map.atoms, gates).astype(np.int64))
    return readers, np.concatenate(atoms)


def _gated_tensor_of_layer(
    layer: Layer, module: nn.Module
) -> tuple[str, int, NDArray[np.int32]] | None:
    """The tensor that multiplies a layer's inputs, its input dimension, and the atoms along it."""
    if isinstance(module, OptionAShortcut):
        index = module.index.cpu().numpy()
        return "scale", 0, np.where(index < 0, -1, layer.in_atoms[index])
    if layer.kind not in ("conv", "linear"):
        return None
    transposed = isinstance(module, _ConvTransposeNd)
    if layer.conv_groups == 1 or transposed:
        return "weight", 0 if transposed else 1, layer.in_atoms
    # a convolution group is one atom: its inputs and its outputs are removed together
    group_atoms = layer.in_atoms.reshape(layer.conv_groups, -1)[:, 0]
    return "weight", 0, np.repeat(group_atoms, len(layer.out_atoms) // layer.conv_groups)


def _group_members(channel_map: ChannelMap) -> NDArray[np.int64]:
    """The atoms of every group as a table [groups, widest], padded with A."""
    groups = len(channel_map.groups)
    sizes = np.bincount(channel_map.group_of, minlength=groups)
    table = np.full((groups, int(sizes.max(initial=1))), channel_map.atoms, dtype=np.int64)
    for group in range(groups):
        table[group, : sizes[group]] = np.flatnonzero(channel_map.group_of == group)
    return table
