"""Our atoms equal torch-pruning's groups where its dependency graph is correct."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_pruning as tp
import torchvision
from torch import nn

from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map

Owned = set[tuple[str, str, int]]  # layer, side, channel


def owned_by_atom(channel_map: ChannelMap, atom: int) -> Owned:
    owned: Owned = set()
    for layer in channel_map.layers:
        if layer.kind in ("conv", "linear"):
            sides = [("out", layer.out_atoms)]
            sides += [("in", layer.in_atoms)] if layer.conv_groups == 1 else []
            for side, atoms in sides:
                owned |= {(layer.name, side, int(c)) for c in np.flatnonzero(atoms == atom)}
    return owned


def owned_by_group(group: tp.Group, names: dict[nn.Module, str]) -> Owned:
    owned: Owned = set()
    for dependency, channels in group:
        module = dependency.target.module
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        if isinstance(module, nn.Conv2d | nn.Linear):
            out = depthwise or "out" in dependency.handler.__name__
            owned |= {(names[module], "out" if out else "in", int(c)) for c in channels}
    return owned


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v2",
        pytest.param("vgg16_bn", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
    ],
)
def test_atoms_are_the_groups_of_torch_pruning(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    channel_map = trace_channel_map(model, (3, 64, 64))
    graph = tp.DependencyGraph().build_dependency(model, torch.randn(1, 3, 64, 64))
    names = {module: name for name, module in model.named_modules()}
    rng = np.random.default_rng(0)
    for number, group in enumerate(channel_map.groups):
        layer = next(found for found in channel_map.layers if found.name == group.name)
        for atom in rng.choice(np.flatnonzero(channel_map.group_of == number), 2):
            channel = int(np.flatnonzero(layer.out_atoms == atom)[0])
            module = model.get_submodule(layer.name)
            prune = graph.get_pruner_of_module(module).prune_out_channels
            expected = graph.get_pruning_group(module, prune, idxs=[channel])
            assert owned_by_atom(channel_map, int(atom)) == owned_by_group(expected, names)
