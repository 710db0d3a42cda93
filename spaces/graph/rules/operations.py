"""Label rules of aten operations: how labels propagate from inputs to outputs.

Elementwise operations tie their operands channel by channel. Shape operations (shapes.py) apply
themselves to the labels. Poolings and reductions keep labels that are constant along their
dimensions. All other operations may mix channels and protect their inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..calls import LABEL_RULES, OperationCall, protect_if_varying, register_rule
from ..labels import channel_vector, compact_labels, varying_dims
from . import shapes as shape_rules  # noqa: F401  (the import registers its rules)


def propagate_labels(call: OperationCall) -> None:
    """Label the outputs of one operation."""
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
    """Protect all inputs: removing a channel would change the others."""
    for tensor in tree_leaves((call.args, call.kwargs)):
        if isinstance(tensor, Tensor):
            call.protect(call.labels.get(tensor), "mixes channels or is not known")


@register_rule(
    "hardswish", "hardswish_", "copy_", "_prelu_kernel", "masked_fill", "masked_fill_", "rsub"
)
@register_rule("log_sigmoid_forward", "where")
def elementwise(call: OperationCall) -> None:
    """Tie broadcast operands channel by channel."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    tensors = [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]
    labelled = [found for t in tensors if (found := call.labels.get(t)) is not None]
    unlabelled = [t for t in tensors if call.labels.get(t) is None]
    labelled = _drop_broadcast_operands(call, labelled, out.ndim)
    dims = {d - out.ndim for labels in labelled for d in _aligned_varying_dims(labels, out.ndim)}
    if any(t.ndim >= -d and t.shape[d] > 1 for t in unlabelled for d in dims):
        for labels in labelled:
            call.protect(labels, "meets a tensor of fixed width")
    joined = labelled[0]
    for labels in labelled[1:]:
        joined = call.couplings.tie(joined, labels, f"meets a fixed channel ({call.location})")
    call.labels.put(out, compact_labels(joined.expand(out.shape)))


def _aligned_varying_dims(labels: Tensor, ndim: int) -> list[int]:
    return [d + ndim - labels.ndim for d in varying_dims(labels)]


def _drop_broadcast_operands(
    call: OperationCall, labelled: list[Tensor], ndim: int
) -> list[Tensor]:
    """Protect operands whose one channel is broadcast to many; return the other operands."""
    dims = {d - ndim for labels in labelled for d in _aligned_varying_dims(labels, ndim)}
    broadcast = [
        labels
        for labels in labelled
        if any(labels.ndim < -d or labels.shape[d] == 1 for d in dims) and not varying_dims(labels)
    ]
    for labels in broadcast:
        call.protect(labels, "one channel serves many")
    rest = [labels for labels in labelled if all(labels is not s for s in broadcast)]
    return rest or labelled


@register_rule(
    "mean", "sum", "amax", "amin", "var", "std", "max", "min", "linalg_vector_norm", "median"
)
def reduction(call: OperationCall) -> None:
    """Reduce labels along dimensions in which they do not vary; otherwise protect them."""
    labels, out = (
        call.first_labels,
        call.out[0] if isinstance(call.out, tuple | list) else call.out,
    )
    if call.argument("other") is not None:  # elementwise maximum or minimum of two tensors
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
    """Keep the labels of an operation that works on each channel independently."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    vector = channel_vector(call.first_labels, 1)
    if vector is None or out.shape[:2] != call.first_labels.shape[:2]:
        return protect_inputs(call)
    shape = [1, len(vector)] + [1] * (out.ndim - 2)
    call.labels.put(out, compact_labels(vector.reshape(shape).expand(out.shape)))
    return None
