"""Latency of dense against pruned networks, both exported alike, at 0.4 of the FLOPs.

    python -m benchmarks.export [--out benchmarks/results/export.json] [--networks NAME ...]

Random weights, since latency depends on the widths only: one global threshold on mean absolute
weights divided by price, and uniform widths, each with --round-to 1, 8 and 16. One thread,
onnxruntime and torch.export, medians of runs taken in turn with half the quartiles' distance.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.errors import UserError
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.splits import DataSplits, Split
from paretoprune.trainers.metrics.latency import Latency, measure_latencies_interleaved
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.export import (
    EXPORT_SUFFIXES,
    ExportSpec,
    export_network,
    random_images,
)
from paretoprune.trainers.pruning.surgery import prune_network
from paretoprune.trainers.runtime.device import DeviceConfig

Shape = tuple[int, ...]
Masks = dict[tuple[str, int], NDArray[np.bool_]]  # by allocation and multiple of widths

TARGET = 0.4
NETWORKS: dict[str, Shape] = {
    "resnet20": (3, 32, 32),
    "resnet56": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "torchvision:mobilenet_v2": (3, 224, 224),
    "torchvision:resnet50": (3, 224, 224),
}
BATCHES = {32: (1, 32), 224: (1,)}  # by the side of the images
ROUND_TO = (1, 8, 16)
POLICIES = {
    "global": Policy(score="mean-abs-weight", normalisation="mean", price_power=1.0, floor=2),
    "uniform": Policy(score="mean-abs-weight", allocation="uniform"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One network at one batch size in one format."""

    network: str
    to: str
    batch: int

    @property
    def shape(self) -> Shape:
        """Of one image."""
        return NETWORKS[self.network]


def nothing(shape: Shape) -> DataSplits:
    """Data that no score of weights looks at."""
    split = Split(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64))
    return DataSplits("none", split, split, None, 10, (0.0,), (1.0,), shape)


def masks_of(model: nn.Module, channel_map: ChannelMap, price: CostModel, shape: Shape) -> Masks:
    """A mask by allocation and multiple of widths, where the target can be reached with it."""
    measuring = MeasurementContext(model, channel_map, nothing(shape), 0)
    evidence = measure_for_policies(POLICIES.values(), measuring)
    masks: Masks = {}
    for name, multiple in product(POLICIES, ROUND_TO):
        space = PruningSpace(channel_map, price, round_to=multiple)
        with suppress(UserError):  # coarse widths cannot reach it in narrow networks
            masks[name, multiple] = decode_policy(POLICIES[name], Target(TARGET), evidence, space)
    return masks


def timed(networks: Sequence[nn.Module], case: Case, rounds: int) -> list[tuple[float, Latency]]:
    """Of each network the difference of its file from eager, and its least latency."""
    task, images = ExportSpec(case.to, case.shape), random_images(case.batch, case.shape)
    with tempfile.TemporaryDirectory() as folder:
        files = [
            export_network(each, Path(folder) / f"{n}{EXPORT_SUFFIXES[case.to]}", task)
            for n, each in enumerate(networks)
        ]
        calls = [lambda runner=file.runner: runner(images) for file in files]
        found = [
            measure_latencies_interleaved(calls, case.batch, DeviceConfig()) for _ in range(rounds)
        ]
    least = [min(times, key=lambda t: t.median_ms) for times in zip(*found, strict=True)]
    return [(file.max_difference, time) for file, time in zip(files, least, strict=True)]


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    """One row a pruned network, each timed in turn with the dense one."""
    built = build_model(case.network, classes=10, input_shape=case.shape, seed=0)
    model, _ = make_working_copy(built)
    channel_map = trace_channel_map(model, case.shape)
    price = CostModel(channel_map)
    masks = masks_of(model, channel_map, price, case.shape)
    networks = [
        model,
        *(prune_network(model, channel_map, mask).eval() for mask in masks.values()),
    ]
    (_, dense), *pruned = timed(networks, case, rounds)
    rows = []
    for ((name, multiple), mask), (worst, time) in zip(masks.items(), pruned, strict=True):
        macs, params = price.cost_fractions(mask)
        rows.append({
            "network": case.network, "input": list(case.shape), "to": case.to,
            "batch": case.batch, "allocation": name, "round_to": multiple,
            "flops": round(macs, 4), "params": round(params, 4), "worst_difference": worst,
            "dense_ms": round(dense.median_ms, 4),
            "dense_spread_ms": round(dense.spread_ms, 4),
            "pruned_ms": round(time.median_ms, 4), "pruned_spread_ms": round(time.spread_ms, 4),
            "of_dense": round(time.median_ms / dense.median_ms, 4),
        })  # fmt: skip
    return rows


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    print(
        f"{row['network']:>25} {row['to']:>5} {row['batch']:>3} {row['allocation']:>8} "
        f"{row['round_to']:>2} {row['flops']:7.1%} {row['params']:7.1%} {row['dense_ms']:9.3f} "
        f"{row['pruned_ms']:9.3f} {row['of_dense']:7.1%}",
        flush=True,
    )


def main() -> None:
    """Run the grid, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':>25} {'to':>5} {'n':>3} {'mask':>8} {'r':>2}   FLOPs  params   "
          "dense ms pruned ms of dense")  # fmt: skip
    rows = []
    for network in options.networks:
        for to in EXPORT_SUFFIXES:
            for batch in BATCHES[NETWORKS[network][1]]:
                found = measure(Case(network, to, batch), options.rounds)
                rows += found
                for row in found:
                    show(row)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "weights": "random", "target_flops": TARGET, "threads": 1, "rounds": options.rounds,
            "cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__,
            "time": "the round with the least median of each network",
        }  # fmt: skip
        options.out.write_text(json.dumps({"schema": 1, **about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
