"""From what a trace has learnt to the channel map: which ids are one atom, which atoms a group."""

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
    """One traced run: the leaves in forward order, and what was tied and protected."""

    traced_layers: dict[str, TracedLayer]
    couplings: Couplings
    unread: tuple[Unread, ...]  # modules with weights outside of leaves


def protect_layers(trace: TraceResult, patterns: Sequence[str]) -> None:
    """Protect the outputs of the layers that match a pattern, or lie in a block that does."""
    for pattern in patterns:
        found = [
            slot
            for slot in trace.traced_layers.values()
            if fnmatchcase(slot.name, pattern) or fnmatchcase(slot.name, f"{pattern}.*")
        ]
        if not found:
            some = ", ".join(list(trace.traced_layers)[:3])
            raise UserError(
                f"keep must match a layer, got {pattern!r}; layers here are named like {some}"
            )
        for slot in found:
            trace.couplings.protect(slot.ids_out, f"kept by {pattern!r}")


def build_channel_map(
    model: nn.Module,
    trace: TraceResult,
    input_shape: tuple[int, ...],
    suspects: Sequence[int] = (),
) -> ChannelMap:
    """Number the atoms; `suspects` are fragile sites whose channels are protected too."""
    root = _find_roots(trace.couplings)
    reasons = _protection_reasons(trace, root, suspects)
    atom_of, groups, group_of = _number_atoms(trace, root, reasons)
    layers = tuple(_build_layer(slot, atom_of) for slot in trace.traced_layers.values())
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


def _find_roots(known: Couplings) -> IntArray:
    """The smallest id that each id is tied to."""
    root = np.arange(known.size)
    if not known.pairs:
        return root
    one, other = np.concatenate(known.pairs).T
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
    """For every set of tied ids that must stay, why."""
    fixed = [trace.couplings.fragile[index] for index in suspects]
    fixed = [LabelSite(s.ids, f"sizes are fixed in the code ({s.reason})") for s in fixed]
    unread = LabelSite(_unread_ids(trace, root), "no layer reads it")
    found: dict[int, str] = {}
    for site in (*trace.couplings.protected, *_shared_weight_sites(trace), *fixed, unread):
        for r in np.unique(root[site.ids]).tolist():
            found.setdefault(r, site.reason)
    return found


def _unread_ids(trace: TraceResult, root: IntArray) -> IntArray:
    """Ids that no layer has for its input, even by way of what they are tied to."""
    read = np.zeros(len(root), dtype=bool)
    for slot in trace.traced_layers.values():
        if slot.kind in PRODUCER_KINDS:
            read[root[_valid_ids(slot.ids_in)]] = True
    return np.flatnonzero(~read[root])


def _shared_weight_sites(trace: TraceResult) -> list[LabelSite]:
    """The channels of layers that share a weight with another layer."""
    users: dict[int, list[TracedLayer]] = defaultdict(list)
    for slot in trace.traced_layers.values():
        for parameter in slot.module._parameters.values():
            if parameter is not None:
                users[id(parameter)].append(slot)
    return [
        LabelSite(_valid_ids(ids), f"shares its weight with {_names_of_others(slots, slot)}")
        for slots in users.values()
        if len(slots) > 1
        for slot in slots
        for ids in (slot.ids_out, slot.ids_in)
    ]


def _names_of_others(slots: list[TracedLayer], but: TracedLayer) -> str:
    return " and ".join(slot.name for slot in slots if slot is not but)


def _valid_ids(labels: Tensor | None) -> IntArray:
    assert labels is not None
    ids: IntArray = labels.numpy()
    return ids[ids >= 0]


def _number_atoms(
    trace: TraceResult, root: IntArray, reasons: dict[int, str]
) -> tuple[Int32Array, tuple[Group, ...], Int32Array]:
    """Atom of every id (-1: protected), the groups, and the group of every atom."""
    makers: dict[int, set[int]] = defaultdict(set)
    if trace.couplings.producer:
        for r, layer in zip(root.tolist(), np.concatenate(trace.couplings.producer), strict=True):
            makers[r].add(int(layer))
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for r in sorted(set(makers) - set(reasons)):
        members[tuple(sorted(makers[r]))].append(r)
    for alone in [key for key, roots in members.items() if len(roots) == 1]:
        reasons[members.pop(alone)[0]] = "its channels can only go all together"
    names = list(trace.traced_layers)
    order = sorted(members)
    groups = tuple(Group(names[key[0]], tuple(names[i] for i in key)) for key in order)
    numbered = [r for key in order for r in members[key]]
    atom_of_root = np.full(len(root) + 1, -1, dtype=np.int32)  # the last is for id -1
    atom_of_root[numbered] = np.arange(len(numbered), dtype=np.int32)
    group_of = np.repeat(np.arange(len(order), dtype=np.int32), [len(members[k]) for k in order])
    return atom_of_root[np.append(root, len(root))], groups, group_of


def _build_layer(slot: TracedLayer, atom_of: Int32Array) -> Layer:
    assert slot.ids_in is not None
    assert slot.ids_out is not None
    module, per_pair, per_out = slot.module, 0, 0
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if slot.kind in ("conv", "linear"):
        assert weight is not None
        per_pair = weight[0, 0].numel()
        per_out = int(bias is not None)
    elif slot.kind == "channelwise":
        per_out = int(weight is not None) + int(bias is not None)
    else:
        table = module._parameters.get("table")
        per_out = 0 if table is None else len(table)
    return Layer(
        name=slot.name,
        kind=slot.kind,
        out_atoms=atom_of[slot.ids_out.numpy()],
        in_atoms=atom_of[slot.ids_in.numpy()],
        conv_groups=getattr(module, "groups", 1) if slot.kind == "conv" else 1,
        macs_per_pair=slot.macs_per_pair,
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
    for slot in trace.traced_layers.values():
        if slot.kind not in PRODUCER_KINDS:
            continue
        assert slot.ids_out is not None
        ids = slot.ids_out.numpy()
        why: dict[str, int] = defaultdict(int)
        for i in ids[atom_of[ids] < 0].tolist():
            why[reasons[int(root[i])]] += 1
        found += [
            ProtectedChannels(slot.name, channels, reason) for reason, channels in why.items()
        ]
    return found
