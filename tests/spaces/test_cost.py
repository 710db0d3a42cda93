"""The cost is exact, fast and differentiable."""

from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.summary import summarize_network
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.verify import random_mask
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.models.zoo.densenet import densenet40
from paretoprune.trainers.models.zoo.lenet import lenet5
from paretoprune.trainers.models.zoo.resnet import resnet20, resnet56
from paretoprune.trainers.pruning.surgery import output_widths, prune_network

torch.set_num_threads(1)
# Salama et al. 2019, the released ResNet-50s: stem; per stage the stream, then a-b of each block
PUBLISHED = {
    (17_895_662, 3_137_690_945): (
        63,
        (199, "59-56 60-64 64-64"),
        (353, "128-128 62-76 128-128 128-128"),
        (918, "256-251 205-211 231-235 255-235 256-243 256-253"),
        (1921, "512-222 511-315 512-186"),
    ),
    (13_862_067, 2_825_600_492): (
        63,
        (198, "59-56 60-63 64-64"),
        (348, "128-128 51-61 128-128 128-128"),
        (905, "256-241 174-150 189-176 250-209 256-208 256-233"),
        (1098, "512-221 508-302 512-186"),
    ),
}


def published_widths(listed: tuple) -> dict[str, int]:
    stem, *stages = listed
    wanted = {"conv1": stem}
    for stage, (stream, blocks) in enumerate(stages, start=1):
        for block, pair in enumerate(blocks.split()):
            name = f"layer{stage}.{block}"
            wanted[f"{name}.conv1"], wanted[f"{name}.conv2"] = map(int, pair.split("-"))
            wanted[f"{name}.conv3"] = stream
    return wanted


def mask_of_widths(channel_map: ChannelMap, wanted: dict[str, int]) -> NDArray[np.bool_]:
    keep = np.ones(channel_map.atoms, dtype=bool)
    for layer in channel_map.layers:
        if layer.name in wanted:
            keep[layer.out_atoms[wanted[layer.name] :]] = False
    return keep


@pytest.fixture(scope="module")
def resnet50() -> tuple[nn.Module, ChannelMap]:
    model, _ = make_working_copy(torchvision.models.resnet50(weights=None))
    return model, trace_channel_map(model, (3, 224, 224))


def test_dense_resnet50_has_the_published_cost(resnet50: tuple[nn.Module, ChannelMap]) -> None:
    assert CostModel(resnet50[1]).dense == (4_089_184_256, 25_557_032)


@pytest.mark.parametrize(("figures", "listed"), PUBLISHED.items())
def test_published_widths_of_resnet50_have_the_published_cost(
    resnet50: tuple[nn.Module, ChannelMap], figures: tuple[int, int], listed: tuple
) -> None:
    model, channel_map = resnet50
    params, macs = figures
    wanted = published_widths(listed)
    keep = mask_of_widths(channel_map, wanted)
    assert {k: v for k, v in output_widths(channel_map, keep).items() if k in wanted} == wanted
    assert tuple(CostModel(channel_map).cost_of(keep)) == (macs, params)
    assert count_macs_and_params(prune_network(model, channel_map, keep), (3, 224, 224)) == (
        macs,
        params,
    )


@pytest.fixture(scope="module", params=[lenet5, resnet20, densenet40])
def network(request: pytest.FixtureRequest) -> tuple[ChannelMap, CostModel]:
    shape = (1, 28, 28) if request.param is lenet5 else (3, 32, 32)
    channel_map = trace_channel_map(request.param(), shape)
    return channel_map, CostModel(channel_map)


def masks_of(channel_map: ChannelMap, number: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(0)
    return np.stack([random_mask(channel_map, rng.random(), rng) for _ in range(number)])


def test_the_cost_of_a_batch_of_masks_equals_that_of_each_mask(
    network: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = network
    masks = masks_of(channel_map, 20)
    assert np.array_equal(
        cost_model.cost_of(masks), np.stack([cost_model.cost_of(mask) for mask in masks])
    )
    assert cost_model.cost_of(masks).dtype == np.int64
    assert cost_model.cost_of(masks[:0]).shape == (0, 2)


def test_marginal_cost_is_the_cost_difference_of_one_atom(
    network: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = network
    for mask in masks_of(channel_map, 3):
        flipped = np.repeat(mask[None], channel_map.atoms, axis=0)
        flipped[np.arange(channel_map.atoms), np.arange(channel_map.atoms)] ^= True
        assert np.array_equal(
            cost_model.marginal_costs(mask),
            np.abs(cost_model.cost_of(flipped) - cost_model.cost_of(mask)),
        )


def test_the_differentiable_cost_equals_the_exact_cost_at_0_and_1(
    network: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = network
    relaxed_cost = cost_model.differentiable_cost("cpu")
    for mask in masks_of(channel_map, 5):
        found = relaxed_cost(torch.from_numpy(mask).double())
        assert found.tolist() == cost_model.cost_of(mask).tolist()


def test_the_differentiable_cost_has_the_right_gradient(
    network: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = network
    mask = torch.rand(channel_map.atoms, dtype=torch.float64, generator=torch.manual_seed(0))
    relaxed_cost = cost_model.differentiable_cost("cpu")
    gradient = torch.autograd.functional.jacobian(relaxed_cost, mask)
    step = torch.zeros_like(mask)
    step[7] = 1e-3
    slope = (relaxed_cost(mask + step) - relaxed_cost(mask - step)) / 2e-3
    torch.testing.assert_close(gradient[:, 7], slope, rtol=1e-6, atol=1e-3)


def test_no_mask_with_an_atom_per_group_is_below_the_minimum_cost(
    network: tuple[ChannelMap, CostModel],
) -> None:
    channel_map, cost_model = network
    rng = np.random.default_rng(0)
    sparse = np.stack([random_mask(channel_map, 0.0, rng) for _ in range(50)])
    assert (cost_model.cost_of(sparse) >= cost_model.min_cost()).all()
    assert cost_model.min_cost(3) > cost_model.min_cost(1)


def test_the_cost_model_survives_pickling(network: tuple[ChannelMap, CostModel]) -> None:
    _, cost_model = network
    packed = pickle.dumps(cost_model)
    assert b"torch" not in packed
    assert pickle.loads(packed).dense == cost_model.dense


def test_ten_thousand_masks_of_a_resnet56_take_less_than_a_second() -> None:
    channel_map = trace_channel_map(resnet56(), (3, 32, 32))
    cost_model = CostModel(channel_map)
    masks = np.random.default_rng(0).random((10_000, channel_map.atoms)) < 0.6
    start = time.perf_counter()
    cost_model.cost_of(masks)
    assert time.perf_counter() - start < 1


def test_dense_costs_of_the_trained_resnets_are_those_published() -> None:
    assert CostModel(trace_channel_map(resnet20(), (3, 32, 32))).dense == (40_551_040, 269_722)
    assert CostModel(trace_channel_map(resnet56(), (3, 32, 32))).dense == (125_485_696, 853_018)


def test_the_summary_has_the_cost_of_each_group_and_the_reasons_for_protection() -> None:
    channel_map = trace_channel_map(lenet5(), (1, 28, 28), keep=["3"])
    found = summarize_network(channel_map, cost_model := CostModel(channel_map))
    assert [group.name for group in found.groups] == ["0", "7"]
    assert [(p.layer, p.channels) for p in found.protected] == [("3", 50), ("9", 10)]
    alone = np.ones(channel_map.atoms, dtype=bool)
    alone[channel_map.group_of == 1] = False
    assert found.groups[1].params_share == pytest.approx(
        1 - cost_model.cost_of(alone)[1] / cost_model.dense[1]
    )
    assert (found.macs, found.params) == cost_model.dense
    assert found.lowest_macs == cost_model.min_cost()[0] / cost_model.dense[0]
