"""Mask a network: forward pre-hooks replace the removed channels of a layer's input by zeros.

The network keeps its size, so the mask can change from batch to batch or from sample to sample.
`prune_network` gives a smaller network with the same outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.graph.channels import ChannelMap, Layer

READER_KINDS = ("conv", "linear", "shortcut")


class BatchRegroupedError(UserError):
    """A network that regroups its batch cannot have one mask per sample."""


@contextmanager
def masked(
    model: nn.Module, channel_map: ChannelMap, keep: NDArray[np.bool_] | Tensor
) -> Iterator[nn.Module]:
    """Mask `model` inside the block.

    Args:
        model: The network; its hooks are removed after the block.
        channel_map: Its channel map.
        keep: One mask [A], or one per sample [N, A]. A tensor may hold numbers in [0, 1] and carry
            gradients.
    """
    mask = torch.as_tensor(keep)
    if mask.shape[-1] != channel_map.atoms or mask.ndim > 2:
        raise UserError(
            f"a mask must be [{channel_map.atoms}] or [N, {channel_map.atoms}], got "
            f"{list(mask.shape)}; make it from the channel map of this network"
        )
    handles = []
    try:
        for layer in channel_map.layers:
            if layer.kind in READER_KINDS and _affects_layer(mask, layer):
                hook = _mask_hook(layer, mask)
                handles.append(model.get_submodule(layer.name).register_forward_pre_hook(hook))
        yield model
    finally:
        for handle in handles:
            handle.remove()


def _affects_layer(mask: Tensor, layer: Layer) -> bool:
    """True if the mask may change the input of a layer."""
    if mask.ndim == 2:  # one mask per sample: the hook checks their number
        return bool((layer.in_atoms >= 0).any())
    atoms = torch.from_numpy(layer.in_atoms[layer.in_atoms >= 0].astype(np.int64))
    return len(atoms) > 0 and (mask.requires_grad or not bool((mask[..., atoms] == 1).all()))


def _mask_hook(layer: Layer, mask: Tensor) -> Any:
    """A forward pre-hook that multiplies the input's channels by the mask."""
    padded = torch.cat((mask, torch.ones_like(mask[..., :1])), dim=-1)  # atom -1: never removed
    factors = padded[..., torch.from_numpy(layer.in_atoms.astype(np.int64))]

    def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal factors
        x = args[0]
        factors = factors.to(x.device, x.dtype)
        if factors.ndim == 2 and len(factors) != len(x):
            raise BatchRegroupedError(
                f"masks must be one per sample, got {len(factors)} for a batch of {len(x)} at "
                f"{layer.name}; give a single mask [A] to a network that regroups its batch"
            )
        shape = [len(x) if factors.ndim == 2 else 1] + [1] * (x.ndim - 1)
        shape[-1 if layer.kind == "linear" else 1] = factors.shape[-1]
        return (x * factors.view(shape), *args[1:])

    return hook
