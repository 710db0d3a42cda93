"""Prices at the first paper's rates on ImageNet's networks: the sizes alone, no accuracy.

    python -m benchmarks.rates [--out FILE]

Params removed as in Salama et al. 2019: ResNet-50 29.98 and 45.76 %, AlexNet 56 %; ResNet-34 at
30 % for comparison. Stock weights are used where torch's cache has them; without, the weights are
random and only the price means something: the JSON says which.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks.cells import fill
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.policy import POLICY_PRESETS
from paretoprune.trainers.data.sources.user import convert_user_data
from paretoprune.trainers.models.build import build_model

RATES = {"resnet50": (0.7002, 0.5424), "resnet34": (0.7,), "alexnet": (0.44,)}
SHAPE = (3, 224, 224)


def stock(name: str) -> bool:
    """Whether torch's cache holds the network's stock weights."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    return (cache / Path(weights.url).name).is_file()


def price_at(name: str, share: float) -> dict[str, Any]:
    """What pruning-at-a-glance leaves at a share of the parameters."""
    model = build_model(f"torchvision:{name}", classes=1000, input_shape=SHAPE, seed=0).eval()
    channel_map = trace_channel_map(model, SHAPE)
    space = PruningSpace(channel_map, CostModel(channel_map))
    image = torch.zeros(2, *SHAPE), torch.tensor([0, 1])
    policy = POLICY_PRESETS["pruning-at-a-glance"]
    data = convert_user_data((image, image), seed=0)
    evidence = measure_for_policies([policy], MeasurementContext(model, channel_map, data, 0))
    keep = decode_policy(policy, Target(params=share), evidence, space)
    macs, params = (int(n) for n in space.cost_model.cost_of(keep))
    flops_left, params_left = (round(f, 4) for f in space.cost_model.cost_fractions(keep))
    return {
        "macs": macs,
        "params": params,
        "flops_left": flops_left,
        "params_left": params_left,
        "weights": "stock" if stock(name) else "random: the price alone means something",
    }


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rates.json"))
    asked = parser.parse_args()
    cells = {
        f"{name} @ {share}": partial(price_at, name, share)
        for name, shares in RATES.items()
        for share in shares
    }
    about = {"policy": "pruning-at-a-glance", "torchvision": torchvision.__version__}
    fill(asked.out, about, cells)


if __name__ == "__main__":
    main()
