"""Do the widths of one global threshold resemble those of layer-wise sensitivity?

    python -m benchmarks.patterns [--out FILE]

The claim of Salama et al. 2019 (arXiv 1912.00200). Rank correlation (Spearman) over the groups of
the ResNet-20 baseline between the kept shares of a global threshold and those of the
loss-variation budget, whose curves probe every group alone. Nothing is trained.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.cells import fill
from benchmarks.scene import Scene, baseline
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import Policy
from paretoprune.trainers.data.cache import cache_folder

BUDGET = Policy("taylor", allocation="loss-budget")
GLOBAL = {
    "mean-abs-weight": Policy("mean-abs-weight"),
    "l2": Policy("l2"),
    "taylor": Policy("taylor"),
    "taylor / price as it shrinks": Policy("taylor", price_power=1.0, price_at="present"),
    "random": Policy("random"),
}
SIZES = (0.6, 0.4)


def kept_shares(scene: Scene, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of its atoms that each group keeps [G]."""
    group_of = scene.space.channel_map.group_of
    return np.bincount(group_of, keep) / np.bincount(group_of)


def correlation(
    scene: Scene, evidence: Measurements, policy: Policy, size: float
) -> dict[str, Any]:
    """Spearman's rank correlation of the two patterns, and both."""
    masks = (decode_policy(p, Target(size), evidence, scene.space) for p in (policy, BUDGET))
    ours, theirs = (kept_shares(scene, mask) for mask in masks)
    found = float(spearmanr(ours, theirs).statistic)
    return {
        "spearman": round(found, 3),
        "global": [round(share, 3) for share in ours.tolist()],
        "loss_budget": [round(share, 3) for share in theirs.tolist()],
    }


def main() -> None:
    """One cell a policy and size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/patterns.json"))
    asked = parser.parse_args()
    scene = baseline("resnet20")
    measuring = MeasurementContext(
        scene.model, scene.space.channel_map, scene.data, 0, cache_folder() / "evidence"
    )
    evidence = measure_for_policies([BUDGET, *GLOBAL.values()], measuring)
    cells = {
        f"{name} @ {size}": partial(correlation, scene, evidence, policy, size)
        for name, policy in GLOBAL.items()
        for size in SIZES
    }
    fill(asked.out, scene.about, cells)


if __name__ == "__main__":
    main()
