"""Scores and bias removal under one global threshold, and the gradual schedule, on real networks.

    python -m benchmarks.global_pruning resnet20 [--parts raw,tuned,gradual] [--out FILE]
    python -m benchmarks.global_pruning resnet20-brief --parts tuned,gradual --epochs 1
    python -m benchmarks.global_pruning resnet56-brief --parts tuned --seeds 1

raw      every score x bias removal at 0.6 and 0.4 of the FLOPs: validation accuracy after the cut,
         then validation and test accuracy after batch-norm recalibration; nothing is trained
tuned    one epoch of fine-tuning for the eight best of them (by the mean recalibrated validation
         accuracy of both sizes; of those that cut alike the first) and for the controls
gradual  the same score at once, in steps (half of the epochs between them), and in steps with all
         epochs after the last; equal FLOPs and as many epochs in all (--epochs)

The eight best are those of ResNet-20, for every network. Cells that the results file has are not
measured again. Needs `python -m benchmarks.baseline`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.cells import fill
from benchmarks.scene import (
    Scene,
    accuracies,
    baseline,
    price_of,
    with_tuning,
    without_tuning,
)
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.search.trial.schedules import space_of_pruned
from paretoprune.spaces.allocations.decode import decode_policy
from paretoprune.spaces.cost.target import Target, intermediate_targets
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, Policy
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.iterative import PrunedState, StepCallbacks, prune_iteratively
from paretoprune.trainers.training.loop import train_model
from paretoprune.trainers.training.optimizer import TrainingSettings

SIZES = (0.6, 0.4)
SCORES = (
    "mean-abs-weight",
    "l2",
    "bn-scale",
    "fpgm",
    "activation-mean",
    "activation-zeros",
    "weight-gradient",
    "taylor",
    "fisher",
)
BIAS: dict[str, dict[str, Any]] = {
    "none": {},
    "max": {"normalisation": "max"},
    "mean": {"normalisation": "mean"},
    "l2": {"normalisation": "l2"},
    "rank": {"normalisation": "rank"},
    "fan-in": {"normalisation": "fan-in"},
    "price^0.5": {"price_power": 0.5},
    "price": {"price_power": 1.0},
    "price as it shrinks": {"price_power": 1.0, "price_at": "present"},
    "params": {"price_power": 1.0, "price_blend": 1.0},
}
BEST = 8
GRADUAL_STEPS = 8
OUT = Path("benchmarks/results")
CHOSEN_BY = OUT / "global_pruning_resnet20.json"  # whose raw part names the eight best


def policies() -> dict[str, Policy]:
    """Every score under every bias removal; the floor is two channels throughout."""
    grid = {
        f"{score} / {bias}": Policy(score, floor=2, **fields)
        for score in SCORES
        for bias, fields in BIAS.items()
    }
    return grid | {f"control {name}": policy for name, policy in CONTROL_POLICIES.items()}


def evidence_of(scene: Scene, seed: int) -> Measurements:
    """All scores, on calibration images from train."""
    return load_or_measure_scores(
        scene.model, scene.space.channel_map, scene.data, folder=None, seed=seed
    )


def mask(scene: Scene, policy: Policy, size: float, seed: int) -> NDArray[np.bool_]:
    """The policy decoded at a share of the FLOPs; only a random score depends on the seed."""
    key = seed if policy.score == "random" else 0
    if (scene.about["network"], key) not in _EVIDENCE:
        _EVIDENCE[scene.about["network"], key] = evidence_of(scene, key)
    return decode_policy(policy, Target(size), _EVIDENCE[scene.about["network"], key], scene.space)


_EVIDENCE: dict[tuple[str, int], Measurements] = {}
Cells = dict[str, Callable[[], dict[str, Any]]]
Choose = Callable[[nn.Module, ChannelMap, Target], NDArray[np.bool_]]


def raw_cells(scene: Scene) -> Cells:
    """One cell a policy and size, nothing trained; the random control has three seeds."""
    return {
        f"raw {name} @ {size} seed {seed}": partial(raw, scene, policy, size, seed)
        for name, policy in policies().items()
        for size in SIZES
        for seed in (range(3) if policy.score == "random" else range(1))
    }


def raw(scene: Scene, policy: Policy, size: float, seed: int) -> dict[str, Any]:
    """Cut, look, recalibrate, look."""
    return without_tuning(scene, mask(scene, policy, size, seed), raw=True)


def best(found: dict[str, Any]) -> list[str]:
    """The names of the policies of highest mean validation accuracy over the sizes."""
    looks = ("raw_validation", "validation", "test", "flops", "params")
    means: dict[tuple[float, ...], tuple[float, str]] = {}  # by what they cut
    for name in (n for n in policies() if not n.startswith("control")):
        cells = [found["cells"][f"raw {name} @ {size} seed 0"] for size in SIZES]
        cut = tuple(cell[look] for cell in cells for look in looks)
        means.setdefault(cut, (statistics.mean(cell["validation"] for cell in cells), name))
    return [name for _, name in sorted(means.values(), key=lambda found: -found[0])[:BEST]]


def tuned_cells(scene: Scene, names: list[str], seeds: int) -> Cells:
    """One epoch of fine-tuning for each of these and the controls."""
    chosen = [*(n for n in policies() if n.startswith("control")), *names]
    return {
        f"tuned {name} @ {size} seed {seed}": partial(tuned, scene, name, size, seed)
        for seed in range(seeds)
        for name in chosen
        for size in SIZES
    }


def tuned(scene: Scene, name: str, size: float, seed: int) -> dict[str, Any]:
    """The brief fine-tune that every trial of a search gets."""
    keep = mask(scene, policies()[name], size, seed)
    return with_tuning(scene, keep, TrainingSettings(epochs=1.0), seed=seed)


def gradual_cells(scene: Scene, seeds: int, epochs: float) -> Cells:
    """The three ways: for a score of the second paper, and for Taylor over both prices."""
    names = ("l2 / max", "taylor / price", "taylor / price as it shrinks")
    return {
        f"{way} {name} @ {size} seed {seed}": partial(
            run, scene, policies()[name], size, seed, epochs
        )
        for seed in range(seeds)
        for name in names
        for size in SIZES
        for way, run in WAYS.items()
    }


def at_once(scene: Scene, policy: Policy, size: float, seed: int, epochs: float) -> dict[str, Any]:
    """One cut, then all the epochs."""
    keep = mask(scene, policy, size, seed)
    return {
        **with_tuning(scene, keep, TrainingSettings(epochs=epochs), seed=seed),
        "epochs": epochs,
    }


def anew(scene: Scene, policy: Policy, seed: int) -> Choose:
    """The policy's mask of a network that is cut already, by scores and prices of what is left."""

    def choose(model: nn.Module, channel_map: ChannelMap, target: Target) -> NDArray[np.bool_]:
        evidence = load_or_measure_scores(
            model, channel_map, scene.data, folder=None, seed=seed, names=[policy.score]
        )
        return decode_policy(policy, target, evidence, space_of_pruned(scene.space, channel_map))

    return choose


def in_steps(
    scene: Scene, policy: Policy, size: float, seed: int, epochs: float, *, share: float
) -> dict[str, Any]:
    """This share of the epochs between the steps, the others after the last; the same total."""
    data, machine, space = scene.data, scene.machine, scene.space
    choose = anew(scene, policy, seed)

    def settle(present: PrunedState) -> None:
        small = present.model
        recalibrate_batch_norm(small, data, machine=machine)
        if share:
            between = TrainingSettings(epochs=share * epochs / GRADUAL_STEPS)
            own = 100 * seed + present.step - 1
            train_model(small, data, between, seed=own, teacher=scene.teacher, machine=machine)

    targets = intermediate_targets(Target(size), space.cost_model.dense, GRADUAL_STEPS)
    present = prune_iteratively(
        scene.model, space.channel_map, targets, StepCallbacks(choose, settle)
    )
    last = TrainingSettings(epochs=(1 - share) * epochs)
    train_model(present.model, data, last, seed=seed, teacher=scene.teacher, machine=machine)
    return {
        **accuracies(scene, present.model),
        **price_of(scene, present.keep),
        "epochs": epochs,
    }


WAYS: dict[str, Callable[..., dict[str, Any]]] = {
    "at once": at_once,
    "in steps": partial(in_steps, share=0.5),
    "steps first": partial(in_steps, share=0.0),
}


def cells_of(scene: Scene, parts: list[str], seeds: int, epochs: float) -> Iterator[Cells]:
    """The cells of each part in turn; the tuned ones depend on what the raw ones found."""
    if "raw" in parts:
        yield raw_cells(scene)
    if "tuned" in parts:
        yield tuned_cells(scene, best(json.loads(CHOSEN_BY.read_text())), seeds)
    if "gradual" in parts:
        yield gradual_cells(scene, seeds, epochs)


def main() -> None:
    """Fill the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = ("resnet20", "resnet56", "resnet20-brief", "resnet56-brief")
    parser.add_argument("network", choices=known)
    parser.add_argument("--parts", default="raw,tuned,gradual")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2.0, help="in all, of the gradual part")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--max-seconds", type=float)
    asked = parser.parse_args()
    out = asked.out or OUT / f"global_pruning_{asked.network}.json"
    scene = baseline(asked.network)
    for cells in cells_of(scene, asked.parts.split(","), asked.seeds, asked.epochs):
        fill(out, scene.about, cells, max_seconds=asked.max_seconds)


if __name__ == "__main__":
    main()
