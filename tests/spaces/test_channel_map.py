"""Which channels are removed together: one small network for each case."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import assert_oracles, masked_and_cut, trace
from torch import Tensor, nn

from paretoprune.spaces.graph.channels import ChannelMap, Layer
from paretoprune.spaces.graph.modules.option_a_shortcut import OptionAShortcut
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.models.zoo.lenet import lenet5
from paretoprune.trainers.models.zoo.resnet import resnet20, resnet56
from paretoprune.trainers.pruning.masking import masked


def layer(channel_map: ChannelMap, name: str) -> Layer:
    return next(found for found in channel_map.layers if found.name == name)


def reasons(channel_map: ChannelMap, name: str) -> str:
    return "; ".join(p.reason for p in channel_map.protected if p.layer == name)


class Net(nn.Module):
    """Convolutions a and b with a given function between them, and a head."""

    def __init__(self, between, width: int = 8, groups: int = 1, head_in: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.head = nn.Linear(head_in, 5)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, x).mean((2, 3)))


def test_resnet56_has_30_groups_and_1120_atoms() -> None:
    found = trace_channel_map(resnet56(), (3, 32, 32))
    assert len(found.groups) == 30
    assert found.atoms == 1120


def test_a_channel_and_its_copy_behind_an_option_a_shortcut_are_two_atoms() -> None:
    found = trace_channel_map(resnet20(), (3, 32, 32))
    shortcut = layer(found, "layer2.0.shortcut")
    assert len(set(shortcut.in_atoms.tolist()) & set(shortcut.out_atoms.tolist())) == 0


@pytest.mark.parametrize("gone", ["channel", "copy"])
def test_a_shortcut_without_one_of_the_two_channels_equals_the_masked_one(gone: str) -> None:
    traced = trace(resnet20(), (3, 32, 32))
    shortcut = layer(traced.channel_map, "layer2.0.shortcut")
    keep = np.ones(traced.channel_map.atoms, dtype=bool)
    keep[shortcut.in_atoms[3] if gone == "channel" else shortcut.out_atoms[8 + 3]] = False
    expected, found, small = masked_and_cut(traced, keep)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    index = small.get_submodule("layer2.0.shortcut").index
    assert len(index) == (32 if gone == "channel" else 31)
    assert int((index >= 0).sum()) == 15


def test_shortcut_equals_subsampling_and_padding() -> None:
    x = torch.randn(2, 16, 8, 8)
    expected = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(OptionAShortcut(16, 32)(x), expected)


def test_a_channel_before_a_flatten_owns_all_its_columns() -> None:
    found = trace_channel_map(lenet5(), (1, 28, 28))
    first, second = layer(found, "3").out_atoms, layer(found, "7").in_atoms
    assert second.tolist() == np.repeat(first, 16).tolist()


def test_residual_addition_makes_one_atom_of_two_channels() -> None:
    traced = trace(Net(lambda m, x: (y := m.a(x)) + m.b(F.relu(y))), (3, 8, 8))
    found = traced.channel_map
    assert found.groups[0].layers == ("a", "b")
    assert layer(found, "a").out_atoms.tolist() == layer(found, "b").out_atoms.tolist()
    assert_oracles(traced)


def test_concatenation_keeps_atoms_apart() -> None:
    net = Net(lambda m, x: torch.cat((y := m.a(x), m.b(F.relu(y))), 1), head_in=16)
    traced = trace(net, (3, 8, 8))
    assert traced.channel_map.atoms == 16
    assert_oracles(traced)


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_a_convolution_group_is_removed_as_a_whole(groups: int) -> None:
    net = Net(lambda m, x: m.b(F.relu(m.a(x))), width=16, groups=groups, head_in=16)
    traced = trace(net, (3, 8, 8))
    assert traced.channel_map.atoms == groups
    assert layer(traced.channel_map, "b").out_atoms.tolist() == sorted(
        [*range(groups)] * (16 // groups)
    )
    assert_oracles(traced)


def test_depthwise_convolution_with_a_multiplier_is_cut_channel_by_channel() -> None:
    net = Net(lambda m, x: m.b(F.relu(m.a(x))), head_in=16)
    net.b = nn.Conv2d(8, 16, 3, groups=8)
    traced = trace(net, (3, 8, 8))
    assert layer(traced.channel_map, "b").out_atoms.tolist() == np.repeat(np.arange(8), 2).tolist()
    assert_oracles(traced)


def test_transposed_convolutions_are_cut_too() -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(3, 8, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 3, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 2, 2),
    )
    assert_oracles(trace(net, (3, 6, 6)))


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions_are_cut_too(dims: int) -> None:
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv3d, nn.BatchNorm3d)
    net = nn.Sequential(conv(2, 8, 3), norm(8), nn.PReLU(8), conv(8, 4, 1), nn.Flatten())
    assert_oracles(trace(nn.Sequential(net, nn.Linear(4 * 4**dims, 3)), (2, *[6] * dims)))


def shuffle(x: Tensor, parts: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, parts, c // parts, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_channel_shuffle_ties_the_parts_by_position() -> None:
    traced = trace(Net(lambda m, x: m.b(shuffle(F.relu(m.a(x))))), (3, 8, 8))
    out = layer(traced.channel_map, "a").out_atoms
    assert out[:4].tolist() == out[4:].tolist()
    assert layer(traced.channel_map, "b").in_atoms.tolist() == np.repeat(out[:4], 2).tolist()
    assert_oracles(traced)


def test_gating_by_halves_ties_the_halves() -> None:
    def gate(m: Net, x: Tensor) -> Tensor:
        one, other = m.a(x).chunk(2, dim=1)
        return one * torch.sigmoid(other)

    net = Net(lambda m, x: m.b(gate(m, x)))
    net.b = nn.Conv2d(4, 8, 1)
    traced = trace(net, (3, 8, 8))
    assert layer(traced.channel_map, "a").out_atoms.tolist() == [0, 1, 2, 3] * 2
    assert_oracles(traced)


def test_only_channels_whose_sizes_are_fixed_in_the_code_stay_dense() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
            self.head, self.last = nn.Linear(8 * 16, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(F.relu(shuffle(self.a(x))))
            return self.last(F.relu(self.head(y.view(-1, 8 * 16))))

    traced = trace(Fixed(), (3, 8, 8))
    assert "sizes are fixed in the code (view" in reasons(traced.channel_map, "b")
    assert [group.name for group in traced.channel_map.groups] == ["a", "head"]
    assert_oracles(traced)


def test_hard_coded_split_stays_dense() -> None:
    def halves(m: Net, x: Tensor) -> Tensor:
        one, other = torch.split(m.a(x), 4, dim=1)
        return m.b(torch.cat((other, F.relu(one)), 1))

    traced = trace(Net(halves), (3, 8, 8))
    assert "fixed in the code" in reasons(traced.channel_map, "a")


@pytest.mark.parametrize(
    ("norm", "name"), [(nn.GroupNorm(2, 8), "group_norm"), (nn.LayerNorm([8, 8, 8]), "layer_norm")]
)
def test_norms_over_channels_protect_them_with_a_reason(norm: nn.Module, name: str) -> None:
    net = Net(lambda m, x: m.b(m.norm(m.a(x))))
    net.norm = norm
    traced = trace(net, (3, 8, 8))
    assert name in reasons(traced.channel_map, "a")
    assert "norm" in reasons(traced.channel_map, "a")


def test_softmax_over_channels_protects_them() -> None:
    found = trace(Net(lambda m, x: m.b(m.a(x).softmax(1))), (3, 8, 8)).channel_map
    assert "softmax" in reasons(found, "a")


def test_a_parameter_that_scales_channels_protects_them() -> None:
    net = Net(lambda m, x: m.b(m.a(x) * m.scale))
    net.scale = nn.Parameter(torch.randn(8, 1, 1))
    found = trace(net, (3, 8, 8)).channel_map
    assert "fixed width" in reasons(found, "a")


def test_a_spatial_gate_of_one_channel_is_never_removed() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 1, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * torch.sigmoid(self.gate(x)))

    traced = trace(Gate(), (3, 8, 8))
    assert layer(traced.channel_map, "gate").out_atoms.tolist() == [-1]
    assert traced.channel_map.atoms == 8
    assert_oracles(traced)


def test_padding_in_the_channel_dimension_protects_the_channels() -> None:
    found = trace(Net(lambda m, x: F.pad(m.a(x), (0, 0, 0, 0, 2, 2)), head_in=12), (3, 8, 8))
    assert "constant_pad_nd" in reasons(found.channel_map, "a")


def test_weights_used_without_their_module_stay_dense_and_are_counted() -> None:
    net = Net(lambda m, x: m.b(F.conv2d(F.relu(m.a(x)), m.raw, padding=1)))
    net.raw = nn.Parameter(torch.randn(8, 8, 3, 3))
    traced = trace(net, (3, 8, 8))
    assert "convolution" in reasons(traced.channel_map, "a")
    assert traced.channel_map.fixed_macs == 8 * 8 * 9 * 64
    assert traced.channel_map.fixed_params == net.raw.numel()
    assert_oracles(traced)


def test_a_subclass_with_its_own_forward_is_not_cut() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, padding=1)

    net = Net(lambda m, x: m.b(m.c(F.relu(m.a(x)))))
    net.c = Standardised(8, 8, 3)
    traced = trace(net, (3, 8, 8))
    assert "c" not in [found.name for found in traced.channel_map.layers]
    assert "convolution" in reasons(traced.channel_map, "a")
    assert_oracles(traced)


def test_a_reparametrised_weight_is_not_cut() -> None:
    net = Net(lambda m, x: m.b(F.relu(m.a(x))))
    torch.nn.utils.parametrizations.weight_norm(net.b)
    traced = trace(net, (3, 8, 8))
    assert "convolution" in reasons(traced.channel_map, "a")


def test_a_layer_whose_weight_is_also_used_directly_stays_dense() -> None:
    net = Net(lambda m, x: F.conv2d(F.relu(m.b(F.relu(m.a(x)))), m.b.weight, padding=1))
    traced = trace(net, (3, 8, 8))
    assert "uses the weights of b itself" in reasons(traced.channel_map, "a")
    assert traced.channel_map.atoms == 0
    assert traced.price.dense == count_macs_and_params(net, (3, 8, 8))


def test_a_module_called_twice_counts_twice_and_is_cut_once() -> None:
    traced = trace(Net(lambda m, x: m.b(F.relu(m.b(F.relu(m.a(x)))))), (3, 8, 8))
    assert layer(traced.channel_map, "b").macs_per_pair == 2 * 9 * 64
    assert traced.channel_map.groups[0].layers == ("a", "b")
    assert_oracles(traced)


def test_layers_that_share_a_weight_stay_dense_and_name_each_other() -> None:
    net = Net(lambda m, x: m.b(F.relu(m.c(F.relu(m.a(x))))))
    net.c = nn.Conv2d(8, 8, 3, padding=1)
    net.c.weight = net.b.weight
    traced = trace(net, (3, 8, 8))
    assert reasons(traced.channel_map, "b") == "shares its weight with c"
    assert traced.price.dense == (traced.price.dense[0], sum(p.numel() for p in net.parameters()))


def test_channels_that_no_layer_reads_are_not_atoms() -> None:
    net = Net(lambda m, x: (m.a(x), m.b(F.relu(m.a(x))))[1])
    net.dead = nn.Conv2d(3, 4, 1)
    forward = net.between
    net.between = lambda m, x: (m.dead(x), forward(m, x))[1]
    found = trace(net, (3, 8, 8)).channel_map
    assert reasons(found, "dead") == "no layer reads it"


def test_outputs_are_protected_also_in_a_dictionary() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = F.relu(self.a(x))
            return {"one": self.b(y), "two": self.c(y)}

    copied, _ = make_working_copy(Two())
    found = trace_channel_map(copied, (6,))
    assert [reasons(found, name) for name in "abc"] == ["", *["output of the network"] * 2]


def test_keep_protects_the_layers_it_names() -> None:
    found = trace_channel_map(resnet20(), (3, 32, 32), keep=["layer1.*.conv1"])
    assert "kept by 'layer1.*.conv1'" in reasons(found, "layer1.0.conv1")
    assert found.atoms == 448 - 3 * 16


def test_keep_may_name_a_block() -> None:
    found = trace_channel_map(resnet20(), (3, 32, 32), keep=["layer3.2"])
    assert "kept by 'layer3.2'" in reasons(found, "layer3.2.conv1")
    assert found.atoms == 448 - 2 * 64


def test_the_error_for_keep_without_a_match_names_some_layers() -> None:
    with pytest.raises(ValueError, match=r"keep must match a layer, got 'stem'.*conv1, bn1"):
        trace_channel_map(resnet20(), (3, 32, 32), keep=["stem"])


@pytest.mark.parametrize("shape", [(1, 32, 32), (3,)])
def test_an_input_of_a_wrong_shape_raises_a_one_line_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must run on one input of shape") as caught:
        trace_channel_map(resnet20(), shape)
    assert "\n" not in str(caught.value)


def test_a_network_with_two_inputs_raises_a_one_line_error() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ValueError, match="wrap it to take one tensor"):
        trace_channel_map(Sum(), (3,))


def test_a_failed_trace_leaves_the_network_unchanged() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.a(x)
            raise RuntimeError("in the middle")

    model = Broken().train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="in the middle"):
        trace_channel_map(model, (3, 8, 8))
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_same_network_gives_the_same_map() -> None:
    one, other = (trace_channel_map(resnet20(), (3, 32, 32)) for _ in range(2))
    assert one.groups == other.groups
    for a, b in zip(one.layers, other.layers, strict=True):
        assert np.array_equal(a.in_atoms, b.in_atoms)
        assert np.array_equal(a.out_atoms, b.out_atoms)


def test_every_atom_alone_changes_the_output() -> None:
    net = Net(lambda m, x: torch.cat((m.b(F.relu(m.a(x))), shuffle(m.c(x))), 1), head_in=16)
    net.c = nn.Conv2d(3, 8, 1)
    flat = nn.Sequential(nn.Conv2d(3, 9, 3), nn.Tanh(), nn.Flatten(), nn.Linear(324, 9), nn.Tanh())
    flat.append(nn.Linear(9, 2))
    for model, shape in ((net, (3, 8, 8)), (flat, (3, 8, 8)), (resnet20(), (3, 32, 32))):
        traced = trace(model, shape)
        x = traced.batch(32)
        with torch.no_grad():
            dense = traced.model(x)
            for atom in range(0, traced.channel_map.atoms, 3):
                keep = np.ones(traced.channel_map.atoms, dtype=bool)
                keep[atom] = False
                with masked(traced.model, traced.channel_map, keep):
                    assert not torch.equal(traced.model(x), dense), atom
