"""How many masks a second the price answers, on one core.

python benchmarks/price.py [--out price.json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.trainers.models.zoo.resnet import resnet20, resnet56, resnet110

NETWORKS = {
    "resnet20": (resnet20, (3, 32, 32)),
    "resnet56": (resnet56, (3, 32, 32)),
    "resnet110": (resnet110, (3, 32, 32)),
    "torchvision:resnet50": (torchvision.models.resnet50, (3, 224, 224)),
    "torchvision:densenet121": (torchvision.models.densenet121, (3, 224, 224)),
}


def measure(model: nn.Module, input_shape: tuple[int, ...], masks: int) -> dict[str, float]:
    """Seconds to trace, and masks a second, of one network."""
    copied, _ = make_working_copy(model)
    start = time.perf_counter()
    channel_map = trace_channel_map(copied, input_shape)
    traced = time.perf_counter() - start
    price = CostModel(channel_map)
    batch = np.random.default_rng(0).random((masks, channel_map.atoms)) < 0.6
    price.cost_of(batch[:64])
    start = time.perf_counter()
    price.cost_of(batch)
    rate = masks / (time.perf_counter() - start)
    return {"atoms": channel_map.atoms, "trace_seconds": traced, "masks_per_second": rate}


def main() -> None:
    """Print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--masks", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    print(f"{'network':24s} {'atoms':>6s} {'trace s':>8s} {'masks/s':>10s}")
    for name, (build, shape) in NETWORKS.items():
        row = found[name] = measure(build(), shape, options.masks)
        rate = row["masks_per_second"]
        print(f"{name:24s} {row['atoms']:6.0f} {row['trace_seconds']:8.2f} {rate:10,.0f}")
    if options.out:
        record = {"schema": 1, "torch": torch.__version__, "networks": found}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
