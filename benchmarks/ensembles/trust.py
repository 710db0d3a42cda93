"""How far the linear model holds, and what a second round of masks adds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.ensembles.bench import FOUND, WHOLE, Bench
from paretoprune.analysis.mask_ensembles import (
    Ensemble,
    EnsembleSettings,
    measure_ensemble,
    surrogate_of,
    with_ensemble,
)
from paretoprune.analysis.mask_ensembles.masked_loss import Probe
from paretoprune.analysis.mask_ensembles.masks import Masks, draw_masks
from paretoprune.spaces.allocations.decode import Space, decode
from paretoprune.spaces.cost.cost import Price
from paretoprune.spaces.cost.target import Target, targets_between
from paretoprune.spaces.graph.channels import ChannelMap
from paretoprune.spaces.graph.reduce import expand_mask, reduce_map
from paretoprune.spaces.policy.measurements import Evidence
from paretoprune.trainers.data.batches import draw
from paretoprune.trainers.pruning.bn_recalibration import recalibrate
from paretoprune.trainers.pruning.iterative import Present, Steps, prune_gradually
from paretoprune.trainers.pruning.surgery import cut

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


def changes(probe: Probe, masks: Masks) -> NDArray[np.float64]:
    """How much each mask raises the transformed loss of an eighth of the images: [n]."""
    rows = np.arange(0, len(probe.split), 8)
    spread = (np.broadcast_to(mask, (len(rows), len(mask))) for mask in masks)
    return np.array([probe.sample_changes(each, rows).mean() for each in spread])


def range_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """Predicted against measured, 40 masks a share."""
    scene, rng = bench.scene, np.random.default_rng(seed)
    channel_map = scene.space.channel_map
    surrogate = surrogate_of(bench.ensemble(bench.limited(settings), seed), channel_map)
    split = draw(scene.data.train, settings.images)
    probe = Probe(scene.model, channel_map, scene.data, split, settings, scene.machine)
    found = {}
    for share in SHARES:
        masks = draw_masks(40, channel_map.group_of, keep=1 - share, rng=rng)
        true = changes(probe, masks)
        predicted, error = surrogate.predict(masks)
        found[str(share)] = {
            "correlation": round(float(np.corrcoef(true, predicted)[0, 1]), 4),
            "bias": round(float(np.mean(predicted - true)), 4),
            "within_two_errors": float((np.abs(predicted - true) < 2 * error).mean()),
            "beyond": float(surrogate.beyond(masks).mean()),
        }
    return found


def rounds_cell(bench: Bench, settings: EnsembleSettings, seed: int) -> dict[str, Any]:
    """All work on the whole network, or half of it there and half on a network cut halfway."""
    scene, size = bench.scene, 0.4
    one = bench.ensemble(bench.limited(settings), seed)
    evidence = with_ensemble(Evidence("", {}), "found", one)
    keep = decode(FOUND, Target(size), evidence, scene.space)
    half = bench.limited(settings, bench.work // 2)

    def choose(model: nn.Module, channel_map: ChannelMap, target: Target) -> NDArray[np.bool_]:
        found = measure_ensemble(
            model, channel_map, scene.data, half, folder=None, seed=seed, machine=scene.machine
        )
        space = Space(channel_map, Price(channel_map))
        return decode(FOUND, target, with_ensemble(Evidence("", {}), "found", found), space)

    def settle(present: Present) -> None:
        recalibrate(present.model, scene.data, machine=scene.machine)

    targets = targets_between(Target(size), scene.space.price.dense, 2)
    channel_map = scene.space.channel_map
    two = prune_gradually(scene.model, channel_map, targets, Steps(choose, settle))
    return {
        "one round": bench.accuracy(keep),
        "two rounds": bench.accuracy(two.keep),
        "around the answer": around(bench, one, keep, half, seed),
    }


def around(
    bench: Bench, one: Ensemble, keep: NDArray[np.bool_], half: EnsembleSettings, seed: int
) -> dict[str, float]:
    """Correlation of predicted and measured losses, 60 masks that take 2 to 30 % more of a cut."""
    scene = bench.scene
    small, inner = cut(scene.model, scene.space.channel_map, keep), scene.space.channel_map
    reduced = reduce_map(inner, keep)
    recalibrate(small, scene.data, machine=scene.machine)
    again = measure_ensemble(
        small, reduced, scene.data, half, folder=None, seed=seed, machine=scene.machine
    )
    rng = np.random.default_rng(seed)
    masks = draw_masks(60, reduced.group_of, keep=0.84, spread=0.14, rng=rng)
    split = draw(scene.data.train, half.images)
    probe = Probe(small, reduced, scene.data, split, half, scene.machine)
    true = changes(probe, masks)
    whole_masks = np.stack([expand_mask(keep, mask) for mask in masks])
    first = surrogate_of(one, inner).means(whole_masks)
    second = surrogate_of(again, reduced).means(masks)
    return {
        "first round": round(float(np.corrcoef(true, first)[0, 1]), 4),
        "second round": round(float(np.corrcoef(true, second)[0, 1]), 4),
    }
