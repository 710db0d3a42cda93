"""What refitting a cut network to the dense one is worth, at once and after a fine-tune.

    python -m benchmarks.refit [resnet20] [--sizes 0.6,0.4,0.2,0.1] [--pulls none,0.3,0.01]
        [--ways taylor-by-price,uniform] [--epochs 1] [--seeds 1] [--max-seconds S] [--out FILE]

Each mask is cut, refitted with each of the pulls towards the weights as they were cut (none: not
refitted), recalibrated and measured, then fine-tuned and measured again. The seeds are those of
the fine-tune; nothing is chosen. Needs `python -m benchmarks.baseline`.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import equal_epochs
from benchmarks.cells import Cell, fill, named
from benchmarks.scene import Scene, accuracies, baseline, price_of, small_network
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings

NONE = "none"


def measure(
    scene: Scene,
    evidence: Measurements,
    way: str,
    size: float,
    pull: str,
    epochs: float,
    seed: int,
) -> dict[str, Any]:
    """One mask, before and after its fine-tune."""
    keep = decode_policy(equal_epochs.WAYS[way], Target(size), evidence, scene.space)
    begin = time.perf_counter()
    small = small_network(scene, keep, pull=None if pull == NONE else float(pull))
    settled = time.perf_counter()
    at_once = accuracies(scene, small)
    tuning, start = TrainingSettings(epochs=epochs), time.perf_counter()
    train_model(small, scene.data, tuning, seed=seed, teacher=scene.teacher, machine=scene.machine)
    return {
        **price_of(scene, keep),
        "at_once": at_once,
        "cut_seconds": round(settled - begin, 2),
        "fine_tune_seconds": round(time.perf_counter() - start, 1),
        "fine_tuned": accuracies(scene, small),
    }


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", nargs="?", choices=equal_epochs.NETWORKS, default="resnet20")
    parser.add_argument("--sizes", default="0.6,0.4,0.2,0.1")
    parser.add_argument("--ways", default="taylor-by-price,uniform")
    parser.add_argument("--pulls", default="none,0.3,0.01")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    ways = named("--ways", asked.ways, equal_epochs.WAYS)
    scene = baseline(asked.network)
    evidence = equal_epochs.evidence_of(scene, ways)
    cells: dict[str, Cell] = {
        f"{way} at {size:g}, pull {pull}, {asked.epochs:g} epochs, seed {seed}": partial(
            measure, scene, evidence, way, size, pull, asked.epochs, seed
        )
        for seed in range(asked.seeds)
        for way in ways
        for size in map(float, asked.sizes.split(","))
        for pull in asked.pulls.split(",")
    }
    out = asked.out or Path(f"benchmarks/results/refit_{asked.network}.json")
    fill(out, scene.about, cells, max_seconds=asked.max_seconds)


if __name__ == "__main__":
    main()
