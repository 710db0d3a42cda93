"""What is to be had without any fine-tune, ours and the peers', on the network of a known figure.

    python -m benchmarks.untrained [--out FILE]

The published ResNet-20 as it is, only channels within blocks free, at 0.6 and 0.4 of the FLOPs.
Batch norms are recalibrated alike for all; all 10,000 test images report. Scores, curves,
rehearsals and the peers' searches see images of train alone. The published weights saw them too,
so what is chosen by them is not chosen cleanly; that holds for all alike.

fixed      policies of `benchmarks.global_pruning`
in steps   the score measured anew on the present network, recalibrated, at each of eight steps
measured   a single cut by ensembles or loss curves
refitted   a single cut, and what it leaves fitted to the dense network
screened   the policy whose cut network has the least loss on 512 images, of all that a search
           would rehearse for this size before its first trial
FastNAS, Torch-Pruning  as in `benchmarks.search`; they need `pip install .[benchmark]`
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import Cell, Unavailable, fill
from benchmarks.global_pruning import GRADUAL_STEPS, SIZES, anew, policies, raw
from benchmarks.rehearsal import bench_on, decoded
from benchmarks.scene import (
    Scene,
    accuracies,
    price_of,
    published_resnet20,
    small_network,
    without_tuning,
)
from benchmarks.search.bench import Bench
from benchmarks.search.blocks import plain, streams_kept
from benchmarks.search.rules import Rules
from benchmarks.search.with_fastnas import searched
from benchmarks.search.with_torch_pruning import SETTINGS, cut_to, take_gradients
from paretoprune.analysis.measure import MeasurementContext, measure_for_policies
from paretoprune.search.optimizer.plan import PlannedTrial
from paretoprune.search.optimizer.screening import screen_policies
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target, intermediate_targets
from paretoprune.spaces.policy.policy import POLICY_PRESETS, Policy
from paretoprune.trainers.data.cache import cache_folder
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.iterative import PrunedState, StepCallbacks, prune_iteratively
from paretoprune.trainers.pruning.least_squares_refit import RIDGE_STRENGTH

FIXED = (
    "taylor / price",
    "taylor / none",
    "fisher / price",
    "l2 / max",
    "control uniform",
    "taylor / price^0.5",
    "taylor / price as it shrinks",
    "weight-gradient / price",
)
IN_STEPS = ("taylor / price", "fisher / price")
REFITTED = ("taylor / price", "l2 / max", "control uniform")
MEASURED = {
    "ensemble / price": Policy("ensemble", price_power=1.0, floor=2),
    "balanced-pruning": POLICY_PRESETS["balanced-pruning"],
    "loss budget of taylor": Policy("taylor", allocation="loss-budget", floor=2, probe="batch"),
}
OUT = Path("benchmarks/results/untrained.json")


def in_steps(scene: Scene, policy: Policy, size: float) -> dict[str, Any]:
    """Eight cuts, each by scores of what is left; nothing is trained."""

    def settle(present: PrunedState) -> None:
        recalibrate_batch_norm(present.model, scene.data, machine=scene.machine)

    targets = intermediate_targets(Target(size), scene.space.cost_model.dense, GRADUAL_STEPS)
    choose = anew(scene, policy, 0)
    present = prune_iteratively(
        scene.model, scene.space.channel_map, targets, StepCallbacks(choose, settle)
    )
    return {**accuracies(scene, present.model), **price_of(scene, present.keep)}


def measured(scene: Scene, policy: Policy, size: float) -> dict[str, Any]:
    """A single cut by evidence of another kind."""
    return without_tuning(scene, mask_of(scene, policy, size), raw=True)


def refitted(scene: Scene, policy: Policy, size: float) -> dict[str, Any]:
    """A single cut, and what it leaves fitted to the dense network."""
    keep = mask_of(scene, policy, size)
    return {
        **accuracies(scene, small_network(scene, keep, pull=RIDGE_STRENGTH)),
        **price_of(scene, keep),
    }


def mask_of(scene: Scene, policy: Policy, size: float) -> NDArray[np.bool_]:
    """The mask of a single cut; the evidence is kept in the cache."""
    folder = cache_folder() / "untrained"
    on = MeasurementContext(scene.model, scene.space.channel_map, scene.data, 0, folder=folder)
    return decode_policy(policy, Target(size), measure_for_policies([policy], on), scene.space)


def screened(scene: Scene, size: float) -> dict[str, Any]:
    """What a search would try first at this size."""
    on, slot = bench_on(scene), PlannedTrial(0, Target(size))
    rng = np.random.default_rng(0)
    found, _ = screen_policies([slot], on.policies, on.screen, on.rehearsed, rng=rng)
    policy = found[0].policy
    return {
        **without_tuning(scene, decoded(on, policy, slot.target), raw=True),
        "policy": policy.to_json(),
    }


def of_peer(scene: Scene, peer: str, size: float) -> dict[str, Any]:
    """A peer's network, recalibrated as ours are, and its price by our count."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(scene, Rules("images", workers=1), 0, Path(folder))
        try:
            if peer == "FastNAS":
                network = searched(size, bench)
            else:
                with_gradients = copy.deepcopy(scene.model)
                take_gradients(with_gradients, bench)
                network = cut_to(with_gradients, size, SETTINGS[peer], bench)
        except ImportError as error:
            raise Unavailable(str(error)) from None
    small, flops = plain(network, scene, streams_kept(scene))
    recalibrate_batch_norm(small, scene.data, machine=scene.machine)
    return {**accuracies(scene, small), "flops": round(flops, 4)}


def cells_of(scene: Scene) -> dict[str, Cell]:
    """Ours first."""
    grid = policies()
    ways: dict[str, Any] = {
        **{name: partial(raw, scene, grid[name], seed=0) for name in FIXED},
        **{f"{name}, in steps": partial(in_steps, scene, grid[name]) for name in IN_STEPS},
        **{name: partial(measured, scene, policy) for name, policy in MEASURED.items()},
        "screened": partial(screened, scene),
        **{f"{name}, refitted": partial(refitted, scene, grid[name]) for name in REFITTED},
        "ensemble / price, refitted": partial(refitted, scene, MEASURED["ensemble / price"]),
        **{f"Torch-Pruning {name}": partial(of_peer, scene, name) for name in SETTINGS},
        "FastNAS": partial(of_peer, scene, "FastNAS"),
    }
    return {
        f"{name} @ {size}": partial(way, size=size) for name, way in ways.items() for size in SIZES
    }


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    scene = published_resnet20()
    fill(asked.out, scene.about, cells_of(scene))


if __name__ == "__main__":
    main()
