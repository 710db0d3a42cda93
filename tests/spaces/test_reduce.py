"""Reduced channel maps: cutting twice equals cutting once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from oracles import Shape, trace
from torch import nn

from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.reduce import expand_mask, reduce_channel_map
from paretoprune.spaces.graph.verify import random_mask
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.models.zoo.densenet import densenet40
from paretoprune.trainers.models.zoo.lenet import lenet5
from paretoprune.trainers.models.zoo.resnet import resnet20
from paretoprune.trainers.pruning.masking import masked
from paretoprune.trainers.pruning.surgery import prune_network


def torchvision_network(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "plain convolutions and linear layers": (lenet5, (1, 28, 28)),
    "option-A shortcuts": (resnet20, (3, 32, 32)),
    "concatenations": (densenet40, (3, 32, 32)),
    "depthwise convolutions": (torchvision_network("mobilenet_v2"), (3, 64, 64)),
    "grouped convolutions": (torchvision_network("regnet_y_400mf"), (3, 64, 64)),
    "channel shuffle": (torchvision_network("shufflenet_v2_x1_0"), (3, 64, 64)),
    "attention heads": (torchvision_network("swin_t"), (3, 64, 64)),
}


def lively_mask(channel_map: ChannelMap, rate: float, seed: int) -> NDArray[np.bool_]:
    return random_mask(channel_map, rate, np.random.default_rng(seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_cutting_twice_is_cutting_once(family: str) -> None:
    build, shape = FAMILIES[family]
    traced = trace(build(), shape)
    keep = lively_mask(traced.channel_map, 0.6, 0)
    reduced = reduce_channel_map(traced.channel_map, keep)
    inner = lively_mask(reduced, 0.6, 1)
    whole = expand_mask(keep, inner)

    small = prune_network(traced.model, traced.channel_map, keep)
    twice, once = (
        prune_network(small, reduced, inner),
        prune_network(traced.model, traced.channel_map, whole),
    )
    assert str(twice) == str(once)
    expected = once.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in twice.state_dict().items())
    with torch.no_grad(), masked(small, reduced, inner):
        found = small(traced.batch())
    with torch.no_grad():
        torch.testing.assert_close(found, once(traced.batch()), rtol=1e-4, atol=1e-4)

    cost_model = CostModel(reduced)
    assert (
        cost_model.dense
        == tuple(traced.price.cost_of(keep))
        == count_macs_and_params(small, shape)
    )
    masks = np.stack([lively_mask(reduced, rate, 2) for rate in (0.1, 0.5, 0.9)])
    composed = np.stack([expand_mask(keep, mask) for mask in masks])
    assert np.array_equal(cost_model.cost_of(masks), traced.price.cost_of(composed))


def test_the_full_mask_changes_nothing_in_the_map() -> None:
    channel_map = trace(lenet5(), (1, 28, 28)).channel_map
    reduced = reduce_channel_map(channel_map, np.ones(channel_map.atoms, dtype=bool))
    assert reduced.groups == channel_map.groups
    for before, after in zip(channel_map.layers, reduced.layers, strict=True):
        assert np.array_equal(before.out_atoms, after.out_atoms)
        assert np.array_equal(before.in_atoms, after.in_atoms)


def test_every_remaining_convolution_group_keeps_its_width() -> None:
    grouped = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 2, 1))
    traced = trace(grouped, (3, 8, 8))
    keep = np.arange(traced.channel_map.atoms) == 2
    reduced = reduce_channel_map(traced.channel_map, keep)
    assert (reduced.atoms, reduced.layers[1].conv_groups) == (1, 1)
    assert len(reduced.layers[1].in_atoms) == 2
    assert CostModel(reduced).dense == tuple(traced.price.cost_of(keep))


def test_a_mask_of_another_network_raises_an_error() -> None:
    channel_map = trace(lenet5(), (1, 28, 28)).channel_map
    with pytest.raises(ValueError, match=r"\[570\], got \[3\]"):
        reduce_channel_map(channel_map, np.ones(3, dtype=bool))
