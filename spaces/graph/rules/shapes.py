"""Label rules of operations that move elements: they apply themselves to the labels.

Sizes of a changed channel dimension may be fixed in the network's code: such sites are marked
fragile, and verify.py protects them if needed. A dimension split into equal parts, by a view or by
`chunk`, is assumed to keep the number of parts, so the parts are tied position by position.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..calls import OperationCall, aten, protect_if_varying, register_rule, unlabelled_like
from ..labels import compact_labels, concatenate_labels, varying_dims


@register_rule("clone", "detach", "alias", "contiguous", "_to_copy", "lift_fresh", "zeros_like")
@register_rule("ones_like", "full_like", "empty_like", "rand_like", "randn_like", "fill_", "zero_")
@register_rule("bernoulli_", "dropout", "flip")
def copy_labels(call: OperationCall) -> None:
    """Keep the labels of the first argument; the output has its shape."""
    labels: Tensor | None = call.first_labels
    if labels is not None and call.op.overloadpacket is aten.flip:
        labels = protect_if_varying(call, labels, [d % labels.ndim for d in call.argument("dims")])
    call.labels.put(call.out, labels)


@register_rule("roll")
def roll_labels(call: OperationCall) -> None:
    """Roll along dimensions in which labels do not vary; otherwise protect them."""
    dims = call.argument("dims") or range(call.first_labels.ndim)
    labels = protect_if_varying(
        call, call.first_labels, [d % call.first_labels.ndim for d in dims]
    )
    call.labels.put(call.out, labels)


@register_rule("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "movedim", "repeat")
def permute_labels(call: OperationCall) -> None:
    """Apply the operation to the labels."""
    labels = call.op(call.first_labels, *call.args[1:], **call.kwargs)
    call.labels.put(call.out, compact_labels(labels))


@register_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten")
def reshape_labels(call: OperationCall) -> None:
    """Reshape the labels; the parts of a split channel dimension are tied by position."""
    before = call.first_labels
    after = compact_labels(before.reshape(call.out.shape))
    sizes = [[t.shape[d] for d in varying_dims(t)] for t in (before, after)]
    if sizes[0] != sizes[1]:
        call.couplings.mark_fragile(before, call.location)
    if len(sizes[1]) > max(1, len(sizes[0])):
        for dim in varying_dims(after)[:-1]:
            after = call.couplings.tie_along(after, dim, f"unequal parts ({call.location})")
    call.labels.put(call.out, compact_labels(after))


@register_rule("split", "split_with_sizes", "chunk", "tensor_split", "unbind")
def split_labels(call: OperationCall) -> None:
    """Split the labels; equal parts of a channel dimension are tied by position."""
    _assign_parts(
        call, call.first_labels, call.argument("dim") % call.first_labels.ndim, list(call.out)
    )


def _assign_parts(call: OperationCall, labels: Tensor, dim: int, outs: list[Tensor]) -> None:
    unbound = outs[0].ndim < labels.ndim
    sizes = [1 if unbound else out.shape[dim] for out in outs]
    if dim in varying_dims(labels):
        if len(set(sizes)) > 1 or unbound:
            call.protect(labels, "splits channels into unequal parts")
            return
        call.couplings.mark_fragile(labels, call.location)
        folded = _unflatten_dim(labels, dim, len(outs))
        folded = call.couplings.tie_along(folded, dim, f"unequal parts ({call.location})")
        labels = folded.flatten(dim, dim + 1)
    for out, start in zip(outs, _offsets(sizes), strict=True):
        part = labels.narrow(dim, start, sizes[0] if not unbound else 1)
        part = part.squeeze(dim) if unbound else labels.narrow(dim, start, out.shape[dim])
        call.labels.put(out, compact_labels(part))


def _unflatten_dim(labels: Tensor, dim: int, parts: int) -> Tensor:
    """Reshape one dimension to two: the part, and the position within it."""
    shape = list(labels.shape)
    return labels.reshape(*shape[:dim], parts, shape[dim] // parts, *shape[dim + 1 :])


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


@register_rule("slice")
def slice_labels(call: OperationCall) -> None:
    """Slice the labels; a slice that is one of several equal parts ties all parts."""
    labels, dim = call.first_labels, call.argument("dim") % call.first_labels.ndim
    whole, size = labels.shape[dim], call.out.shape[dim]
    if size != whole and dim in varying_dims(labels):
        start = call.argument("start") or 0
        start = start + whole if start < 0 else start
        if call.argument("step") != 1 or size == 0 or whole % size or start % size:
            call.protect(labels, "takes some of the channels")
            return
        call.couplings.mark_fragile(labels, call.location)
        folded = _unflatten_dim(labels, dim, whole // size)
        folded = call.couplings.tie_along(folded, dim, f"unequal parts ({call.location})")
        labels = folded.flatten(dim, dim + 1)
    call.labels.put(call.out, compact_labels(call.op(labels, *call.args[1:], **call.kwargs)))


@register_rule("select")
def select_labels(call: OperationCall) -> None:
    """Select along a dimension in which labels do not vary; otherwise protect them."""
    dim = call.argument("dim") % call.first_labels.ndim
    labels = protect_if_varying(call, call.first_labels, [dim])
    if labels is not None:
        call.labels.put(call.out, labels.select(dim, 0))


@register_rule("cat", "concat", "stack")
def concatenate_operands(call: OperationCall) -> None:
    """Concatenate the labels; an activation without labels counts as -1."""
    dim = call.argument("dim") % call.out.ndim
    parts = []
    for tensor in call.argument("tensors"):
        found = call.labels.get(tensor)
        labels = unlabelled_like(tensor) if found is None else found
        parts.append(labels.unsqueeze(dim) if labels.ndim < call.out.ndim else labels)
    call.labels.put(call.out, concatenate_labels([p for p in parts if p.shape[dim]], dim))


@register_rule("constant_pad_nd")
def pad_labels(call: OperationCall) -> None:
    """Pad along dimensions in which labels do not vary; otherwise protect them."""
    pads, ndim = call.argument("pad"), call.first_labels.ndim
    dims = [ndim - 1 - i // 2 for i, amount in enumerate(pads) if amount]
    labels = protect_if_varying(call, call.first_labels, dims)
    if labels is not None:
        for dim in dims:
            labels = labels.narrow(dim, 0, 1)
        call.labels.put(call.out, labels.expand(call.out.shape))
