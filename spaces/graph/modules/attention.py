"""Attention with explicit heads, so that whole heads can be masked and cut.

`nn.MultiheadAttention` uses the weights of its projections without calling modules, so hooks do
not see them. Here the projections are `nn.Linear` children around a core with explicit heads:
`softmax(q k^T * scale + mask) v` for each head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionHeads(nn.Module):
    """The core of an attention module; its only weights, if any, are per head."""

    streams = 1  # number of inputs with channels: heads * head_dim or a multiple of it

    def __init__(self, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.head_dim, self.dropout = heads, head_dim, dropout

    def split(self, x: Tensor) -> Tensor:
        """Reshape [N, L, heads * head_dim] to [N, heads, L, head_dim]."""
        return x.view(*x.shape[:-1], self.heads, self.head_dim).transpose(1, 2)

    def keep_heads(self, kept: Tensor) -> None:
        """Reduce the number of heads to the kept ones."""
        self.heads = int(kept.sum())


class DotProductHeads(AttentionHeads):
    """Scaled dot-product attention between all tokens."""

    streams = 3

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended values [N, L, heads * head_dim] and, if `weights`, those by head."""
        q, k, v = self.split(q), self.split(k), self.split(v)
        dropout = self.dropout if self.training else 0.0
        if not weights:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
            return mixed.transpose(1, 2).flatten(2), None
        logits = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        attention = (logits if mask is None else logits + mask).softmax(dim=-1)
        mixed = F.dropout(attention, dropout) @ v
        return mixed.transpose(1, 2).flatten(2), attention


class ExplicitMultiheadAttention(nn.Module):
    """`nn.MultiheadAttention` with projections as modules; same arguments and outputs."""

    in_proj_bias = None  # disables the fast path of nn.TransformerEncoderLayer
    _qkv_same_embed_dim = False

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        if original.bias_k is not None or original.add_zero_attn:
            raise NotImplementedError("add_bias_kv and add_zero_attn")
        self.batch_first = original.batch_first
        self.embed_dim, self.num_heads = original.embed_dim, original.num_heads
        if original.in_proj_weight is None:
            weights = [original.q_proj_weight, original.k_proj_weight, original.v_proj_weight]
        else:
            weights = list(original.in_proj_weight.detach().chunk(3))
        bias = original.in_proj_bias
        biases = [None] * 3 if bias is None else list(bias.detach().chunk(3))
        self.q, self.k, self.v = map(_build_linear, weights, biases)
        self.core = DotProductHeads(original.num_heads, original.head_dim, original.dropout)
        self.proj = _build_linear(original.out_proj.weight, original.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as `nn.MultiheadAttention`; `is_causal` is only a hint, `attn_mask` decides."""
        single = query.ndim == 2
        axis = 0 if single or self.batch_first else 1
        if single:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
        query, key, value = (t.transpose(0, axis) for t in (query, key, value))
        q, k, v = self.q(query), self.k(key), self.v(value)
        mask = self._mask(attn_mask, key_padding_mask, q)
        mixed, attention = self.core(q, k, v, mask, need_weights)
        out = self.proj(mixed)
        out = out.squeeze(0) if single else out.transpose(0, axis)
        if attention is not None:
            attention = attention.mean(dim=1) if average_attn_weights else attention
            attention = attention.squeeze(0) if single else attention
        return out, attention

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """Combine both masks into one that is added to the logits; per-head masks stay so."""
        masks = []
        for mask in (attn, padding):
            if mask is None:
                continue
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask, float("-inf"))
            masks.append(mask.to(q.dtype))
        if attn is not None and attn.ndim == 3:
            masks[0] = masks[0].view(q.shape[0], -1, *attn.shape[1:])
        if padding is not None:
            masks[-1] = masks[-1].view(q.shape[0], 1, 1, -1)
        return None if not masks else masks[0] if len(masks) == 1 else masks[0] + masks[1]


def _build_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear
