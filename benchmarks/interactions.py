"""Interactions between groups, which loss curves of single groups do not contain.

    predicted(mask) = base + sum_g [ dL_g(k_g) - dL_g(k_g of the mask they were probed around) ]

`compare_predicted_losses` compares that sum with the measured loss of masks.
`remeasure_around_mask` corrects it: each group is probed again, alone, on the network that is
already pruned to the candidate mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from paretoprune.analysis.jobs import MeasuredNetwork
from paretoprune.analysis.loss_curves.measure import measure_curves
from paretoprune.analysis.loss_curves.prober import LossProber, Mask
from paretoprune.analysis.scores.measure import calibration_split
from paretoprune.spaces.allocations.loss_budget import predicted_loss
from paretoprune.spaces.policy.layer_scores import Scores
from paretoprune.spaces.policy.loss_curves import CurveSettings, LossCurves

MaskAllocator = Callable[[LossCurves], Mask]


@dataclass(frozen=True, slots=True)
class LossComparison:
    """The predicted and the measured loss of one mask."""

    name: str
    predicted: float
    measured: float


def compare_predicted_losses(
    network: MeasuredNetwork, curves: LossCurves, masks: Mapping[str, Mask]
) -> list[LossComparison]:
    """Compare predicted and measured losses on the images of the curves."""
    names, cuts = list(masks), list(masks.values())
    rows = zip(names, cuts, measure_mask_losses(network, curves.settings, cuts), strict=True)
    return [
        LossComparison(name, predicted_loss(mask, curves, network.channel_map), loss)
        for name, mask, loss in rows
    ]


def measure_mask_losses(
    network: MeasuredNetwork, settings: CurveSettings, masks: list[Mask]
) -> list[float]:
    """Measure the losses of masks with the settings of the curves."""
    split = calibration_split(network.data, settings.images)
    unpruned = np.ones(network.channel_map.atoms, dtype=bool)
    prober = LossProber(network, split, settings, around=unpruned, share_prefixes=False)
    return prober.losses(0, masks)


def remeasure_around_mask(
    network: MeasuredNetwork,
    order: Scores,
    curves: LossCurves,
    allocate: MaskAllocator,
    *,
    rounds: int,
) -> LossCurves:
    """Measure the curves again around the mask that they lead to, `rounds` times."""
    settings = replace(curves.settings, method="curve")
    for _ in range(rounds):
        curves = measure_curves(network, order, settings, around=allocate(curves))
    return curves
