"""ResNet-56 at 36 % of the FLOPs and 40 % of the parameters at once, fine-tuned: what is lost.

    python -m benchmarks.deep_cut [resnet56 | resnet56-brief] [--epochs 2] [--seeds 1]
        [--ways ensemble,uniform] [--max-seconds S] [--out FILE]

That size is the one of linear filter ensembles (Sandor et al. 2020: less than 0.6 points lost).
Evidence is measured once, under one seed; the seeds are those of the fine-tune. Half of the test
images report, by the other half nothing is chosen here. Needs `python -m benchmarks.baseline`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, fill, named
from benchmarks.scene import Scene, baseline, with_tuning, without_tuning
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS, Policy
from paretoprune.trainers.data.cache import cache_folder
from paretoprune.trainers.training.optimizer import TrainingSettings

SIZE = Target(flops=0.36, params=0.40)
WAYS = {
    "ensemble": Policy("ensemble", price_power=1.0, price_at="present", floor=2),
    "taylor-by-price": POLICY_PRESETS["taylor-by-price"],
    "uniform": CONTROL_POLICIES["uniform"],
    "ensemble-gradient": Policy("ensemble-gradient", price_power=1.0, price_at="present", floor=2),
    "linear-ensembles": POLICY_PRESETS["linear-ensembles"],
}


def evidence_of(scene: Scene, ways: list[str]) -> Measurements:
    """What these ways read, measured once and kept in the cache."""
    folder = cache_folder() / "deep_cut"
    on = MeasurementContext(scene.model, scene.space.channel_map, scene.data, 0, folder=folder)
    return measure_for_policies([WAYS[way] for way in ways], on)


def untuned(scene: Scene, evidence: Measurements, way: str) -> dict[str, Any]:
    """After the cut: raw, and recalibrated."""
    keep = decode_policy(WAYS[way], SIZE, evidence, scene.space)
    return without_tuning(scene, keep, raw=True)


def tuned(
    scene: Scene, evidence: Measurements, way: str, epochs: float, seed: int
) -> dict[str, Any]:
    """After the fine-tune."""
    keep = decode_policy(WAYS[way], SIZE, evidence, scene.space)
    return with_tuning(scene, keep, TrainingSettings(epochs=epochs), seed=seed)


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = ("resnet56", "resnet56-brief")
    parser.add_argument("network", nargs="?", choices=known, default="resnet56")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--ways", default="ensemble,taylor-by-price,uniform")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/deep_cut.json"))
    asked = parser.parse_args()
    ways = named("--ways", asked.ways, WAYS)
    scene = baseline(asked.network)
    evidence = evidence_of(scene, ways)
    cells: dict[str, Cell] = {way: partial(untuned, scene, evidence, way) for way in ways}
    for seed in range(asked.seeds):
        for way in ways:
            name = f"{way}, {asked.epochs:g} epochs, seed {seed}"
            cells[name] = partial(tuned, scene, evidence, way, asked.epochs, seed)
    about = {**scene.about, "target": SIZE.to_json()}
    fill(asked.out, about, cells, max_seconds=asked.max_seconds)


if __name__ == "__main__":
    main()
