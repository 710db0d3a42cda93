"""Label rules of layers: modules whose weights are indexed by channels.

The trace does not look inside a layer. conv and linear read the ids of their inputs and create new
ids for their outputs. Norms and PReLU keep the ids and own one parameter per channel.
`OptionAShortcut` and `AttentionHeads` have their own kinds.
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
    """One layer during the trace."""

    name: str
    kind: LayerKind
    module: nn.Module
    position: int  # in forward order
    ids_in: Tensor | None = None
    ids_out: Tensor | None = None
    macs_per_pair: int = 0
    inputs: list[Tensor] = field(default_factory=list)


def layer_kind(module: nn.Module) -> LayerKind | None:
    """Return the kind of a module that can be cut; None for all others.

    A subclass with its own forward, or a parametrized weight, may mix channels and gives None.
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
    """Whether an operation is a batch norm with the module's own weight, bias and statistics.

    This recognises norms with their own forward, e.g. with an activation: all other operations of
    that forward are traced one by one.
    """
    if call.op.overloadpacket not in BATCH_NORMS:
        return False
    own = [getattr(module, name, None) for name in NORM_TENSORS]
    given = [call.argument(name) for name in NORM_TENSORS]
    return any(t is not None for t in own) and all(
        one is other for one, other in zip(own, given, strict=True)
    )


def is_opaque(module: nn.Module) -> bool:
    """Whether a module is a convolution or linear layer that the trace cannot use as a layer."""
    return isinstance(module, _ConvNd | nn.Linear) and layer_kind(module) is None


def why_unread(module: nn.Module) -> str:
    """Return why a module that multiplies by weights is not used as a layer."""
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
    traced: TracedLayer,
    inputs: list[Tensor],
    out: Tensor,
    labels: ActivationLabels,
    couplings: Couplings,
) -> None:
    """Read the labels of one call of a layer and label its output."""
    if traced.kind == "heads":
        _record_heads(traced, inputs, out, labels, couplings)
        return
    x = inputs[0]
    dim = x.ndim - 1 if traced.kind == "linear" else 1
    ids = _read_channel_ids(x, dim, traced, labels, couplings)
    if traced.ids_in is not None:  # called before: both inputs use the same weights
        ids = couplings.tie(traced.ids_in, ids, f"shares {traced.name} with a fixed channel")
    traced.ids_in = ids
    traced.macs_per_pair += _macs_per_pair(traced.module, x, out)
    if traced.kind == "channelwise":
        traced.ids_out = ids
    elif traced.ids_out is None:
        traced.ids_out = couplings.new_ids(out.shape[dim], traced.position)
        _tie_conv_groups(traced, couplings)
    assert traced.ids_out is not None
    shape = [1] * out.ndim
    shape[dim] = -1
    labels.put(out, traced.ids_out.view(shape).expand(out.shape))


def _read_channel_ids(
    x: Tensor, dim: int, traced: TracedLayer, labels: ActivationLabels, couplings: Couplings
) -> Tensor:
    """Return the ids along the channel dimension of an input."""
    found = labels.get(x)
    vector = None if found is None else channel_vector(found, dim)
    if vector is None:
        couplings.protect(found, f"channels are not where {traced.name} reads them")
        return torch.full((x.shape[dim],), -1)
    return vector


def _tie_conv_groups(traced: TracedLayer, couplings: Couplings) -> None:
    """Tie the inputs and outputs of each convolution group: it can only be removed whole."""
    groups = getattr(traced.module, "groups", 1)
    if groups == 1:
        return
    assert traced.ids_in is not None
    assert traced.ids_out is not None
    rows = torch.cat((traced.ids_out.view(groups, -1), traced.ids_in.view(groups, -1)), dim=1)
    couplings.tie_along(
        rows, 1, f"shares a convolution group of {traced.name} with a fixed channel"
    )


def _macs_per_pair(module: nn.Module, x: Tensor, out: Tensor) -> int:
    if isinstance(module, _ConvNd):
        spatial = x if isinstance(module, _ConvTransposeNd) else out
        return prod(module.kernel_size) * prod(spatial.shape[2:]) * spatial.shape[0]
    if isinstance(module, nn.Linear):
        return out.numel() // out.shape[-1]
    return 0


def _record_heads(
    traced: TracedLayer,
    inputs: list[Tensor],
    out: Tensor,
    labels: ActivationLabels,
    couplings: Couplings,
) -> None:
    """Tie all channels of a head, across queries, keys and values."""
    core = traced.module
    assert isinstance(core, AttentionHeads)
    parts = []
    for x in inputs:
        ids = _read_channel_ids(x, x.ndim - 1, traced, labels, couplings)
        parts.append(
            ids.view(-1, core.heads, _channels_per_head(core, x)).transpose(0, 1).flatten(1)
        )
    rows = torch.cat(parts, dim=1)
    rows = couplings.tie_along(rows, 1, f"a head of {traced.name} with a fixed channel")
    traced.ids_in = traced.ids_out = rows[:, 0]
    vector = rows[:, :1].expand(-1, core.head_dim).flatten()
    labels.put(out, vector.expand(out.shape))


def _channels_per_head(core: AttentionHeads, x: Tensor) -> int:
    """Return the number of adjacent input channels per head: head_dim, or 1."""
    return core.head_dim if x.shape[-1] % (core.heads * core.head_dim) == 0 else 1
