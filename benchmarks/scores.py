"""What the scores of a ResNet-56 cost on one core, together and each alone, on CIFAR-10 (JPEG).

Costs are seconds, and multiples of the processor time of one plain forward and backward over the
same images, both in float32. Then: do bf16 and channels_last, and other images, order the atoms as
float32 does (Spearman's rank correlation)?

python benchmarks/scores.py [--weights FILE] [--images 2048] [--out benchmarks/results/scores.json]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.cifar_jpeg import weights_folder, whole
from paretoprune.analysis.scores import all_scores
from paretoprune.analysis.scores.calibration_pass import batch_size_for, run_calibration_pass
from paretoprune.analysis.scores.measure import calibration_split
from paretoprune.analysis.scores.registry import BatchScore, Network
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.layer_scores import combine_layers
from paretoprune.spaces.policy.normalization import fractional_ranks
from paretoprune.trainers.data.batches import fixed_subset, iterate_batches, select_rows
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.models.weights import load_weights
from paretoprune.trainers.runtime.device import (
    DeviceConfig,
    autocast,
    cpu_has_bf16,
    to_device,
    to_memory_format,
)

Row = dict[str, float | int]


class Clock:
    """Seconds on the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def read(self) -> Row:
        """Both, as a row."""
        return {
            "seconds": time.perf_counter() - self.wall,
            "processor_seconds": time.process_time() - self.processor,
        }


def plain_pass(network: Network, machine: DeviceConfig) -> Row:
    """One forward and backward over the calibration images, gradients of all weights."""
    model, data = to_device(network.model, machine).eval(), network.data
    weights, clock = list(model.parameters()), Clock()
    for images, labels in iterate_batches(
        network.calibration, data, batch_size=batch_size_for(data.input_shape)
    ):
        with autocast(machine):
            logits = model(to_memory_format(images, machine))
        torch.autograd.grad(functional.cross_entropy(logits.float(), labels), weights)
    return clock.read()


def costs(network: Network, machine: DeviceConfig, plain: Row) -> dict[str, Row]:
    """Seconds of all scores and of each, and what the pass counted."""
    methods = all_scores()
    rows: dict[str, Row] = {}
    for title in ("all", *methods):
        clock, names = Clock(), list(methods) if title == "all" else [title]
        wanted: dict[str, BatchScore] = {}
        for name in names:
            method = methods[name]
            if isinstance(method, BatchScore):
                wanted[name] = method
            else:
                method(network)
        counts = run_calibration_pass(network, wanted, machine=machine).counts
        row = clock.read()
        row["of_plain"] = row["processor_seconds"] / plain["processor_seconds"]
        rows[title] = row | counts
        print(f"{title:24s} {row['seconds']:8.2f} s {row['of_plain']:7.3f} of plain", flush=True)
    return rows


def fidelity(network: Network, others: dict[str, tuple[Network, DeviceConfig]]) -> dict[str, Row]:
    """Seconds of all scores of data elsewhere, and rank correlations with float32 here."""
    wanted = {name: m for name, m in all_scores().items() if isinstance(m, BatchScore)}
    exact = run_calibration_pass(network, wanted, machine=DeviceConfig()).scores
    rows: dict[str, Row] = {}
    for title, (other, machine) in others.items():
        clock = Clock()
        found = run_calibration_pass(other, wanted, machine=machine).scores
        rows[title] = clock.read()
        for name in wanted:
            ours, true = (
                fractional_ranks(combine_layers(parts[name], network.channel_map, "sum"))
                for parts in (found, exact)
            )
            rows[title][name] = float(np.corrcoef(ours, true)[0, 1])
        print(title, {name: round(value, 5) for name, value in rows[title].items()}, flush=True)
    return rows


def main() -> None:
    """Print the tables and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=weights_folder() / "resnet56-4bfd9763.th")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = whole()
    model: nn.Module = build_model(
        "resnet56", classes=data.classes, input_shape=data.input_shape, seed=0
    )
    load_weights(model, options.weights)
    model, _ = make_working_copy(model)
    channel_map = trace_channel_map(model, tuple(data.input_shape))
    split = calibration_split(data, options.images)
    network = Network(model, channel_map, data, split, np.random.default_rng(0))
    both = fixed_subset(data.train, 2 * options.images)
    others = select_rows(both, torch.arange(options.images, len(both)))
    float32, fast = DeviceConfig(), DeviceConfig(channels_last=True, bf16=True)
    plain = plain_pass(network, float32)
    print(f"{'plain':24s} {plain['seconds']:8.2f} s", flush=True)
    record = {
        "schema": 1,
        "torch": torch.__version__,
        "cpu_has_bf16": cpu_has_bf16(),
        "network": "resnet56",
        "weights": options.weights.name,
        "images": len(split),
        "plain": plain,
        "scores": costs(network, float32, plain),
        "rank_correlation_with_float32": fidelity(
            network,
            {
                "float32, channels_last": (network, DeviceConfig(channels_last=True)),
                "bf16, channels_last": (network, fast),
                "float32, other images": (replace(network, calibration=others), float32),
            },
        ),
    }
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
