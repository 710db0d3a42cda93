"""Count multiply-adds and parameters by running a network: an independent check of every cost.

The count is half of torch's `FlopCounterMode`, restricted to convolutions and matrix products with
a weight. It shares no code with the cost model, which counts the same operations by formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


def count_macs_and_params(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """The multiply-adds of one sample (conv + linear, no biases) and the number of parameters."""
    parameter = next(model.parameters(), torch.empty(0))
    sample = torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    count_matmul = _weight_matmul_counter(weights)
    matmuls = dict.fromkeys((aten.mm, aten.addmm, aten.bmm, aten.baddbmm), count_matmul)
    training, fastpath = model.training, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False, custom_mapping=matmuls)
    try:
        with torch.no_grad(), counter:
            model.eval()(sample)
    finally:
        model.train(training)
        torch.backends.mha.set_fastpath_enabled(fastpath)
    counted = counter.get_flop_counts().get("Global", {})
    flops = sum(n for op, n in counted.items() if op in matmuls or op is aten.convolution)
    return flops // 2, sum(p.numel() for p in model.parameters())


def _weight_matmul_counter(weights: set[int]) -> Callable[..., int]:
    """A FLOP formula that counts a matrix product only if one of its factors is a weight."""

    def flops(*args: Any, out_val: Tensor, **kwargs: Any) -> int:
        left, right = [a for a in args if isinstance(a, Tensor)][-2:]
        if not {t.untyped_storage().data_ptr() for t in (left, right)} & weights:
            return 0
        return 2 * out_val.numel() * left.shape[-1]

    flops._get_raw = True  # type: ignore[attr-defined]  # pass tensors, not shapes
    return flops
