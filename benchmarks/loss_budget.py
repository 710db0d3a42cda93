"""The loss-variation budget on real networks: one threshold, least sum, the paper's own bisection.

    python -m benchmarks.loss_budget resnet20 [--parts raw,paper,rounds,tuned] [--out FILE]
    python -m benchmarks.loss_budget resnet56 --parts raw,paper
    python -m benchmarks.loss_budget resnet56 --parts tuned --seeds 1 [--ways NAME,...]
    python -m benchmarks.loss_budget mechanics --images 512

raw        each way to order and probe, at 0.6 and 0.4 of the FLOPs: accuracy after the cut, and
           after batch-norm recalibration; nothing is trained; the controls beside
paper      the bisection at the paper's threshold: evaluations, seconds, and what rates it gives
rounds     predicted total loss against measured at 0.8, 0.6 and 0.4, for curves of the whole
           network and for those probed again around the candidate, once and twice
tuned      one epoch of fine-tuning for the ways of `raw` and the controls
mechanics  VGG-16, DenseNet-40 and googlenet with random weights, run to the end: 0.5 of the FLOPs

Cells that the results file has are not measured again. Needs `python -m benchmarks.baseline`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cells import fill, named
from benchmarks.cifar_jpeg import whole
from benchmarks.interactions import (
    compare_predicted_losses,
    remeasure_around_mask,
)
from benchmarks.scene import Scene, baseline, price_of, with_tuning, without_tuning
from paretoprune.analysis.jobs import MeasuredNetwork
from paretoprune.analysis.loss_curves.measure import add_loss_curves, measure_curves
from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.allocations.loss_budget import (
    implied_threshold,
    mask_under_threshold,
    removed_counts_under_threshold,
)
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.graph.working_copy import make_working_copy
from paretoprune.spaces.policy.layer_scores import combine_layers
from paretoprune.spaces.policy.loss_curves import CurveSettings, LossCurves, curves_name
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.spaces.policy.policy import CONTROL_POLICIES, POLICY_PRESETS, Policy
from paretoprune.trainers.data.cache import cache_folder
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.runtime.device import detect_device_config
from paretoprune.trainers.training.distillation import Teacher
from paretoprune.trainers.training.optimizer import TrainingSettings

PARTS = ("raw", "paper", "rounds", "tuned")
SIZES = (0.6, 0.4)
LOOKED_AT = (0.8, 0.6, 0.4)
BALANCED = POLICY_PRESETS["balanced-pruning"]
POLICIES = {
    f"{score} / {curves} / {probe}": replace(
        BALANCED, score=score, combine=how, curves=curves, probe=probe
    )
    for score, how in (("weight-gradient-rank", "later"), ("taylor", "sum"))
    for curves in ("threshold", "least-sum")
    for probe in ("eval", "batch")
}
CANDIDATES = POLICIES | {f"control {name}": policy for name, policy in CONTROL_POLICIES.items()}
UNTRAINED = ("vgg16", "densenet40", "torchvision:googlenet")
THRESHOLD = 0.019  # the paper's for a ResNet-56
OUT = Path("benchmarks/results")

Mask = NDArray[np.bool_]
Cells = dict[str, Callable[[], dict[str, Any]]]


class Bench:
    """One network; its evidence is measured once and grows by the curves that cells ask for."""

    def __init__(self, scene: Scene, images: int) -> None:
        self.scene, self.settings = scene, CurveSettings(images=images)
        self.channel_map = scene.space.channel_map
        self.subject = MeasuredNetwork(scene.model, self.channel_map, scene.data, scene.machine)
        self.folder = cache_folder() / "curves"
        self._evidence: dict[int, Measurements] = {}

    def evidence(self, policy: Policy, seed: int = 0) -> Measurements:
        """All that the policy reads; only a random score depends on the seed."""
        seed = seed if policy.score == "random" else 0
        if seed not in self._evidence:
            self._evidence[seed] = load_or_measure_scores(
                self.scene.model,
                self.channel_map,
                self.scene.data,
                folder=self.folder,
                seed=seed,
                images=self.settings.images,
            )
        self._evidence[seed] = add_loss_curves(
            self._evidence[seed],
            [policy],
            self.subject,
            folder=self.folder,
            settings=self.settings,
        )
        return self._evidence[seed]

    def curves(self, policy: Policy) -> LossCurves:
        """The policy's curves."""
        name = curves_name(policy.score, policy.combine, policy.probe)
        return self.evidence(policy).curves[name]

    def order(self, policy: Policy) -> NDArray[np.float64]:
        """The scores that order each group's atoms."""
        parts = self.evidence(policy).scores[policy.score]
        return combine_layers(parts, self.channel_map, policy.combine)

    def mask(self, policy: Policy, size: float, seed: int = 0) -> Mask:
        """The policy decoded at a share of the FLOPs."""
        return decode_policy(policy, Target(size), self.evidence(policy, seed), self.scene.space)

    def mask_by(self, curves: LossCurves, policy: Policy, size: float) -> Mask:
        """The policy decoded from other curves than its own."""
        evidence = self.evidence(policy)
        name = curves_name(policy.score, policy.combine, policy.probe)
        swapped = replace(evidence, curves={name: curves})
        return decode_policy(policy, Target(size), swapped, self.scene.space)


def cells(bench: Bench, part: str, ways: dict[str, Policy], seeds: int) -> Cells:
    """All cells of one part; nothing but fine-tuning and the random control depends on a seed."""
    if part == "paper":
        return {f"paper threshold {THRESHOLD}": partial(paper, bench)}
    if part == "rounds":
        return {
            f"rounds {name} @ {size}": partial(rounds, bench, policy, size)
            for name, policy in ways.items()
            if name in POLICIES
            for size in LOOKED_AT
        }
    if part == "raw":
        return {
            f"raw {name} @ {size} seed {seed}": partial(raw, bench, policy, size, seed)
            for name, policy in ways.items()
            for size in SIZES
            for seed in range(seeds if policy.score == "random" else 1)
        }
    return {
        f"tuned {name} @ {size} seed {seed}": partial(tuned, bench, policy, size, seed)
        for seed in range(seeds)
        for name, policy in ways.items()
        for size in SIZES
    }


def raw(bench: Bench, policy: Policy, size: float, seed: int) -> dict[str, Any]:
    """Cut, look, recalibrate, look; how many probes it took and which threshold it came to."""
    keep = bench.mask(policy, size, seed)
    found: dict[str, Any] = without_tuning(bench.scene, keep, raw=True)
    if policy.allocation == "loss-budget":
        curves = bench.curves(policy)
        found["probes"] = len(curves.rise)
        found["threshold"] = implied_threshold(keep, curves, bench.channel_map)
    return found


def tuned(bench: Bench, policy: Policy, size: float, seed: int) -> dict[str, Any]:
    """One epoch after the cut."""
    keep = bench.mask(policy, size, seed)
    return with_tuning(bench.scene, keep, TrainingSettings(epochs=1.0), seed=seed)


def paper(bench: Bench) -> dict[str, Any]:
    """The paper's probes, one threshold for all groups."""
    settings = replace(bench.settings, method="paper", threshold=THRESHOLD)
    order = bench.order(BALANCED)
    start = time.perf_counter()
    curves = measure_curves(bench.subject, order, settings)
    seconds = time.perf_counter() - start
    policy, space = replace(BALANCED, threshold=THRESHOLD), bench.scene.space
    keep = mask_under_threshold(policy, curves, space.cost_model, bench.channel_map)
    return {
        "evaluations": len(curves.rise),
        "probing_seconds": seconds,
        "cuts": removed_counts_under_threshold(policy, curves, bench.channel_map).tolist(),
        **without_tuning(bench.scene, keep, raw=True),
    }


def rounds(bench: Bench, policy: Policy, size: float) -> dict[str, Any]:
    """Predicted against measured, and recalibrated accuracy, after 0, 1 and 2 rounds."""
    found: dict[str, Any] = {}
    curves, order = bench.curves(policy), bench.order(policy)
    for done in range(3):
        allocate = partial(bench.mask_by, policy=policy, size=size)
        if done:
            curves = remeasure_around_mask(bench.subject, order, curves, allocate, rounds=1)
        keep = allocate(curves)
        (row,) = compare_predicted_losses(bench.subject, curves, {"mask": keep})
        accuracy = without_tuning(bench.scene, keep, raw=False)
        found[f"{done} rounds"] = {
            "base": curves.base, "predicted": row.predicted, "measured": row.measured, **accuracy
        }  # fmt: skip
    return found


def mechanics(name: str, images: int) -> dict[str, Any]:
    """A network with random weights from curves to a mask at half of the FLOPs."""
    data = whole()
    shape = tuple(data.input_shape)
    model, _ = make_working_copy(
        build_model(name, classes=data.classes, input_shape=shape, seed=0)
    )
    channel_map = trace_channel_map(model, shape)
    space = PruningSpace(channel_map, CostModel(channel_map))
    machine = detect_device_config(model, shape)
    scene = Scene(model, data, space, machine, Teacher(model, machine), {})
    policy = Policy("mean-abs-weight", allocation="loss-budget")
    evidence = load_or_measure_scores(
        model, channel_map, data, folder=None, seed=0, names=[policy.score], images=images
    )
    order = combine_layers(evidence.scores[policy.score], channel_map, policy.combine)
    start = time.perf_counter()
    curves = measure_curves(
        MeasuredNetwork(model, channel_map, data, machine), order, CurveSettings(images=images)
    )
    seconds = time.perf_counter() - start
    evidence = replace(evidence, curves={curves_name(policy.score): curves})
    keep = decode_policy(policy, Target(0.5), evidence, space)
    return {
        "groups": len(channel_map.groups),
        "probes": len(curves.rise),
        "not_finite": curves.failures,
        "probing_seconds": seconds,
        **price_of(scene, keep),
    }


def main() -> None:
    """Measure the cells of the named network, or of the untrained ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=("resnet20", "resnet56", "mechanics"))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(CANDIDATES))
    parser.add_argument("--images", type=int, default=2048, help="that the probes look at")
    parser.add_argument("--max-seconds", type=float, help="begin no cell after so long")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    out = asked.out or OUT / f"loss_budget_{asked.network}.json"
    if asked.network == "mechanics":
        about = {"weights": "random", "images": asked.images, "torch": torch.__version__}
        measured: Cells = {name: partial(mechanics, name, asked.images) for name in UNTRAINED}
    else:
        ways = {name: CANDIDATES[name] for name in named("--ways", asked.ways, CANDIDATES)}
        parts = named("--parts", asked.parts, PARTS)
        bench = Bench(baseline(asked.network), asked.images)
        about, measured = {**bench.scene.about, "images": asked.images}, {}
        for part in parts:
            measured |= cells(bench, part, ways, asked.seeds)
    fill(out, about, measured, max_seconds=asked.max_seconds)


if __name__ == "__main__":
    main()
