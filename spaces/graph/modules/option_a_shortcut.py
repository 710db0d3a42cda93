"""The parameter-free shortcut of CIFAR ResNets ("option A"): subsample, pad with zero channels.

Output channel c copies input channel `index[c]`, or is zero where that is -1. Therefore a channel
and its copy in the next stage are two atoms: if only the input channel is removed, the output is
zero, as padded channels are. `scale[c]` is 0 for zero channels and 1 otherwise; during gate
training it is the gate of the copied channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OptionAShortcut(nn.Module):
    """Take every `stride`-th position and center the channels among `channels_out` channels."""

    index: Tensor
    scale: Tensor

    def __init__(self, channels_in: int, channels_out: int, stride: int = 2) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = channels_in, channels_out, stride
        before = (channels_out - channels_in) // 2
        index = torch.full((channels_out,), -1)
        index[before : before + channels_in] = torch.arange(channels_in)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("scale", (index >= 0).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, channels_out, H / stride, W / stride]."""
        x = x[:, :, :: self.stride, :: self.stride]
        copied = x.index_select(1, self.index.clamp(min=0))
        return copied * self.scale.to(x.dtype).view(1, -1, 1, 1)

    def keep_channels(self, kept_out: Tensor, kept_in: Tensor) -> None:
        """Cut to the kept channels; an output channel whose input is removed becomes zero."""
        position = torch.where(kept_in, kept_in.cumsum(0) - 1, -1)
        position = torch.cat((position, position.new_full((1,), -1)))  # index -1 stays -1
        self.index = position[self.index[kept_out]]
        self.scale = (self.index >= 0).to(self.scale.dtype)
        self.in_channels, self.out_channels = int(kept_in.sum()), int(kept_out.sum())

    def extra_repr(self) -> str:
        """Show the widths, as convolutions do."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"
