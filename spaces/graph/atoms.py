"""Build the channel map from a trace: ids that are tied form an atom, atoms form groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from torch import Tensor, nn

from ..arrays import Int32Array, IntArray
from ..errors import UserError
from .channels import PRODUCER_KINDS, ChannelMap, Group, Layer, ProtectedChannels, Unread
from .labels import Couplings, LabelSite
from .rules.layers import TracedLayer


@dataclass(frozen=True, slots=True)
class TraceResult:
    """The result of a traced forward pass."""

    traced_layers: dict[str, TracedLayer]  # in forward order
    couplings: Couplings  # which channels are tied or protected
    unread: tuple[Unread, ...]  # modules that use weights outside of layers


def protect_layers(trace: TraceResult, patterns: Sequence[str]) -> None:
    """Protect the outputs of layers that match a pattern or lie in a block that matches it.

    Raises:
        UserError: If a pattern matches no layer.
    """
    for pattern in patterns:
        found = [
            traced
            for traced in trace.traced_layers.values()
            if fnmatchcase(traced.name, pattern) or fnmatchcase(traced.name, f"{pattern}.*")
        ]
        if not found:
            some = ", ".join(list(trace.traced_layers)[:3])
            raise UserError(
                f"keep must match a layer, got {pattern!r}; layer names here are such as {some}"
            )
        for traced in found:
            trace.couplings.protect(traced.ids_out, f"kept by {pattern!r}")


def build_channel_map(
    model: nn.Module,
    trace: TraceResult,
    input_shape: tuple[int, ...],
    suspects: Sequence[int] = (),
) -> ChannelMap:
    """Build the channel map; channels of the fragile sites in `suspects` are protected too."""
    root = _find_roots(trace.couplings)
    reasons = _protection_reasons(trace, root, suspects)
    atom_of, groups, group_of = _number_atoms(trace, root, reasons)
    layers = tuple(_build_layer(traced, atom_of) for traced in trace.traced_layers.values())
    described = sum(_count_params(layer) for layer in layers)
    return ChannelMap(
        layers=layers,
        groups=groups,
        group_of=group_of,
        protected=tuple(_protected_channels(trace, atom_of, root, reasons)),
        input_shape=input_shape,
        fixed_macs=sum(one.macs for one in trace.unread),
        unread=trace.unread,
        fixed_params=sum(p.numel() for p in model.parameters()) - described,
    )


def _find_roots(couplings: Couplings) -> IntArray:
    """Return the smallest id that each id is tied to."""
    root = np.arange(couplings.size)
    if not couplings.pairs:
        return root
    one, other = np.concatenate(couplings.pairs).T
    while True:
        low = np.minimum(root[one], root[other])
        before = root.copy()
        for side in (one, other):
            np.minimum.at(root, before[side], low)
            np.minimum.at(root, side, low)
        root = root[root]
        if np.array_equal(root, before):
            return root


def _protection_reasons(
    trace: TraceResult, root: IntArray, suspects: Sequence[int]
) -> dict[int, str]:
    """Return the reason for each protected set of tied ids, by its root."""
    fixed = [trace.couplings.fragile[index] for index in suspects]
    fixed = [LabelSite(s.ids, f"sizes are fixed in the code ({s.reason})") for s in fixed]
    unread = LabelSite(_unread_ids(trace, root), "no layer reads it")
    found: dict[int, str] = {}
    for site in (*trace.couplings.protected, *_shared_weight_sites(trace), *fixed, unread):
        for r in np.unique(root[site.ids]).tolist():
            found.setdefault(r, site.reason)
    return found


def _unread_ids(trace: TraceResult, root: IntArray) -> IntArray:
    """Return ids that no layer reads, neither directly nor through ids tied to them."""
    read = np.zeros(len(root), dtype=bool)
    for traced in trace.traced_layers.values():
        if traced.kind in PRODUCER_KINDS:
            read[root[_valid_ids(traced.ids_in)]] = True
    return np.flatnonzero(~read[root])


def _shared_weight_sites(trace: TraceResult) -> list[LabelSite]:
    """Return the channels of layers that share a weight with another layer."""
    users: dict[int, list[TracedLayer]] = defaultdict(list)
    for traced in trace.traced_layers.values():
        for parameter in traced.module._parameters.values():
            if parameter is not None:
                users[id(parameter)].append(traced)
    return [
        LabelSite(_valid_ids(ids), f"shares its weight with {_names_of_others(sharing, traced)}")
        for sharing in users.values()
        if len(sharing) > 1
        for traced in sharing
        for ids in (traced.ids_out, traced.ids_in)
    ]


def _names_of_others(sharing: list[TracedLayer], but: TracedLayer) -> str:
    return " and ".join(traced.name for traced in sharing if traced is not but)


def _valid_ids(labels: Tensor | None) -> IntArray:
    assert labels is not None
    ids: IntArray = labels.numpy()
    return ids[ids >= 0]


def _number_atoms(
    trace: TraceResult, root: IntArray, reasons: dict[int, str]
) -> tuple[Int32Array, tuple[Group, ...], Int32Array]:
    """Return the atom of each id (-1: protected), the groups, and the group of each atom."""
    producers: dict[int, set[int]] = defaultdict(set)
    if trace.couplings.producer:
        for r, layer in zip(root.tolist(), np.concatenate(trace.couplings.producer), strict=True):
            producers[r].add(int(layer))
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for r in sorted(set(producers) - set(reasons)):
        members[tuple(sorted(producers[r]))].append(r)
    for alone in [key for key, roots in members.items() if len(roots) == 1]:
        reasons[members.pop(alone)[0]] = "its channels can only be removed all together"
    names = list(trace.traced_layers)
    order = sorted(members)
    groups = tuple(Group(names[key[0]], tuple(names[i] for i in key)) for key in order)
    numbered = [r for key in order for r in members[key]]
    atom_of_root = np.full(len(root) + 1, -1, dtype=np.int32)  # last entry: for id -1
    atom_of_root[numbered] = np.arange(len(numbered), dtype=np.int32)
    group_of = np.repeat(np.arange(len(order), dtype=np.int32), [len(members[k]) for k in order])
    return atom_of_root[np.append(root, len(root))], groups, group_of


def _build_layer(traced: TracedLayer, atom_of: Int32Array) -> Layer:
    assert traced.ids_in is not None
    assert traced.ids_out is not None
    module, per_pair, per_out = traced.module, 0, 0
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if traced.kind in ("conv", "linear"):
        assert weight is not None
        per_pair = weight[0, 0].numel()
        per_out = int(bias is not None)
    elif traced.kind == "channelwise":
        per_out = int(weight is not None) + int(bias is not None)
    else:
        table = module._parameters.get("table")
        per_out = 0 if table is None else len(table)
    return Layer(
        name=traced.name,
        kind=traced.kind,
        out_atoms=atom_of[traced.ids_out.numpy()],
        in_atoms=atom_of[traced.ids_in.numpy()],
        conv_groups=getattr(module, "groups", 1) if traced.kind == "conv" else 1,
        macs_per_pair=traced.macs_per_pair,
        params_per_pair=per_pair,
        params_per_out=per_out,
    )


def _count_params(layer: Layer) -> int:
    pairs = len(layer.out_atoms) * len(layer.in_atoms) // layer.conv_groups
    return pairs * layer.params_per_pair + len(layer.out_atoms) * layer.params_per_out


def _protected_channels(
    trace: TraceResult, atom_of: Int32Array, root: IntArray, reasons: dict[int, str]
) -> list[ProtectedChannels]:
    found = []
    for traced in trace.traced_layers.values():
        if traced.kind not in PRODUCER_KINDS:
            continue
        assert traced.ids_out is not None
        ids = traced.ids_out.numpy()
        why: dict[str, int] = defaultdict(int)
        for i in ids[atom_of[ids] < 0].tolist():
            why[reasons[int(root[i])]] += 1
        found += [
            ProtectedChannels(traced.name, channels, reason) for reason, channels in why.items()
        ]
    return found
