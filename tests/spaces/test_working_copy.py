"""The working copy computes the same as the user's model, which stays unchanged."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from oracles import assert_oracles, trace
from torch import Tensor, nn

from paretoprune.spaces.graph.modules.attention import ExplicitMultiheadAttention
from paretoprune.spaces.graph.random_weights import randomized_copy, relative_error
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.models.zoo.resnet import resnet20

TORCHVISION = {
    "vit_b_32": ({"image_size": 64}, 64),
    "swin_t": ({}, 72),
    "swin_v2_t": ({}, 72),
    "googlenet": ({"init_weights": False}, 64),
}


@pytest.mark.parametrize(("name", "options", "size"), [(k, *v) for k, v in TORCHVISION.items()])
def test_working_copy_computes_the_same(name: str, options: dict, size: int) -> None:
    model = torchvision.models.get_model(name, weights=None, **options)
    model = randomized_copy(model, (3, size, size), 0)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    copied, _ = make_working_copy(model)
    again, _ = make_working_copy(copied)
    with torch.no_grad():
        expected = model(x)
        assert relative_error(copied(x), expected) < 1e-5
        assert torch.equal(copied(x), again(x))


def test_auxiliary_heads_are_removed_with_a_note() -> None:
    model = torchvision.models.googlenet(weights=None, init_weights=False)
    copied, notes = make_working_copy(model)
    assert notes == ("auxiliary head aux1 removed", "auxiliary head aux2 removed")
    assert isinstance(copied.train()(torch.randn(2, 3, 64, 64)), Tensor)
    assert model.aux1 is not None


ATTENTION = [
    {"batch_first": True},
    {"batch_first": False},
    {"batch_first": True, "kdim": 12, "vdim": 10},
    {"batch_first": True, "bias": False},
]


@pytest.mark.parametrize("options", ATTENTION)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["none", "bool", "float", "heads", "padding"])
def test_multihead_computes_what_pytorchs_does(
    options: dict, need_weights: bool, masks: str
) -> None:
    torch.manual_seed(0)
    original = nn.MultiheadAttention(16, 4, **options).eval()
    q, k, v = torch.randn(2, 5, 16), torch.randn(2, 6, options.get("kdim", 16)), None
    v = torch.randn(2, 6, options.get("vdim", 16))
    if not options["batch_first"]:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    given: dict[str, object] = {"need_weights": need_weights}
    if masks in ("bool", "float", "heads"):
        shape = (8, 5, 6) if masks == "heads" else (5, 6)
        given["attn_mask"] = torch.randn(shape) if masks == "float" else torch.rand(shape) < 0.3
    if masks == "padding":
        given["key_padding_mask"] = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    expected, weights = original(q, k, v, **given)
    found, found_weights = ExplicitMultiheadAttention(original)(q, k, v, **given)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (weights is None) == (found_weights is None)
    if weights is not None:
        torch.testing.assert_close(found_weights, weights, rtol=1e-5, atol=1e-6)


def test_a_transformer_encoder_is_cut_by_heads_and_hidden_units() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layers(x).mean(1))

    traced = trace(Encoder(), (6, 16))
    assert traced.channel_map.atoms == 2 * (4 + 32)
    assert_oracles(traced)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: m.half()])
def test_wrapped_compiled_and_half_precision_models_become_plain_float32(wrap) -> None:
    model = resnet20()
    copied, notes = make_working_copy(wrap(copy.deepcopy(model)))
    assert type(copied) is type(model)
    assert next(copied.parameters()).dtype == torch.float32
    assert len(notes) == 1
    assert_oracles(trace(copied, (3, 32, 32)), rates=(0.5,))


def test_a_model_compiled_in_place_is_traced() -> None:
    model = resnet20()
    model.compile()
    assert trace(model, (3, 32, 32)).channel_map.atoms == 448


def test_lambdas_are_copied() -> None:
    class Lambda(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(4, 6), nn.Linear(6, 2), lambda x: x.relu()

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.act(self.a(x)))

    assert_oracles(trace(Lambda(), (4,)))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (resnet20, "got function; call the function that builds it"),
        (nn.Sequential(nn.LazyLinear(3)), "lazy layers; run it once"),
        (nn.Linear(2, 2, device="meta"), "meta tensors; load its state dict"),
        (torch.jit.script(nn.Linear(2, 2)), "TorchScript; pass the original module"),
    ],
)
def test_a_model_that_cannot_be_copied_raises_a_one_line_error(model, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make_working_copy(model)
    assert "\n" not in str(caught.value)


def test_the_users_model_is_unchanged() -> None:
    model = torchvision.models.googlenet(weights=None, init_weights=False).train()
    before, modules = copy.deepcopy(model.state_dict()), dict(model.named_modules())
    trace(model, (3, 64, 64))
    assert model.training
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
