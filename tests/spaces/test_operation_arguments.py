"""Arguments of operations are found by name, also those that the dispatcher omits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import assert_oracles, trace
from torch import Tensor, nn

from paretoprune.spaces.graph.calls import argument

aten = torch.ops.aten
X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "name", "value"),
    [
        (aten.unbind.int, (X,), {}, "dim", 0),
        (aten.unbind.int, (X, 1), {}, "dim", 1),
        (aten.unbind.int, (X,), {"dim": 1}, "dim", 1),
        (aten.split.Tensor, (X, 1), {}, "dim", 0),
        (aten.cat.default, ([X, X],), {}, "dim", 0),
        (aten.slice.Tensor, (X, 1), {}, "start", None),
        (aten.slice.Tensor, (X, 1, 0, 2), {}, "step", 1),
        (aten.roll.default, (X, [1]), {}, "dims", []),
        (aten.var.correction, (X, [1]), {"correction": 0}, "correction", 0),
        (aten.linalg_vector_norm.default, (X, 2, [1]), {}, "dim", [1]),
        (aten.max.other, (X, X), {}, "dim", None),
        (aten.convolution.default, (X, X, None, [1], [0], [1], True, [0], 1), {}, "groups", 1),
    ],
)
def test_an_argument_is_found_by_its_name(op, args, kwargs, name, value) -> None:
    assert argument(op, args, kwargs, name) == value


class Between(nn.Module):
    """Two convolutions with an operation between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.head, self.between = nn.Linear(4, 5), between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.between(self.a(x))).relu().mean((2, 3)))


def added(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] + 0.5 * parts[1]


THROUGH: dict[str, Callable[[Tensor], Tensor]] = {
    "unbind, dim left out": lambda x: added(torch.stack((x, x.relu())).unbind()),
    "unbind": lambda x: added(torch.stack((x, x.relu()), dim=2).unbind(2)),
    "split and cat, dim left out": lambda x: torch.cat(x.split(1)),
    "chunk by name": lambda x: torch.cat(torch.chunk(x, chunks=2, dim=-1), dim=-1),
    "slice from the end": lambda x: x[..., -6:],
    "select of a negative dimension": lambda x: x * x.select(-1, 2).unsqueeze(-1),
    "roll": lambda x: torch.roll(x, shifts=1, dims=3),
    "flip": lambda x: x.flip(dims=(-1,)),
    "reduction by name": lambda x: x - torch.amax(x, dim=(2, 3), keepdim=True),
    "maximum of two": lambda x: torch.max(x, x.flip(-1)),
    "variance by name": lambda x: x * x.var(dim=3, correction=0, keepdim=True),
    "vector norm": lambda x: x / (1 + torch.linalg.vector_norm(x, dim=3, keepdim=True)),
}


@pytest.mark.parametrize("name", THROUGH)
def test_labels_pass_an_operation_along_other_dimensions(name: str) -> None:
    traced = trace(Between(THROUGH[name]), (3, 8, 8))
    assert [group.name for group in traced.channel_map.groups] == ["a", "b"]
    assert traced.channel_map.atoms == 12
    assert_oracles(traced)


class Block(nn.Module):
    """A timm block: attention with one qkv layer and unbind, and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.proj = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1, 2))
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return self.head((x + self.down(self.up(x).relu())).mean(1))


def test_the_feed_forward_layer_of_a_timm_block_is_cut() -> None:
    traced = trace(Block(), (2, 6, 6))
    assert "up" in [group.name for group in traced.channel_map.groups]
    assert_oracles(traced)
