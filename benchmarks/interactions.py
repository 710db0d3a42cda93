"""What curves of single groups leave out: groups that are cut together harm each other's loss.

    predicted(mask) = base + sum_g [ dL_g(k_g) - dL_g(k_g of the mask they were probed around) ]

`compare` sets that sum against the measured loss of masks; `reprobe` corrects it: the groups are
probed again, each alone, on the network that is already cut to the candidate mask.
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
    """One mask: the loss that its curves predict, and the one that was measured."""

    name: str
    predicted: float
    measured: float


def compare_predicted_losses(
    subject: MeasuredNetwork, curves: LossCurves, masks: Mapping[str, Mask]
) -> list[LossComparison]:
    """Predicted against measured total loss, on the images that the curves were probed on."""
    names, cuts = list(masks), list(masks.values())
    rows = zip(names, cuts, measure_mask_losses(subject, curves.settings, cuts), strict=True)
    return [
        LossComparison(name, predicted_loss(mask, curves, subject.channel_map), loss)
        for name, mask, loss in rows
    ]


def measure_mask_losses(
    subject: MeasuredNetwork, settings: CurveSettings, masks: list[Mask]
) -> list[float]:
    """The losses of masks, probed as the settings say."""
    split = calibration_split(subject.data, settings.images)
    whole = np.ones(subject.channel_map.atoms, dtype=bool)
    prober = LossProber(subject, split, settings, around=whole, share_prefixes=False)
    return prober.losses(0, masks)


def remeasure_around_mask(
    subject: MeasuredNetwork,
    order: Scores,
    curves: LossCurves,
    allocate: MaskAllocator,
    *,
    rounds: int,
) -> LossCurves:
    """The curves around the mask that they themselves lead to, `rounds` times over."""
    settings = replace(curves.settings, method="curve")
    for _ in range(rounds):
        curves = measure_curves(subject, order, settings, around=allocate(curves))
    return curves
