"""torchvision's shifted-window attention (Swin v1 and v2) with projections as modules.

Padding precedes the projections and the crop follows them, since each token is projected alone.
The core does the rolling, windows and heads. In v1, each head owns a column of the table of
relative positions. In v2, it owns a scale, and a small network computes the position bias.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionHeads


class ShiftedWindowHeads(AttentionHeads):
    """Attention within (shifted) windows: qkv [N, H, W, 3 * D] -> [N, H, W, D]."""

    streams = 2
    positions: Tensor

    def __init__(self, original: Any) -> None:
        dim = original.proj.in_features
        super().__init__(original.num_heads, dim // original.num_heads, original.attention_dropout)
        self.window, self.shift = tuple(original.window_size), tuple(original.shift_size)
        self.cosine = hasattr(original, "logit_scale")
        self.register_buffer("positions", original.relative_position_index.clone(), False)
        own = original.logit_scale if self.cosine else original.relative_position_bias_table
        own = own.detach().clone()
        self.table = nn.Parameter(own.view(1, -1) if self.cosine else own)  # [.., heads]

    def forward(self, qkv: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend within each window; `bias` [positions, heads] is given for v2 only."""
        batch, height, width, _ = qkv.shape
        rows, columns = height // self.window[0], width // self.window[1]
        shift = [
            0 if w >= s else x
            for w, s, x in zip(self.window, (height, width), self.shift, strict=True)
        ]
        back = torch.roll(qkv, [-s for s in shift], (1, 2)) if any(shift) else qkv
        x = back.view(batch, rows, self.window[0], columns, self.window[1], -1)
        tokens = self.window[0] * self.window[1]
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch * rows * columns, tokens, -1)
        q, k, v = (self.split(part) for part in x.chunk(3, dim=-1))
        logits = self._logits(q, k) + self._bias(bias, tokens)
        if any(shift):
            logits = logits.view(batch, rows * columns, self.heads, tokens, tokens)
            logits = logits + self._shift_mask(height, width, shift, qkv)[None, :, None]
            logits = logits.view(-1, self.heads, tokens, tokens)
        attention = F.dropout(logits.softmax(dim=-1), self.dropout, self.training)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        mixed = mixed.view(batch, rows, columns, *self.window, -1).permute(0, 1, 3, 2, 4, 5)
        mixed = mixed.reshape(batch, height, width, -1)
        return torch.roll(mixed, shift, (1, 2)) if any(shift) else mixed

    def _logits(self, q: Tensor, k: Tensor) -> Tensor:
        if not self.cosine:
            return torch.matmul(q * self.head_dim**-0.5, k.transpose(-2, -1))
        scale = self.table.clamp(max=math.log(100.0)).exp().view(-1, 1, 1)
        cosine: Tensor = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return cosine * scale

    def _bias(self, bias: Tensor | None, tokens: int) -> Tensor:
        rows: Tensor = (self.table if bias is None else bias)[self.positions]
        return rows.view(tokens, tokens, -1).permute(2, 0, 1).unsqueeze(0)

    def _shift_mask(self, height: int, width: int, shift: list[int], like: Tensor) -> Tensor:
        """Return -100 between tokens adjacent only by rolling: [windows, tokens, tokens]."""
        region = like.new_zeros(height, width)
        bounds = zip(self.window, shift, strict=True)
        down, across = [(slice(-w), slice(-w, -s), slice(-s, None)) for w, s in bounds]
        for i, rows in enumerate(down):
            for j, columns in enumerate(across):
                region[rows, columns] = 3 * i + j
        tokens = region.view(height // self.window[0], self.window[0], -1, self.window[1])
        tokens = tokens.permute(0, 2, 1, 3).reshape(-1, self.window[0] * self.window[1])
        return (tokens.unsqueeze(1) != tokens.unsqueeze(2)).to(like.dtype) * -100.0


class ExplicitWindowAttention(nn.Module):
    """The whole attention module: pad, project, attend, project, crop."""

    coordinates: Tensor

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.dropout = original.dropout
        self.qkv, self.core, self.proj = original.qkv, ShiftedWindowHeads(original), original.proj
        self.cpb_mlp = getattr(original, "cpb_mlp", None)
        if self.cpb_mlp is not None:
            table = original.relative_coords_table.view(-1, 2).clone()
            self.register_buffer("coordinates", table, False)
            if self.qkv.bias is not None:  # v2 has no bias on the keys
                dim = self.qkv.in_features
                self.qkv.bias.data[dim : 2 * dim] = 0

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, H, W, C] to [N, H, W, C]."""
        height, width = x.shape[1:3]
        down, across = (-n % w for n, w in zip((height, width), self.core.window, strict=True))
        bias = None
        if self.cpb_mlp is not None:
            bias = 16 * torch.sigmoid(self.cpb_mlp(self.coordinates))
        mixed = self.core(self.qkv(F.pad(x, (0, 0, 0, across, 0, down))), bias)
        out = F.dropout(self.proj(mixed), self.dropout, self.training)
        return out[:, :height, :width].contiguous()
