"""The report as JSON values, read by the page's script and sent by `watch`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...spaces.records.pareto_front import DenseMetrics, Front
from .hypervolume_history import hypervolume_history
from .report_data import MeasurementPlots, Report, ReportedTrial


def report_values(report: Report) -> dict[str, Any]:
    """All values of the page."""
    front = report.front
    return {
        "title": report.title,
        "asked": report.requested_text,
        "verdict": report.control_comparison,
        "picked": front.picked.path if front and front.picked else None,
        "planned": report.planned,
        "counts": asdict(report.counts),
        "target": target_values(front),
        "dense": asdict(front.dense) if front else None,
        "points": points_values(report, front) if front else [],
        "history": history_values(report),
        "groups": [
            {"name": g.name, "layers": list(zip(g.layers, g.channels, strict=True)), "atoms": n}
            for g, n in ((g, g.atoms) for g in report.layout.groups)
        ],
        "evidence": measurement_values(report.measurements),
        "insights": insight_values(report),
        "failures": [{"name": n, "reason": why} for n, why in report.failures.items()],
        "settings": [[name, format_setting(value)] for name, value in report.settings.items()],
        "versions": [[name, value] for name, value in report.versions.items()],
    }


def target_values(front: Front | None) -> dict[str, float | None]:
    """The requested sizes as fractions of dense."""
    parts = front.requested.fractions(dense_size(front.dense)) if front else (None, None)
    return dict(zip(("flops", "params"), parts, strict=True))


def dense_size(dense: DenseMetrics) -> tuple[int, int]:
    """MACs and parameters of the dense network."""
    return dense.macs, dense.params


def points_values(report: Report, front: Front) -> list[dict[str, Any]]:
    """Every finished trial and control, with its relation to the front."""
    on_front = {point.path for point in front.points}
    answer = front.at_target.path if front.at_target else None
    shown = [(one, "trial") for one in report.trials]
    shown += [(one, "control") for one in report.controls]
    return [
        point_values(one)
        | {"front": one.evaluation.path in on_front and kind == "trial", "kind": kind}
        | {"answer": one.evaluation.path == answer}
        | ({"dominator": front.dominating_trial} if one.evaluation.path == answer else {})
        for one, kind in shown
    ]


def point_values(shown: ReportedTrial) -> dict[str, Any]:
    """The values of one trial or control."""
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
        "words": shown.policy_text,
        "policy": [[name, format_setting(value)] for name, value in e.policy.to_json().items()],
        "threshold": e.policy.threshold if e.policy.allocation == "loss-budget" else None,
        "kept": shown.kept,
        "pick": shown.pick_command,
        "course": shown.gate_history.to_json() if shown.gate_history else None,
        "lastStep": shown.gate_history.describe_last_step() if shown.gate_history else None,
    }


def history_values(report: Report) -> list[list[float]]:
    """Pairs of the number of finished trials and the hypervolume."""
    values = hypervolume_history([one.evaluation for one in report.trials])
    return [[count, round(value, 6)] for count, value in enumerate(values, start=1)]


def measurement_values(plots: MeasurementPlots) -> dict[str, Any]:
    """The plots of the measurements."""
    return {
        "scores": [asdict(plot) for plot in plots.scores],
        "curves": [asdict(plot) for plot in plots.curves],
    }


def insight_values(report: Report) -> dict[str, Any]:
    """The insights, with a significance flag for each importance."""
    insights = report.insights
    importances = [
        {
            "field": one.field,
            "share": one.share,
            "chance": one.noise_share,
            "clear": one.is_significant,
        }
        for one in insights.importances
    ]
    return {**asdict(insights), "importances": importances}


def format_setting(value: object) -> str:
    """Format a setting or a value of a policy."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_setting(part) for part in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
