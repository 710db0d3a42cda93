"""Multiply-adds of weights that the network's code multiplies by directly, outside of layers.

`trainers/metrics/flops.py` counts the same operations independently, as a check.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ..calls import argument, aten

FACTORS = {  # of each matrix product, by their names in the schema
    aten.mm: ("self", "mat2"),
    aten.addmm: ("mat1", "mat2"),
    aten.bmm: ("self", "mat2"),
    aten.baddbmm: ("batch1", "batch2"),
}


def raw_weight_macs(
    op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, weights: set[int]
) -> int:
    """Return the multiply-adds of an operation if a factor is (part of) a weight, else 0."""
    kind = op.overloadpacket
    if kind is aten.convolution:
        names = ("input", "weight", "transposed")
        x, weight, transposed = (argument(op, args, kwargs, name) for name in names)
        spatial = x if transposed else out
        return int(spatial.shape[0] * prod(spatial.shape[2:]) * weight.numel())
    if kind not in FACTORS:
        return 0
    left, right = (argument(op, args, kwargs, name) for name in FACTORS[kind])
    if (
        left.untyped_storage().data_ptr() in weights
        or right.untyped_storage().data_ptr() in weights
    ):
        return int(out.numel() * left.shape[-1])
    return 0
