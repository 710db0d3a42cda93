"""How each aten operation carries labels from its inputs to its outputs.

Four kinds are known: elementwise operations tie their operands channel by channel; shape
operations apply themselves to the labels; poolings and reductions keep what is constant where
they work; whatever is left mixes channels, or nobody has said how it works, and so protects them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .labels import Couplings, channel_vector, compact, concatenate, squeezed, varying

aten = torch.ops.aten


class Labels:
    """The labels of the activations alive; an activation without labels is a constant."""

    def __init__(self) -> None:
        self._of: Any = WeakTensorKeyDictionary()

    def get(self, tensor: Tensor) -> Tensor | None:
        """The labels of an activation, None if it has none."""
        found: Tensor | None = self._of.get(tensor)
        return found

    def put(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Give an activation labels; None or nothing but -1 takes them away."""
        if labels is None or tensor.numel() == 0 or not bool((squeezed(labels) >= 0).any()):
            self._of.pop(tensor, None)
        else:
            self._of[tensor] = labels


@dataclass(frozen=True, slots=True)
class Call:
    """One aten operation as it ran."""

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    labels: Labels
    couplings: Couplings
    place: str  # the operation and the module it ran in, for messages

    @property
    def first(self) -> Tensor:
        """The labels of the first argument; -1 where it has none."""
        found = self.labels.get(self.args[0])
        return unlabelled(self.args[0]) if found is None else found

    def protect(self, labels: Tensor | None, why: str) -> None:
        """Protect labels and say where."""
        self.couplings.protect(labels, f"{why} ({self.place})")


Rule = Callable[[Call], None]
RULES: dict[Any, Rule] = {}


def unlabelled(tensor: Tensor) -> Tensor:
    """Labels -1 for all of an activation."""
    return torch.full((1,) * tensor.ndim, -1).expand(tensor.shape)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update({getattr(aten, name): rule for name in names if hasattr(aten, name)})
        return rule

    return register


def carry(call: Call) -> None:
    """Give the outputs of one operation their labels."""
    tensors = [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]
    if all(call.labels.get(t) is None for t in tensors):
        for out in tree_leaves(call.out):
            if isinstance(out, Tensor):
                call.labels.put(out, None)
        return
    rule = RULES.get(call.op.overloadpacket)
    if rule is None:
        rule = elementwise if torch.Tag.pointwise in call.op.tags else mixing
    rule(call)


def mixing(call: Call) -> None:
    """Protect all inputs: a removed channel would be felt in the others."""
    for tensor in tree_leaves((call.args, call.kwargs)):
        if isinstance(tensor, Tensor):
            call.protect(call.labels.get(tensor), "mixes channels or is not known")


@_rule("hardswish", "hardswish_", "copy_", "_prelu_kernel", "masked_fill", "masked_fill_", "rsub")
@_rule("log_sigmoid_forward", "where")
def elementwise(call: Call) -> None:
    """Tie the broadcast operands channel by channel."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    tensors = [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]
    known = [found for t in tensors if (found := call.labels.get(t)) is not None]
    plain = [t for t in tensors if call.labels.get(t) is None]
    known = _without_broadcast(call, known, out.ndim)
    dims = {d - out.ndim for labels in known for d in _aligned(labels, out.ndim)}
    if any(t.ndim >= -d and t.shape[d] > 1 for t in plain for d in dims):
        for labels in known:
            call.protect(labels, "meets a tensor of fixed width")
    joined = known[0]
    for labels in known[1:]:
        joined = call.couplings.unite(joined, labels, f"meets a fixed channel ({call.place})")
    call.labels.put(out, compact(joined.expand(out.shape)))


def _aligned(labels: Tensor, ndim: int) -> list[int]:
    return [d + ndim - labels.ndim for d in varying(labels)]


def _without_broadcast(call: Call, known: list[Tensor], ndim: int) -> list[Tensor]:
    """Protect operands with one channel that serve many channels; the others."""
    dims = {d - ndim for labels in known for d in _aligned(labels, ndim)}
    serving = [
        labels
        for labels in known
        if any(labels.ndim < -d or labels.shape[d] == 1 for d in dims) and not varying(labels)
    ]
    for labels in serving:
        call.protect(labels, "one channel serves many")
    rest = [labels for labels in known if all(labels is not s for s in serving)]
    return rest or known


@_rule("clone", "detach", "alias", "contiguous", "_to_copy", "lift_fresh", "zeros_like")
@_rule("ones_like", "full_like", "empty_like", "rand_like", "randn_like", "fill_", "zero_")
@_rule("bernoulli_", "dropout", "flip")
def same(call: Call) -> None:
    """Keep the labels of the first argument: one output of its shape."""
    labels: Tensor | None = call.first
    if labels is not None and call.op.overloadpacket is aten.flip:
        labels = _steady(call, labels, [d % labels.ndim for d in call.args[1]])
    call.labels.put(call.out, labels)


@_rule("roll")
def rolled(call: Call) -> None:
    """Roll where the labels do not vary."""
    dims = call.args[2] if len(call.args) > 2 else range(call.first.ndim)
    labels = _steady(call, call.first, [d % call.first.ndim for d in dims])
    call.labels.put(call.out, labels)


@_rule("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "movedim", "repeat")
def moved(call: Call) -> None:
    """Apply the operation to the labels themselves."""
    labels = call.op(call.first, *call.args[1:], **call.kwargs)
    call.labels.put(call.out, compact(labels))


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten", "flatten")
def viewed(call: Call) -> None:
    """Reshape the labels; parts that a channel dimension is split into are tied by position."""
    before = call.first
    after = compact(before.reshape(call.out.shape))
    sizes = [[t.shape[d] for d in varying(t)] for t in (before, after)]
    if sizes[0] != sizes[1]:
        call.couplings.mark_fragile(before, call.place)
    if len(sizes[1]) > max(1, len(sizes[0])):
        for dim in varying(after)[:-1]:
            after = call.couplings.tie_along(after, dim, f"unequal parts ({call.place})")
    call.labels.put(call.out, compact(after))


@_rule("split", "split_with_sizes", "chunk", "tensor_split", "unbind")
def divided(call: Call) -> None:
    """Divide the labels; equal parts of a channel dimension are tied by position."""
    dim = call.kwargs.get("dim", call.args[-1] if call.op.overloadpacket is aten.unbind else None)
    if dim is None:
        dim = call.args[2] if len(call.args) > 2 else 0
    _share(call, call.first, dim % call.first.ndim, list(call.out))


def _share(call: Call, labels: Tensor, dim: int, outs: list[Tensor]) -> None:
    unbound = outs[0].ndim < labels.ndim
    sizes = [1 if unbound else out.shape[dim] for out in outs]
    if dim in varying(labels):
        if len(set(sizes)) > 1 or unbound:
            call.protect(labels, "splits channels into unequal parts")
            return
        call.couplings.mark_fragile(labels, call.place)
        folded = _folded(labels, dim, len(outs))
        folded = call.couplings.tie_along(folded, dim, f"unequal parts ({call.place})")
        labels = folded.flatten(dim, dim + 1)
    for out, start in zip(outs, _starts(sizes), strict=True):
        part = labels.narrow(dim, start, sizes[0] if not unbound else 1)
        part = part.squeeze(dim) if unbound else labels.narrow(dim, start, out.shape[dim])
        call.labels.put(out, compact(part))


def _folded(labels: Tensor, dim: int, parts: int) -> Tensor:
    """One dimension as two: the part, and the place within it."""
    shape = list(labels.shape)
    return labels.reshape(*shape[:dim], parts, shape[dim] // parts, *shape[dim + 1 :])


def _starts(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:i]) for i in range(len(sizes))]


@_rule("slice")
def sliced(call: Call) -> None:
    """Slice the labels; one of several equal parts of a channel dimension ties them all."""
    labels, dim = call.first, (call.args[1] if len(call.args) > 1 else 0) % call.first.ndim
    whole, size = labels.shape[dim], call.out.shape[dim]
    if size != whole and dim in varying(labels):
        start = call.args[2] if len(call.args) > 2 and call.args[2] is not None else 0
        start = start + whole if start < 0 else start
        step = call.args[4] if len(call.args) > 4 else 1
        if step != 1 or size == 0 or whole % size or start % size:
            call.protect(labels, "takes some of the channels")
            return
        call.couplings.mark_fragile(labels, call.place)
        folded = _folded(labels, dim, whole // size)
        folded = call.couplings.tie_along(folded, dim, f"unequal parts ({call.place})")
        labels = folded.flatten(dim, dim + 1)
    call.labels.put(call.out, compact(call.op(labels, *call.args[1:], **call.kwargs)))


@_rule("select")
def selected(call: Call) -> None:
    """Take one position of a dimension that is no channel dimension."""
    labels = _steady(call, call.first, [call.args[1] % call.first.ndim])
    if labels is not None:
        call.labels.put(call.out, labels.select(call.args[1], 0))


@_rule("cat", "concat", "stack")
def joined(call: Call) -> None:
    """Concatenate the labels; an activation without labels counts as -1."""
    dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0) % call.out.ndim
    parts = []
    for tensor in call.args[0]:
        found = call.labels.get(tensor)
        labels = unlabelled(tensor) if found is None else found
        parts.append(labels.unsqueeze(dim) if labels.ndim < call.out.ndim else labels)
    call.labels.put(call.out, concatenate([p for p in parts if p.shape[dim]], dim))


@_rule("constant_pad_nd")
def padded(call: Call) -> None:
    """Pad where the labels do not vary; padding in the channel dimension is fixed in the code."""
    pads, ndim = call.args[1], call.first.ndim
    dims = [ndim - 1 - i // 2 for i, amount in enumerate(pads) if amount]
    labels = _steady(call, call.first, dims)
    if labels is not None:
        for dim in dims:
            labels = labels.narrow(dim, 0, 1)
        call.labels.put(call.out, labels.expand(call.out.shape))


def _steady(call: Call, labels: Tensor, dims: Sequence[int]) -> Tensor | None:
    """The labels if they do not vary along `dims`; else they are protected, and None."""
    if set(dims) & set(varying(labels)):
        call.protect(labels, "works along channels")
        return None
    return labels


@_rule("mean", "sum", "amax", "amin", "var", "std", "max", "min", "linalg_vector_norm", "median")
def reduced(call: Call) -> None:
    """Reduce the dimensions in which the labels do not vary."""
    labels, out = call.first, call.out[0] if isinstance(call.out, tuple | list) else call.out
    position = 2 if call.op.overloadpacket is aten.linalg_vector_norm else 1
    dims = call.kwargs.get("dim", call.args[position] if len(call.args) > position else None)
    if isinstance(dims, Tensor):
        return elementwise(call)
    dims = [dims] if isinstance(dims, int) else dims or range(labels.ndim)
    steady = _steady(call, labels, [d % labels.ndim for d in dims])
    if steady is not None:
        for dim in dims:
            steady = steady.narrow(dim, 0, 1)
        call.labels.put(out, compact(steady.reshape(out.shape)))
    return None


@_rule("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "avg_pool1d")
@_rule("max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d")
@_rule("_adaptive_avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mkldnn_max_pool2d")
@_rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_unpool2d")
@_rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d")
@_rule("upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d", "reflection_pad1d")
@_rule("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "reflection_pad2d")
@_rule("replication_pad1d", "replication_pad2d", "replication_pad3d", "im2col_none")
def spatial(call: Call) -> None:
    """Keep the channels of an operation that works on every channel's picture alone."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    vector = channel_vector(call.first, 1)
    if vector is None or out.shape[:2] != call.first.shape[:2]:
        return mixing(call)
    shape = [1, len(vector)] + [1] * (out.ndim - 2)
    call.labels.put(out, compact(vector.reshape(shape).expand(out.shape)))
    return None
