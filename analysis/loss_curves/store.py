"""Evidence with the loss curves that policies read, measured where they are missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...spaces.policy.layer_scores import combine_layers
from ...spaces.policy.loss_curves import CurveSettings, required_curves
from ...spaces.policy.measurements import Measurements
from ...spaces.policy.policy import Policy
from .measure import OnGroupMeasured, measure_curves
from .prober import ProbedNetwork


def add_loss_curves(
    measurements: Measurements,
    policies: Iterable[Policy],
    network: ProbedNetwork,
    *,
    folder: Path | None,
    settings: CurveSettings | None = None,
    on_progress: OnGroupMeasured | None = None,
) -> Measurements:
    """The evidence, and the curves of every policy that is decoded from them."""
    curves = dict(measurements.curves)
    for name, policy in required_curves(policies).items():
        if name in curves:
            continue
        order = combine_layers(
            measurements.scores[policy.score], network.channel_map, policy.combine
        )
        asked = replace(settings or CurveSettings(), probe=policy.probe)
        curves[name] = measure_curves(
            network, order, asked, folder=folder, on_progress=on_progress
        )
    return replace(measurements, curves=curves)
