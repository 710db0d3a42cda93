"""Multiply-adds of weights that no layer describes: raw parameters in products."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)


def product_macs(op: Any, args: tuple[Any, ...], out: Any, weights: set[int]) -> int:
    """Multiply-adds of one operation if one of its factors is (part of) a weight, else 0."""
    kind = op.overloadpacket
    if kind is aten.convolution:
        x, weight, transposed = args[0], args[1], args[6]
        picture = x if transposed else out
        return int(picture.shape[0] * prod(picture.shape[2:]) * weight.numel())
    if kind not in PRODUCTS:
        return 0
    left, right = [a for a in args if isinstance(a, Tensor)][-2:]
    if (
        left.untyped_storage().data_ptr() in weights
        or right.untyped_storage().data_ptr() in weights
    ):
        return int(out.numel() * left.shape[-1])
    return 0
