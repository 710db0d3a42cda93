"""Cut a network in place: index the tensors of its layers with the kept channels.

Both surgery and the verification of channel maps use it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from ..arrays import Int32Array, Mask
from ..errors import UserError
from .channels import ChannelMap, Layer
from .modules.attention import AttentionHeads
from .modules.option_a_shortcut import OptionAShortcut


def slice_layers(model: nn.Module, channel_map: ChannelMap, keep: Mask) -> None:
    """Cut every layer of `model` in place to the channels of a mask [A].

    Raises:
        UserError: If a layer would keep no channel.
    """
    for layer in channel_map.layers:
        kept_out, kept_in = (
            kept_channels(layer.out_atoms, keep),
            kept_channels(layer.in_atoms, keep),
        )
        if not (kept_out.all() and kept_in.all()):
            _slice_module(model.get_submodule(layer.name), layer, kept_out, kept_in)


def kept_channels(atoms: Int32Array, keep: Mask) -> Tensor:
    """Return which channels of one side of a layer a mask keeps: bool [C]."""
    return torch.from_numpy(np.append(keep, True)[atoms])


def _slice_module(module: nn.Module, layer: Layer, kept_out: Tensor, kept_in: Tensor) -> None:
    if not kept_out.any() or not kept_in.any():
        raise UserError(
            f"a mask must keep a channel of every layer, got none of {layer.name}; "
            "keep one atom of each group"
        )
    match layer.kind:
        case "conv":
            _slice_conv(module, layer, kept_out, kept_in)
        case "linear":
            _index_tensor(module, "weight", kept_out, kept_in)
            _index_tensor(module, "bias", kept_out)
            _set_widths(
                module, out_features=_count_kept(kept_out), in_features=_count_kept(kept_in)
            )
        case "channelwise":
            for name in ("weight", "bias", "running_mean", "running_var"):
                _index_tensor(module, name, kept_out)
            width = "num_parameters" if isinstance(module, nn.PReLU) else "num_features"
            _set_widths(module, **{width: _count_kept(kept_out)})
        case "shortcut":
            assert isinstance(module, OptionAShortcut)
            module.keep_channels(kept_out.to(module.index.device), kept_in.to(module.index.device))
        case "heads":
            assert isinstance(module, AttentionHeads)
            module.keep_heads(kept_out)
            _index_tensor(module, "table", slice(None), kept_out)


def _slice_conv(module: nn.Module, layer: Layer, kept_out: Tensor, kept_in: Tensor) -> None:
    out: Tensor | slice = kept_out
    into: Tensor | slice = kept_in
    if layer.conv_groups > 1:  # whole groups are removed; the other side is one group's width
        _set_widths(module, groups=layer.conv_groups * _count_kept(kept_in) // len(kept_in))
        if isinstance(module, _ConvTransposeNd):
            out = slice(None)
        else:
            into = slice(None)
    sides = (into, out) if isinstance(module, _ConvTransposeNd) else (out, into)
    _index_tensor(module, "weight", *sides)
    _index_tensor(module, "bias", kept_out)
    _set_widths(module, out_channels=_count_kept(kept_out), in_channels=_count_kept(kept_in))


def _set_widths(module: nn.Module, **widths: int) -> None:
    for name, width in widths.items():
        setattr(module, name, width)


def _count_kept(kept: Tensor) -> int:
    return int(kept.sum())


def _index_tensor(module: nn.Module, name: str, *sides: Tensor | slice) -> None:
    """Replace a parameter or buffer by its kept rows (and columns)."""
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    small = tensor.detach()
    for dim, side in enumerate(sides):
        if isinstance(side, Tensor):
            small = small.index_select(dim, side.nonzero().flatten().to(small.device))
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(small.clone(), requires_grad=tensor.requires_grad))
    else:
        setattr(module, name, small.clone())
