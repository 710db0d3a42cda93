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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paretoprune.analysis.gathering import Measuring, gather_evidence
from paretoprune.spaces.decode import Space, decode
from paretoprune.spaces.policy import Policy
from paretoprune.spaces.price import Price
from paretoprune.spaces.target import Target
from paretoprune.spaces.trace import trace_channels
from paretoprune.spaces.working_copy import working_copy
from paretoprune.trainers.data import Data, Split
from paretoprune.trainers.export import FORMATS, ExportTask, export_network, noise
from paretoprune.trainers.latency import time_in_turn
from paretoprune.trainers.machine import Machine
from paretoprune.trainers.models import build_model
from paretoprune.trainers.surgery import cut

TARGET = 0.4
NETWORKS = {
    "resnet20": (3, 32, 32),
    "resnet56": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "torchvision:mobilenet_v2": (3, 224, 224),
    "torchvision:resnet50": (3, 224, 224),
}
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


def nothing(shape: tuple[int, ...]) -> Data:
    """Data that no score of weights looks at."""
    split = Split(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.int64))
    return Data("none", split, split, None, 10, (0.0,), (1.0,), shape)


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    """One row a pruned network, each timed in turn with the dense one."""
    shape = NETWORKS[case.network]
    built = build_model(case.network, classes=10, input_shape=shape, seed=0)
    model, _ = working_copy(built)
    channel_map = trace_channels(model, shape)
    price = Price(channel_map)
    evidence = gather_evidence(POLICIES.values(), Measuring(model, channel_map, nothing(shape), 0))
    masks: dict[tuple[str, int], NDArray[np.bool_]] = {
        (name, multiple): decode(
            policy, Target(TARGET), evidence, Space(channel_map, price, round_to=multiple)
        )
        for name, policy in POLICIES.items()
        for multiple in ROUND_TO
    }
    networks = [model, *(cut(model, channel_map, mask).eval() for mask in masks.values())]
    task, images = ExportTask(case.to, shape), noise(case.batch, shape)
    with tempfile.TemporaryDirectory() as folder:
        files = [
            export_network(each, Path(folder) / f"{n}{FORMATS[case.to]}", task)
            for n, each in enumerate(networks)
        ]
        calls = [lambda runner=file.runner: runner(images) for file in files]
        best = [min(times, key=lambda t: t.median_ms) for times in zip(
            *(time_in_turn(calls, case.batch, Machine()) for _ in range(rounds)), strict=True
        )]  # fmt: skip
    rows = []
    for (name, multiple), mask, file, time in zip(
        masks, masks.values(), files[1:], best[1:], strict=True
    ):
        macs, params = price.fraction(mask)
        rows.append({
            "network": case.network, "input": list(shape), "to": case.to, "batch": case.batch,
            "allocation": name, "round_to": multiple, "flops": round(macs, 4),
            "params": round(params, 4), "worst_difference": file.worst,
            "dense_ms": round(best[0].median_ms, 4),
            "dense_spread_ms": round(best[0].spread_ms, 4),
            "pruned_ms": round(time.median_ms, 4), "pruned_spread_ms": round(time.spread_ms, 4),
            "of_dense": round(time.median_ms / best[0].median_ms, 4),
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
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':>25} {'to':>5} {'n':>3} {'mask':>8} {'r':>2}   FLOPs  params   "
          "dense ms pruned ms of dense")  # fmt: skip
    rows = []
    for network in options.networks:
        for to in FORMATS:
            for batch in options.batches:
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
