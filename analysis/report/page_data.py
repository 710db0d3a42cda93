"""The report as plain values: what the page's script draws, and what `watch` sends again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...spaces.records.pareto_front import Dense, Front
from .hypervolume_history import hypervolumes
from .report_data import EvidencePlots, Report, Shown


def report_values(report: Report) -> dict[str, Any]:
    """All that the page shows, as JSON holds it."""
    front = report.front
    return {
        "title": report.title,
        "asked": report.asked,
        "verdict": report.verdict,
        "picked": front.picked.path if front and front.picked else None,
        "planned": report.planned,
        "counts": asdict(report.counts),
        "target": target_of(front),
        "dense": asdict(front.dense) if front else None,
        "points": points_of(report, front) if front else [],
        "history": history_of(report),
        "groups": [
            {"name": g.name, "layers": list(zip(g.layers, g.channels, strict=True)), "atoms": n}
            for g, n in ((g, g.atoms) for g in report.layout.groups)
        ],
        "evidence": evidence_of(report.evidence),
        "insights": insights_of(report),
        "failures": [{"name": n, "reason": why} for n, why in report.failures.items()],
        "settings": [[name, said(value)] for name, value in report.settings.items()],
        "versions": [[name, value] for name, value in report.versions.items()],
    }


def target_of(front: Front | None) -> dict[str, float | None]:
    """The requested sizes as fractions of dense."""
    parts = front.requested.fractions(size_of(front.dense)) if front else (None, None)
    return dict(zip(("flops", "params"), parts, strict=True))


def size_of(dense: Dense) -> tuple[int, int]:
    """The dense (macs, params)."""
    return dense.macs, dense.params


def points_of(report: Report, front: Front) -> list[dict[str, Any]]:
    """Every finished trial and control, with what it is to the front."""
    on_front = {point.path for point in front.points}
    answer = front.at_target.path if front.at_target else None
    shown = [(one, "trial") for one in report.trials]
    shown += [(one, "control") for one in report.controls]
    return [
        point_of(one)
        | {"front": one.evaluation.path in on_front and kind == "trial", "kind": kind}
        | {"answer": one.evaluation.path == answer}
        | ({"dominator": front.dominator} if one.evaluation.path == answer else {})
        for one, kind in shown
    ]


def point_of(shown: Shown) -> dict[str, Any]:
    """One of them."""
    e = shown.evaluation
    return {
        "id": e.path,
        "name": shown.name,
        "accuracy": e.accuracy,
        "test": e.test_accuracy,
        "loss": e.loss,
        "macs": e.macs,
        "params": e.params,
        "flopsShare": e.flops_fraction,
        "paramsShare": e.params_fraction,
        "latency": e.latency_ms,
        "epochs": e.epochs,
        "seconds": e.seconds,
        "origin": e.origin,
        "words": shown.words,
        "policy": [[name, said(value)] for name, value in e.policy.to_json().items()],
        "threshold": e.policy.threshold if e.policy.allocation == "loss-budget" else None,
        "kept": shown.kept,
        "pick": shown.pick,
        "course": shown.course.to_json() if shown.course else None,
        "lastStep": shown.course.last_step() if shown.course else None,
    }


def history_of(report: Report) -> list[list[float]]:
    """Pairs of finished trials and the hypervolume they give."""
    values = hypervolumes([one.evaluation for one in report.trials])
    return [[count, round(value, 6)] for count, value in enumerate(values, start=1)]


def evidence_of(evidence: EvidencePlots) -> dict[str, Any]:
    """The plots of the evidence."""
    return {
        "scores": [asdict(plot) for plot in evidence.scores],
        "curves": [asdict(plot) for plot in evidence.curves],
    }


def insights_of(report: Report) -> dict[str, Any]:
    """What mattered."""
    insights = report.insights
    importances = [
        {"field": one.field, "share": one.share, "chance": one.chance, "clear": one.clear}
        for one in insights.importances
    ]
    return {**asdict(insights), "importances": importances}


def said(value: object) -> str:
    """A setting or a policy's value as text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(said(part) for part in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
