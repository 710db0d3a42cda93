"""Evidence with the loss curves that policies read, measured where they are missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...spaces.policy.layer_scores import combine
from ...spaces.policy.loss_curves import CurveSettings, curves_wanted
from ...spaces.policy.measurements import Evidence
from ...spaces.policy.policy import Policy
from .measure import OnProgress, measure_curves
from .prober import Subject


def with_curves(
    evidence: Evidence,
    policies: Iterable[Policy],
    subject: Subject,
    *,
    folder: Path | None,
    settings: CurveSettings | None = None,
    on_progress: OnProgress | None = None,
) -> Evidence:
    """The evidence, and the curves of every policy that is decoded from them."""
    curves = dict(evidence.curves)
    for name, policy in curves_wanted(policies).items():
        if name in curves:
            continue
        order = combine(evidence.scores[policy.score], subject.channel_map, policy.combine)
        asked = replace(settings or CurveSettings(), probe=policy.probe)
        curves[name] = measure_curves(
            subject, order, asked, folder=folder, on_progress=on_progress
        )
    return replace(evidence, curves=curves)
