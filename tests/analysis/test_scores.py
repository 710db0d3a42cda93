"""Each score equals a direct computation, on networks of every kind."""

import numpy as np
import pytest
import torch
from tiny_networks import (
    IMAGES,
    NETWORKS,
    OF_DATA,
    OF_WEIGHTS,
    Residual,
    Twice,
    filter_of,
    network_of,
    owned_filters,
    part,
    plain,
    run_all,
)
from torch import nn
from torch.nn import functional

from paretoprune.analysis.scores.calibration_pass import batch_size_for
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.policy.layer_scores import NO_LAYER, combine_layers


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_weight_scores_equal_their_formulas_filter_by_filter(build):
    network = network_of(build())
    found, _ = run_all(network, ("l2", "mean-abs-weight", "fpgm"))
    for index, module, channels in owned_filters(network):
        weight = module.weight.detach().double()
        count = module.bias.numel()
        rows = [filter_of(module, weight, channel) for channel in range(count)]
        for atom, own in channels.items():
            expected = {
                "l2": sum(float((rows[c] ** 2).sum()) ** 0.5 for c in own),
                "mean-abs-weight": sum(float(rows[c].abs().sum()) / len(rows[c]) for c in own),
                "fpgm": sum(float((rows[c] - row).norm()) for c in own for row in rows),
            }
            for name, value in expected.items():
                assert part(found[name], index, atom) == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_gradient_times_weight_is_summed_filter_by_filter_and_batch_by_batch(build):
    network = network_of(build())
    found, _ = run_all(network, ("weight-gradient", "weight-gradient-rank"))
    sums, rank_sums, size = {}, {}, batch_size_for(network.data.input_shape)
    for start in range(0, IMAGES, size):
        rows = slice(start, start + size)
        network.model.zero_grad()
        logits = network.model(network.calibration.images[rows])
        labels = network.calibration.labels[rows]
        functional.cross_entropy(logits, labels, reduction="sum").backward()
        for index, module, channels in owned_filters(network):
            product = (module.weight * module.weight.grad).abs().detach()
            t = {a: sum(float(filter_of(module, product, c).sum()) for c in own)
                 for a, own in channels.items()}  # fmt: skip
            for atom, value in t.items():
                rank = (1 + sum((t[b], b) < (value, atom) for b in t)) / len(t)  # ties by index
                sums[index, atom] = sums.get((index, atom), 0) + value
                rank_sums[index, atom] = rank_sums.get((index, atom), 0) + rank
    network.model.zero_grad()
    assert len(found["weight-gradient"].value) == len(sums)
    for (index, atom), value in sums.items():
        assert part(found["weight-gradient"], index, atom) == pytest.approx(value, rel=1e-3)
        expected = rank_sums[index, atom]
        assert part(found["weight-gradient-rank"], index, atom) == pytest.approx(expected)


def test_taylor_and_fisher_equal_the_closed_form_on_one_hidden_layer():
    network = network_of(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), shape=(6,))
    first, _, last = network.model
    x, labels = network.calibration.images, network.calibration.labels
    with torch.no_grad():
        hidden = first(x).relu()
        error = last(hidden).softmax(1) - functional.one_hot(labels, 3)
        derivative = (hidden * (error @ last.weight)).double()  # dL_n / dm_i, gates on the hidden
    found, _ = run_all(network, ("taylor", "fisher"))
    np.testing.assert_allclose(found["taylor"].value, derivative.abs().sum(0), rtol=1e-4)
    np.testing.assert_allclose(found["fisher"].value, derivative.square().sum(0), rtol=1e-4)
    assert (found["taylor"].layer == NO_LAYER).all()


def test_activations_are_means_over_images_and_positions_of_layer_inputs():
    network = network_of(plain())
    found, _ = run_all(network, ("activation-mean", "activation-zeros"))
    x = network.calibration.images
    readers = {layer.name: i for i, layer in enumerate(network.channel_map.layers)}
    with torch.no_grad():
        inputs = {"4": network.model[:4](x), "7": network.model[:7](x), "9": network.model[:9](x)}
    seen = 0
    for name, value in inputs.items():
        layer = network.channel_map.layers[readers[name]]
        for channel, atom in enumerate(layer.in_atoms):
            own = value[:, channel].double()
            mean, nonzero = float(own.abs().mean()), float((own != 0).double().mean())
            index = readers[name]
            assert part(found["activation-mean"], index, atom) == pytest.approx(mean, rel=1e-5)
            assert part(found["activation-zeros"], index, atom) == pytest.approx(nonzero, rel=1e-5)
            seen += 1
    assert seen == len(found["activation-mean"].value) == network.channel_map.atoms


def test_activations_are_averaged_over_channels_and_calls():
    flat = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))
    network = network_of(flat)
    found, _ = run_all(network, ("activation-mean",))
    with torch.no_grad():
        expected = network.model[:2](network.calibration.images).double().mean((0, 2, 3))
    np.testing.assert_allclose(found["activation-mean"].value, expected, rtol=1e-5)
    network = network_of(Twice())
    model = network.model
    with torch.no_grad():
        one = model.stem(network.calibration.images).relu()
        calls = torch.cat((one, model.shared(one).relu()))
    found, _ = run_all(network, ("activation-mean",))
    (index,) = (i for i, la in enumerate(network.channel_map.layers) if la.name == "shared")
    for channel, atom in enumerate(network.channel_map.layers[index].in_atoms):
        expected = float(calls[:, channel].double().mean())
        assert part(found["activation-mean"], index, atom) == pytest.approx(expected, rel=1e-5)


def test_bn_scale_is_gamma_or_the_filters_norm_without_batch_norm():
    network = network_of(plain())
    found, _ = run_all(network, ("bn-scale", "l2"))
    gamma = network.model[1].weight.detach().abs()
    norm = next(i for i, la in enumerate(network.channel_map.layers) if la.name == "1")
    for channel, atom in enumerate(network.channel_map.layers[norm].out_atoms):
        assert part(found["bn-scale"], norm, atom) == pytest.approx(float(gamma[channel]))
    bare = ~np.isin(found["l2"].atom, network.channel_map.layers[norm].out_atoms)
    assert bare.any()
    assert set(found["l2"].value[bare]) <= set(found["bn-scale"].value)
    without, _ = run_all(network_of(Residual()), ("bn-scale", "l2"))  # a PReLU is not a norm
    assert np.array_equal(without["bn-scale"].value, without["l2"].value)


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_every_score_gives_every_atom_a_finite_number(build):
    network = network_of(build())
    assert network.channel_map.atoms > 0
    found, _ = run_all(network)
    for name, parts in found.items():
        assert set(parts.atom) == set(range(network.channel_map.atoms)), name
        assert np.isfinite(parts.value).all(), name


def test_scores_follow_their_filters_when_filters_are_permuted():
    network = network_of(plain())
    order = torch.tensor([2, 0, 3, 1])
    before, _ = run_all(network, (*OF_WEIGHTS, *OF_DATA))
    first, norm, second = network.model[0], network.model[1], network.model[4]
    with torch.no_grad():
        for module in (first, norm):
            for tensor in (module.weight, module.bias):
                tensor.copy_(tensor[order].clone())
        for buffer in (norm.running_mean, norm.running_var):
            buffer.copy_(buffer[order].clone())
        second.weight.copy_(second.weight[:, order].clone())
    after, _ = run_all(network, (*OF_WEIGHTS, *OF_DATA))
    atoms = network.channel_map.layers[0].out_atoms
    for name in before:
        old = combine_layers(before[name], network.channel_map, "sum")[atoms]
        new = combine_layers(after[name], network.channel_map, "sum")[atoms]
        assert len(set(old)) > 1, name
        np.testing.assert_allclose(new, old[order.numpy()], rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", [*OF_WEIGHTS, *OF_DATA])
def test_nan_weights_raise_a_user_error_that_names_the_score(name):
    network = network_of(plain())
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(UserError, match=rf"scores? '?{name}'? must") as caught:
        run_all(network, (name,))
    assert "\n" not in str(caught.value)


def test_a_network_of_zeros_has_scores():
    network = network_of(plain())
    with torch.no_grad():
        for parameter in network.model.parameters():
            parameter.zero_()
    found, _ = run_all(network)
    for name in (*OF_WEIGHTS, "taylor", "fisher", "weight-gradient", "activation-mean"):
        assert not found[name].value.any(), name
