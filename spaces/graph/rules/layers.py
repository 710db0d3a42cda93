"""The modules whose weights are indexed by channels: how each reads and hands on labels.

A leaf's inside is not traced. conv and linear read their inputs' labels into in-slots and give out
fresh ids; norms and PReLU hand labels on and own one parameter row a channel; our shortcut and the
core of our attention are leaves of their own kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import is_parametrized

from ..calls import ActivationLabels, OperationCall, aten
from ..channels import LayerKind
from ..labels import Couplings, channel_vector
from ..modules.attention import AttentionHeads
from ..modules.option_a_shortcut import OptionAShortcut

STANDARD_PARAMETERS = {"weight", "bias"}
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
BATCH_NORMS = {
    getattr(aten, name)
    for name in (
        "native_batch_norm",
        "cudnn_batch_norm",
        "miopen_batch_norm",
        "batch_norm_with_update",
        "_batch_norm_no_update",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_no_training",
    )
    if hasattr(aten, name)
}


@dataclass(slots=True)
class TracedLayer:
    """One leaf while the trace runs."""

    name: str
    kind: LayerKind
    module: nn.Module
    position: int  # in forward order
    ids_in: Tensor | None = None
    ids_out: Tensor | None = None
    macs_per_pair: int = 0
    inputs: list[Tensor] = field(default_factory=list)


def layer_kind(module: nn.Module) -> LayerKind | None:
    """The kind of a module that can be cut, None for all others.

    A subclass with a forward of its own, or a reparametrised weight, may mix channels inside.
    """
    if isinstance(module, OptionAShortcut):
        return "shortcut"
    if isinstance(module, AttentionHeads):
        return "heads"
    plain = set(module._parameters) <= STANDARD_PARAMETERS and not is_parametrized(module)
    if not plain:
        return None
    if isinstance(module, _ConvNd):
        return "conv" if _has_stock_forward(module, nn.modules.conv) else None
    if isinstance(module, nn.Linear):
        return "linear" if _has_stock_forward(module, nn.modules.linear) else None
    if isinstance(module, _BatchNorm | _InstanceNorm):
        return "channelwise" if type(module).forward in _NORM_FORWARDS else None
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return "channelwise"
    return None


def runs_its_norm(call: OperationCall, module: nn.Module) -> bool:
    """Whether an operation is the batch norm of a module's own weight, bias and statistics.

    So norms with a forward of their own are known, as those that apply an activation too: what
    else they do is traced operation by operation.
    """
    if call.op.overloadpacket not in BATCH_NORMS:
        return False
    own = [getattr(module, name, None) for name in NORM_TENSORS]
    given = [call.argument(name) for name in NORM_TENSORS]
    return any(t is not None for t in own) and all(
        one is other for one, other in zip(own, given, strict=True)
    )


def is_opaque(module: nn.Module) -> bool:
    """Whether a module is a convolution or linear layer that is not read as one."""
    return isinstance(module, _ConvNd | nn.Linear) and layer_kind(module) is None


def why_unread(module: nn.Module) -> str:
    """Why a module that multiplies by weights is not read as a layer."""
    kind = type(module).__name__
    if not isinstance(module, _ConvNd | nn.Linear):
        return f"the code of {kind} multiplies by weights itself"
    if is_parametrized(module):
        return f"a parameter of {kind} is parametrised"
    source = nn.modules.conv if isinstance(module, _ConvNd) else nn.modules.linear
    if not _has_stock_forward(module, source):
        return f"{kind} has a forward of its own, which may change its weights or channels"
    others = ", ".join(sorted(set(module._parameters) - STANDARD_PARAMETERS))
    return f"{kind} has parameters besides weight and bias: {others}"


_NORM_FORWARDS = (_BatchNorm.forward, _InstanceNorm.forward, nn.SyncBatchNorm.forward)


def _has_stock_forward(module: nn.Module, source: object) -> bool:
    forward = type(module).forward
    return forward.__module__ == getattr(source, "__name__", "")


def record_layer_call(
    slot: TracedLayer,
    inputs: list[Tensor],
    out: Tensor,
    labels: ActivationLabels,
    known: Couplings,
) -> None:
    """Read the labels of one call of a leaf and give its output labels."""
    if slot.kind == "heads":
        _record_heads(slot, inputs, out, labels, known)
        return
    x = inputs[0]
    dim = x.ndim - 1 if slot.kind == "linear" else 1
    ids = _read_channel_ids(x, dim, slot, labels, known)
    if slot.ids_in is not None:  # called before: the same weights serve both inputs
        ids = known.tie(slot.ids_in, ids, f"shares {slot.name} with a fixed channel")
    slot.ids_in = ids
    slot.macs_per_pair += _macs_per_pair(slot.module, x, out)
    if slot.kind == "channelwise":
        slot.ids_out = ids
    elif slot.ids_out is None:
        slot.ids_out = known.new_ids(out.shape[dim], slot.position)
        _tie_conv_groups(slot, known)
    assert slot.ids_out is not None
    shape = [1] * out.ndim
    shape[dim] = -1
    labels.put(out, slot.ids_out.view(shape).expand(out.shape))


def _read_channel_ids(
    x: Tensor, dim: int, slot: TracedLayer, labels: ActivationLabels, known: Couplings
) -> Tensor:
    """The ids along the channel dimension of a leaf's input."""
    found = labels.get(x)
    vector = None if found is None else channel_vector(found, dim)
    if vector is None:
        known.protect(found, f"channels are not where {slot.name} reads them")
        return torch.full((x.shape[dim],), -1)
    return vector


def _tie_conv_groups(slot: TracedLayer, known: Couplings) -> None:
    """Tie the inputs and outputs of each convolution group: it goes as a whole or not at all."""
    groups = getattr(slot.module, "groups", 1)
    if groups == 1:
        return
    assert slot.ids_in is not None
    assert slot.ids_out is not None
    rows = torch.cat((slot.ids_out.view(groups, -1), slot.ids_in.view(groups, -1)), dim=1)
    known.tie_along(rows, 1, f"shares a convolution group of {slot.name} with a fixed channel")


def _macs_per_pair(module: nn.Module, x: Tensor, out: Tensor) -> int:
    if isinstance(module, _ConvNd):
        picture = x if isinstance(module, _ConvTransposeNd) else out
        return prod(module.kernel_size) * prod(picture.shape[2:]) * picture.shape[0]
    if isinstance(module, nn.Linear):
        return out.numel() // out.shape[-1]
    return 0


def _record_heads(
    slot: TracedLayer,
    inputs: list[Tensor],
    out: Tensor,
    labels: ActivationLabels,
    known: Couplings,
) -> None:
    """Tie all channels of a head: of queries, keys and values."""
    core = slot.module
    assert isinstance(core, AttentionHeads)
    parts = []
    for x in inputs:
        ids = _read_channel_ids(x, x.ndim - 1, slot, labels, known)
        parts.append(
            ids.view(-1, core.heads, _channels_per_head(core, x)).transpose(0, 1).flatten(1)
        )
    rows = torch.cat(parts, dim=1)
    rows = known.tie_along(rows, 1, f"a head of {slot.name} with a fixed channel")
    slot.ids_in = slot.ids_out = rows[:, 0]
    vector = rows[:, :1].expand(-1, core.head_dim).flatten()
    labels.put(out, vector.expand(out.shape))


def _channels_per_head(core: AttentionHeads, x: Tensor) -> int:
    """Neighbouring channels of one head in an input: its width, or 1 for a number a head."""
    return core.head_dim if x.shape[-1] % (core.heads * core.head_dim) == 0 else 1
