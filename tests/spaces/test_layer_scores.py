"""Combination of layer scores and bias removal, against values computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_networks import SHAPE, Residual, filter_of, grouped, network_of, owned_filters

from paretoprune.spaces.graph.channels import ChannelMap, Group
from paretoprune.spaces.policy.layer_scores import NO_LAYER, LayerScores, combine_layers
from paretoprune.spaces.policy.normalization import (
    divide_by_fan_in,
    rescale_stages,
    stage_coefficients,
    stages_of_groups,
)


def tiny_map():
    """Two groups, one produced by three layers; a filter of layer k has k weights."""
    network = network_of(Residual())
    layer = network.channel_map.layers[0]
    layers = tuple(
        replace(layer, name=f"l{k}", params_per_pair=k, macs_per_pair=k * size,
                in_atoms=np.array([-1], np.int32))
        for k, size in ((1, 64), (2, 16), (3, 16), (4, 16))
    )  # fmt: skip
    groups = (Group("l0", ("l1",)), Group("l1", ("l2", "l3", "l4")))
    return ChannelMap(layers, groups, np.array([0, 1, 1], np.int32), (), SHAPE)


PARTS = LayerScores(  # atom 0 in layer 0; atoms 1 and 2 in layers 1, 2, 3
    np.array([5.0, 1.0, 2.0, 3.0, -4.0, 6.0, 7.0]),
    np.array([0, 1, 2, 1, 2, 1, 2], np.int32),
    np.array([0, 1, 1, 2, 2, 3, 3], np.int32),
)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("sum", [5, 1 + 3 + 6, 2 - 4 + 7]),
        ("mean", [5, 10 / 3, 5 / 3]),
        ("max", [5, 6, 7]),
        ("later", [5, (1 + 3) / 2 + 6, (2 - 4) / 2 + 7]),
    ],
)
def test_layer_scores_are_combined_as_by_hand(how, expected):
    np.testing.assert_allclose(combine_layers(PARTS, tiny_map(), how), expected)


def test_fan_in_divides_each_layer_score_by_the_weights_of_a_filter():
    divided = divide_by_fan_in(PARTS, tiny_map())
    np.testing.assert_allclose(divided.value, [5, 1 / 2, 2 / 2, 3 / 3, -4 / 3, 6 / 4, 7 / 4])
    whole = LayerScores(np.ones(3), np.arange(3, dtype=np.int32), np.full(3, NO_LAYER, np.int32))
    assert (divide_by_fan_in(whole, tiny_map()).value == 1).all()
    network = network_of(grouped())
    index, module, channels = next(
        found for found in owned_filters(network) if found[1].in_channels == 8
    )
    assert channels
    ones = LayerScores(np.ones(1), np.zeros(1, np.int32), np.full(1, index, np.int32))
    per_filter = len(filter_of(module, module.weight, 0))
    assert divide_by_fan_in(ones, network.channel_map).value == pytest.approx(1 / per_filter)


def test_each_stage_has_its_own_pair_and_the_last_pair_is_repeated():
    channel_map, scores = tiny_map(), np.array([[5.0, 10.0, 20.0]])
    assert stages_of_groups(channel_map).tolist() == [0, 1]
    stage = stages_of_groups(channel_map)[channel_map.group_of]

    def rescaled(*pairs):
        return rescale_stages(scores, stage, stage_coefficients(pairs, 2)[None])[0]

    np.testing.assert_allclose(rescaled(2.0, 1.0, 0.5, -1.0), [2 * 5 + 1, 5 - 1, 10 - 1])
    np.testing.assert_allclose(rescaled(3.0, 0.0), 3 * scores[0])
