"""`inspect` takes any network that runs and says why channels stay; others take classifiers."""

from __future__ import annotations

import json
from collections import UserString
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from command_line import in_process
from torch import Tensor, nn

from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.summary import summarize_network
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.trainers.models.build import build_model


class Fits(nn.Module):
    """Two convolutions whose map is returned in some structure."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.a, self.b, self.wrap = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 21, 3), wrap

    def forward(self, x: Tensor):
        return self.wrap(self.b(self.a(x).relu()))


@dataclass
class Maps:
    out: Tensor
    size: tuple[int, ...] = (1, 1)


STRUCTURES = {
    "tensor": lambda y: y,
    "dict": lambda y: {"out": y},
    "tuple": lambda y: (y, None),
    "list": lambda y: [y, [y * 2]],
    "dataclass": lambda y: Maps(y),
    "nested": lambda y: [{"maps": Maps(y)}],
}


def as_model(monkeypatch, **builders: object) -> None:
    """Make `nets:NAME` build a network."""
    import sys
    from types import ModuleType

    module = ModuleType("nets")
    vars(module).update(builders)
    monkeypatch.setitem(sys.modules, "nets", module)


@pytest.mark.parametrize("name", STRUCTURES)
def test_inspect_takes_any_structure_of_outputs(name: str, monkeypatch, capsys) -> None:
    as_model(monkeypatch, build=lambda: Fits(STRUCTURES[name]))
    asked = ("inspect", "--model", "nets:build", "--input", "3,12,12", "--json")
    code, output = in_process(capsys, *asked)
    assert code == 0, output.err
    found = json.loads(output.out)
    assert [group["name"] for group in found["groups"]] == ["a"]
    assert found["protected"] == [
        {"layer": "b", "channels": 21, "reason": "output of the network"}
    ]


def test_inspect_refuses_a_network_without_a_tensor_in_its_outputs(monkeypatch, capsys) -> None:
    as_model(monkeypatch, build=lambda: Fits(lambda y: UserString("boxes")))
    code, output = in_process(capsys, "inspect", "--model", "nets:build", "--input", "3,12,12")
    assert (code, output.err.count("\n")) == (2, 1)
    assert "must return tensors, got UserString without one" in output.err


@pytest.mark.parametrize("name", sorted(set(STRUCTURES)))
def test_what_is_no_classifier_is_refused_in_one_line(name: str, monkeypatch) -> None:
    as_model(monkeypatch, build=lambda: Fits(STRUCTURES[name]))
    words = r"only image classifiers are supported: .* got outputs.* \[2, 21, 8, 8\]"
    with pytest.raises(UserError, match=words) as caught:
        build_model("nets:build", classes=21, input_shape=(3, 12, 12), seed=0)
    assert "\n" not in str(caught.value)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


def opaque() -> nn.Module:
    return nn.Sequential(
        Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 8, 3), nn.Flatten(), nn.Linear(512, 5)
    )


def test_inspect_names_the_causes_where_no_channel_can_be_removed(monkeypatch, capsys) -> None:
    as_model(monkeypatch, opaque=opaque)
    code, output = in_process(capsys, "inspect", "--model", "nets:opaque", "--input", "3,8,8")
    said = " ".join(output.out.split())
    assert code == 0
    assert "no channel can be removed; the main causes by their share of the FLOPs" in said
    macs = (3 * 8 + 8 * 8) * 9 * 64
    share = macs / (macs + 512 * 5)
    assert f"{share:.1%} Standardised has a forward of its own" in said
    assert "channels: 0, 2" in said
    assert f"{1 - share:.1%} output of the network: 4" in said


def test_causes_are_named_for_every_kind_of_weights_that_are_not_read() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    scaled = nn.Linear(8, 8)
    scaled.register_parameter("gain", nn.Parameter(torch.ones(1)))
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    model = nn.Sequential(Own(), scaled, normed, nn.Linear(8, 4))
    channel_map = trace_channel_map(model, (8,))
    causes = summarize_network(channel_map, CostModel(channel_map)).causes
    assert channel_map.fixed_macs == sum(one.macs for one in channel_map.unread) == 2 * 64
    assert {cause.layers: cause.reason for cause in causes if cause.unread} == {
        ("0",): "the code of Own multiplies by weights itself",
        ("1",): "Linear has parameters besides weight and bias: gain",
        ("2",): "a parameter of ParametrizedLinear is parametrised",
    }
    assert sum(cause.macs_share for cause in causes) == pytest.approx(1)  # a computed weight: 0


def test_causes_of_one_operation_are_one_line() -> None:
    block = [nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *block, *block, nn.Flatten(), nn.LazyLinear(4))
    model(torch.zeros(2, 3, 8, 8))
    channel_map = trace_channel_map(model, (3, 8, 8))
    causes = {
        c.reason: c.layers for c in summarize_network(channel_map, CostModel(channel_map)).causes
    }
    assert causes["mixes channels or is not known (native_group_norm)"] == ("1",)


def test_an_error_of_the_network_itself_names_its_class(monkeypatch, capsys) -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no such image")

    as_model(monkeypatch, build=Picky)
    code, output = in_process(capsys, "inspect", "--model", "nets:build", "--input", "3,8,8")
    assert code == 2
    assert "but Picky failed (no such image)" in output.err
