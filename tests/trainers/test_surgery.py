"""Masking, cutting and counting, and what they must not change."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import Traced, masked_and_cut, trace, weights_folder
from torch import Tensor, nn

from paretoprune.spaces.graph.random_weights import relative_error
from paretoprune.spaces.graph.verify import random_mask
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.models.zoo.lenet import lenet5
from paretoprune.trainers.models.zoo.resnet import resnet20, resnet56
from paretoprune.trainers.pruning.masking import masked
from paretoprune.trainers.pruning.surgery import output_widths, prune_network


@pytest.fixture(scope="module")
def traced() -> Traced:
    return trace(resnet20(), (3, 32, 32))


def test_pruning_does_not_change_the_original_network(traced: Traced) -> None:
    before = copy.deepcopy(traced.model.state_dict())
    keep = random_mask(traced.channel_map, 0.5, np.random.default_rng(0))
    prune_network(traced.model, traced.channel_map, keep)
    assert all(torch.equal(v, before[k]) for k, v in traced.model.state_dict().items())


def test_pruned_modules_have_consistent_attributes(traced: Traced) -> None:
    keep = random_mask(traced.channel_map, 0.5, np.random.default_rng(0))
    small = prune_network(traced.model, traced.channel_map, keep)
    expected = output_widths(traced.channel_map, keep)
    for name, module in small.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels)
            assert module.out_channels == expected[name]
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.running_mean) == expected[name]


def test_a_full_mask_changes_nothing(traced: Traced) -> None:
    expected, found, _ = masked_and_cut(traced, np.ones(traced.channel_map.atoms, dtype=bool))
    with torch.no_grad():
        assert torch.equal(found, traced.model(traced.batch()))
    assert torch.equal(found, expected)


def test_cutting_keeps_frozen_parameters_frozen(traced: Traced) -> None:
    model = copy.deepcopy(traced.model)
    model.conv1.weight.requires_grad_(False)
    keep = random_mask(traced.channel_map, 0.5, np.random.default_rng(0))
    assert not prune_network(model, traced.channel_map, keep).conv1.weight.requires_grad


def test_one_mask_per_sample_gives_each_sample_its_own_network(traced: Traced) -> None:
    rng, x = np.random.default_rng(0), traced.batch(3)
    masks = np.stack([random_mask(traced.channel_map, rate, rng) for rate in (0.4, 0.6, 0.9)])
    with torch.no_grad(), masked(traced.model, traced.channel_map, masks):
        together = traced.model(x)
    for i, mask in enumerate(masks):
        with torch.no_grad(), masked(traced.model, traced.channel_map, mask):
            alone = traced.model(x[i : i + 1])
        assert relative_error(together[i], alone[0]) < 1e-5


def test_a_soft_mask_carries_gradients(traced: Traced) -> None:
    mask = torch.ones(traced.channel_map.atoms, requires_grad=True)
    with masked(traced.model, traced.channel_map, mask):
        traced.model(traced.batch()).sum().backward()
    assert mask.grad is not None
    assert (mask.grad != 0).float().mean() > 0.99


def test_masks_are_removed_after_the_block_also_after_an_exception(traced: Traced) -> None:
    keep = random_mask(traced.channel_map, 0.5, np.random.default_rng(0))
    with pytest.raises(KeyError), masked(traced.model, traced.channel_map, keep):
        raise KeyError
    assert not any(module._forward_pre_hooks for module in traced.model.modules())


@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1, 448)])
def test_a_mask_of_another_network_is_refused(traced: Traced, shape: tuple[int, ...]) -> None:
    with (
        pytest.raises(ValueError, match="from the channel map of this network"),
        masked(traced.model, traced.channel_map, np.ones(shape, dtype=bool)),
    ):
        pass
    with pytest.raises(ValueError, match=r"\[448\]"):
        prune_network(traced.model, traced.channel_map, np.ones(shape, dtype=bool))


def test_the_number_of_masks_must_be_one_or_the_number_of_samples(traced: Traced) -> None:
    masks = np.ones((2, traced.channel_map.atoms), dtype=bool)
    with (
        masked(traced.model, traced.channel_map, masks),
        pytest.raises(ValueError, match="got 2 for a batch of 3"),
    ):
        traced.model(traced.batch(3))


def test_a_mask_that_empties_a_layer_is_refused_by_name(traced: Traced) -> None:
    keep = np.ones(traced.channel_map.atoms, dtype=bool)
    keep[traced.channel_map.group_of == 1] = False
    with pytest.raises(ValueError, match=r"got none of layer1\.0\.conv1; keep one atom"):
        prune_network(traced.model, traced.channel_map, keep)


def test_the_count_excludes_products_of_activations() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(8, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            q = self.proj(x)
            return (q @ q.transpose(1, 2)).softmax(-1) @ F.linear(q, self.proj.weight)

    assert count_macs_and_params(Attention(), (4, 8)) == (2 * 4 * 64, 64)


def test_count_of_lenet5_is_the_closed_form() -> None:
    macs = 20 * 25 * 24**2 + 50 * 20 * 25 * 8**2 + 800 * 500 + 500 * 10
    assert count_macs_and_params(lenet5(), (1, 28, 28)) == (macs, 431_080)


def akamaster(x: Tensor, state: dict[str, Tensor], blocks: int) -> Tensor:
    """The published network in plain functions, for comparison."""

    def norm(y: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(y, *(state[f"{name}.{key}"] for key in keys))

    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = F.relu(norm(y, f"{name}.bn1"))
            y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            pad = (y.shape[1] - x.shape[1]) // 2
            x = F.relu(y + F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, pad, pad)))
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize(
    ("build", "file", "blocks"),
    [(resnet20, "resnet20-12fca82f.th", 3), (resnet56, "resnet56-4bfd9763.th", 9)],
)
def test_published_weights_give_the_published_outputs(build, file: str, blocks: int) -> None:
    loaded = torch.load(weights_folder() / file, map_location="cpu", weights_only=True)
    state = {k.removeprefix("module."): v for k, v in loaded["state_dict"].items()}
    model = build().eval()
    model.load_state_dict(state)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative_error(model(x), akamaster(x, state, blocks)) < 1e-5
