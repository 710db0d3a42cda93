"""How each aten operation carries labels from its inputs to its outputs.

Four kinds are known: elementwise operations tie their operands channel by channel; shape
operations (shape_rules.py) apply themselves to the labels; poolings and reductions keep what is
constant where they work; whatever is left mixes channels, or nobody has said how it works, and so
protects them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..calls import LABEL_RULES, OperationCall, protect_if_varying, register_rule
from ..labels import channel_vector, compact_labels, varying_dims
from . import shapes as shape_rules  # noqa: F401  (its rules register themselves)


def propagate_labels(call: OperationCall) -> None:
    """Give the outputs of one operation their labels."""
    tensors = [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]
    if all(call.labels.get(t) is None for t in tensors):
        for out in tree_leaves(call.out):
            if isinstance(out, Tensor):
                call.labels.put(out, None)
        return
    found = LABEL_RULES.get(call.op.overloadpacket)
    if found is None:
        found = elementwise if torch.Tag.pointwise in call.op.tags else protect_inputs
    found(call)


def protect_inputs(call: OperationCall) -> None:
    """Protect all inputs: a removed channel would be felt in the others."""
    for tensor in tree_leaves((call.args, call.kwargs)):
        if isinstance(tensor, Tensor):
            call.protect(call.labels.get(tensor), "mixes channels or is not known")


@register_rule(
    "hardswish", "hardswish_", "copy_", "_prelu_kernel", "masked_fill", "masked_fill_", "rsub"
)
@register_rule("log_sigmoid_forward", "where")
def elementwise(call: OperationCall) -> None:
    """Tie the broadcast operands channel by channel."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    tensors = [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]
    known = [found for t in tensors if (found := call.labels.get(t)) is not None]
    plain = [t for t in tensors if call.labels.get(t) is None]
    known = _drop_broadcast_operands(call, known, out.ndim)
    dims = {d - out.ndim for labels in known for d in _aligned_varying_dims(labels, out.ndim)}
    if any(t.ndim >= -d and t.shape[d] > 1 for t in plain for d in dims):
        for labels in known:
            call.protect(labels, "meets a tensor of fixed width")
    joined = known[0]
    for labels in known[1:]:
        joined = call.couplings.tie(joined, labels, f"meets a fixed channel ({call.location})")
    call.labels.put(out, compact_labels(joined.expand(out.shape)))


def _aligned_varying_dims(labels: Tensor, ndim: int) -> list[int]:
    return [d + ndim - labels.ndim for d in varying_dims(labels)]


def _drop_broadcast_operands(call: OperationCall, known: list[Tensor], ndim: int) -> list[Tensor]:
    """Protect operands with one channel that serve many channels; the others."""
    dims = {d - ndim for labels in known for d in _aligned_varying_dims(labels, ndim)}
    serving = [
        labels
        for labels in known
        if any(labels.ndim < -d or labels.shape[d] == 1 for d in dims) and not varying_dims(labels)
    ]
    for labels in serving:
        call.protect(labels, "one channel serves many")
    rest = [labels for labels in known if all(labels is not s for s in serving)]
    return rest or known


@register_rule(
    "mean", "sum", "amax", "amin", "var", "std", "max", "min", "linalg_vector_norm", "median"
)
def reduction(call: OperationCall) -> None:
    """Reduce the dimensions in which the labels do not vary."""
    labels, out = (
        call.first_labels,
        call.out[0] if isinstance(call.out, tuple | list) else call.out,
    )
    if call.argument("other") is not None:  # the larger or smaller of two tensors
        return elementwise(call)
    dims = call.argument("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    kept = protect_if_varying(call, labels, [d % labels.ndim for d in dims])
    if kept is not None:
        for dim in dims:
            kept = kept.narrow(dim, 0, 1)
        call.labels.put(out, compact_labels(kept.reshape(out.shape)))
    return None


@register_rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "avg_pool1d")
@register_rule("max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d")
@register_rule(
    "_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mkldnn_max_pool2d"
)
@register_rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_unpool2d")
@register_rule(
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d"
)
@register_rule(
    "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d", "reflection_pad1d"
)
@register_rule("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "reflection_pad2d")
@register_rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def per_channel_spatial(call: OperationCall) -> None:
    """Keep the channels of an operation that works on every channel's picture alone."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    vector = channel_vector(call.first_labels, 1)
    if vector is None or out.shape[:2] != call.first_labels.shape[:2]:
        return protect_inputs(call)
    shape = [1, len(vector)] + [1] * (out.ndim - 2)
    call.labels.put(out, compact_labels(vector.reshape(shape).expand(out.shape)))
    return None
