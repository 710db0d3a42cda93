"""Scores against computations by hand; their shared pass; how parts become one number an atom."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import trace
from torch import nn
from torch.nn import functional

import paretoprune as pp
from paretoprune.analysis.evidence import measure_evidence, measure_scores
from paretoprune.analysis.scores import all_scores, registry
from paretoprune.analysis.scores.registry import BatchScore, Network
from paretoprune.analysis.scores.shared_pass import batch_size_for
from paretoprune.spaces.bias import divide_by_fan_in, rescale_stages, stages_of
from paretoprune.spaces.channels import ChannelMap, Group
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.parts import WHOLE, Parts, combine
from paretoprune.trainers.split import Data, Split

OF_DATA = [name for name, method in all_scores().items() if isinstance(method, BatchScore)]
OF_WEIGHTS = [name for name in all_scores() if name not in OF_DATA and name != "random"]
SHAPE = (2, 6, 6)
IMAGES = 150  # one whole batch and a short one


def data_of(images, labels):
    split = Split(images, labels)
    return Data("noise", split, split, None, 3, (0.0,), (1.0,), tuple(images.shape[1:]))


def network_of(model, shape=SHAPE, images=IMAGES):
    traced = trace(model, shape)
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(images, *shape, generator=rng)
    data = data_of(x, torch.randint(0, 3, (images,), generator=rng))
    rng = np.random.default_rng(0)
    return Network(traced.model.eval(), traced.channel_map, data, data.train, rng)


def plain():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


class Residual(nn.Module):
    """A stream that two layers produce and two read; PReLU and no norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.end = nn.PReLU(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.act(self.stem(x))
        return self.end((x + self.block(x)).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.end = nn.Linear(6, 8), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

    def forward(self, x):
        x = self.embed(x.flatten(1, 2))
        return self.end((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


class Twice(nn.Module):
    """One layer called two times."""

    def __init__(self):
        super().__init__()
        self.stem, self.shared = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.end = nn.Linear(4, 3)

    def forward(self, x):
        x = self.shared(functional.relu(self.shared(self.stem(x).relu())))
        return self.end(x.relu().mean((2, 3)))


def grouped():
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2), nn.ReLU(),
        nn.Conv2d(6, 6, 1, groups=6), nn.Flatten(), nn.Linear(6 * 16, 3),
    )  # fmt: skip


NETWORKS = {"plain": plain, "residual": Residual, "attention": Attention, "twice": Twice}
NETWORKS |= {"grouped": grouped}


def run_all(network, names=None):
    methods = {n: m for n, m in all_scores().items() if names is None or n in names}
    return measure_scores(network, methods, seed=0)


def part(parts, layer, atom):
    (value,) = parts.value[(parts.layer == layer) & (parts.atom == atom)]
    return value


def owned_filters(network):
    """(layer index, module, {atom: its channels}) of every layer with weights."""
    for index, layer in enumerate(network.channel_map.layers):
        if layer.kind in ("conv", "linear"):
            atoms = np.unique(layer.out_atoms[layer.out_atoms >= 0])
            channels = {int(a): np.flatnonzero(layer.out_atoms == a).tolist() for a in atoms}
            yield index, network.model.get_submodule(layer.name), channels


def filter_of(module, tensor, channel):
    """The entries of a weight (or its gradient) that make one output channel, flat."""
    if not isinstance(module, nn.ConvTranspose2d):
        return tensor[channel].flatten()
    width, inputs = module.out_channels // module.groups, module.in_channels // module.groups
    group = channel // width
    return tensor[group * inputs : (group + 1) * inputs, channel % width].flatten()


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_weight_scores_are_the_formulas_filter_by_filter(build):
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
                rank = (1 + sum(other < value for other in t.values())) / len(t)
                sums[index, atom] = sums.get((index, atom), 0) + value
                rank_sums[index, atom] = rank_sums.get((index, atom), 0) + rank
    network.model.zero_grad()
    assert len(found["weight-gradient"].value) == len(sums)
    for (index, atom), value in sums.items():
        assert part(found["weight-gradient"], index, atom) == pytest.approx(value, rel=1e-3)
        expected = rank_sums[index, atom]
        assert part(found["weight-gradient-rank"], index, atom) == pytest.approx(expected)


def test_taylor_and_fisher_are_the_closed_form_on_one_hidden_layer():
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
    assert (found["taylor"].layer == WHOLE).all()


def test_activations_are_means_over_images_and_positions_where_a_layer_reads_them():
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


def test_activations_of_one_atoms_channels_and_calls_are_averaged():
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


def test_bn_scale_is_gamma_and_the_filters_norm_where_no_norm_is():
    network = network_of(plain())
    found, _ = run_all(network, ("bn-scale", "l2"))
    gamma = network.model[1].weight.detach().abs()
    norm = next(i for i, la in enumerate(network.channel_map.layers) if la.name == "1")
    for channel, atom in enumerate(network.channel_map.layers[norm].out_atoms):
        assert part(found["bn-scale"], norm, atom) == pytest.approx(float(gamma[channel]))
    bare = ~np.isin(found["l2"].atom, network.channel_map.layers[norm].out_atoms)
    assert bare.any()
    assert set(found["l2"].value[bare]) <= set(found["bn-scale"].value)
    without, _ = run_all(network_of(Residual()), ("bn-scale", "l2"))  # its PReLU is no norm
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
        old = combine(before[name], network.channel_map, "sum")[atoms]
        new = combine(after[name], network.channel_map, "sum")[atoms]
        assert len(set(old)) > 1, name
        np.testing.assert_allclose(new, old[order.numpy()], rtol=1e-3, err_msg=name)


def count_runs(model):
    """Count forwards, and backwards through the logits, of a model."""
    runs = {"forwards": 0, "backwards": 0}

    def bump(what):
        runs[what] += 1

    def hook(module, args, logits):
        bump("forwards")
        if logits.requires_grad:
            logits.register_hook(lambda _: bump("backwards"))

    model.register_forward_hook(hook)
    return runs


@pytest.mark.parametrize(
    ("names", "forwards", "backwards"),
    [(None, 2, 2), (("taylor",), 2, 2), (("weight-gradient",), 2, 2),
     (("activation-mean", "activation-zeros"), 2, 0), (OF_WEIGHTS, 0, 0)],
)  # fmt: skip
def test_a_batch_costs_one_forward_and_at_most_one_backward(names, forwards, backwards):
    network = network_of(plain())
    runs = count_runs(network.model)
    _, counts = run_all(network, names)
    assert runs == {"forwards": forwards, "backwards": backwards}
    assert counts == {**runs, "images": IMAGES if forwards else 0}


def test_the_shared_pass_finds_what_each_score_finds_alone():
    network = network_of(Residual())
    together, _ = run_all(network)
    for name in all_scores():
        alone, _ = run_all(network, (name,))
        np.testing.assert_allclose(alone[name].value, together[name].value, rtol=1e-6)


def test_the_network_is_as_it_was_and_frozen_weights_are_scored_too():
    network = network_of(plain())
    expected, _ = run_all(network)
    state = {k: v.clone() for k, v in network.model.state_dict().items()}
    network.model.requires_grad_(False)
    network.model.train()
    network.model[1].eval()
    with torch.no_grad():
        found, _ = run_all(network)
    for name in OF_DATA:
        np.testing.assert_allclose(found[name].value, expected[name].value, rtol=1e-6)
    assert [m.training for m in network.model] == [index != 1 for index in range(10)]
    assert not any(p.requires_grad or p.grad is not None for p in network.model.parameters())
    assert not any(m._forward_pre_hooks for m in network.model.modules())
    assert all(torch.equal(v, state[k]) for k, v in network.model.state_dict().items())


def test_a_network_that_regroups_its_batch_is_seen_image_by_image():
    class Regrouping(nn.Module):
        """Looks at the channels of an image as at images of one channel."""

        def __init__(self):
            super().__init__()
            self.stem, self.next = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
            self.end = nn.Linear(4, 3)

        def forward(self, x):
            x = x.reshape(len(x) * 2, 1, 6, 6)
            x = self.next(self.stem(x).relu()).relu().mean((2, 3))
            return self.end(x).view(-1, 2, 3).mean(1)

    network = network_of(Regrouping(), images=9)
    found, counts = run_all(network, ("taylor", "fisher", "activation-mean"))
    assert counts == {"forwards": 9, "backwards": 9, "images": 9}
    assert (found["taylor"].value > 0).all()
    alone, _ = run_all(network, ("activation-mean",))  # without gates no need to
    np.testing.assert_allclose(alone["activation-mean"].value, found["activation-mean"].value)


@pytest.mark.parametrize("name", [*OF_WEIGHTS, *OF_DATA])
def test_nan_weights_are_one_line_that_names_the_score(name):
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


def test_only_train_is_read():
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"a score read {name} of validation or test")

    network = network_of(plain())
    poisoned = replace(network.data, validation=Forbidden(), test=Forbidden())
    clean = measure_evidence(network.model, network.channel_map, network.data, folder=None, seed=0)
    found = measure_evidence(network.model, network.channel_map, poisoned, folder=None, seed=0)
    assert found.key == clean.key
    for name, parts in clean.scores.items():
        assert np.array_equal(parts.value, found.scores[name].value), name


def tiny_map():
    """Two groups, one of them produced by three layers; layer k has k weights a filter."""
    network = network_of(Residual())
    layer = network.channel_map.layers[0]
    layers = tuple(
        replace(layer, name=f"l{k}", params_per_pair=k, macs_per_pair=k * size,
                in_atoms=np.array([-1], np.int32))
        for k, size in ((1, 64), (2, 16), (3, 16), (4, 16))
    )  # fmt: skip
    groups = (Group("l0", ("l1",)), Group("l1", ("l2", "l3", "l4")))
    return ChannelMap(layers, groups, np.array([0, 1, 1], np.int32), (), SHAPE)


PARTS = Parts(  # atom 0 in layer 0; atoms 1 and 2 in layers 1, 2, 3
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
def test_parts_are_combined_as_by_hand(how, expected):
    np.testing.assert_allclose(combine(PARTS, tiny_map(), how), expected)


def test_fan_in_divides_each_part_by_the_weights_of_a_filter_there():
    divided = divide_by_fan_in(PARTS, tiny_map())
    np.testing.assert_allclose(divided.value, [5, 1 / 2, 2 / 2, 3 / 3, -4 / 3, 6 / 4, 7 / 4])
    whole = Parts(np.ones(3), np.arange(3, dtype=np.int32), np.full(3, WHOLE, np.int32))
    assert (divide_by_fan_in(whole, tiny_map()).value == 1).all()
    network = network_of(grouped())
    index, module, channels = next(
        found for found in owned_filters(network) if found[1].in_channels == 8
    )
    assert channels
    ones = Parts(np.ones(1), np.zeros(1, np.int32), np.full(1, index, np.int32))
    per_filter = len(filter_of(module, module.weight, 0))
    assert divide_by_fan_in(ones, network.channel_map).value == pytest.approx(1 / per_filter)


def test_each_stage_has_its_own_line_and_the_last_serves_the_rest():
    channel_map, scores = tiny_map(), np.array([5.0, 10.0, 20.0])
    assert stages_of(channel_map).tolist() == [0, 1]
    two = rescale_stages(scores, channel_map, (2.0, 1.0, 0.5, -1.0))
    np.testing.assert_allclose(two, [2 * 5 + 1, 0.5 * 10 - 1, 0.5 * 20 - 1])
    np.testing.assert_allclose(rescale_stages(scores, channel_map, (3.0, 0.0)), 3 * scores)
    assert np.array_equal(rescale_stages(scores, channel_map, ()), scores)


@pytest.fixture
def own_score(monkeypatch):
    """A batch score as a plugin writes it, forgotten afterwards."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @pp.batch_score("signed-taylor", "gates")
    def signed_taylor(seen: pp.Seen):
        """Sum over images of dL/dgate."""
        return seen.per_gate(lambda gradients: gradients.sum(0))

    return signed_taylor


def test_a_score_that_comes_later_is_measured_alone(tmp_path, own_score):
    network = network_of(plain())
    view = (network.model, network.channel_map, network.data)
    later = registry._REGISTRY.pop("signed-taylor")
    first = measure_evidence(*view, folder=tmp_path, seed=0)
    assert first.counts == {"forwards": 2, "backwards": 2, "images": IMAGES}
    registry._REGISTRY["signed-taylor"] = later
    runs = count_runs(network.model)
    again = measure_evidence(*view, folder=tmp_path, seed=0)
    assert again.counts == {"forwards": 2, "backwards": 2, "images": IMAGES}
    assert runs["forwards"] == 2 + 1  # the key looks at the logits once
    assert set(again.scores) == set(first.scores) | {"signed-taylor"}
    assert again.key != first.key
    once_more = measure_evidence(*view, folder=tmp_path, seed=0)
    assert once_more.counts == {"forwards": 0, "backwards": 0, "images": 0}
    assert np.array_equal(once_more.scores["taylor"].value, first.scores["taylor"].value)


def test_only_the_named_scores_are_measured_and_unknown_ones_are_one_line():
    network = network_of(plain())
    view = (network.model, network.channel_map, network.data)
    found = measure_evidence(*view, folder=None, seed=0, names=("taylor", "l2"))
    assert list(found.scores) == ["l2", "taylor"]
    with pytest.raises(UserError, match=r"score must be one of .*taylor.*, got 'no-such'"):
        measure_evidence(*view, folder=None, seed=0, names=("no-such",))


def test_the_number_of_images_is_a_setting_and_progress_is_told():
    network = network_of(plain())
    view, steps = (network.model, network.channel_map, network.data), []
    found = measure_evidence(
        *view, folder=None, seed=0, images=140, on_progress=lambda *step: steps.append(step)
    )
    assert found.counts["images"] == 140
    assert steps == [(128, 140), (140, 140)]
    with pytest.raises(UserError, match="calibration images must be at least 1, got 0"):
        measure_evidence(*view, folder=None, seed=0, images=0)


def test_large_images_come_in_smaller_batches():
    assert batch_size_for((1, 8, 8)) == batch_size_for((3, 64, 64)) == 128
    assert batch_size_for((3, 224, 224)) == 10
    assert batch_size_for((3, 4000, 4000)) == 1


def test_a_batch_score_that_goes_wrong_is_one_line(own_score):
    network = network_of(plain())
    with pytest.raises(UserError, match="must need one or more of gates, weights, inputs"):
        pp.batch_score("mine")

    @pp.batch_score("blind", "inputs")
    def blind(seen):
        return seen.per_gate(lambda gradients: gradients.sum(0))

    @pp.batch_score("restless", "gates")
    def restless(seen):
        size = len(seen.gates)
        return Parts(np.ones(1), np.zeros(1, np.int32), np.full(1, size % 7, np.int32))

    with pytest.raises(UserError, match=r"must ask for what it reads: @batch_score\(name, 'gates"):
        run_all(network, ("blind",))
    with pytest.raises(UserError, match="'restless' must find the same parts in every batch"):
        run_all(network, ("restless",))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_network_on_a_gpu_has_the_same_scores():
    network = network_of(plain())
    expected, _ = run_all(network, OF_DATA)
    network.model.cuda()
    found, _ = run_all(network, OF_DATA)
    for name in ("taylor", "fisher", "weight-gradient", "activation-mean"):
        np.testing.assert_allclose(found[name].value, expected[name].value, rtol=1e-2)


@pytest.mark.slow
def test_all_scores_of_a_resnet56_on_2048_images_take_less_than_a_minute():
    import time

    from paretoprune.trainers.zoo.resnet import resnet56

    network = network_of(resnet56(), shape=(3, 32, 32), images=2048)
    begin = time.perf_counter()
    _, counts = run_all(network)
    assert time.perf_counter() - begin < 60
    assert counts == {"forwards": 16, "backwards": 16, "images": 2048}
