"""How far the linear model holds, and what a second round of masks adds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.ensembles.bench import FOUND, WHOLE, Bench
from benchmarks.ensembles.surrogate import build_surrogate
from paretoprune.analysis.mask_ensembles import (
    EnsembleResult,
    EnsembleSettings,
    add_ensemble,
    measure_ensemble,
)
from paretoprune.analysis.mask_ensembles.masked_loss import MaskedLossProbe
from paretoprune.analysis.mask_ensembles.masks import Masks, draw_masks
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target, intermediate_targets
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.reduce import expand_mask, reduce_channel_map
from paretoprune.spaces.policy.measurements import Measurements
from paretoprune.trainers.data.batches import fixed_subset
from paretoprune.trainers.pruning.bn_recalibration import recalibrate_batch_norm
from paretoprune.trainers.pruning.iterative import PrunedState, StepCallbacks, prune_iteratively
from paretoprune.trainers.pruning.surgery import prune_network

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
RANGES = {
    "keep 0.95": replace(WHOLE, keep=0.95),
    "keep 0.9": WHOLE,
    "keep 0.7": replace(WHOLE, keep=0.7),
    "keep 0.7 +- 0.25": replace(WHOLE, keep=0.7, spread=0.25),
    "keep 0.7 +- 0.25, curvature": replace(WHOLE, keep=0.7, spread=0.25, curvature=True),
}
ROUNDS = {
    "sample, prior": WHOLE,
    "sample, batch norms": replace(WHOLE, norms="batch"),
}


def changes(probe: MaskedLossProbe, masks: Masks) -> NDArray[np.float64]:
    """How much each mask raises the transformed loss of an eighth of the images: [n]."""
    rows = np.arange(0, len(probe.split), 8)
    spread = (np.broadcast_to(mask, (len(rows), len(mask))) for mask in masks)
    return np.array([probe.sample_changes(each, rows).mean() for each in spread])


def range_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """Predicted against measured, 40 masks a share."""
    scene, rng = bench.scene, np.random.default_rng(seed)
    channel_map = scene.space.channel_map
    surrogate = build_surrogate(bench.ensemble(bench.limited(settings), seed), channel_map)
    split = fixed_subset(scene.data.train, settings.images)
    probe = MaskedLossProbe(scene.model, channel_map, scene.data, split, settings, scene.machine)
    found = {}
    for share in SHARES:
        masks = draw_masks(40, channel_map.group_of, keep=1 - share, rng=rng)
        true = changes(probe, masks)
        predicted, error = surrogate.predict(masks)
        found[str(share)] = {
            "correlation": round(float(np.corrcoef(true, predicted)[0, 1]), 4),
            "bias": round(float(np.mean(predicted - true)), 4),
            "within_two_errors": float((np.abs(predicted - true) < 2 * error).mean()),
            "beyond": float(surrogate.extrapolates(masks).mean()),
        }
    return found


def rounds_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """All work on the whole network, or half of it there and half on a network cut halfway."""
    scene, size = bench.scene, 0.4
    one = bench.ensemble(bench.limited(settings), seed)
    evidence = add_ensemble(Measurements("", {}), "found", one)
    keep = decode_policy(FOUND, Target(size), evidence, scene.space)
    half = bench.limited(settings, bench.work // 2)

    def choose(model: nn.Module, channel_map: ChannelMap, target: Target) -> NDArray[np.bool_]:
        found = measure_ensemble(
            model, channel_map, scene.data, half, folder=None, seed=seed, machine=scene.machine
        )
        space = PruningSpace(channel_map, CostModel(channel_map))
        return decode_policy(
            FOUND, target, add_ensemble(Measurements("", {}), "found", found), space
        )

    def settle(present: PrunedState) -> None:
        recalibrate_batch_norm(present.model, scene.data, machine=scene.machine)

    targets = intermediate_targets(Target(size), scene.space.cost_model.dense, 2)
    channel_map = scene.space.channel_map
    two = prune_iteratively(scene.model, channel_map, targets, StepCallbacks(choose, settle))
    return {
        "one round": bench.accuracy(keep),
        "two rounds": bench.accuracy(two.keep),
        "around the answer": around(bench, one, keep, half, seed),
    }


def around(
    bench: Bench, one: EnsembleResult, keep: NDArray[np.bool_], half: EnsembleSettings, seed: int
) -> dict[str, float]:
    """Correlation of predicted and measured losses, 60 masks that take 2 to 30 % more of a cut."""
    scene = bench.scene
    small, inner = (
        prune_network(scene.model, scene.space.channel_map, keep),
        scene.space.channel_map,
    )
    reduced = reduce_channel_map(inner, keep)
    recalibrate_batch_norm(small, scene.data, machine=scene.machine)
    again = measure_ensemble(
        small, reduced, scene.data, half, folder=None, seed=seed, machine=scene.machine
    )
    rng = np.random.default_rng(seed)
    masks = draw_masks(60, reduced.group_of, keep=0.84, spread=0.14, rng=rng)
    split = fixed_subset(scene.data.train, half.images)
    probe = MaskedLossProbe(small, reduced, scene.data, split, half, scene.machine)
    true = changes(probe, masks)
    whole_masks = np.stack([expand_mask(keep, mask) for mask in masks])
    first = build_surrogate(one, inner).predict_mean(whole_masks)
    second = build_surrogate(again, reduced).predict_mean(masks)
    return {
        "first round": round(float(np.corrcoef(true, first)[0, 1]), 4),
        "second round": round(float(np.corrcoef(true, second)[0, 1]), 4),
    }
