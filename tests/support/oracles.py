"""The two oracles every network must pass, and what a test needs to ask them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.random_weights import randomized_copy, relative_error
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.verify import random_mask
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.metrics.count_macs import count_macs_and_params
from paretoprune.trainers.pruning.masking import masked
from paretoprune.trainers.pruning.surgery import prune_network

torch.set_num_threads(1)
Shape = tuple[int, ...]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A network with weights under which every channel matters, its map and its price."""

    model: nn.Module
    channel_map: ChannelMap
    price: CostModel
    shape: Shape
    seconds: float  # the trace took

    @property
    def removable(self) -> float:
        """The share of dense MACs that can go."""
        return 1 - self.price.min_cost()[0] / self.price.dense[0]

    def batch(self, samples: int = 2) -> Tensor:
        """Random inputs, always the same."""
        rng = torch.Generator().manual_seed(0)
        return torch.randn(samples, *self.shape, generator=rng)


def trace(model: nn.Module, shape: Shape, **options: object) -> Traced:
    """Trace a model's working copy."""
    torch.set_num_threads(1)
    copied, _ = make_working_copy(model)
    start = time.perf_counter()
    channel_map = trace_channel_map(copied, shape, **options)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    return Traced(
        randomized_copy(copied, shape, 1), channel_map, CostModel(channel_map), shape, seconds
    )


def masked_and_cut(traced: Traced, keep: NDArray[np.bool_]) -> tuple[Tensor, Tensor, nn.Module]:
    """Outputs of the masked and of the cut network, and the latter."""
    small, x = prune_network(traced.model, traced.channel_map, keep), traced.batch()
    with torch.no_grad():
        with masked(traced.model, traced.channel_map, keep):
            expected = traced.model(x)
        return expected, small(x), small


def assert_oracles(traced: Traced, rates: tuple[float, ...] = (0.3, 0.6, 0.9)) -> None:
    """Masked and cut agree, the price is what is counted, masks change outputs, cut ones train."""
    assert traced.price.dense == count_macs_and_params(traced.model, traced.shape)
    with torch.no_grad():
        dense = traced.model(traced.batch())
    for seed, rate in enumerate(rates):
        keep = random_mask(traced.channel_map, rate, np.random.default_rng(seed))
        expected, found, small = masked_and_cut(traced, keep)
        assert relative_error(found, expected) <= 1e-5
        assert relative_error(dense, expected) > 1e-5
        assert tuple(traced.price.cost_of(keep).tolist()) == count_macs_and_params(
            small, traced.shape
        )
    assert_trains(small, traced.batch(4))


def assert_trains(model: nn.Module, x: Tensor) -> None:
    """One step of training reaches the weights."""
    model.train()
    model(x).square().mean().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def weights_folder() -> Path:
    """Where trained weights lie; the test is skipped without."""
    folder = Path(os.environ.get("PARETOPRUNE_WEIGHTS", ROOT.parent / "shared" / "weights"))
    if not folder.is_dir():
        pytest.skip(f"no trained weights in {folder}; set PARETOPRUNE_WEIGHTS")
    return folder
